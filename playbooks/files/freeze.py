"""Freeze the old bot in one step: stop it, fence it, pack what has changed. Root on the old PC.

    freeze.py < WISH            does that
    freeze.py online < WISH     packs a snapshot while the bot works; of WISH only what pack wants

Lies in one directory with parcel.py, open_files.py and snapshot.py (prepare_legacy.yml puts them
there). WISH is JSON, that of ``parcel.py pack`` and: ``fence`` ({path: contents} of the drop-ins
that make every start fail), ``stop`` (a command for the shell), ``seconds`` (how long a program may
take to let go of the file after that) and ``handed_over`` (null, or ``sha256`` and ``minutes``).

With ``handed_over`` the old bot was stopped by hand on a PC that Ansible cannot reach, and this
runs where its file was brought to: nothing is fenced or stopped, no root is wanted, and the file
has to be the one whose SHA-256 was read on that PC, whole, and written to at most so many minutes
ago.

The file becomes read-only. Where a -wal or a -journal with contents lies beside it (the bot was
killed), a snapshot is packed instead, for SQLite would have to join the two; the file itself stays
as it is in every case. What belongs to the old bot's user is touched by a process of that user
alone: its file may be a link by now, and SQLite may meet anything in it. Prints what ``parcel.py
pack`` prints and ``mode`` (of the file, before) and ``frozen_sha256`` (of the file itself). Leaves
with 1 and a sentence if the bot cannot be stopped. Standard library only, Python 3.8 or later.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.append(str(Path(__file__).resolve().parent))  # last, and not there with -I

import open_files
import parcel
import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

WAL_MODE = b"\x02\x02"  # https://www.sqlite.org/fileformat2.html#file_format_version_numbers


def stop(command: str) -> None:
    """Run the operator's command; leave with what it says if it fails."""
    done = subprocess.run(
        ["/bin/sh", "-c", command], check=False, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        raise SystemExit(
            f"The old bot could not be stopped: {command}: exit status {done.returncode}: "
            f"{(done.stderr or done.stdout).strip()}"
        )


def wait_until_closed(file: Path, seconds: float) -> None:
    """Wait until no process has the database open; leave and name it if one keeps it."""
    paths = {str(file.resolve())} | {f"{file.resolve()}{end}" for end in ("-wal", "-journal")}
    until = time.monotonic() + seconds
    while True:
        holders = open_files.holders(paths)
        if not holders:
            return
        if time.monotonic() > until:
            named = "; ".join(f"{pid} {command}" for pid, command in sorted(holders.items()))
            raise SystemExit(
                f"The old bot is stopped, but {file} is still open in: {named}. Stop that program "
                "and run migrate.yml again."
            )
        time.sleep(0.2)


def check_handed_over(file: Path, sha256: str, minutes: float) -> None:
    """Leave with a sentence unless the file is what was on the old PC when its bot had stopped."""
    found = parcel.sha256(file)
    read_there = sha256.strip().lower()
    if found != read_there:
        raise SystemExit(
            f"{file} is not the file of the old PC: its SHA-256 is {found}, read there was "
            f"{read_there or 'none'}. Stop the bot there, read the SHA-256 after that, and copy "
            "the file again."
        )
    if not_joined(file):
        raise SystemExit(
            f"Beside {file} lies a -wal or -journal with contents: the bot did not close its "
            "database. Make the copy on the old PC with snapshot.py, which takes them in, remove "
            "the -wal or -journal here, and hand over that copy with its SHA-256."
        )
    with file.open("rb") as opened:
        versions = opened.read(20)[18:]
    if versions == WAL_MODE:
        raise SystemExit(
            f"{file} is of a database in WAL mode: its last rows may still lie in a -wal beside it "
            "on the old PC. Make the copy there with snapshot.py, which takes them in and leaves "
            "that mode, and hand over that copy with its SHA-256."
        )
    age = (time.time() - file.stat().st_mtime) / 60
    if age > minutes:
        raise SystemExit(
            f"{file} was last written to {age:.0f} minutes ago, more than {minutes:.0f}: is it the "
            "copy of an earlier day? If nothing was played since then: "
            f"-e legacy_handover_minutes={age + 60:.0f}"
        )
    with sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True) as connection:
        try:
            said = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            said = str(error)
    if said != "ok":
        raise SystemExit(f"{file} is damaged: {said}. Copy it again.")


def not_joined(file: Path) -> bool:
    """Return whether a -wal or -journal with contents lies beside the database."""
    beside = [Path(f"{file}{end}") for end in ("-wal", "-journal")]
    return any(each.exists() and each.stat().st_size for each in beside)


def make_read_only(place: parcel.Place) -> dict[str, Any]:
    """Take the right to write from the file; return its mode before and whether it is whole."""
    opened = parcel.open_file(place.rest[-1], parcel.open_above(place), place.path)
    mode = os.fstat(opened).st_mode & 0o7777
    os.fchmod(opened, 0o444)
    alone = not not_joined(Path(place.path))
    # Where the file itself travels, that takes its SHA-256 on the way.
    return {
        "mode": f"{mode:04o}",
        "alone": alone,
        "sha256": None if alone else parcel.sha256_of(opened),
    }


@contextlib.contextmanager
def snapshot_of(wish: dict[str, Any]) -> Iterator[str]:
    """Yield the path of a copy that the owner of the file has made, where only that one writes."""
    place = parcel.find(wish["file"])
    owner = parcel.file_owner(place)
    work = tempfile.mkdtemp(prefix="copy.", dir=Path(wish["out"]).parent)
    copy = f"{work}/copy.db"
    try:
        if owner:
            os.chown(work, owner.uid, owner.gid)  # made by root just now, in a directory of root's

        def take() -> None:
            parcel.refuse_kind(place.path, os.lstat(place.path).st_mode, stat.S_ISREG)
            try:
                snapshot.take(place.path, copy)
            except snapshot.SnapshotError as error:
                raise SystemExit(f"The snapshot could not be taken: {error}") from None

        parcel.as_owner(owner, take)
        yield copy
    finally:
        shutil.rmtree(work)


def freeze(wish: dict[str, Any]) -> dict[str, Any]:
    """Do it, in this order."""
    file = Path(wish["file"])
    place = parcel.find(wish["file"])
    owner = parcel.file_owner(place)
    if wish["handed_over"]:
        parcel.as_owner(owner, lambda: check_handed_over(file, **wish["handed_over"]))
    else:
        for path, contents in wish["fence"].items():
            Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            Path(path).write_text(contents)
        stop(wish["stop"])
        wait_until_closed(file, wish["seconds"])
    frozen = parcel.as_owner(owner, lambda: make_read_only(place))
    with contextlib.ExitStack() as stack:
        if not frozen["alone"]:
            wish = {**wish, "file": stack.enter_context(snapshot_of(wish))}
        packed = parcel.pack(wish)
    return {**packed, "mode": frozen["mode"], "frozen_sha256": frozen["sha256"] or packed["sha256"]}


def online(wish: dict[str, Any]) -> dict[str, Any]:
    """Pack a snapshot of the file, and the folders, while the bot works."""
    with snapshot_of(wish) as copy:
        return parcel.pack({**wish, "file": copy})


if __name__ == "__main__":
    action = online if sys.argv[1:] == ["online"] else freeze
    print(json.dumps(action(json.load(sys.stdin))))
