"""The states in which a program may leave a SQLite file and what lies beside it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CRASHER = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)")
connection.execute("BEGIN")
connection.executemany("INSERT INTO t VALUES (?, 'committed')", ((i,) for i in range(1000)))
connection.execute("COMMIT")
if sys.argv[3] == "mid-write":
    connection.execute("PRAGMA cache_size = 2")
    connection.execute("BEGIN")
    connection.execute("UPDATE t SET b = hex(randomblob(300))")
if sys.argv[3] == "close":
    connection.close()
os._exit(0)
"""
# Journal mode, how the program that wrote ends, what then lies beside the file, what is removed.
STATES = (
    pytest.param("DELETE", "close", [], [], id="rollback mode, at rest"),
    pytest.param("DELETE", "mid-write", ["-journal"], [], id="hot journal"),
    pytest.param("WAL", "close", [], [], id="WAL, closed in order"),
    pytest.param("WAL", "exit", ["-wal", "-shm"], [], id="WAL, program died"),
    pytest.param("WAL", "exit", ["-wal"], ["-shm"], id="WAL with pages, without -shm"),
    pytest.param("WAL", "mid-write", ["-wal", "-shm"], [], id="WAL, died in a write"),
)


def make(path: Path, mode: str, end: str) -> Path:
    """Write 1,000 rows in a journal mode, and end in one of the ways of ``STATES``."""
    subprocess.run([sys.executable, "-c", CRASHER, path, mode, end], check=True)
    return path


# Ways to damage a file, and what is said about each.
DAMAGES = {
    "truncated": "is cut off",
    "text": "is not a SQLite 3 database",
    "empty": "is empty",
    "page": "is damaged",
    "index": "index i",  # only integrity_check sees it; quick_check and count(*) do not
}


def spoil(path: Path, kind: str) -> None:
    """Damage a file that ``make`` has made, in rollback mode and at rest."""
    if kind == "index":
        _spoil_index(path)
        return
    raw = bytearray(path.read_bytes())
    if kind == "truncated":
        del raw[-4096:]
    elif kind == "text":
        raw = bytearray(b"CREATE TABLE t (a);" * 50)
    elif kind == "empty":
        raw = bytearray()
    elif kind == "page":
        raw[4096:8192] = os.urandom(4096)
    path.write_bytes(raw)


def _spoil_index(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(
        "CREATE TABLE u (a, b); CREATE INDEX i ON u (a);"
        "INSERT INTO u SELECT value, value FROM json_each('[1,2,3,4,5]');"
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_master SET sql = 'CREATE INDEX i ON u (b)' WHERE name = 'i';"
        "PRAGMA writable_schema = RESET; UPDATE u SET b = b + 10;"
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_master SET sql = 'CREATE INDEX i ON u (a)' WHERE name = 'i'"
    )
    connection.close()
