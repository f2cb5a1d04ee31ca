"""deploy.yml on two servers that never had an old PC: what the first run left, and the next ones.

side_effect.yml has built the world (deploy/world.yml), in which the database server plays Discord,
and deployed v1 into an empty database.
"""

import contextlib
import getpass
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ansible
from support.discord import ask_machine

ROOT = Path(__file__).parents[3]
testinfra_hosts = ["docker://bot_server-bot"]


def sql(host: Any, query: str) -> str:
    """Ask the database, as its superuser."""
    database = host.get_host("docker://bot_server-database")
    return database.check_output("runuser -u postgres -- psql -X -At etlegacy_stats -c %s", query)


def discord(host: Any, path: str, **data: object) -> Any:
    """Ask the machine that plays Discord."""
    return ask_machine(host.get_host("docker://bot_server-database"), path, **data)


def answers(host: Any) -> None:
    """Let a player ask: one bot is on Discord, and it answers."""
    asked = discord(host, "/ask", author="player", content="!last_session")
    assert [answer["from_address"] for answer in asked["answers"]] == ["172.30.3.10"]
    assert discord(host, "/state")["connected"] == 1


@contextlib.contextmanager
def measured(host: Any, figures: list, what: str) -> Iterator[None]:
    """Note for the summary how long something takes, and how long nobody was on Discord."""
    before = len(discord(host, "/sessions")["silences"])
    begun = time.monotonic()
    yield
    seconds = time.monotonic() - begun
    silences = discord(host, "/sessions")["silences"][before:]
    figures.append((what, seconds, sum(silence["seconds"] for silence in silences)))


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


def kill_when(run: subprocess.Popen, condition: Callable[[], bool]) -> None:
    """Kill a run and all that it has started on this machine as soon as a condition holds."""
    try:
        while not condition():
            assert run.poll() is None, ansible.finish(run).stdout
            time.sleep(0.3)  # each look is a program on the machine
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def release(host: Any, version: str, change: str, since: str = "v1") -> None:
    """Bring out a version of the bot: a shell command's change to an earlier one, with a tag."""
    host.check_output(
        f"cd /srv/git/refbot && git read-tree --reset -u {since} && {change} && git add ."
        f" && git commit -qm {version} && git tag {version} && git push -q origin main {version}"
    )


def process(host: Any) -> str:
    """Return the process that serves."""
    assert host.service("refbot").is_running
    return host.check_output("systemctl show refbot --property=MainPID --value")


def serves_anew(host: Any, before: str) -> bool:
    """Return whether another process serves now; in one question, since it may be between two."""
    asked = "systemctl show refbot --property=MainPID,ActiveState"
    unit = dict(line.split("=", 1) for line in host.check_output(asked).splitlines())
    return unit["ActiveState"] == "active" and unit["MainPID"] not in ("0", before)


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
    answers(host)


def test_the_log_level_is_the_inventorys(host: Any) -> None:
    assert "LOG_LEVEL=WARNING" in host.file(f"/proc/{process(host)}/environ").content_string
    assert " INFO " not in host.check_output("journalctl --unit=refbot --output=cat --no-pager")


def test_the_migrations_made_the_tables_and_they_are_the_owners(host: Any) -> None:
    assert sql(host, "SELECT name FROM schema_migrations") == "0001_tables.sql"
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'rounds'"
    assert sql(host, owner) == "etlegacy_owner"


