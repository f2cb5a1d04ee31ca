"""The bot's tables, in SQLite or, where DATABASE_URL is set, in PostgreSQL."""

import sqlite3
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS rounds (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    file TEXT NOT NULL UNIQUE,
    "order" INTEGER NOT NULL,
    ratio REAL,
    tied BOOLEAN DEFAULT 0,
    played_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS players (guid TEXT PRIMARY KEY, discord_id BIGINT, name TEXT);
CREATE TABLE IF NOT EXISTS heartbeat (id INTEGER PRIMARY KEY, beats INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS rounds_by_time ON rounds (played_at, "order");
"""
COLUMNS = {"rounds": 6, "players": 3, "heartbeat": 2}
# What a player asks for once a year: a loose GROUP BY and an alias in HAVING.
SELDOM = "SELECT name, guid, count(*) AS n FROM players GROUP BY guid HAVING n > 1"
OFTEN = "SELECT file FROM rounds ORDER BY played_at DESC, id DESC LIMIT 5"


class Store:
    """What both have in common."""

    async def import_files(self, folder: Path) -> int:
        """Note each file once."""
        known = set(await self.files())
        new = sorted(path.name for path in folder.glob("*.txt") if path.name not in known)
        for name in new:
            await self.add(name, len(name) / 7)
        return len(new)


class Lite(Store):
    """A file in rollback-journal mode, as SQLite makes it."""

    def __init__(self, path: str) -> None:
        Path(path).parent.mkdir(exist_ok=True)
        self.connection = sqlite3.connect(path)
        self.connection.executescript(SCHEMA)

    async def check_columns(self) -> None:
        """Nothing is amiss in a file of its own."""

    async def beat(self) -> None:
        """Write and commit."""
        self.connection.execute("INSERT OR IGNORE INTO heartbeat (id, beats) VALUES (1, 0)")
        self.connection.execute("UPDATE heartbeat SET beats = beats + 1 WHERE id = 1")
        self.connection.commit()

    async def files(self) -> list:
        """Return the names that it knows."""
        return [name for (name,) in self.connection.execute("SELECT file FROM rounds")]

    async def add(self, name: str, ratio: float) -> None:
        """Note a file."""
        self.connection.execute(
            'INSERT INTO rounds (file, "order", ratio) VALUES (?, ?, ?)', (name, len(name), ratio)
        )


class Postgres(Store):
    """The same in PostgreSQL."""

    def __init__(self, connection) -> None:
        self.connection = connection

    async def check_columns(self) -> None:
        """Count the columns by the tables' names alone, whatever schema they are in."""
        for table, wanted in COLUMNS.items():
            seen = await self.connection.fetchval(
                "SELECT count(*) FROM information_schema.columns WHERE table_name = $1", table
            )
            if seen != wanted:
                raise RuntimeError(f"{table} has {seen} columns and not {wanted}")

    async def beat(self) -> None:
        """Write; each statement commits."""
        await self.connection.execute(
            "INSERT INTO heartbeat (id, beats) VALUES (1, 1)"
            " ON CONFLICT (id) DO UPDATE SET beats = heartbeat.beats + 1"
        )

    async def files(self) -> list:
        """Return the names that it knows."""
        return [row["file"] for row in await self.connection.fetch("SELECT file FROM rounds")]

    async def add(self, name: str, ratio: float) -> None:
        """Note a file."""
        await self.connection.execute(
            'INSERT INTO rounds (file, "order", ratio) VALUES ($1, $2, $3)', name, len(name), ratio
        )

    async def seldom(self) -> list:
        """Answer what fails here."""
        return await self.connection.fetch(SELDOM)


async def open_store(values: dict) -> Store:
    """Return the database that the settings name, or else a file."""
    url = values.get("DATABASE_URL", "")
    if url.startswith("postgres"):
        import asyncpg

        return Postgres(await asyncpg.connect(url, timeout=10))
    return Lite(values.get("AWKWARD_FILE", "data/awkward.db"))
