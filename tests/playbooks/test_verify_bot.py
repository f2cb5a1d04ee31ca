"""What verify.yml does from the bot's place, against a real server: it writes nothing, and sees."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg import sql

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "playbooks/verify/bot.py"
QUERIES = yaml.safe_load((ROOT / "playbooks/verify/queries.yml").read_text())["verify_queries"]
SCHEMA = (ROOT / "reference_bot/bot/schema.sql").read_text()


@pytest.fixture
def app(database):
    """A database with the bot's tables and a role that reads and writes rows."""
    name = f"app_{uuid.uuid4().hex[:8]}"
    with database.connect(autocommit=True) as session:
        session.execute(SCHEMA)
        session.execute(
            "INSERT INTO processed_files (filename, success)"
            " VALUES ('2026-11-01-200000-a-round-1.txt', true)"
        )
        for statement in (
            "CREATE ROLE {} LOGIN PASSWORD 'of-the-app'",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {}",
        ):
            session.execute(sql.SQL(statement).format(sql.Identifier(name)))
        yield database, name
        session.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


def ask(database, name, more_environment=None, **changes):
    """Run the program with the bot's environment; return its results by id."""
    wish = {"milliseconds": 60_000, "foreign_ca": "/dev/null", "queries": QUERIES,
            "release": "/nowhere", "own_check": "check.py", "patience": 0}  # fmt: skip
    parts = psycopg.conninfo.conninfo_to_dict(database.tcp_dsn)
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_HOST": parts["host"],
        "DATABASE_PORT": str(parts["port"]),
        "DATABASE_NAME": parts["dbname"],
        "DATABASE_USER": name,
        "DATABASE_PASSWORD": "of-the-app",
        "PGSSLMODE": "prefer",
        **(more_environment or {}),
    }
    done = subprocess.run(
        [sys.executable, "-", json.dumps(wish | changes)],
        input=PROGRAM.read_text(), capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    return {result["id"]: result for result in json.loads(done.stdout)}


def test_a_role_that_reads_and_writes_rows_passes(app):
    found = ask(*app)
    assert {name for name, result in found.items() if result["ok"]} == {
        "pool", "writes", "forbidden", "queries",
    }  # fmt: skip
    assert f"{len(QUERIES)} queries" in found["queries"]["said"]
    # Nothing to ask here: no game server, no check of the bot's own.
    assert {name for name, result in found.items() if result["ok"] is None} == {"data", "files"}


def test_it_leaves_no_row_and_no_table_behind(app):
    database, name = app
    state = (
        "SELECT (SELECT array_agg(relname ORDER BY relname) FROM pg_class WHERE relkind = 'r'),"
        " (SELECT array_agg(f::text) FROM (SELECT xmin, ctid, * FROM processed_files) AS f)"
    )
    with database.connect(autocommit=True) as session:
        before = session.execute(state).fetchone()
        ask(database, name)
        assert session.execute(state).fetchone() == before


def test_a_server_without_tls_is_told(app):
    found = ask(*app)
    assert found["verified"]["ok"] is False
    assert found["plain-refused"]["ok"] is False


def test_too_many_rights_are_told(app):
    database, name = app
    with database.connect(autocommit=True) as session:
        session.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(sql.Identifier(name)))
    found = ask(database, name)
    assert found["forbidden"]["said"] == "ALLOWED: CREATE TABLE"


def test_a_table_that_cannot_be_written_is_told(app):
    database, name = app
    with database.connect(autocommit=True) as session:
        session.execute(sql.SQL("REVOKE INSERT ON rounds FROM {}").format(sql.Identifier(name)))
    found = ask(database, name)
    assert "permission denied for table rounds" in found["writes"]["said"]


def test_a_slow_query_is_told(app):
    found = ask(*app, queries={"nap": "SELECT pg_sleep(0.02)"}, milliseconds=10)
    assert found["queries"]["ok"] is False
    assert "(nap)" in found["queries"]["said"]


def test_files_that_were_read_and_rounds_are_counted_apart(app, tmp_path):
    """A bot notes files that it leaves out; "all rounds are imported" would be another number."""
    sftp = tmp_path / "sftp"
    sftp.write_text("#!/bin/sh\nprintf '%s\\n' 2026-11-01-200000-a-round-1.txt notes.txt\n")
    sftp.chmod(0o755)
    names = ("SSH_PORT", "SSH_KEY_PATH", "SSH_KNOWN_HOSTS", "SSH_USER", "SSH_HOST",
             "REMOTE_STATS_PATH")  # fmt: skip
    environment = {
        **dict.fromkeys(names, "x"),
        "SSH_ENABLED": "true",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    found = ask(*app, environment)["files"]
    assert found["ok"]
    assert found["said"] == (
        "all 1 files on the game server are in processed_files; the table rounds has 0 rows"
    )