def test_the_deploy_is_in_the_log(host: Any) -> None:
    first = deployed(host)[0]
    assert (first["version"], first["result"]) == ("v1", "deployed")
    assert (first["from"], first["to"]) == ("", current(host))
    assert first["who"] == f"{getpass.getuser()}@{socket.gethostname()}"
    assert first["seconds"] > first["seconds_away"] > 0


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

    @pytest.fixture(autouse=True)
    def the_bot_answers(self, host: Any) -> Iterator[None]:
        """After each of them, also a bad one, a player gets his answer."""
        yield
        answers(host)

    def test_nothing_new_restarts_nothing(self, host: Any, figures: list) -> None:
        before = process(host)
        with measured(host, figures, "nothing new"):
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
        """Its migration stays out, too; what speaks of the new column is not what fails."""
        before = process(host)
        release(
            host,
            "v3",
            "echo 'ALTER TABLE rounds ADD COLUMN more text;' > migrations/0003_more.sql"
            """ && echo 'QUERY = "SELECT more FROM rounds"' > bot/core/more.py""",
            since="v2",
        )
        said(deploy("version=v3", "deploy_audit_must_pass=true"), 2)
        refused = log(host)[-1]
        assert refused["cause"].startswith("PostgreSQL would refuse 1 statement of this release.")
        assert "wrong.py, line 1" in refused["cause"]
        assert refused["result"] == "failed"
        assert sql(host, "SELECT count(*) FROM schema_migrations") == "2"
        assert sql(host, "SELECT count(*) FROM pg_attribute WHERE attname = 'more'") == "0"
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

    def test_back_to_the_one_before_and_no_further(self, host: Any, figures: list) -> None:
        first = deployed(host)[0]["to"]
        with measured(host, figures, "back to the release before"):
            assert f"Release {first} runs and is healthy" in said(deploy("rollback=true"), 0)
        assert deployed(host)[-1]["to"] == first
        assert "There is no release to go back to" in said(deploy("rollback=true"), 2)

    def test_a_second_deploy_at_the_same_time_is_refused(self, host: Any) -> None:
        commit = host.check_output("git -C /srv/git/refbot.git rev-parse v2")  # 40 digits
        first = deploy(f"version={commit}")
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
        kill_when(killed, lambda: set(host.file("/opt/refbot/releases").listdir()) != releases)
        assert host.file("/var/lib/refbot-lock/holder.json").exists
        assert (process(host), current(host)) == (before, good)
        answers(host)
        output = said(deploy("version=v7"), 0)
        assert f"deploy.yml, started by {getpass.getuser()} on" in output
        assert f"(process {killed.pid})" in output
        assert "is gone, so this run takes its place" in output
        assert "runs and is healthy" in output
        assert not host.file("/var/lib/refbot-lock/holder.json").exists

    def test_killed_while_a_migration_is_applied(self, host: Any) -> None:
        """It is there whole or not at all, and the next run goes on from that."""
        text = "SELECT pg_sleep(6); ALTER TABLE rounds ADD COLUMN late text;"
        release(host, "v8", f"echo '{text}' > migrations/0003_late.sql", since="v2")
        before, good = process(host), current(host)
        killed = deploy("version=v8")
        # "apply", since it has been tried before that.
        applying = "pgrep --full '^/opt/ferry/current/venv/bin/python -I - apply '"
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        kill_when(killed, lambda: host.run(applying).rc == 0 and sql(host, asleep) == "1")
        assert (process(host), current(host)) == (before, good)
        answers(host)
        assert f"(process {killed.pid})" in (output := said(deploy("version=v8"), 0))
        assert "runs and is healthy" in output
        late = "SELECT count(*) FROM schema_migrations WHERE name = '0003_late.sql'"
        assert sql(host, late) == "1"
        assert sql(host, "SELECT count(*) FROM pg_attribute WHERE attname = 'late'") == "1"

    def test_killed_after_the_switch(self, host: Any) -> None:
        """Nobody is there to judge the new release: the host goes back by itself and notes it."""
        release(host, "v9", "echo >> README.md", since="v8")
        before, good = process(host), current(host)
        killed = deploy("version=v9", "bot_server_healthy_seconds=600")

        def switched() -> bool:
            """In this order: a process that is another one now was started by this run."""
            link = host.check_output("readlink /opt/refbot/current")
            return Path(link).name != good and serves_anew(host, before)

        kill_when(killed, switched)
        bad, unjudged = current(host), process(host)
        answers(host)
        holder = json.loads(host.file("/var/lib/refbot-lock/holder.json").content_string)
        assert getpass.getuser() in json.dumps(holder)
        assert "refbot-guard.timer" in host.check_output("systemctl list-timers --no-pager")
        host.check_output(
            "systemctl start refbot-guard.service"
        )  # as the timer does, minutes later
        wait_until(lambda: serves_anew(host, unjudged))
        assert current(host) == good
        answers(host)
        noted = log(host)[-1]
        assert (noted["result"], noted["from"], noted["to"]) == ("reverted", bad, good)
        assert "runs and is healthy" in said(deploy("version=v9"), 0)
        assert current(host) == bad

    def test_site_brings_settings_and_no_other_release(self, host: Any) -> None:
        """The play of site.yml for the bot; the branch has a newer commit."""
        release(host, "v10", "echo >> README.md", since="v9")
        before, good = process(host), current(host)
        newer = host.check_output("git -C /srv/git/refbot.git rev-parse --short=12 main")
        begin = "--start-at-task=bot_server : Validating*"
        output = said(play("site.yml", begin, "--extra-vars=bot_server_memory_max=70%"), 0)
        assert current(host) == good
        assert process(host) != before, "the setting is in use"
        assert f"The bot runs here, with release {good}." in output
        assert f"(main of file:///srv/git/refbot.git) has another one, {newer}-" in output

    def test_unchanged_requirements_need_no_download(self, host: Any, figures: list) -> None:
        """The bot's host reaches nothing but the other machines of the scenario."""
        pip = "/opt/refbot/current/.venv/bin/python -m pip"
        host.check_output("ip route del default")
        try:
            assert host.run(f"{pip} download --no-cache-dir --retries 0 -d /tmp idna").rc != 0
            with measured(host, figures, "other source, the same requirements"):
                assert "runs and is healthy" in said(deploy("version=v10"), 0)
        finally:
            host.check_output("ip route add default via 172.30.3.1")

    def test_changed_requirements(self, host: Any, figures: list) -> None:
        """A new environment, from the cache of wheels."""
        environment = host.check_output("readlink -f /opt/refbot/current/.venv")
        release(host, "v11", "echo '# other' >> requirements.txt", since="v10")
        with measured(host, figures, "other requirements, wheels in the cache"):
            assert "runs and is healthy" in said(deploy("version=v11"), 0)
        assert host.check_output("readlink -f /opt/refbot/current/.venv") != environment


