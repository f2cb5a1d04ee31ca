"""playbooks/files/publish_database.py: what ferry has staged becomes visible and can come back."""

import importlib.util
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "migration"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ferry(*arguments):
    argv = [sys.executable, "-m", "ferry", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "ferry/src")}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "base.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE rounds (id INTEGER PRIMARY KEY AUTOINCREMENT, map TEXT NOT NULL UNIQUE);
            CREATE TABLE players (round_id INTEGER REFERENCES rounds (id), guid TEXT, dpm REAL,
                PRIMARY KEY (round_id, guid), CHECK (dpm >= 0));
            CREATE INDEX by_guid ON players (guid);
            CREATE VIEW best AS SELECT guid, max(dpm) AS dpm FROM players GROUP BY guid;
            INSERT INTO rounds VALUES (1, 'goldrush'), (7, 'radar');
            INSERT INTO players VALUES (1, 'a', 100.1), (7, 'a', 0.1), (7, 'b', 3.0);
            """
        )
    connection.close()
    return path


def test_staged_synced_published_verified_and_brought_back(source, dsn, database, tmp_path):
    publish = load(ROOT / "playbooks/files/publish_database.py")
    ferry("copy", source, dsn, "--schema", SCHEMA, "--report", tmp_path / "copy.json")
    final = tmp_path / "final.db"
    final.write_bytes(source.read_bytes())
    with sqlite3.connect(final) as connection:
        connection.execute("INSERT INTO rounds VALUES (8, 'supply')")
    connection.close()
    ferry("sync", final, dsn, "--base", source, "--schema", SCHEMA)
    with database.connect() as connection:
        publish.move(connection, SCHEMA)
    ferry("verify", final, dsn, "--report", tmp_path / "verify.json")
    with database.connect() as connection:
        assert connection.execute("SELECT guid FROM best WHERE dpm > 50").fetchall() == [("a",)]
        new = connection.execute("INSERT INTO rounds (map) VALUES ('oasis') RETURNING id")
        assert new.fetchone() == (9,)
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname = %s", [SCHEMA]
        )
        assert schemas.fetchall() == []
    back = tmp_path / "back.db"
    ferry("reverse", dsn, back, "--baseline", tmp_path / "verify.json")
    with sqlite3.connect(back) as connection:
        maps = connection.execute("SELECT map FROM rounds ORDER BY id").fetchall()
        assert maps == [("goldrush",), ("radar",), ("supply",), ("oasis",)]
        assert connection.execute("SELECT guid FROM best WHERE dpm > 50").fetchall() == [("a",)]
    connection.close()
