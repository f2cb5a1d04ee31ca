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

_MAX_WRITERS = 100  # of a table's rows, beside this transaction
ROUND = 2**32  # transactions until xmin, which has 32 bits, comes round

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


@dataclass(frozen=True)
class Written:
    """How many rows of a table each transaction has written, as this transaction sees it."""

    table: int
    columns: list[int]
    current: int  # this transaction's 64-bit number
    rows: dict[int, int]  # by 64-bit number

    def versions(self) -> Versions | None:
        """Return what is to be kept; None if there are too many to keep."""
        writers = sorted(self.rows)
        return Versions(self.table, self.columns, writers) if len(writers) <= _MAX_WRITERS else None

    def own(self) -> int:
        """Return how many rows this transaction has written."""
        return self.rows.get(self.current, 0)

    def proven(self, known: Versions) -> int | None:
        """Return how many rows are still as they were proven; None if that cannot be said.

        It can where all others were written by this transaction.
        """
        if (self.table, self.columns) != (known.table, known.columns):
            return None
        if any(not 0 <= self.current - writer < ROUND // 2 for writer in known.writers):
            return None
        if self.rows.keys() - {*known.writers, self.current}:
            return None
        return sum(rows for writer, rows in self.rows.items() if writer != self.current)


def look(target: psycopg.Connection, sides: TableSides) -> Written:
    """Ask who has written the rows that are there."""
    table, columns, current = _identity(target, sides)
    counts = target.execute(
        f"SELECT xmin::text::bigint, count(*) FROM {sides.place} "
        f"GROUP BY xmin LIMIT {_MAX_WRITERS + 2}"
    )
    # The last time that the counter showed this.
    rows = {current - (current - number) % ROUND: count for number, count in counts}
    return Written(table, columns, current, rows)


def are_current(target: psycopg.Connection, sides: TableSides, known: Versions) -> bool:
    """Tell whether ``xmin`` still means what it meant: the same table, and numbers not too old.

    Unlike the others it needs no transaction number of its own, so it can be asked in one that
    only reads.
    """
    rows = target.execute(
        "SELECT attname, attnum FROM pg_attribute "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        (sides.place,),
    ).fetchall()
    numbers = dict(rows)
    table, current = target.execute(
        "SELECT %s::regclass::oid, pg_snapshot_xmax(pg_current_snapshot())::text::bigint",
        (sides.place,),
    ).fetchone()
    if (table, [numbers[name] for name in sides.names]) != (known.table, known.columns):
        return False
    return all(0 < current - writer < ROUND // 2 for writer in known.writers)


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
