"""deploy.yml on two servers that never had an old PC: what the first run left, and the next ones.

side_effect.yml has built the world (deploy/world.yml) and deployed v1 into an empty database.
"""

import getpass
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from support import ansible

ROOT = Path(__file__).parents[3]
testinfra_hosts = ["docker://bot_server-bot"]


def sql(host: Any, query: str) -> str:
    """Ask the database, as its superuser."""
    database = host.get_host("docker://bot_server-database")
    return database.check_output("runuser -u postgres -- psql -X -At etlegacy_stats -c %s", query)


def play(playbook: str, *options: str) -> subprocess.Popen:
    """Begin a run of a playbook, in a process group of its own."""
    return ansible.begin(playbook, *options, inventory="molecule/bot_server/deploy/inventory")


def deploy(*settings: str, options: Sequence[str] = ()) -> subprocess.Popen:
    """Begin a run of deploy.yml with extra variables."""
    return play("deploy.yml", *(f"--extra-vars={setting}" for setting in settings), *options)


def said(run: subprocess.Popen, code: int) -> str:
    """Return what a run has printed, as one line; it has to end with this exit code."""
    done = ansible.finish(run)
    assert done.returncode == code, done.stdout
    return ansible.words(done)


def release(host: Any, version: str, change: str, since: str = "v1") -> None:
    """Bring out a version of the bot: a shell command's change to an earlier one, with a tag."""
    host.check_output(
        f"cd /srv/git/refbot && git checkout -q {since} -- . && {change} && git add ."
        f" && git commit -qm {version} && git tag {version} && git push -q origin main {version}"
    )


def process(host: Any) -> str:
    """Return the process that serves."""
    assert host.service("refbot").is_running
    return host.check_output("systemctl show refbot --property=MainPID --value")


def current(host: Any) -> str:
    """Return the release that serves."""
    assert host.service("refbot").is_running
    return Path(host.check_output("readlink /opt/refbot/current")).name


def log(host: Any) -> list[dict]:
    """Return the lines of the log of deploys."""
    return [*map(json.loads, host.file("/var/log/refbot-deploys.log").content_string.splitlines())]


def deployed(host: Any) -> list[dict]:
    """Return those that are no failures."""
    return [line for line in log(host) if line["result"] != "failed"]


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


# Says READY and opens no connection.
MUTE = """import os, socket, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
    systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"].replace("@", chr(0), 1))
time.sleep(3600)
"""
# Works, but for five seconds only, and ends as if all were well.
SHORT_LIVED = (
    r's/^\( *\)notify("READY=1.*/&\n\1import os, threading'
    r"\n\1threading.Timer(5, os._exit, [0]).start()/"
)
# Another program with the bot's password, connected all the time; its session is not the bot's.
STRANGER = (
    "systemd-run --quiet --unit=stranger --property=EnvironmentFile=/etc/refbot/environment"
    " /opt/ferry/current/venv/bin/python -c"
    ' \'import os, psycopg, time; kept = psycopg.connect(os.environ["DATABASE_URL"]);'
    " time.sleep(900)'"
)


