"""A database in the middle of its work: snapshots of it, and copies."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from ferry import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Writes without a pause. Every transaction keeps the sum of `account` at 0 and adds a row to `log`
# with the number of rows that are there; a long one spills into the file before it commits. Every
# third is rolled back. "reopen": a connection for each transaction.
WRITER = """
import itertools, random, sqlite3, sys
path, mode, length, life = sys.argv[1:]

def connect():
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("PRAGMA synchronous = OFF")
    if length == "long":
        connection.execute("PRAGMA cache_size = 5")
    return connection

connection = connect()
for number in itertools.count():
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(1 if length == "short" else 300):
        a, b = random.sample(range(1, 401), 2)
        connection.execute("UPDATE account SET balance = balance + 1, pad = hex(randomblob(60)) "
                           "WHERE id = ?", (a,))
        connection.execute("UPDATE account SET balance = balance - 1 WHERE id = ?", (b,))
    connection.execute("INSERT INTO log SELECT NULL, count(*), hex(randomblob(50)) FROM log")
    if number % 50 == 49:  # the file shrinks as well
        connection.execute("DELETE FROM log")
    connection.execute("ROLLBACK" if number % 3 == 2 else "COMMIT")
    if number == 3:
        print("goes on", flush=True)
    if life == "reopen":
        connection.close()
        connection = connect()
"""


@contextlib.contextmanager
def busy(path: Path, mode: str, length: str, life: str = "keep") -> Iterator[subprocess.Popen]:
    """Make a database and have another process write to it without a pause."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "PRAGMA auto_vacuum = FULL;"
            "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, pad TEXT);"
            "CREATE TABLE log (id INTEGER PRIMARY KEY, before INTEGER NOT NULL, pad TEXT);"
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)"
            "INSERT INTO account SELECT i, 0, hex(randomblob(60)) FROM n;"
            f"PRAGMA journal_mode = {mode}"
        )
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path, mode, length, life], stdout=subprocess.PIPE, text=True
    ) as writer:
        try:
            assert writer.stdout.readline() == "goes on\n"
            yield writer
            assert writer.poll() is None, "the writer was disturbed"
        finally:
            writer.kill()


def assert_of_one_moment(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT count(*), sum(balance) FROM account").fetchone() == (
            400,
            0,
        )
        broken = connection.execute(
            "SELECT count(*) FROM (SELECT before, row_number() OVER (ORDER BY id) - 1 AS n "
            "FROM log) WHERE before <> n"
        ).fetchone()
        assert broken == (0,)


@pytest.mark.parametrize("length", ["short", "long"])
@pytest.mark.parametrize(
    ("mode", "life"),
    [
        ("DELETE", "keep"),
        ("TRUNCATE", "keep"),
        ("PERSIST", "keep"),
        ("MEMORY", "keep"),
        ("WAL", "keep"),
        ("DELETE", "reopen"),
        ("WAL", "reopen"),
    ],
)
def test_every_snapshot_of_a_busy_database_is_taken_and_of_one_moment(tmp_path, mode, life, length):
    path = tmp_path / "bot.db"
    attempts = int(os.environ.get("FERRY_SNAPSHOTS", "3"))
    with busy(path, mode, length, life):
        for number in range(attempts):
            out = tmp_path / f"{number}.db"
            result = snapshot.take(str(path), str(out))
            assert result["integrity"] == "ok"
            assert_of_one_moment(out)
            out.unlink()


def test_a_command_reads_one_moment_of_a_busy_database_or_names_the_way(ferry, tmp_path):
    path = tmp_path / "bot.db"
    with busy(path, "DELETE", "short"):
        run = ferry("inspect", path)
    # What is read is what the report's SHA-256 says, so a moment without writes is needed.
    assert run.code == 0 or (
        run.code == 3 and "take a snapshot first (`ferry snapshot`)" in run.err
    )


def test_a_file_that_grows_is_not_taken_for_one_that_was_cut_off(tmp_path):
    path = tmp_path / "bot.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (zeroblob(20000))")
    whole = path.read_bytes()
    path.write_bytes(whole[:-4096])
    writer = threading.Timer(snapshot.FRESH / 2, path.write_bytes, (whole,))
    writer.start()
    assert snapshot.read_header(str(path)).pages == len(whole) // 4096
    writer.join()
