"""The bot on the other side: what ferry carries over is what the bot goes on with, both ways."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import database_manager
import pytest
from bot.core.database import Database, DatabaseSettings
from bot.core.round_import import processed_files
from bot.core.schema import SCRIPTS, check_schema, create_schema
from bot.core.session_report import last_session_report
from bot.core.settings import BotSettings
from bot.core.stats_watcher import StatsWatcher
from support import stats_files
from support.stats_files import FIRST, SECOND

FERRY = Path(__file__).resolve().parents[2] / "ferry" / "src"
COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           pg_get_expr(d.adbin, d.adrelid), a.attidentity
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0
    ORDER BY c.relname, a.attnum
"""
CONSTRAINTS = """
    SELECT conrelid::regclass::text, contype, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2, 3
"""
INDEXES = """
    SELECT indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND indexname LIKE 'idx%' ORDER BY 1
"""


def ferry(*arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(FERRY)}
    done = subprocess.run(
        [sys.executable, "-m", "ferry", *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
async def old_bot(tmp_path):
    """The bot's database on the old PC: one round is imported."""
    database = Database(DatabaseSettings("sqlite", path=tmp_path / "old.db"))
    await database.open(create=True)
    await create_schema(database)
    settings = BotSettings.from_environment({"BOT_STATE_DIR": str(tmp_path)})
    stats_files.write(settings.local_stats, FIRST, stats_files.supply_first("supply"))
    assert await StatsWatcher(settings, database).look() == 1
    return database


async def test_the_schema_is_what_ferry_derives(old_bot, postgres_cluster):
    shapes = []
    for script in (
        SCRIPTS["postgresql"].read_text(),
        ferry("schema", str(old_bot.settings.path)),
    ):
        with postgres_cluster.fresh_database() as database, database.connect() as connection:
            connection.execute(script)
            shapes.append(
                [connection.execute(query).fetchall() for query in (COLUMNS, CONSTRAINTS, INDEXES)]
            )
    ours, derived = shapes
    assert ours == derived


async def test_the_bot_goes_on_where_it_was_and_back_again(old_bot, database, tmp_path):
    ferry("copy", str(old_bot.settings.path), database.dsn)
    settings = BotSettings.from_environment({"BOT_STATE_DIR": str(tmp_path)})
    url = {"DATABASE_URL": database.tcp_dsn, "DATABASE_POOL_MIN": "1"}
    async with Database(DatabaseSettings.from_environment(url)) as new_bot:
        await check_schema(new_bot)
        assert await processed_files(new_bot) == {FIRST}
        # The match began on the old PC and ends here: the first id after the move is free.
        stats_files.write(settings.local_stats, SECOND, stats_files.supply_second())
        assert await StatsWatcher(settings, new_bot).look() == 1
        assert await database_manager.validate(new_bot) == 0
        report = await last_session_report(new_bot)

    way_back = tmp_path / "back.db"
    ferry("reverse", database.dsn, str(way_back))
    old_again = Database(DatabaseSettings("sqlite", path=way_back))
    assert await database_manager.validate(old_again) == 0
    assert await last_session_report(old_again) == report
    assert await StatsWatcher(settings, old_again).look() == 0
    moved = await old_again.fetch_one("SELECT * FROM processed_files ORDER BY id DESC")
    assert (moved["filename"], moved["success"]) == (SECOND, True)


def test_postgresql_takes_every_statement_of_the_bot(database):
    """What a deploy asks before the new release starts; ``ferry: sqlite`` marks the others."""
    with database.connect() as connection:
        connection.execute(SCRIPTS["postgresql"].read_text())
    said = ferry("audit-sql", str(SCRIPTS["postgresql"].parents[1]), database.dsn)
    accepted, failed = re.search(r"(\d+) accepted, (\d+) fail", said).groups()
    assert int(accepted) > 70
    assert failed == "0"