class TestUpdates:
    """One version after the other, as their owner brings them out."""

    def test_nothing_new_restarts_nothing(self, host: Any) -> None:
        before = process(host)
        assert "runs already" in said(deploy("version=v1"), 0)
        assert process(host) == before

    def test_check_mode_changes_nothing(self, host: Any) -> None:
        """Also for a version that is not on the host yet, with other requirements and settings."""
        release(
            host,
            "v2",
            "echo 'ALTER TABLE rounds ADD COLUMN note text;' > migrations/0002_note.sql"
            """ && echo 'QUERY = "SELECT nothing FROM no_such_table"' > bot/core/wrong.py"""
            " && echo '# another comment' >> requirements.txt",
        )
        host.check_output("touch /run/before-check")
        before = process(host)
        said(deploy("version=v2", "bot_server_memory_max=70%", options=["--check", "--diff"]), 0)
        assert process(host) == before
        newer = "find /opt/refbot /etc /var/lib/refbot-lock /var/log/refbot-deploys.log"
        assert host.check_output(f"{newer} -newer /run/before-check") == ""
        assert sql(host, "SELECT count(*) FROM schema_migrations") == "1"

    def test_a_version_with_a_migration_and_sql_that_fails(self, host: Any) -> None:
        """SQL that PostgreSQL would refuse is a warning."""
        backups = host.get_host("docker://bot_server-database").check_output
        before = backups("ls /var/backups/postgresql").split()
        output = said(deploy("version=v2"), 0)
        assert "runs and is healthy" in output
        assert "PostgreSQL would refuse 1 statement of this release (a warning" in output
        assert 'bot/core/wrong.py, line 1: relation "no_such_table" does not exist' in output
        assert sql(host, "SELECT count(*) FROM schema_migrations") == "2"
        assert "note" in sql(host, "SELECT string_agg(attname, ' ') FROM pg_attribute")
        assert len(backups("ls /var/backups/postgresql").split()) > len(before)

    def test_sql_that_fails_is_refused_where_that_is_wanted(self, host: Any) -> None:
        before = process(host)
        release(host, "v3", "echo >> README.md", since="v2")
        said(deploy("version=v3", "deploy_audit_must_pass=true"), 2)
        cause = log(host)[-1]["cause"]
        assert cause.startswith("PostgreSQL would refuse 1 statement of this release.")
        assert process(host) == before

    def test_a_version_that_would_not_start_leaves_the_bot_alone(self, host: Any) -> None:
        release(host, "v4", "echo 'def broken(:' >> bot/ultimate_bot.py", since="v2")
        before = process(host)
        assert "ultimate_bot.py, line" in said(deploy("version=v4"), 2)
        assert process(host) == before

    def test_a_setting_that_the_bot_needs_is_missing(self, host: Any) -> None:
        before = process(host)
        wanted = '{"bot_server_environment_required": ["DATABASE_URL", "NO_SUCH_NAME"]}'
        assert "set NO_SUCH_NAME" in said(deploy("version=v2", wanted), 2)
        assert process(host) == before

    def test_a_version_that_ends_after_five_seconds(self, host: Any) -> None:
        """With the time that the health gate takes where nobody has set it."""
        good, before = current(host), process(host)
        release(host, "v5", f"sed -i '{SHORT_LIVED}' bot/ultimate_bot.py", since="v2")
        defaults = yaml.safe_load((ROOT / "roles/bot_server/defaults/main.yml").read_text())
        seconds = defaults["bot_server_healthy_seconds"]
        output = said(deploy("version=v5", f"bot_server_healthy_seconds={seconds}"), 2)
        assert "did not stay up: it ended after" in output
        assert current(host) == good
        assert process(host) != before

    def test_a_version_that_never_comes_to_the_database(self, host: Any) -> None:
        """It says READY and stays up, and a program beside it has a session of the bot's role."""
        good = current(host)
        release(host, "v6", f"echo '{MUTE}' > bot/ultimate_bot.py", since="v2")
        host.check_output(STRANGER)
        try:
            output = said(deploy("version=v6"), 2)
            assert host.service("stranger").is_running
        finally:
            host.check_output("systemctl stop stranger")
        assert "saw no encrypted session of etlegacy_app" in output
        assert current(host) == good

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
        assert "deploy.yml is at work, started by" in said(play("site.yml"), 2)
        assert "runs and is healthy" in said(first, 0)
        assert not host.file("/var/lib/refbot-lock/holder.json").exists

    def test_the_run_after_one_that_was_killed(self, host: Any) -> None:
        """It was building a release; the bot runs all the time, and the lock says whose it was."""
        before, good = process(host), current(host)
        release(host, "v7", "echo '# one more' >> requirements.txt", since="v2")
        releases = set(host.file("/opt/refbot/releases").listdir())
        killed = deploy("version=v7")
        while set(host.file("/opt/refbot/releases").listdir()) == releases:
            assert killed.poll() is None
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
        assert host.file("/var/lib/refbot-lock/holder.json").exists
        assert (process(host), current(host)) == (before, good)
        output = said(deploy("version=v7"), 0)
        assert f"deploy.yml, started by {getpass.getuser()} on" in output
        assert f"(process {killed.pid})" in output
        assert "is gone, so this run takes its place" in output
        assert "runs and is healthy" in output
        assert not host.file("/var/lib/refbot-lock/holder.json").exists
