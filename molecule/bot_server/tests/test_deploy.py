"""What the first run of deploy.yml left behind, on two servers that never had an old PC.

side_effect.yml has built the world (deploy/world.yml) and deployed v1 into an empty database.
"""

import json
from typing import Any

testinfra_hosts = ["docker://bot_server-bot"]


def sql(host: Any, query: str) -> str:
    """Ask the database, as its superuser."""
    database = host.get_host("docker://bot_server-database")
    return database.check_output("runuser -u postgres -- psql -X -At etlegacy_stats -c %s", query)


def test_the_bot_runs_and_starts_with_the_system(host: Any) -> None:
    assert host.service("refbot").is_running
    assert host.service("refbot").is_enabled


def test_the_migrations_made_the_tables_and_they_are_the_owners(host: Any) -> None:
    assert sql(host, "SELECT name FROM schema_migrations") == "0001_tables.sql"
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'rounds'"
    assert sql(host, owner) == "etlegacy_owner"


def test_the_deploy_is_in_the_log(host: Any) -> None:
    lines = host.file("/var/log/refbot-deploys.log").content_string.splitlines()
    deployed = [line for line in map(json.loads, lines) if line["result"] == "deployed"]
    assert deployed[0]["version"] == "v1"
    assert deployed[0]["to"] in host.check_output("readlink /opt/refbot/current")


def test_nothing_is_left_of_the_run(host: Any) -> None:
    assert not host.file("/var/lib/ferry/pgpass").exists
    assert not host.file("/var/lib/refbot-lock/holder.json").exists
    assert "refbot-guard" not in host.check_output("systemctl list-timers --all --no-pager")
    everywhere = "/etc /opt /var/lib /var/log /root /run"
    assert host.run(f"grep -rqsI molecule-deploy-migrator {everywhere}").rc == 1
