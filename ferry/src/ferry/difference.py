"""The way back as a difference: the file that was moved, with what was written since then.

PostgreSQL tells by their versions which rows are still those that were proven against the file
(:mod:`ferry.versions`). All others are carried into a copy of the file; rows of the file that have
no such version any more go. Which these are follows from counts by ranges of keys: where a range
has as many proven rows as the file has rows, it has the same.

What the new file must hold is proven by sums: of the file as it was proven, minus the rows that
went, plus those that came, hashed by SQLite as they stand in the file and by PostgreSQL as they
stand there.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ferry import proof, versions
from ferry.proof import TableSides, Total
from ferry.rows import Changes
from ferry.schema import Schema, Table, quote_name
from ferry.virtual import Keeps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import apsw
    import psycopg

_AT_ONCE = 1 << 20  # bytes
_RANGE = 10  # bits of a key: 1,024 neighbours are counted together
_MOST_KEYS = 1_000_000  # of a table whose keys are no numbers, to be compared one by one
_INTEGERS = ("int2", "int4", "int8")
_KEYS = (*_INTEGERS, "text", "varchar")


class NoDifferenceError(Exception):
    """The whole way has to be gone; the message says why."""


@dataclass
class TableDifference:
    """What has happened to one table since it was proven."""

    table: Table
    sides: TableSides
    before: Total
    known: versions.Versions
    rows: int = 0  # in PostgreSQL now
    gone: list[tuple[Any, ...]] = field(default_factory=list)  # keys in the file
    came: list[tuple[Any, ...]] = field(default_factory=list)  # keys in PostgreSQL, once written
    total_gone: Total = field(default_factory=Total)

    @property
    def writers(self) -> list[str]:
        """The proven writers as PostgreSQL shows them in xmin."""
        return [str(writer % versions.ROUND) for writer in self.known.writers]

    @property
    def new_rows(self) -> int:
        """How many rows in PostgreSQL are not among those that were proven."""
        return self.rows - (self.before.rows - len(self.gone))

    @property
    def touched(self) -> bool:
        """Tell whether anything has happened."""
        return bool(self.gone or self.new_rows)

    def changes(self) -> Changes:
        """Return what is new, changed and deleted."""
        gone = set(self.gone)
        found = Changes(deleted=len(gone - set(self.came)))
        for key in self.came:
            found.note(key, is_new=key not in gone)
        return found


def copy_file(source: Path, target: Path) -> str:
    """Copy a file over an empty one; return its SHA-256 in hex."""
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("r+b") as write:
        while block := read.read(_AT_ONCE):
            digest.update(block)
            write.write(block)
    return digest.hexdigest()


def find(
    target: psycopg.Connection,
    base: apsw.Connection,
    schema: Schema,
    namespace: str,
    proofs: dict[str, dict[str, Any]],
) -> list[TableDifference]:
    """Find what has happened to each table.

    ``proofs`` is what the tables' comments say about their proof against ``base``. Raises
    NoDifferenceError where versions do not tell.
    """
    columns = proof.columns_of(target, namespace)
    if columns.keys() != {table.name for table in schema.tables}:
        raise NoDifferenceError("tables have come or gone")
    found = []
    for table in schema.tables:
        present = columns[table.name]
        if present.keys() != {column.name for column in table.columns}:
            raise NoDifferenceError(f"columns of {table.name} have come or gone")
        kinds = {name: kind for name, (kind, _) in present.items()}
        sides = TableSides(table, kinds, namespace)
        kept = proofs[table.name]
        known = versions.Versions.from_json(kept.get("versions"))
        if known is None or not versions.are_current(target, sides, known):
            raise NoDifferenceError(f"the versions of the rows of {table.name} do not tell")
        item = TableDifference(table, sides, Total(*kept["total"]), known)
        _find_gone(target, base, item)
        found.append(item)
    if any(item.touched for item in found):
        for other in schema.virtual:
            if other.keeps in (Keeps.REPLAY, Keeps.STORAGE):
                raise NoDifferenceError(f"{other.name} does not follow its tables by itself")
    return found


def _find_gone(target: psycopg.Connection, base: apsw.Connection, item: TableDifference) -> None:
    item.rows, proven = target.execute(
        f"SELECT count(*), count(*) FILTER (WHERE xmin = ANY (ARRAY[{_quoted(item)}]::xid[])) "
        f"FROM {item.sides.place}"
    ).fetchone()
    if proven == item.before.rows:
        if item.rows != proven and not item.sides.key:
            raise NoDifferenceError(f"{item.table.name} has no primary key")
        return
    key = item.sides.key
    types = _key_types(target, item)
    if not key or not set(types) <= set(_KEYS):
        raise NoDifferenceError(f"{item.table.name} has no primary key of numbers and texts")
    ranges = _differing_ranges(target, base, item) if _is_one_number(item, types) else None
    if ranges is None and item.before.rows > _MOST_KEYS:
        raise NoDifferenceError(f"{item.table.name} has too many keys that are no numbers")
    names = ", ".join(map(quote_name, key))
    query = (
        f"SELECT {names} FROM {item.sides.place} WHERE xmin = ANY (ARRAY[{_quoted(item)}]::xid[])"
    )
    if ranges is not None:
        query += f" AND {names} >> {_RANGE} IN (SELECT unnest(ARRAY{ranges}::bigint[]))"
    there = set(target.execute(query))
    here = f"SELECT {names} FROM main.{quote_name(item.table.name)}"
    if ranges is None:
        item.gone = [row for row in base.execute(here) if row not in there]
    else:
        for number in ranges:
            first = number << _RANGE
            rows = base.execute(
                f"{here} WHERE {names} BETWEEN ? AND ?", (first, first + (1 << _RANGE) - 1)
            )
            item.gone += [row for row in rows if row not in there]
    # A proven row that the file has not, or has under another key, cannot be.
    if proven != item.before.rows - len(item.gone):
        raise NoDifferenceError(f"the rows of {item.table.name} are not those that were proven")


def _quoted(item: TableDifference) -> str:
    """Return the proven writers for PostgreSQL; as text, since names may hold percent signs."""
    return ", ".join(f"'{writer}'" for writer in item.writers)


def _key_types(target: psycopg.Connection, item: TableDifference) -> list[str]:
    return [
        name
        for (name,) in target.execute(
            "SELECT t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE a.attrelid = %s::regclass AND a.attname = ANY (%s)",
            (item.sides.place, list(item.sides.key)),
        )
    ]


def _is_one_number(item: TableDifference, types: Sequence[str]) -> bool:
    return len(item.sides.key) == 1 and types[0] in _INTEGERS


def _differing_ranges(
    target: psycopg.Connection, base: apsw.Connection, item: TableDifference
) -> list[int]:
    """Return which ranges of a numeric key have not as many proven rows as the file has rows."""
    name = quote_name(item.sides.key[0])
    counted = f"SELECT {name} >> {_RANGE}, count(*) FROM "
    here = f"main.{quote_name(item.table.name)}"
    there = f"{item.sides.place} WHERE xmin = ANY (ARRAY[{_quoted(item)}]::xid[])"
    counts: dict[int, int] = dict(base.execute(f"{counted}{here} GROUP BY 1").fetchall())
    for number, count in target.execute(f"{counted}{there} GROUP BY 1"):
        counts[number] = counts.get(number, 0) - count
    return sorted(number for number, count in counts.items() if count)


def delete_gone(out: apsw.Connection, item: TableDifference) -> None:
    """Take the rows that went out of the copy of the file, and note what they added to the sum."""
    item.total_gone = _total_of(out, item, item.gone)
    # First as the column compares, so that its index serves; then exactly.
    same = " AND ".join(
        f"{name} = ?{number} AND {name} = ?{number} COLLATE BINARY"
        for number, name in enumerate(map(quote_name, item.sides.key), 1)
    )
    out.executemany(f"DELETE FROM main.{quote_name(item.table.name)} WHERE {same}", item.gone)


def judge(
    out: apsw.Connection, target: psycopg.Connection, item: TableDifference
) -> proof.TableProof:
    """Compare the sums of both sides."""
    kept = item.before.minus(item.total_gone)
    mine = kept.plus(_total_of(out, item, item.came))
    theirs = kept
    if item.new_rows:
        where = f"WHERE xmin <> ALL (ARRAY[{_quoted(item)}]::xid[])"
        theirs = kept.plus(proof.postgres_total(target, item.sides, where))
    (rows,) = out.execute(f"SELECT count(*) FROM main.{quote_name(item.table.name)}").fetchone()
    entry = proof.TableProof(item.table.name)
    entry.judge(mine, theirs)
    entry.rows_sqlite, entry.rows_postgres = rows, item.rows
    entry.equal = entry.equal and rows == item.rows == mine.rows
    return entry


def _total_of(
    out: apsw.Connection, item: TableDifference, keys: Sequence[tuple[Any, ...]]
) -> Total:
    """Hash the rows with these keys: a temporary table stands in for them for a moment."""
    if not keys:
        return Total()
    name = quote_name(item.table.name)
    columns = ", ".join(f"t.{quote_name(column.name)}" for column in item.table.columns)
    numbers = range(len(item.sides.key))
    out.execute(f"CREATE TEMP TABLE ferry_keys ({', '.join(f'k{n}' for n in numbers)})")
    out.executemany(f"INSERT INTO temp.ferry_keys VALUES ({', '.join('?' for _ in numbers)})", keys)
    on = " AND ".join(
        f"t.{column} = k.k{number} AND t.{column} = k.k{number} COLLATE BINARY"
        for number, column in enumerate(map(quote_name, item.sides.key))
    )
    out.execute(
        f"CREATE TEMP TABLE {name} AS SELECT {columns} FROM temp.ferry_keys k "
        f"CROSS JOIN main.{name} t ON {on}"
    )
    total = item.sides.sqlite_total(out)
    out.execute(f"DROP TABLE temp.{name}")
    out.execute("DROP TABLE temp.ferry_keys")
    return total
