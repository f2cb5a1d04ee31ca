"""The SQLite file comes back to an old PC whose bot was killed: nothing of the old one harms it."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support import ansible
from support.sqlite_states import STATES, make

REPOSITORY = Path(__file__).resolve().parents[2]
PLAYBOOKS = REPOSITORY / "playbooks/rollback"
VARIABLES = ("legacy/main", "all/main", "all/migration")
PARCEL = REPOSITORY / "playbooks/files/parcel.py"
HOST = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
GROUPS = {
    name: {"hosts": {host: HOST}}
    for name, host in (("bot", "bot-vps"), ("legacy", "old-pc"), ("database", "database-vps"))
}


class OldPC:
    """A folder in which the old bot has left its database, and the machine that brings another."""

    def __init__(self, directory):
        self.directory = directory
        self.database = directory / "bot" / "production.db"
        self.database.parent.mkdir()
        self.back = directory / "back.db"
        self.stats = directory / "local_stats"
        for folder in (self.stats, directory / "bot_server/local_stats"):
            folder.mkdir(parents=True)
        (directory / "bot_server/local_stats/later.txt").write_text("a round since the move")

    def was_left(self, mode, end, beside=(), gone=()):
        make(self.database, mode, end)
        for suffix in gone:
            Path(f"{self.database}{suffix}").unlink()
        assert all(Path(f"{self.database}{suffix}").exists() for suffix in beside)
        self.sha256 = hashlib.sha256(self.database.read_bytes()).hexdigest()
        self.kept = Path(f"{self.database}.migrated-{self.sha256[:8]}")
        with sqlite3.connect(self.back) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
            rows = ((number, f"later {number}") for number in range(5000))
            connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        connection.close()
        wish = {
            "there": {"file": {"size": 0, "digests": ""}, "folders": {}},
            "file": str(self.back),
            "folders": [str(self.directory / "bot_server/local_stats")],
            "out": str(self.directory / "back.parcel"),
        }
        subprocess.run([sys.executable, PARCEL, "pack", json.dumps(wish)], check=True)

    def play(self, file, hosts="legacy", state=None, **settings):
        """Run a task file on the old PC; return the run."""
        play = {"hosts": hosts, "gather_facts": False, "tasks": [
            {"set_fact": {"__migration_state": {
                "legacy_database_sha256": self.sha256, "legacy_database_mode": "0644",
                **(state or {})}},
             "delegate_to": "bot-vps", "delegate_facts": True},
            {"include_tasks": str(PLAYBOOKS / file)},
            {"debug": {"msg": "goes on: {{ rollback_goes_on }}"}},
        ]}  # fmt: skip
        (self.directory / "play.yml").write_text(json.dumps([play]))
        (self.directory / "hosts.json").write_text(json.dumps({"all": {"children": GROUPS}}))
        settings |= {
            "legacy_database": str(self.database),
            "legacy_state_directories": [str(self.stats)],
            "legacy_service": "",
            "migration_artifacts": str(self.directory),
            # Else it would end the freeze of a scenario that runs beside.
            "migration_legacy_directory": str(self.directory / "tools"),
            "database_address": "192.0.2.1",
        }
        (self.directory / "settings.json").write_text(json.dumps(settings))
        variables = (
            *(f"{REPOSITORY}/group_vars/{name}.yml" for name in VARIABLES),
            self.directory / "settings.json",  # the last one wins
        )
        return ansible.play(
            self.directory / "play.yml",
            *(f"--extra-vars=@{file}" for file in variables),
            inventory=self.directory / "hosts.json",
        )

    def rows(self):
        """Return what a bot finds: how many rows, and the newest one's text."""
        with sqlite3.connect(self.database) as connection:
            (said,) = connection.execute("PRAGMA integrity_check").fetchone()
            assert said == "ok"
            found = connection.execute("SELECT count(*), max(b) FROM t").fetchone()
        connection.close()
        return found


@pytest.fixture
def old_pc(tmp_path):
    return OldPC(tmp_path)


@pytest.mark.parametrize(("mode", "end", "beside", "gone"), STATES)
def test_every_row_comes_back_whatever_the_old_bot_has_left(old_pc, mode, end, beside, gone):
    old_pc.was_left(mode, end, beside, gone)
    assert old_pc.play("hand_over.yml").returncode == 0
    assert old_pc.rows() == (5000, "later 999")
    assert old_pc.database.stat().st_mode & 0o777 == 0o644
    assert (old_pc.stats / "later.txt").read_text() == "a round since the move"
    # What was kept is whole as well.
    old_pc.database = old_pc.kept
    old_pc.kept.chmod(0o644)
    assert old_pc.rows() == (1000, "committed")


