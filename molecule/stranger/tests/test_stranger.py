"""The awkward bot on machines: moved, brought back, moved again, deployed anew; nothing is patched.

The tests go through the README's evening and depend on each other, in this order.
"""

import json
import os
import shlex
import time
from pathlib import Path

import pytest
import testinfra
import yaml
from support import ansible

INVENTORY = ansible.ROOT / "molecule/stranger/inventory"
WORLD = Path(os.environ["ETL_CACHE"]) / "world.stranger"
DATABASE, BOT, OLD_PC = (
    testinfra.get_host(f"docker://stranger-{name}")
    for name in ("database-vps", "bot-vps", "old-pc")
)
FILES = yaml.safe_load((INVENTORY / "group_vars/all/world.yml").read_text())["awkward_files"]
FOLDER = "/home/player/awkward/local_stats"
NEW_FOLDER = "/var/lib/etlegacy-bot/local_stats"
# Everything that stays as it is while the bot beats, and reads no new file.
TABLES = (
    'SELECT id, file, "order", ratio, tied, played_at FROM rounds ORDER BY id',
    "SELECT guid, discord_id, name FROM players ORDER BY guid",
)


def play(playbook, *options, fails=False):
    """Run a playbook as an operator does; return what stands below the recap."""
    done = ansible.play(playbook, *options, inventory=INVENTORY)
    assert done.returncode == (2 if fails else 0), done.stdout
    lines = done.stdout.rstrip().splitlines()
    last = max(number for number, line in enumerate(lines) if " ok=" in line)
    verdict = [line for line in lines[last + 1 :] if line]
    assert verdict, done.stdout
    return verdict, done.stdout


class Postgres:
    """The database on its server."""

    read_only = False

    def ask(self, sql):
        answer = DATABASE.check_output(
            "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 etlegacy_stats -c %s",
            f"SELECT json_agg(row) FROM ({sql}) AS row",
        )
        return [tuple(row.values()) for row in json.loads(answer or "null") or []]

    def rows(self):
        return [
            [tuple(one.replace("T", " ") if is_time(one) else one for one in row) for row in found]
            for found in map(self.ask, TABLES)
        ]


class Sqlite(Postgres):
    """The file on the old PC."""

    program = (
        "import json, sqlite3, sys;"
        " file = 'file:/home/player/awkward/data/awkward.db?mode=ro';"
        " print(json.dumps(sqlite3.connect(file, uri=True, timeout=20)"
        ".execute(sys.argv[1]).fetchall()))"
    )

    def ask(self, sql):
        answer = OLD_PC.check_output("python3 -c %s %s", self.program, sql)
        return [tuple(row) for row in json.loads(answer)]


def is_time(value):
    return isinstance(value, str) and value[4:5] == "-" and value[10:11] in ("T", " ")


POSTGRES, SQLITE = Postgres(), Sqlite()


def beats(side):
    return side.ask("SELECT max(beats) FROM heartbeat")[0][0]


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.3)
    assert found


def serves(side):
    """Assert that the bot beats in this database, and in this one alone."""
    assert OLD_PC.service("awkward.service").is_running == (side is SQLITE)
    assert BOT.service("etlegacy-bot.service").is_running == (side is POSTGRES)
    before = beats(side)
    until(lambda: beats(side) > before)


def a_round_is_read(host, folder, side):
    """Put a file where the bot looks, wait for its row, and return all rows."""
    name, owner = f"late-{time.time():.0f}.txt", host.file(folder).user
    host.check_output("runuser -u %s -- touch %s/%s", owner, folder, name)
    until(lambda: side.ask(f"SELECT count(*) FROM rounds WHERE file = '{name}'") == [(1,)])
    return side.rows()


