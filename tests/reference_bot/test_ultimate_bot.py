"""The bot as a real process, from a game server over SFTP into both databases."""

from __future__ import annotations

from bot.core.database import Database
from support import stats_files


async def count(db: Database, table: str) -> int:
    return await db.fetch_value(f"SELECT COUNT(*) FROM {table}")


async def test_fetches_imports_and_says_ready(
    db, database_environment, game_server, start_bot, tmp_path
):
    stats_files.write_match(game_server.stats)
    stats_files.write(game_server.stats, "2026-11-20-210000-supply-round-1_ws.txt", "not a round")
    stats_files.write(
        game_server.stats, "2026-11-20-210730-supply-round-2-endstats.txt", "nor this"
    )

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