@pytest.mark.parametrize(("mode", "end", "beside", "gone"), STATES)
def test_the_evening_is_undone_with_its_last_rows(old_pc, mode, end, beside, gone):
    old_pc.was_left(mode, end, beside, gone)
    assert old_pc.play("hand_over.yml", rollback_mode="restore").returncode == 0
    assert old_pc.rows() == (1000, "committed")


CUT_OFF = {"stage": "handing over", "handing_over": {"mode": "instant", "began_at": 1}}


def test_what_the_old_bot_has_written_since_a_cut_off_attempt_is_not_overwritten(old_pc):
    """The control machine died when the old bot had begun to work on the new file."""
    old_pc.was_left("WAL", "exit")
    assert old_pc.play("hand_over.yml").returncode == 0
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA journal_mode = WAL'); c.execute('DELETE FROM t WHERE a > 2');"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, old_pc.database], check=True)
    assert Path(f"{old_pc.database}-wal").stat().st_size

    looked = old_pc.play("look_at_legacy.yml", hosts="bot", state=CUT_OFF)
    assert looked.returncode == 0, looked.stdout
    assert "goes on: True" in looked.stdout
    started = old_pc.directory / "started"
    again = {"rollback_goes_on": True, "legacy_start_command": f"echo once >>{started}"}
    assert old_pc.play("hand_over.yml", **again).returncode == 0
    assert started.read_text() == "once\n"
    with sqlite3.connect(old_pc.database) as held:
        assert held.execute("SELECT count(*) FROM t").fetchone() == (3,)
        # It runs: a second one is not started.
        assert old_pc.play("hand_over.yml", **again).returncode == 0
    assert started.read_text() == "once\n"


@pytest.mark.parametrize(
    ("state", "written", "settings", "said"),
    [
        (CUT_OFF, False, {}, "goes on: False"),  # cut off before the new file was in place
        ({"stage": "settled"}, True, {}, "no longer the file that was migrated"),
        (CUT_OFF, True, {"rollback_mode": "restore"}, "no longer the file that was migrated"),
    ],
    ids=["nothing was handed over", "somebody worked on it", "another way back"],
)
def test_who_does_not_go_on(old_pc, state, written, settings, said):
    old_pc.was_left("WAL", "close")
    if written:
        with sqlite3.connect(old_pc.database) as connection:
            connection.execute("DELETE FROM t")
        connection.close()
    looked = old_pc.play("look_at_legacy.yml", hosts="bot", state=state, **settings)
    assert said in " ".join(looked.stdout.split())
    assert looked.returncode == (2 if written else 0)


def test_what_the_old_bot_was_given_is_kept_when_it_does_not_stay_up(old_pc):
    old_pc.was_left("WAL", "close")
    before = old_pc.database.read_bytes()
    if os.getuid() == 0:  # who gives files away; the molecule scenario does, in any case
        shutil.chown(old_pc.database, "nobody", "nogroup")
    owner = old_pc.database.owner()
    both = old_pc.directory / "both.yml"
    files = [{"include_tasks": f"{PLAYBOOKS}/{name}.yml"} for name in ("hand_over", "fence_again")]
    both.write_text(json.dumps(files))
    assert old_pc.play(both).returncode == 0
    assert old_pc.database.read_bytes() == before
    assert old_pc.database.owner() == owner
    (old_pc.database,) = old_pc.database.parent.glob("production.db.handed-over-*")
    assert old_pc.rows() == (5000, "later 999")


def test_nothing_is_renamed_when_the_connection_was_lost_before_a_copy_was_kept(old_pc):
    old_pc.was_left("WAL", "exit")
    before = {path.name: path.read_bytes() for path in old_pc.database.parent.iterdir()}
    lost = {"__kept_database": {"unreachable": True, "msg": "the network is gone"}}
    assert old_pc.play("fence_again.yml", **lost).returncode == 0
    assert {path.name: path.read_bytes() for path in old_pc.database.parent.iterdir()} == before


def test_an_old_bot_without_a_unit_that_serves_after_a_restore_is_left_alone(old_pc):
    """The control machine died when the old bot was started, and it has written nothing yet."""
    old_pc.was_left("DELETE", "close")
    assert old_pc.play("hand_over.yml", rollback_mode="restore").returncode == 0
    cut_off = {"stage": "handing over", "handing_over": {"mode": "restore", "began_at": 1}}
    with sqlite3.connect(old_pc.database) as held:
        assert held.execute("SELECT count(*) FROM t").fetchone() == (1000,)
        again = old_pc.play("look_at_legacy.yml", "bot", cut_off, rollback_mode="restore")
        assert "goes on: True" in again.stdout, again.stdout
        # Another way back must not stop it either, and says which one goes on.
        other = old_pc.play("look_at_legacy.yml", "bot", cut_off)
        assert other.returncode == 2
        assert "rollback.yml -e rollback_mode=restore" in " ".join(other.stdout.split())
    held.close()
