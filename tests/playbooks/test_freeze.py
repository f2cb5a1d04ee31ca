"""playbooks/files/freeze.py: the old bot is stopped and fenced, its last state is packed."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = [
    ROOT / "playbooks/files/freeze.py",
    ROOT / "playbooks/files/parcel.py",
    ROOT / "playbooks/files/open_files.py",
    ROOT / "ferry/src/ferry/snapshot.py",
]
NOTHING = {"file": {"size": 0, "block": 65536, "digests": ""}, "folders": {}}


class OldPc:
    """A SQLite file, the tools beside it, and what freezing it says."""

    def __init__(self, place):
        self.file = place / "bot.db"
        self.tools = place / "tools"
        self.tools.mkdir()
        for tool in TOOLS:
            shutil.copy(tool, self.tools)
        self.fence = place / "unit.d/00-moved.conf"
        self.connection = sqlite3.connect(self.file)
        self.connection.execute("CREATE TABLE rounds (id INTEGER PRIMARY KEY)")
        self.connection.execute("INSERT INTO rounds VALUES (1)")
        self.connection.commit()
        self.file.chmod(0o640)

    def freeze(self, stop="true", seconds=0, handed_over=None):
        wish = {
            "file": str(self.file),
            "folders": [],
            "out": str(self.tools / "final.parcel"),
            "there": NOTHING,
            "fence": {str(self.fence): "[Unit]\n"},
            "stop": stop,
            "seconds": seconds,
            "handed_over": handed_over,
        }
        return subprocess.run(
            [sys.executable, self.tools / "freeze.py"],
            input=json.dumps(wish),
            capture_output=True,
            text=True,
            check=False,
        )

    def packed_rows(self, said, place):
        """Return the rows of the file that travels."""
        plain = place / "arrived.db"
        assert said["changed"] == said["blocks"]
        wish = {
            "archive": str(self.tools / "final.parcel"),
            "base": str(place / "nothing"),
            "file": str(plain),
            "folders": [],
            "owner": "root",
        }
        argv = [sys.executable, self.tools / "parcel.py", "unpack", json.dumps(wish)]
        subprocess.run(argv, check=True, capture_output=True)
        with sqlite3.connect(plain) as connection:
            return connection.execute("SELECT id FROM rounds ORDER BY id").fetchall()


@pytest.fixture
def old_pc(tmp_path):
    pc = OldPc(tmp_path)
    yield pc
    pc.connection.close()


def test_a_bot_that_ended_well(old_pc, tmp_path):
    old_pc.connection.close()
    before = old_pc.file.read_bytes()
    done = old_pc.freeze(stop=f"touch {tmp_path}/stopped")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["mode"] == "0640"
    assert said["frozen_sha256"] == said["sha256"] == hashlib.sha256(before).hexdigest()
    assert old_pc.file.stat().st_mode & 0o777 == 0o444
    assert old_pc.file.read_bytes() == before
    assert old_pc.fence.read_text() == "[Unit]\n"
    assert (tmp_path / "stopped").exists()
    assert old_pc.packed_rows(said, tmp_path) == [(1,)]


def test_who_keeps_the_file_open_is_named(old_pc):
    done = old_pc.freeze()
    assert done.returncode == 1
    assert "is still open in" in done.stderr
    assert "pytest" in done.stderr


def test_a_stop_command_that_fails_ends_it(old_pc):
    old_pc.connection.close()
    done = old_pc.freeze(stop="echo there is no such session >&2; exit 3")
    assert done.returncode == 1
    assert "exit status 3: there is no such session" in done.stderr
    assert old_pc.file.stat().st_mode & 0o777 == 0o640


def test_what_a_killed_bot_left_in_its_wal_travels_too(old_pc, tmp_path):
    old_pc.connection.execute("PRAGMA journal_mode = WAL")
    old_pc.connection.execute("INSERT INTO rounds VALUES (2)")
    old_pc.connection.commit()
    killed = tmp_path / "killed"
    killed.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{old_pc.file}{end}", killed / f"bot.db{end}")
    old_pc.file = killed / "bot.db"
    before = old_pc.file.read_bytes()
    done = old_pc.freeze()
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert old_pc.file.read_bytes() == before
    assert said["frozen_sha256"] == hashlib.sha256(before).hexdigest() != said["sha256"]
    assert old_pc.packed_rows(said, tmp_path) == [(1,), (2,)]
    with tarfile.open(old_pc.tools / "final.parcel") as archive:
        assert archive.getnames() == ["file.json", "file.blocks"]


def sha256(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_handed_over_file_is_packed_and_nothing_is_stopped(old_pc, tmp_path):
    old_pc.connection.close()
    read_there = {"sha256": f" {sha256(old_pc.file).upper()}\n", "minutes": 60}
    done = old_pc.freeze(stop="false", handed_over=read_there)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["frozen_sha256"] == sha256(old_pc.file)
    assert not old_pc.fence.exists()
    assert old_pc.packed_rows(said, tmp_path) == [(1,)]


def refusal(old_pc, **read_there):
    """Return why a file that was handed over is not taken; it stays as it was."""
    before = old_pc.file.read_bytes()
    wish = {"sha256": sha256(old_pc.file), "minutes": 60} | read_there
    done = old_pc.freeze(handed_over=wish)
    assert done.returncode == 1
    assert old_pc.file.read_bytes() == before
    assert old_pc.file.stat().st_mode & 0o777 == 0o640
    assert not (old_pc.tools / "final.parcel").exists()
    return done.stderr


@pytest.mark.parametrize("given", ["", "0" * 64])
def test_a_handed_over_file_is_the_one_whose_hash_was_read(old_pc, given):
    said = refusal(old_pc, sha256=given)
    assert "is not the file of the old PC" in said
    assert sha256(old_pc.file) in said


def test_a_handed_over_file_was_changed_after_its_hash_was_read(old_pc):
    before = sha256(old_pc.file)
    old_pc.connection.execute("INSERT INTO rounds VALUES (2)")
    old_pc.connection.commit()
    assert "is not the file of the old PC" in refusal(old_pc, sha256=before)


@pytest.mark.parametrize("end", ["-wal", "-journal"])
def test_a_handed_over_file_is_whole(old_pc, end):
    Path(f"{old_pc.file}{end}").write_text("some pages")
    assert "Make the copy on the old PC with snapshot.py" in refusal(old_pc)
    Path(f"{old_pc.file}{end}").unlink()


def test_a_handed_over_file_is_not_in_wal_mode(old_pc, tmp_path):
    """Its -wal, with the last rows, would have stayed on the old PC."""
    old_pc.connection.execute("PRAGMA journal_mode = WAL")
    old_pc.connection.close()
    assert "is of a database in WAL mode" in refusal(old_pc)
    copy = tmp_path / "handed-over.db"
    command = [sys.executable, old_pc.tools / "snapshot.py", old_pc.file, copy]
    subprocess.run(command, check=True, capture_output=True)
    copy.replace(old_pc.file)
    read_there = {"sha256": sha256(old_pc.file), "minutes": 60}
    assert old_pc.freeze(handed_over=read_there).returncode == 0


def test_a_handed_over_file_is_of_today(old_pc):
    then = time.time() - 7200
    os.utime(old_pc.file, (then, then))
    assert "-e legacy_handover_minutes=180" in refusal(old_pc)
    assert (
        old_pc.freeze(handed_over={"sha256": sha256(old_pc.file), "minutes": 180}).returncode == 0
    )


def test_a_handed_over_file_is_not_damaged(old_pc):
    old_pc.connection.close()
    with old_pc.file.open("r+b") as file:
        file.seek(4096)  # the only page of the table
        file.write(b"\xff" * 100)
    assert "is damaged" in refusal(old_pc)
