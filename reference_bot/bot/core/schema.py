"""The tables the bot needs, and whether a database has them."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from bot.core.database import Database, DatabaseConfigurationError

_DIRECTORY = Path(__file__).resolve().parent.parent
SCRIPTS = {
    "sqlite": _DIRECTORY / "schema_sqlite.sql",
    "postgresql": _DIRECTORY / "schema.sql",
}


def wanted_columns() -> dict[str, set[str]]:
    """Return the columns of each table as the bot's own schema says."""
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        model.executescript(SCRIPTS["sqlite"].read_text())
        return _by_table(model.execute(_SQLITE_COLUMNS))


async def present_columns(database: Database) -> dict[str, set[str]]:
    """Return the columns of each table that the database has."""
    statement = _SQLITE_COLUMNS if database.backend == "sqlite" else _POSTGRES_COLUMNS
    return _by_table(await database.fetch_all(statement))


async def check_schema(database: Database) -> None:
    """Make sure that the bot can work with this database.

    Raises:
        DatabaseConfigurationError: a table, a column or the right to write is missing.

    """
    present = await present_columns(database)
    wanted = wanted_columns()
    if missing := sorted(wanted.keys() - present.keys()):
        raise DatabaseConfigurationError(
            f"the database has no table {', '.join(missing)}: is it the right one "
            "(DATABASE_NAME, DATABASE_PATH)? A new one is filled by: "
            "python database_manager.py create"
        )
    if missing := [
        f"{table}.{column}"
        for table, columns in sorted(wanted.items())
        for column in sorted(columns - present[table])
    ]:
        raise DatabaseConfigurationError(
            f"the database has no column {', '.join(missing)}: its schema is not this release's "
            f"(bot/{SCRIPTS[database.backend].name})"
        )
    if database.backend == "postgresql":
        refused = [
            row["name"]
            for row in await database.fetch_all(_POSTGRES_UNWRITABLE)
            if row["name"] in wanted
        ]
        if refused:
            raise DatabaseConfigurationError(
                f"DATABASE_USER may not write to {', '.join(sorted(refused))}: give that role "
                "SELECT, INSERT, UPDATE and DELETE, or use another role"
            )


async def create_schema(database: Database) -> list[str]:
    """Create the tables and indexes that are missing; return the names of the new tables."""
    before = await present_columns(database)
    async with database.session() as session:
        await session.execute_script(SCRIPTS[database.backend].read_text())
    return sorted((await present_columns(database)).keys() - before.keys())


# ferry: sqlite
_SQLITE_COLUMNS = """
    SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c
    WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
"""
_POSTGRES_COLUMNS = """
    SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
      AND pg_table_is_visible(c.oid) AND c.relnamespace <> 'pg_catalog'::regnamespace
"""
_POSTGRES_UNWRITABLE = """
    SELECT c.relname AS name FROM pg_class c
    WHERE c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid)
      AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
               AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
"""


def _by_table(rows: object) -> dict[str, set[str]]:
    tables: dict[str, set[str]] = {}
    for table, column in rows:
        tables.setdefault(table, set()).add(column)
    return tables