def moves(accepted):
    """Move; nothing may be lost or changed, and the bot goes on counting where it was."""
    rows, counted = SQLITE.rows(), beats(SQLITE)
    verdict, said = play("migrate.yml", *accepted)
    assert verdict[0].startswith("The new bot serves. Downtime ")
    assert "both sides hold the same, value by value." in verdict[1]
    assert verdict[2].startswith("Warning: bot-sql, accepted: ")
    assert verdict[-1] == "To go back: ansible-playbook rollback.yml"
    assert len(verdict) <= 10, verdict
    assert "PLAY [Bring back]" not in said
    assert POSTGRES.rows() == rows
    assert beats(POSTGRES) >= counted
    serves(POSTGRES)
    return verdict


def test_both_servers_are_built_with_the_bot_from_its_private_repository():
    verdict, _ = play("site.yml")
    assert verdict[0] == "Both servers are built."
    # What the old bot's own .env sets of what nobody sets here; as printed, to be pasted.
    start = verdict.index("  bot_environment:")
    pasted = yaml.safe_load("\n".join(verdict[start : start + 3]))
    assert pasted == {
        "bot_environment": {"AWKWARD_CHANNEL": "1234567890", "AWKWARD_GREETING": "home"}
    }
    assert BOT.file("/opt/etlegacy-bot/current/run.py").exists
    serves(SQLITE)


def printed_option(verdict):
    """Return the option that a message says how to go on with, as a shell takes it."""
    line = next(line for line in verdict if "-e '" in line)
    return shlex.split(line[line.index("-e '") :])[:2]


@pytest.fixture(scope="module")
def accepted():
    """What the first, refused rehearsal says how to accept; as printed."""
    verdict, _ = play("playbooks/rehearse.yml", fails=True)
    said = " ".join(verdict)
    assert "of the bot's statements fail on PostgreSQL; players would meet errors." in said
    assert 'store.py: 21: column "n" does not exist' in said
    assert "The old bot was not touched." in said
    return printed_option(verdict)


def test_a_statement_that_fails_is_asked_about_first(accepted):
    assert json.loads(accepted[1]) == {"migrate_accept": ["bot-sql"]}
    serves(SQLITE)


def test_it_moves(accepted):
    assert len(SQLITE.rows()[0]) == FILES
    verdict = moves(accepted)
    assert "The first backup of it was made, restored and found equal." in verdict
    state = json.loads((WORLD / "artifacts/migration.json").read_text())
    assert [one["text"][:17] for one in state["warnings"]] == ["bot-sql, accepted"]


def test_it_comes_back_with_what_was_played_meanwhile():
    rows = a_round_is_read(BOT, NEW_FOLDER, POSTGRES)
    counted = beats(POSTGRES)
    verdict, _ = play("rollback.yml")
    assert verdict[0].startswith("The old bot serves again on old-pc, with every row.")
    assert SQLITE.rows() == rows
    assert beats(SQLITE) >= counted
    serves(SQLITE)


def test_it_moves_again(accepted):
    """Though the bot counts columns by the tables' names alone."""
    rows = a_round_is_read(OLD_PC, FOLDER, SQLITE)
    assert len(rows[0]) == FILES + 2
    moves(accepted)


def test_it_is_deployed_anew():
    rows = a_round_is_read(BOT, NEW_FOLDER, POSTGRES)
    release = BOT.check_output("readlink /opt/etlegacy-bot/current")
    OLD_PC.check_output(
        "cd /srv/git/awkward && echo %s >>store.py && git commit -qam two"
        " && git push -q origin main && chown -R git: /srv/git/awkward.git",
        'RARE = "SELECT nowhere FROM players"',
    )
    verdict, _ = play("deploy.yml", fails=True)
    assert "of this release, 1 of them new." in verdict[0]
    assert 'column "nowhere" does not exist' in verdict[1]
    option = printed_option(verdict)
    assert json.loads(option[1]) == {"deploy_accept": ["bot-sql"]}
    assert BOT.check_output("readlink /opt/etlegacy-bot/current") == release
    serves(POSTGRES)
    verdict, _ = play("deploy.yml", *option)
    assert "runs and is healthy" in verdict[0]
    assert BOT.check_output("readlink /opt/etlegacy-bot/current") != release
    assert POSTGRES.rows() == rows
    serves(POSTGRES)
