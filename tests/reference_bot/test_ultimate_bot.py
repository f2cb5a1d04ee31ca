"""The bot as a real process, from a game server over SFTP into both databases."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import database_manager
import pytest
from bot.core.database import Database
from support import stats_files
from support.discord import FakeDiscord, text_of

REPOSITORY = Path(__file__).resolve().parents[2]
NO_ROUNDS_LOST = "SELECT COUNT(*), COUNT(DISTINCT match_id), SUM(round_number) FROM rounds"


async def count(db: Database, table: str) -> int:
    return await db.fetch_value(f"SELECT COUNT(*) FROM {table}")


def generate(directory: Path, *options: str) -> int:
    """Let the sample world write stats files; return the number of rounds."""
    generator = REPOSITORY / "demo" / "sample_world" / "generate_stats.py"
    command = [sys.executable, str(generator), "--out", str(directory), *options]
    subprocess.run(command, check=True, capture_output=True)
    return sum(1 for path in directory.iterdir() if path.name.endswith(("-1.txt", "-2.txt")))


async def test_fetches_imports_and_says_ready(
    db, database_environment, game_server, start_bot, tmp_path
):
    stats_files.write_match(game_server.stats)
    stats_files.write(game_server.stats, "2026-11-20-210000-supply-round-1_ws.txt", "not a round")
    stats_files.write(game_server.stats, "2026-11-20-210730-supply-round-2-endstats.txt", "nor")

    bot = await start_bot(database_environment, game_server.environment)
    await bot.wait_for_notice("READY=1")
    backend = "PostgreSQL 1" if db.backend == "postgresql" else "SQLite 3"
    assert backend in await bot.wait_for_line("database: ")
    await bot.wait_for_line("running without Discord")
    await bot.wait_for_line(f"{stats_files.SECOND} imported")

    assert await count(db, "rounds") == 2
    assert await count(db, "player_comprehensive_stats") == 4
    assert await count(db, "processed_files") == 2
    here = {path.name for path in (tmp_path / "state" / "local_stats").iterdir()}
    assert here == {stats_files.FIRST, stats_files.SECOND}
    await bot.wait_for_notice("STATUS=watching")
    assert await bot.stop() == 0
    await bot.wait_for_notice("STOPPING=1")
    assert "Traceback" not in bot.output


async def test_catches_up_on_what_came_while_it_was_down(
    db, database_environment, game_server, start_bot
):
    stats_files.write(game_server.stats, stats_files.FIRST, stats_files.supply_first())
    bot = await start_bot(database_environment, game_server.environment)
    await bot.wait_for_line(f"{stats_files.FIRST} imported")
    assert await bot.stop() == 0

    stats_files.write(game_server.stats, stats_files.SECOND, stats_files.supply_second())
    bot = await start_bot(database_environment, game_server.environment)
    await bot.wait_for_line(f"{stats_files.SECOND} imported")
    assert await bot.stop() == 0
    assert stats_files.FIRST not in bot.output
    assert await count(db, "rounds") == 2


async def test_a_stop_in_the_middle_of_an_import_loses_and_doubles_nothing(
    db, database_environment, game_server, start_bot
):
    options = ("--weeks", "1", "--evenings-per-week", "2", "--rounds-per-day", "24")
    rounds = generate(game_server.stats, *options)
    for least, how in ((10, "terminate"), (20, "kill")):
        bot = await start_bot(database_environment, game_server.environment)
        for _ in range(10):
            await bot.wait_for_line(" imported")
        getattr(bot.process, how)()
        await bot.wait()
        assert least <= await count(db, "rounds") < rounds
        assert await count(db, "rounds") == await count(db, "processed_files")

    bot = await start_bot(database_environment, game_server.environment)
    await bot.wait_for_notice("STATUS=watching")
    assert await bot.stop() == 0
    assert "Traceback" not in bot.output
    assert tuple(await db.fetch_one(NO_ROUNDS_LOST)) == (rounds, rounds / 2, rounds * 1.5)
    assert await count(db, "processed_files") == rounds
    assert await database_manager.validate(db) == 0


@contextlib.asynccontextmanager
async def away(db: Database, postgres_cluster):
    """Take the database away: the server is stopped, the SQLite file locked by somebody else."""
    if db.backend == "postgresql":
        postgres_cluster.stop()
        try:
            yield
        finally:
            postgres_cluster.start()
    else:
        async with db.session() as session:
            await session.execute("BEGIN EXCLUSIVE")
            yield
            await session.execute("ROLLBACK")


async def test_an_outage_of_the_database_loses_no_round(
    db, database_environment, game_server, start_bot, postgres_cluster, tmp_path
):
    """Four tries long, each pause twice the one before; a file comes in each of them."""
    impatient = {"DATABASE_CONNECT_TIMEOUT": "0.5", "DATABASE_RETRY_SECONDS": "0.2"}
    with FakeDiscord(tmp_path / "discord") as discord:

        async def ask(question: str) -> str:
            return text_of(await asyncio.to_thread(discord.ask, question))

        settings = database_environment | game_server.environment | discord.environment
        bot = await start_bot(settings, impatient)
        await bot.wait_for_notice("READY=1")
        await bot.wait_for_notice("STATUS=watching")
        assert await ask("!sessions") == "No rounds have been played yet."
        pauses, names = (1, 2, 4, 8), []
        async with away(db, postgres_cluster):
            for pause in pauses:
                names.append(f"2026-11-20-20{pause:02}00-radar-round-1.txt")
                stats_files.write(game_server.stats, names[-1], stats_files.supply_first("radar"))
                await bot.wait_for_line(f"nothing is lost, next try in {pause} s")
            assert await ask("!sessions") == "The database is away, try again in a minute."
        for name in names:
            await bot.wait_for_line(f"{name} imported")
        await bot.wait_for_line("all is well again")
        assert "4 rounds on 1 maps · 2 players" in await ask("!sessions")
        assert bot.process.returncode is None
        assert await bot.stop() == 0
    assert await count(db, "rounds") == await count(db, "processed_files") == len(names)
    assert await database_manager.validate(db) == 0
    assert "Traceback" not in bot.output


async def test_waits_at_the_start_for_a_database_that_is_restarting(
    database, postgres_cluster, start_bot
):
    postgres_cluster.stop()
    try:
        bot = await start_bot(
            {"DATABASE_URL": database.tcp_dsn, "DATABASE_START_WAIT_SECONDS": "10"}
        )
        await bot.wait_for_notice("STATUS=waiting for the database")
        await asyncio.sleep(1)
        assert bot.process.returncode is None
    finally:
        postgres_cluster.start()
    # There it is, but without tables: the end, and READY was never said.
    assert await bot.wait() == 2
    assert "the database has no table player_aliases" in bot.output
    assert not any("READY" in message for message in bot.heard)


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("environment", "code", "says"),
    [
        ({}, 2, "no database is configured: set DATABASE_URL"),
        ({"DATABASE_TYPE": "sqlite", "DATABASE_PATH": "gone.db"}, 2, "there is no SQLite file"),
        ({"DATABASE_TYPE": "sqlite", "BOT_STATE_DIR": "/dev/null/x"}, 2, "BOT_STATE_DIR"),
        (
            {"DATABASE_URL": "postgresql://u@127.0.0.1:1/d", "DATABASE_START_WAIT_SECONDS": "0"},
            5,
            "the database cannot be reached",
        ),
    ],
)
async def test_a_start_that_cannot_work_ends_with_one_line(start_bot, environment, code, says):
    bot = await start_bot(environment)
    assert await bot.wait() == code
    assert bot.output.startswith("ultimate_bot: ")
    assert says in bot.output
    assert bot.output.count("\n") == 1


async def test_a_wrong_password_ends_with_one_line(database, start_bot):
    url = f"postgresql://postgres:wrong-word@{database.host}:{database.port}/{database.name}"
    bot = await start_bot({"DATABASE_URL": url})
    assert await bot.wait() == 2
    assert bot.output == (
        'ultimate_bot: PostgreSQL: password authentication failed for user "postgres"\n'
    )
