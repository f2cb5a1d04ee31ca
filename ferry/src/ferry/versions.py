"""Recognise that nobody has written to a table since its contents were proven.

PostgreSQL never changes a row in place: whoever changes a row writes a new version of it, with the
number of the writing transaction in ``xmin``. So if a table has as many rows as were proven, and
each was written by a transaction known from then, the rows are the proven ones. That costs a look
at the rows' headers instead of a checksum of their contents.

Whatever could make those numbers mean something else makes the answer no: another table of the
name, columns dropped and added again, numbers so old that they come round again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

    from ferry.proof import TableSides

_MAX_WRITERS = 100
_ROUND = 2**32  # transactions until xmin, which has 32 bits, comes round

# Of the rows that this transaction has written.
OWN = "WHERE xmin = pg_current_xact_id()::xid"


@dataclass(frozen=True)
class Versions:
    """Who had written the rows of a table when it was proven."""

    table: int  # PostgreSQL's oid
    columns: list[int]  # attribute numbers, in the order of the canonical form
    writers: list[int]  # 64-bit numbers of transactions

    def as_json(self) -> dict[str, Any]:
        """Return the form that is kept with the table."""
        return {"table": self.table, "columns": self.columns, "writers": self.writers}

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> Versions | None:
        """Read that form; None where there is none."""
        return cls(data["table"], data["columns"], data["writers"]) if data else None


def take(target: psycopg.Connection, sides: TableSides) -> Versions | None:
    """Note who has written the rows that are there; None if they are too many to keep."""
    table, columns, current = _identity(target, sides)
    writers = [
        # The last time that the counter showed this.
        current - (current - number) % _ROUND
        for (number,) in target.execute(
            f"SELECT xmin::text::bigint FROM {sides.place} GROUP BY xmin LIMIT {_MAX_WRITERS + 1}"
        )
    ]
    return Versions(table, columns, sorted(writers)) if len(writers) <= _MAX_WRITERS else None


def untouched(target: psycopg.Connection, sides: TableSides, known: Versions, rows: int) -> bool:
    """Tell whether the table has exactly ``rows`` rows, all of them written as ``known``."""
    table, columns, current = _identity(target, sides)
    return (
        (table, columns) == (known.table, known.columns)
        and all(0 <= current - writer < _ROUND // 2 for writer in known.writers)
        and count(target, sides, known) == (rows, rows)
    )


def count(target: psycopg.Connection, sides: TableSides, known: Versions) -> tuple[int, int]:
    """Return how many rows there are, and how many of them were written as ``known``."""
    numbers = [str(writer % _ROUND) for writer in known.writers]
    place = sides.place.replace("%", "%%")
    return target.execute(
        f"SELECT count(*), count(*) FILTER (WHERE xmin = ANY (%s::text[]::xid[])) FROM {place}",
        (numbers,),
    ).fetchone()


def _identity(target: psycopg.Connection, sides: TableSides) -> tuple[int, list[int], int]:
    """Return the table's oid, its columns' numbers, and this transaction's 64-bit number."""
    numbers = dict(
        target.execute(
            "SELECT attname, attnum FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (sides.place,),
        ).fetchall()
    )
    table, current = target.execute(
        "SELECT %s::regclass::oid, pg_current_xact_id()::text::bigint", (sides.place,)
    ).fetchone()
    return table, [numbers[name] for name in sides.names], current
