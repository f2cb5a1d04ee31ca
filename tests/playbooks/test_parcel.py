"""playbooks/files/parcel.py: a file and folders arrive exactly, and only what differs travels."""

import grp
import hashlib
import json
import os
import pwd
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

OWNER = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
PARCEL = Path(__file__).resolve().parents[2] / "playbooks/files/parcel.py"


def parcel(action, wish):
    argv = [sys.executable, PARCEL, action]
    done = subprocess.run(argv, input=json.dumps(wish), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Sides:
    """Where it comes from and where it goes."""

    def __init__(self, place):
        self.source, self.here = place / "old", place / "new"
        for side in (self.source, self.here):
            (side / "stats").mkdir(parents=True)
        self.file = self.source / "bot.db"

    def send(self, base="base.db", out="final.db"):
        """Send once; return what pack and unpack say."""
        folders = [str(self.here / "stats")]
        there = parcel("describe", {"file": str(self.here / base), "folders": folders})
        wish = {"there": there, "file": str(self.file), "out": str(self.source / "parcel")}
        packed = parcel("pack", {**wish, "folders": [str(self.source / "stats")]})
        unpacked = parcel(
            "unpack",
            {
                "archive": str(self.source / "parcel"),
                "base": str(self.here / base),
                "file": str(self.here / out),
                "folders": folders,
                **OWNER,
            },
        )
        assert (self.here / out).read_bytes() == self.file.read_bytes()
        return packed, unpacked


@pytest.fixture
def sides(tmp_path):
    return Sides(tmp_path)


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret


def test_the_first_time_everything_travels(sides):
    sides.file.write_bytes(noise(300_000))
    (sides.source / "stats/day").mkdir()
    (sides.source / "stats/day/a.txt").write_text("round 1")
    (sides.source / "stats/id_ed25519").write_text("a key")
    (sides.source / "stats/id_ed25519").chmod(0o600)
    packed, unpacked = sides.send()
    assert packed["changed"] == packed["blocks"] == 5
    assert unpacked == {**packed, "aside": []}
    copy = sides.here / "stats/day/a.txt"
    assert copy.read_text() == "round 1"
    modes = [(sides.here / "stats" / name).stat().st_mode for name in ("day/a.txt", "id_ed25519")]
    assert [mode & 0o777 for mode in modes] == [0o640, 0o600]
    assert int(copy.stat().st_mtime) == int((sides.source / "stats/day/a.txt").stat().st_mtime)


def test_then_only_the_difference(sides):
    contents = bytearray(noise(1_000_000))
    sides.file.write_bytes(contents)
    (sides.source / "stats/a.txt").write_text("round 1")
    sides.send(out="base.db")
    contents[500_000:500_010] = b"x" * 10
    sides.file.write_bytes(contents)
    (sides.source / "stats/b.txt").write_text("round 2")
    packed, _ = sides.send()
    assert (packed["changed"], packed["files"]) == (1, 1)
    assert packed["sent"] < 100_000
    assert sorted(path.name for path in (sides.here / "stats").iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("sizes", [(1_000_000, 10), (10, 1_000_000), (70_000, 0), (0, 70_000)])
def test_files_grow_and_shrink(sides, sizes):
    for size, out in zip(sizes, ("base.db", "final.db"), strict=True):
        sides.file.write_bytes(noise(size, seed=size))
        sides.send(out=out)


def test_the_file_may_be_its_own_base(sides):
    sides.file.write_bytes(noise(200_000))
    sides.send(out="base.db")
    sides.file.write_bytes(noise(100_000) + noise(100_000, seed=2))
    sides.send(out="base.db")


def test_a_file_that_arrives_otherwise_is_refused_and_gone(sides):
    sides.file.write_bytes(noise(200_000))
    sides.send(out="base.db")
    wish = {"folders": [], **OWNER, "file": str(sides.here / "final.db")}
    # Applied to another base than the one that was described.
    (sides.here / "other.db").write_bytes(noise(200_000, seed=3))
    sides.file.write_bytes(noise(100_000) + b"new")
    there = parcel("describe", {"file": str(sides.here / "base.db"), "folders": []})
    archive = str(sides.source / "parcel")
    parcel("pack", {"there": there, "file": str(sides.file), "folders": [], "out": archive})
    wish |= {"archive": archive, "base": str(sides.here / "other.db")}
    argv = [sys.executable, PARCEL, "unpack", json.dumps(wish)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not what was sent" in done.stderr
    assert not (sides.here / "final.db").exists()
    # Whoever says so looks at the SHA-256 by other means.
    said = parcel("unpack", {**wish, "check_later": True})
    assert said["sha256"] == hashlib.sha256(sides.file.read_bytes()).hexdigest()
    assert (sides.here / "final.db").exists()


def test_folders_travel_without_a_file(sides):
    for name, text in (("a.txt", "both have it"), ("b.txt", "new")):
        (sides.source / "stats" / name).write_text(text)
    copy = sides.here / "stats/a.txt"
    copy.write_text("both have it")
    os.utime(copy, (sides.source / "stats/a.txt").stat()[7:9])
    there = parcel("describe", {"folders": [str(sides.here / "stats")]})
    archive = str(sides.source / "parcel")
    wish = {"there": there, "folders": [str(sides.source / "stats")], "out": archive}
    assert parcel("pack", wish)["files"] == 1
    parcel("unpack", {"archive": archive, "folders": [str(sides.here / "stats")], **OWNER})
    assert (sides.here / "stats/b.txt").read_text() == "new"
    assert sorted(path.name for path in sides.here.iterdir()) == ["stats"]


def test_an_archive_that_names_a_place_outside_is_refused(sides):
    sides.file.write_bytes(b"contents")
    sides.send()
    archive = sides.source / "parcel"
    with tarfile.open(archive, "a") as opened:
        opened.add(sides.file, "folders/stats/../../escaped")
    wish = {
        "archive": str(archive),
        "base": str(sides.here / "base.db"),
        "file": str(sides.here / "final.db"),
        "folders": [str(sides.here / "stats")],
        **OWNER,
    }
    argv = [sys.executable, PARCEL, "unpack", json.dumps(wish)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert not (sides.here / "escaped").exists()
    assert os.listdir(sides.here / "stats") == []  # noqa: PTH208 - names, not paths
