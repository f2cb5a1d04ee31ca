"""docs/porting-a-bot.md is followed to the letter: files, commands, exit codes, outputs."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.discord import FakeDiscord, text_of

REPOSITORY = Path(__file__).resolve().parents[2]
GUIDE = REPOSITORY / "docs" / "porting-a-bot.md"
BLOCK = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OLD_DATABASE = """
CREATE TABLE quotes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, author TEXT NOT NULL, text TEXT NOT NULL,
    added TIMESTAMP);
CREATE TABLE likes (
    quote_id INTEGER NOT NULL REFERENCES quotes (id), user_id BIGINT NOT NULL,
    active BOOLEAN NOT NULL DEFAULT 1, PRIMARY KEY (quote_id, user_id));
INSERT INTO quotes (author, text, added) VALUES
    ('Anna', 'Never again.', '2026-01-02 20:15:00'), ('Ben', 'One more?', '2026-01-03 23:59:59');
INSERT INTO likes VALUES
    (1, 700000000000000101, 1), (2, 700000000000000101, 1), (2, 700000000000000102, 0);
"""


@pytest.fixture
def bench(tmp_path, database):
    """A directory with the old bot's file, and an environment as the guide presumes."""
    with sqlite3.connect(tmp_path / "quotes.db") as connection:
        connection.executescript(OLD_DATABASE)
    connection.close()
    programs = tmp_path / "programs"
    programs.mkdir()
    ferry = programs / "ferry"
    source = REPOSITORY / "ferry" / "src"
    ferry.write_text(f'#!/bin/sh\nPYTHONPATH={source} exec {sys.executable} -m ferry "$@"\n')
    ferry.chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "COLUMNS": "200"}
    return tmp_path, environment | {"DSN": database.dsn, "CLONE": str(REPOSITORY)}


def test_the_guide_works_as_it_stands(bench, database):
    directory, environment = bench
    output = ""
    seen = {"python": 0, "sh": 0, "text": 0, "yaml": 0}
    for language, note, body in BLOCK.findall(GUIDE.read_text()):
        seen[language] += 1
        if language == "python":
            (directory / note).write_text(body)
        elif language == "sh":
            done = subprocess.run(
                ["bash", "-eu", "-c", body], cwd=directory, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            output = done.stdout
            assert done.returncode == int(note.removeprefix("exit ") or 0), output
        elif language == "text":
            lines = body.splitlines()
            assert [line for line in lines if line not in output] == [], output
    assert seen == {"python": 3, "sh": 6, "text": 5, "yaml": 1}

    # And the ported bot answers, on PostgreSQL.
    with FakeDiscord(directory / "discord") as discord:
        bot = subprocess.Popen(
            [sys.executable, "quotes_bot.py"],
            cwd=directory,
            env=environment | discord.environment | {"DATABASE_URL": database.tcp_dsn},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            discord.wait_for_sessions(1)
            assert text_of(discord.ask("!quote Dan hello")) == "quote 4"
        finally:
            bot.terminate()
            bot.wait()
