"""Both schemas are one: the PostgreSQL twin is what a faithful move of the SQLite one gives."""

from __future__ import annotations

import re
import sqlite3

import pytest
from bot.core.database import Database, DatabaseConfigurationError, DatabaseSettings
from bot.core.schema import SCRIPTS, check_schema, create_schema, wanted_columns

# FACTS: REAL → double precision, identity and what refers to it → bigint, and so on.
TYPES = {
    "TEXT": "text",
    "INTEGER": "integer",
    "REAL": "double precision",
    "BOOLEAN": "boolean",
    "TIMESTAMP": "timestamp without time zone",
    "BIGINT": "bigint",
}
DEFAULTS = {"CURRENT_TIMESTAMP": "date_trunc('second'::text, (now() AT TIME ZONE 'utc'::text))"}


@pytest.fixture
def sqlite_model():
    with sqlite3.connect(":memory:") as connection:
        connection.executescript(SCRIPTS["sqlite"].read_text())
        connection.row_factory = sqlite3.Row
        yield connection
    connection.close()


@pytest.fixture
def postgres_model(database):
    with database.connect() as connection:
        connection.execute(SCRIPTS["postgresql"].read_text())
        yield connection


def faithful(column: sqlite3.Row, foreign_keys: set[str]) -> tuple:
    """Return what an SQLite column has to be in PostgreSQL: type, NOT NULL, default, identity."""
    identity = column["pk"] and column["type"] == "INTEGER"
    kind = "bigint" if identity or column["name"] in foreign_keys else TYPES[column["type"]]
    default = DEFAULTS.get(column["dflt_value"], column["dflt_value"])
    if column["type"] == "BOOLEAN" and default is not None:
        default = {"0": "false", "1": "true"}[default]
    return kind, bool(column["notnull"] or column["pk"]), default, "d" if identity else ""


def test_every_column_has_its_twin(sqlite_model, postgres_model):
    found = {
        (table, name): tuple(rest)
        for table, name, *rest in postgres_model.execute(
            """
            SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                   pg_get_expr(d.adbin, d.adrelid), a.attidentity
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
            WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attnum > 0
            """
        )
    }
    wanted = {}
    for (table,) in sqlite_model.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'sqlite_sequence'"
    ):
        keys = {row["from"] for row in sqlite_model.execute(f"PRAGMA foreign_key_list({table})")}
        for column in sqlite_model.execute(f"PRAGMA table_info({table})"):
            wanted[table, column["name"]] = faithful(column, keys)
    assert found == wanted


def test_keys_and_indexes_are_the_same(sqlite_model, postgres_model):
    unique, plain, foreign = set(), set(), set()
    for table in wanted_columns():
        for index in sqlite_model.execute(f"PRAGMA index_list({table})").fetchall():
            columns = tuple(
                row["name"] for row in sqlite_model.execute(f"PRAGMA index_info({index['name']})")
            )
            if index["origin"] == "u":
                unique.add((table, columns))
            elif index["origin"] == "c":
                plain.add((table, columns, index["name"]))
        for row in sqlite_model.execute(f"PRAGMA foreign_key_list({table})"):
            foreign.add((table, row["from"], row["table"], row["to"]))

    definitions = postgres_model.execute(
        "SELECT conrelid::regclass::text, contype, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace"
    ).fetchall()
    columns_of = re.compile(r"\(([^)]*)\)")
    assert unique == {
        (table, tuple(columns_of.search(text)[1].split(", ")))
        for table, kind, text in definitions
        if kind == "u"
    }
    assert foreign == {
        (table, columns_of.findall(text)[0], "rounds", columns_of.findall(text)[1])
        for table, kind, text in definitions
        if kind == "f"
    }
    indexes = postgres_model.execute(
        "SELECT tablename, indexname, indexdef FROM pg_indexes "
        "WHERE schemaname = 'public' AND indexname LIKE 'idx%'"
    ).fetchall()
    assert plain == {
        (table, tuple(columns_of.search(text)[1].split(", ")), name)
        for table, name, text in indexes
    }
    assert len(plain) == 7


def test_the_shape_that_is_known(sqlite_model):
    columns = sqlite_model.execute("PRAGMA table_info(player_comprehensive_stats)").fetchall()
    types = [column["type"] for column in columns]
    assert len(columns) == 54
    assert types.count("REAL") == 8


async def test_create_says_what_is_new_and_leaves_what_is_there(db):
    assert await create_schema(db) == []
    await db.execute("DROP TABLE player_links")
    assert await create_schema(db) == ["player_links"]
    await check_schema(db)


async def test_a_missing_table_or_column_is_named(db):
    await db.execute("ALTER TABLE player_comprehensive_stats DROP COLUMN useful_kills")
    with pytest.raises(DatabaseConfigurationError, match=r"_stats\.useful_kills"):
        await check_schema(db)
    await db.execute("DROP TABLE player_aliases")
    with pytest.raises(DatabaseConfigurationError, match="no table player_aliases"):
        await check_schema(db)


async def test_a_role_that_may_only_read_is_refused(database, postgres_model):
    postgres_model.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
    try:
        postgres_model.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        url = f"postgresql://reader:reader@{database.host}:{database.port}/{database.name}"
        async with Database(DatabaseSettings("postgresql", url=url, pool_min=1)) as reader:
            with pytest.raises(DatabaseConfigurationError, match="DATABASE_USER may not write to"):
                await check_schema(reader)
    finally:
        postgres_model.execute("DROP OWNED BY reader")
        postgres_model.execute("DROP ROLE reader")
