"""playbooks/files/try_old_bot.py: could the old bot work on PostgreSQL?"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "playbooks/files/try_old_bot.py"
SETTINGS = {
    "DATABASE_TYPE": "postgresql",
    "DATABASE_HOST": "127.0.0.1",
    "DATABASE_PORT": "1",
    "DATABASE_USER": "bot",
    "DATABASE_PASSWORD": "not told",
    "DATABASE_NAME": "stats",
    "PGSSLROOTCERT": "/nonexistent",
}


@pytest.fixture
def tried(tmp_path):
    """Run it over a checkout with these files."""

    def run(files, *options):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
        done = subprocess.run(
            [sys.executable, *options, PROGRAM, tmp_path],
            input=json.dumps(SETTINGS), capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert "not told" not in done.stdout + done.stderr
        return json.loads(done.stdout)

    return run


def test_a_bot_that_speaks_both(tried):
    found = tried({"bot/core/database.py": b'import asyncpg\nos.getenv("DATABASE_TYPE")\n'})
    assert found["adapter"]
    assert found["setting"]


def test_a_bot_of_sqlite_times(tried):
    found = tried(
        {
            "bot/bot.py": b'import aiosqlite\n# asyncpg, DATABASE_TYPES, one day\nname = "\xff"\n',
            # Somebody else's words are not the bot's.
            ".venv/lib/driver.py": b"import asyncpg\n",
            "env/pyvenv.cfg": b"",
            "env/driver.py": b"from asyncpg import connect  # DATABASE_TYPE\n",
        }
    )
    assert not found["adapter"]
    assert not found["setting"]


def test_the_login_fails(tried):
    assert "No such file" in tried({})["error"], "the authority is not there"


def test_the_package_is_missing(tried):
    assert "no such package" in tried({}, "-I", "-S")["error"]
