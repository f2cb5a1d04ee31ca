"""What a SQLite file holds beside the rows of its tables, so that `reverse` can bring it back.

Settings in the file's header, the planner's statistics, virtual tables, and which statements its
own triggers and CHECKs let pass. It is kept with the first table that was copied, and in reports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import apsw

from ferry import trial
from ferry.schema import NotCarried
from ferry.virtual import VirtualTable

if TYPE_CHECKING:
    from ferry.schema import Schema
    from ferry.source import Source

_SETTINGS = ("user_version", "application_id", "encoding", "auto_vacuum", "page_size")


@dataclass
class Database:
    """What is known about the whole of a SQLite database."""

    settings: dict[str, Any] = field(default_factory=dict)
    wal: bool = False
    # The rows of sqlite_stat1, None if there is no such table; whether there is a sqlite_stat4.
    statistics: list[list[Any]] | None = None
    samples: bool = False
    virtual: list[VirtualTable] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # see ferry.trial

    def as_json(self) -> dict[str, Any]:
        """Return the form that is kept."""
        return {
            "settings": self.settings,
            "wal": self.wal,
            "statistics": self.statistics,
            "samples": self.samples,
            "virtual": [table.as_json() for table in self.virtual],
            "refused": self.refused,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Database:
        """Read that form."""
        return cls(
            {name: data["settings"][name] for name in _SETTINGS},
            data["wal"],
            data["statistics"],
            data["samples"],
            [VirtualTable.from_json(table) for table in data["virtual"]],
            data["refused"],
        )


def read(source: Source, schema: Schema) -> Database:
    """Read what a source holds beside rows."""
    connection = source.connection
    (found,) = connection.execute(
        "SELECT group_concat(name) FROM main.sqlite_master WHERE name LIKE 'sqlite_stat_'"
    ).fetchone()
    tables = (found or "").split(",")
    statistics = None
    if "sqlite_stat1" in tables:
        statistics = [
            list(row) for row in connection.execute("SELECT tbl, idx, stat FROM main.sqlite_stat1")
        ]
    return Database(
        {name: connection.pragma(name, schema="main") for name in _SETTINGS},
        source.header.wal,
        statistics,
        "sqlite_stat4" in tables,
        schema.virtual,
        trial.find_refused(connection),
    )


def begin_file(connection: apsw.Connection, database: Database) -> None:
    """Set what a file must be told before it has its first table."""
    for name in ("page_size", "encoding", "auto_vacuum"):
        if name in database.settings:
            connection.pragma(name, database.settings[name])


def finish_file(connection: apsw.Connection, database: Database) -> list[NotCarried]:
    """Set what a file is told at the end; returns what could not be done."""
    for name in ("user_version", "application_id"):
        if name in database.settings:
            connection.pragma(name, database.settings[name])
    if database.statistics is None:
        return []
    try:
        _write_statistics(connection, database)
    except apsw.Error as error:
        return [NotCarried("statistics", "sqlite_stat1", f"{error}; run ANALYZE", "ANALYZE")]
    return []


def _write_statistics(connection: apsw.Connection, database: Database) -> None:
    # The samples hold values of the rows: they are taken anew, not kept.
    connection.execute("ANALYZE" if database.samples else "ANALYZE sqlite_master")
    if not database.samples:
        connection.execute("DROP TABLE IF EXISTS main.sqlite_stat4")
    connection.execute("DELETE FROM main.sqlite_stat1")
    connection.executemany("INSERT INTO main.sqlite_stat1 VALUES (?, ?, ?)", database.statistics)
