"""deploy.yml on two servers that never had an old PC: what the first run left, and the next ones.

side_effect.yml has built the world (deploy/world.yml) and deployed v1 into an empty database.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
testinfra_hosts = ["docker://bot_server-bot"]


def sql(host: Any, query: str) -> str:
    """Ask the database, as its superuser."""
    database = host.get_host("docker://bot_server-database")
    return database.check_output("runuser -u postgres -- psql -X -At etlegacy_stats -c %s", query)


def deploy(setting: str) -> subprocess.Popen:
    """Begin a run of deploy.yml with one extra variable."""
    return subprocess.Popen(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            f"--inventory={ROOT}/molecule/bot_server/deploy/inventory",
            f"--extra-vars={setting}",
            ROOT / "deploy.yml",
        ],
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(run: subprocess.Popen, code: int) -> str:
    """Return what a run has printed, as one line; it has to end with this exit code."""
    output, _ = run.communicate()
    assert run.returncode == code, output
    return " ".join(output.split())


def release(host: Any, version: str, change: str) -> None:
    """Bring out a version of the bot: a shell command's change, committed and tagged."""
    host.check_output(
        f"cd /srv/git/refbot && {change} && git add . && git commit -qm {version}"
        f" && git tag {version} && git push -q origin main {version}"
    )


def deployed(host: Any) -> list[dict]:
    """Return the lines of the log that are no failures."""
    lines = host.file("/var/log/refbot-deploys.log").content_string.splitlines()
    return [line for line in map(json.loads, lines) if line["result"] != "failed"]


def test_the_bot_runs_and_starts_with_the_system(host: Any) -> None:
    assert host.service("refbot").is_running
    assert host.service("refbot").is_enabled


def test_the_migrations_made_the_tables_and_they_are_the_owners(host: Any) -> None:
    assert sql(host, "SELECT name FROM schema_migrations") == "0001_tables.sql"
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'rounds'"
    assert sql(host, owner) == "etlegacy_owner"


def test_the_deploy_is_in_the_log(host: Any) -> None:
    first = deployed(host)[0]
    assert first["version"] == "v1"
    assert first["to"] in host.check_output("readlink /opt/refbot/current")


def test_nothing_is_left_of_the_run(host: Any) -> None:
    assert not host.file("/var/lib/ferry/pgpass").exists
    assert not host.file("/var/lib/refbot-lock/holder.json").exists
    assert "refbot-guard" not in host.check_output("systemctl list-timers --all --no-pager")
    everywhere = "/etc /opt /var/lib /var/log /root /run"
    assert host.run(f"grep -rqsI molecule-deploy-migrator {everywhere}").rc == 1


class TestUpdates:
    """One version after the other, as their owner brings them out."""

    def test_nothing_new_restarts_nothing(self, host: Any) -> None:
        process = host.check_output("systemctl show refbot --property=MainPID")
        assert "runs already" in said(deploy("version=v1"), 0)
        assert host.check_output("systemctl show refbot --property=MainPID") == process

    def test_a_version_with_a_migration(self, host: Any) -> None:
        release(
            host, "v2", "echo 'ALTER TABLE rounds ADD COLUMN note text;' > migrations/0002_note.sql"
        )
        backups = host.get_host("docker://bot_server-database").check_output
        before = backups("ls /var/backups/postgresql").split()
        assert "runs and is healthy" in said(deploy("version=v2"), 0)
        assert sql(host, "SELECT count(*) FROM schema_migrations") == "2"
        assert "note" in sql(host, "SELECT string_agg(attname, ' ') FROM pg_attribute")
        assert len(backups("ls /var/backups/postgresql").split()) > len(before)

    def test_a_version_that_would_not_start_leaves_the_bot_alone(self, host: Any) -> None:
        release(host, "v3", "echo 'def broken(:' >> bot/ultimate_bot.py")
        process = host.check_output("systemctl show refbot --property=MainPID")
        assert "ultimate_bot.py, line" in said(deploy("version=v3"), 2)
        assert host.check_output("systemctl show refbot --property=MainPID") == process

    def test_back_to_the_one_before_and_no_further(self, host: Any) -> None:
        first = deployed(host)[0]["to"]
        assert f"Release {first} runs and is healthy" in said(deploy("rollback=true"), 0)
        assert deployed(host)[-1]["to"] == first
        assert "There is no release to go back to" in said(deploy("rollback=true"), 2)

    def test_a_second_deploy_at_the_same_time_is_refused(self, host: Any) -> None:
        first = deploy("version=v2")
        while not host.file("/var/lib/refbot-lock/holder.json").exists:
            assert first.poll() is None
        assert "deploy.yml is at work, started by" in said(deploy("version=v1"), 2)
        assert "runs and is healthy" in said(first, 0)
        assert not host.file("/var/lib/refbot-lock/holder.json").exists