def test_the_bot_of_the_documentation(host: Any) -> None:
    """docs/deploy.md as it is written, but for the address of the repository."""
    page = (ROOT / "docs/deploy.md").read_text("utf-8").split("## A minimal bot")[1]
    program, settings, requirements = (
        re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)[1]
        for kind in ("python", "yaml", "text")
    )
    for name, text in (("main.py", program), ("requirements.txt", requirements)):
        host.check_output(
            "mkdir -p /srv/git/greeter && printf %%s %s > %s", text, f"/srv/git/greeter/{name}"
        )
    host.check_output(
        "cd /srv/git/greeter && git init -q -b main && git add . && git commit -qm one"
    )
    given = yaml.safe_load(settings)
    assert given["bot_server_repository"] == "https://github.com/you/greeter.git"
    given["bot_server_repository"] = "file:///srv/git/greeter"
    given["bot_server_migrations_directory"] = ""  # where the inventory of these tests has one
    # Never two with one token.
    host.check_output("systemctl stop refbot")
    try:
        assert "runs and is healthy" in said(deploy(json.dumps(given)), 0)
        assert discord(host, "/state")["connected"] == 1
        journal = host.check_output("journalctl --unit=greeter --output=cat --no-pager")
        assert "logged in as" in journal
    finally:
        host.run("systemctl stop greeter")
        host.check_output("systemctl start refbot")
    answers(host)


def test_there_never_were_two_bots_on_discord(host: Any) -> None:
    record = discord(host, "/sessions")
    assert record["overlaps"] == []
    places = {one["address"] for each in record["sessions"] for one in each["connections"]}
    assert places == {"172.30.3.10"}
    assert len(record["sessions"]) > len(deployed(host))
