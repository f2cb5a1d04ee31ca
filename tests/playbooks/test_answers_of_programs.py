"""What our own programs print has the form that plugins/filter/answers.py takes."""

import json
import os
import runpy
import sqlite3
import subprocess
import sys

import pytest
from support import ansible

ANSWERS = runpy.run_path(str(ansible.ROOT / "plugins/filter/answers.py"))
FILES = ansible.ROOT / "playbooks/files"


def take(said, what):
    """Return the answer; fails where it has not its form."""
    assert ANSWERS["complaint_of"](said, "a host", what) == ""
    return ANSWERS["answer_of"](said, "a host", what)


def ask(*argv, stdin="", environment=None, codes=(0,)):
    done = subprocess.run(
        [sys.executable, *map(str, argv)], input=stdin, capture_output=True, text=True,
        check=False, env=os.environ | {"PYTHONPATH": str(ansible.ROOT / "ferry/src")}
        | (environment or {}),
    )  # fmt: skip
    assert done.returncode in codes, done.stderr
    return done.stdout


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE rounds (id INTEGER PRIMARY KEY, map TEXT)")
        connection.execute("INSERT INTO rounds VALUES (1, 'supply'), (2, NULL)")
    connection.close()
    return path


@pytest.fixture
def ferry(tmp_path):
    def run(*argv, codes=(0,)):
        report = tmp_path / "report.json"
        ask("-m", "ferry", *argv, "--report", report, codes=codes)
        return report.read_text()

    return run


def test_comparisons_equal_and_not(ferry, old_file, database, tmp_path):
    ferry("copy", old_file, database.dsn)
    said = take(ferry("verify", old_file, database.dsn), "comparison")
    assert (said["exit_code"], [table["equal"] for table in said["tables"]]) == (0, [True])
    said = take(ferry("reverse", database.dsn, tmp_path / "back.db"), "comparison")
    assert [table["rows_sqlite"] for table in said["tables"]] == [2]
    with database.connect() as connection:
        connection.execute("DELETE FROM rounds WHERE id = 2")
    said = take(ferry("verify", old_file, database.dsn, codes=(4,)), "comparison")
    assert (said["exit_code"], [table["equal"] for table in said["tables"]]) == (4, [False])
    with database.connect() as connection:
        connection.execute("DROP TABLE rounds")
    said = take(ferry("verify", old_file, database.dsn, codes=(3, 4)), "comparison")
    assert any(message["level"] == "error" for message in said["messages"])


def test_parcels(old_file, tmp_path):
    folder = tmp_path / "local_stats"
    folder.mkdir()
    (folder / "ü b.txt").write_text("x")
    os.utime(folder / "ü b.txt", (-5, -5))
    wish = json.dumps({"file": str(old_file), "folders": [str(folder), str(tmp_path / "none")]})
    there = take(ask(FILES / "parcel.py", "describe", wish), "description of what is there")
    assert there["folders"] == {"local_stats": {"ü b.txt": [1, -5]}, "none": {}}
    assert take(ask(FILES / "parcel.py", "survey", wish), "survey of the old PC")["is_sqlite"]


def test_connections_and_migrations(database, tmp_path):
    wish = {"unit": "x.service", "pid": "1", "address": "127.0.0.1", "port": 1, "patience": 0}
    said = ask(FILES / "bot_connections.py", json.dumps(wish))
    assert take(said, "connections of the bot") == {"ports": [], "alive": False}
    (tmp_path / "0001_tables.sql").write_text("CREATE TABLE rounds (id integer)")
    (tmp_path / "bot.py").write_text('connection.execute("SELECT nothing FROM rounds")\n')
    program = FILES / "schema_migrations.py"
    said = ask(program, "plan", tmp_path, environment=database.environment)
    assert take(said, "due migrations")["due"] == ["0001_tables.sql"]
    said = ask(program, "audit", tmp_path, tmp_path, "", environment=database.environment)
    assert len(take(said, "audit of the SQL")["refused"]) == 1


def test_checks_of_a_server_that_is_not_built():
    wish = {"ssh_port": 22, "admin": "ops", "outgoing": "deny", "jails": [], "timezone": "Etc/UTC",
            "secrets": [], "alert_command": "", "timers": [], "bot": "", "token": False,
            "crash": False}  # fmt: skip
    said = take(ask(ansible.ROOT / "playbooks/verify/host.py", json.dumps(wish)), "checks")
    assert {one["ok"] for one in said} <= {True, False, None}
