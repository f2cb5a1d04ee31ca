"""The awkward bot moves, comes back and moves again with ferry, without a change to either.

It is stopped by a signal alone and asked nothing; what it does is read from its tables.
"""

import contextlib
import json
import os
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg import sql

BOT = Path(__file__).parent
ROOT = BOT.parents[1]
STORE = runpy.run_path(str(BOT / "store.py"))
PASSWORD = "k7/Qm#2v@Lp9xTz4wB"
FILES = 200


class Bot:
    """A checkout of the bot, and the process that runs it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "data/awkward.db"
        shutil.copytree(BOT, directory, ignore=shutil.ignore_patterns("test_*", "__pycache__"))
        (directory / ".env").write_text("AWKWARD_TOKEN=of-the-bot\nAWKWARD_GREETING=home\n")
        (directory / "local_stats").mkdir()
        for number in range(FILES):
            (directory / f"local_stats/round-{number:05}.txt").write_text("x")

    def start(self, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "run.py"],
            cwd=self.directory, text=True, stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **environment},
        )  # fmt: skip

    @contextlib.contextmanager
    def at_work(self, **environment: str):
        """Run it until it has read its files, and end it."""
        process = self.start(**environment)
        try:
            said = [process.stdout.readline(), process.stdout.readline()]
            assert "hello from home" in said[0], said
            assert said[1].startswith("1 beats"), said
            yield process
            assert process.poll() is None, "it ended by itself"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)
            process.stdout.close()

    def count(self, what: str) -> int:
        with sqlite3.connect(f"file:{self.file}?mode=ro", uri=True) as connection:
            return connection.execute(f"SELECT {what}").fetchone()[0]


@pytest.fixture
def bot(tmp_path):
    return Bot(tmp_path / "awkward")


@pytest.fixture
def server(database):
    """A database with the application's role; returns what the bot gets and how to ask."""
    role = sql.Identifier(f"{database.name}_app")
    with database.connect() as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, PASSWORD))
        yield (
            f"postgresql://{database.name}_app:{quote(PASSWORD, safe='')}"
            f"@{database.host}:{database.port}/{database.name}",
            admin,
            role,
        )
        admin.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(role))


def ferry(*words: object, code: int = 0) -> dict:
    """Run ferry as a user does; return its report."""
    report = Path(words[-1])
    done = subprocess.run(
        [sys.executable, "-m", "ferry", *words[:-1], "--report", report],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(report.read_text())


def beats(admin) -> int:
    return admin.execute("SELECT beats FROM heartbeat").fetchone()[0]


def grows(number) -> bool:
    """Tell whether a number is larger a moment later."""
    before, end = number(), time.monotonic() + 5
    while number() <= before and time.monotonic() < end:
        time.sleep(0.05)
    return number() > before


def test_it_moves_comes_back_and_moves_again(bot, server, database, tmp_path):
    url, admin, role = server
    snapshot = tmp_path / "snapshot.db"
    with bot.at_work():
        for _ in range(5):  # it never rests
            snapshot.unlink(missing_ok=True)
            subprocess.run(
                [sys.executable, ROOT / "ferry/src/ferry/snapshot.py", bot.file, snapshot],
                capture_output=True, check=True,
            )  # fmt: skip
    report = tmp_path / "report.json"
    for new, way in enumerate(("there", "there again")):
        ferry("copy", bot.file, database.dsn, report)
        assert admin.execute("SELECT count(*) FROM rounds").fetchone()[0] == FILES + new
        admin.execute(
            sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {0};"
                    " GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {0}").format(role)
        )  # fmt: skip
        (bot.directory / f"local_stats/round-{way}.txt").write_text("played meanwhile")
        with bot.at_work(DATABASE_URL=url):
            assert grows(lambda: beats(admin))
        if way == "there again":
            break
        back = tmp_path / "back.db"
        ferry("reverse", database.dsn, back, report)
        # Of a transaction that it was killed in.
        for beside in bot.file.parent.glob(f"{bot.file.name}-*"):
            beside.rename(bot.file.parent / f"former-{beside.name}")
        back.replace(bot.file)
        admin.execute("ALTER SCHEMA public RENAME TO aside; CREATE SCHEMA public")
        admin.execute(
            sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA aside FROM {0};"
                    " GRANT USAGE ON SCHEMA public TO {0}").format(role)
        )  # fmt: skip
        with bot.at_work():
            assert grows(lambda: bot.count("beats FROM heartbeat"))
        assert bot.count("count(*) FROM rounds") == FILES + 1
    assert admin.execute("SELECT count(*) FROM rounds").fetchone()[0] == FILES + 2


def test_it_does_not_start_beside_a_copy_that_it_can_see(bot, server, database, tmp_path):
    """As strangers' bots do: it looks by the table's name, and ends as if all were well."""
    url, admin, role = server
    with bot.at_work():
        pass
    for schema in ("public", "aside"):
        ferry("copy", bot.file, database.dsn, "--schema", schema, tmp_path / "report.json")
        admin.execute(
            sql.SQL("GRANT USAGE ON SCHEMA {1} TO {0};"
                    " GRANT ALL ON ALL TABLES IN SCHEMA {1} TO {0}").format(
                role, sql.Identifier(schema)
            )
        )  # fmt: skip
    process = bot.start(DATABASE_URL=url)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "no database: rounds has 12 columns and not 6" in said


def test_its_bad_statement_is_found_and_no_other(bot, database, tmp_path):
    with bot.at_work():
        pass
    report = tmp_path / "report.json"
    ferry("copy", bot.file, database.dsn, report)
    found = ferry("audit-sql", bot.directory, database.dsn, report, code=3)["statements"]
    fails = {(Path(one["file"]).name, one["sql"]) for one in found if one["verdict"] == "fails"}
    assert ("store.py", STORE["SELDOM"]) in fails
    assert ("store.py", STORE["OFTEN"]) not in fails
