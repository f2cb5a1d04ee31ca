"""``database_manager.py`` on both databases."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import database_manager
import pytest
from bot.core.database import Database, DatabaseSettings
from support import stats_files
from support.stats_files import FIRST, SECOND

CHECKOUT = Path(__file__).resolve().parents[2] / "reference_bot"


@pytest.fixture
def manage(database_environment, tmp_path, monkeypatch, capsys):
    """A function that runs ``database_manager.py``; returns exit code, output and errors."""
    for name, value in database_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BOT_STATE_DIR", str(tmp_path / "state"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["database_manager.py", *arguments])
        return (database_manager.main(), *capsys.readouterr())

    return run


@pytest.fixture
def imported(manage, tmp_path):
    """The hand-made match, imported from local_stats."""
    assert manage("create")[0] == 0
    stats_files.write_match(tmp_path / "state" / "local_stats")
    code, output, errors = manage("import", str(tmp_path / "state" / "local_stats"))
    assert (code, output, errors) == (0, "2 imported, 0 were imported before, 0 failed\n", "")


def change(environment: dict[str, str], statement: str) -> None:
    async def run() -> None:
        async with Database(DatabaseSettings.from_environment(environment)) as database:
            await database.execute(statement)

    asyncio.run(run())


@pytest.mark.usefixtures("imported")
def test_create_import_and_validate(manage, tmp_path):
    code, output, _ = manage("create")
    assert (code, output) == (0, "all tables are there already\n")
    code, output, _ = manage("import", str(tmp_path / "state" / "local_stats"))
    assert (code, output) == (0, "0 imported, 2 were imported before, 0 failed\n")
    code, output, errors = manage("validate")
    assert (code, errors) == (0, "")
    assert output.splitlines()[0].split() == ["rounds", "2", "rows"]
    assert "18 kills, 18 deaths, 2700 damage" in output
    assert output.endswith("no findings\n")


def test_import_says_which_files_it_could_not_read(manage, tmp_path):
    assert manage("create")[0] == 0
    files = tmp_path / "files"
    stats_files.write(files, FIRST, stats_files.supply_first())
    stats_files.write(files, SECOND, "nonsense\n")
    code, output, errors = manage("import", str(files))
    assert (code, output) == (1, "1 imported, 0 were imported before, 1 failed\n")
    assert errors == f"{SECOND}: the header has 1 parts, not 8 or 9\n"


def test_import_needs_a_directory_and_tables(manage, tmp_path):
    code, _, errors = manage("import", str(tmp_path / "nowhere"))
    assert (code, errors) == (
        2,
        f"database_manager: {tmp_path / 'nowhere'} is not a directory\n",
    )
    code, _, errors = manage("import", str(tmp_path))
    assert code == 2
    assert "database_manager.py create" in errors


@pytest.mark.usefixtures("imported")
def test_rebuild_gives_the_same_rounds_and_keeps_links(manage, database_environment):
    change(
        database_environment,
        "INSERT INTO player_links (discord_id, discord_username) VALUES (9, 'nine')",
    )
    change(database_environment, "UPDATE player_comprehensive_stats SET kills = 999")
    assert manage("validate")[0] == 1
    code, output, errors = manage("rebuild", "--yes")
    assert (code, output, errors) == (0, "2 imported, 0 were imported before, 0 failed\n", "")
    code, output, _ = manage("validate")
    assert code == 0
    assert "player_links" in output
    assert "1 rows" in output


@pytest.mark.usefixtures("imported")
def test_rebuild_asks_first(manage):
    code, output, errors = manage("rebuild")
    assert (code, output, errors) == (2, "", "nothing was done: say --yes\n")


@pytest.mark.usefixtures("imported")
def test_rebuild_refuses_to_lose_a_round_whose_file_is_gone(manage, tmp_path):
    (tmp_path / "state" / "local_stats" / SECOND).unlink()
    code, _, errors = manage("rebuild", "--yes")
    assert code == 1
    assert f"1 imported files are not in {tmp_path}" in errors
    assert SECOND in errors
    assert manage("validate")[0] == 0


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (
            "DELETE FROM weapon_comprehensive_stats WHERE kills = 6",
            "FOUND 1 player rows whose kills, deaths or headshots",
        ),
        (
            "UPDATE player_comprehensive_stats SET map_name = 'radar' WHERE round_number = 2",
            "FOUND 2 player rows that disagree with their round",
        ),
        ("UPDATE rounds SET match_id = 'x' WHERE round_number = 2", "FOUND 1 second rounds with"),
        (
            "UPDATE player_comprehensive_stats SET damage_given = -1 WHERE damage_given = 900",
            "FOUND 1 player rows with a negative number",
        ),
        (
            "INSERT INTO processed_files (filename, success) VALUES ('x', FALSE)",
            "FOUND 1 files that could not be imported",
        ),
        (
            "INSERT INTO rounds (round_date, round_time, match_id, map_name, round_number) "
            "VALUES ('2026-11-20', '210000', 'y', 'supply', 1)",
            "FOUND 1 rounds that are there twice",
        ),
    ],
)
def test_validate_finds_damage(manage, database_environment, damage, finding):
    change(database_environment, damage)
    code, output, _ = manage("validate")
    assert code == 1
    assert finding in output
    assert "findings in 9 checks" in output


@pytest.mark.usefixtures("imported")
def test_validate_finds_orphans_where_foreign_keys_were_off(manage, database_environment):
    if "DATABASE_PATH" in database_environment:
        with sqlite3.connect(database_environment["DATABASE_PATH"]) as connection:
            connection.execute("DELETE FROM rounds WHERE round_number = 2")
        connection.close()
    else:
        change(
            database_environment,
            "ALTER TABLE weapon_comprehensive_stats "
            "DROP CONSTRAINT weapon_comprehensive_stats_round_id_fkey",
        )
        change(
            database_environment,
            "ALTER TABLE player_comprehensive_stats "
            "DROP CONSTRAINT player_comprehensive_stats_round_id_fkey",
        )
        change(database_environment, "DELETE FROM rounds WHERE round_number = 2")
    code, output, _ = manage("validate")
    assert code == 1
    assert "FOUND 2 player rows without a round" in output


def test_settings_and_outages_have_their_exit_codes():
    def run(**environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "database_manager.py", "validate"],
            cwd=CHECKOUT,
            env={"PATH": os.environ["PATH"], **environment},
            text=True,
            capture_output=True,
        )
        return done.returncode, done.stderr

    code, errors = run()
    assert code == 2
    assert errors.startswith("database_manager: no database is configured")
    code, errors = run(DATABASE_URL="postgresql://u@127.0.0.1:1/d")
    assert code == 5
    assert errors.startswith("database_manager: the database cannot be reached")
