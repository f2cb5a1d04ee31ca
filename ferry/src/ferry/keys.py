"""Keys that become equal: values that SQLite tells apart and PostgreSQL does not.

Two spellings of one moment or of one truth value, or values that rules have made the same, break a
primary key or a unique constraint. PostgreSQL would find the first of them in the middle of a copy;
here all of them are found before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ferry.census import SAMPLES, Hazard, Sample, row_expression
from ferry.schema import Key, Schema, Table, quote_name
from ferry.sqlite import readable_rows
from ferry.types import TRUE_WORDS, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import apsw

    from ferry.census import Census

_TRUE = ", ".join(f"'{word}'" for word in TRUE_WORDS)
# The value as PostgreSQL sees it, for kinds of which a value can be written in several ways.
_CANONICAL = {
    Kind.BOOLEAN: f"iif(typeof({{c}}) = 'integer', {{c}}, lower({{c}}) IN ({_TRUE}))",
    Kind.TIMESTAMP: "(replace({c}, 'T', ' ') "
    "|| substr('0000-00-00 00:00:00.000000', length({c}) + 1))",
    Kind.TIME: "({c} || substr('00:00:00.000000', length({c}) + 1))",
}


def unique_keys(table: Table) -> Iterator[Key]:
    """Return what has to be unique in a table, apart from partial and computed indexes."""
    if table.primary_key is not None:
        yield table.primary_key
    yield from table.uniques
    for index in table.indexes:
        columns = tuple(part.column for part in index.parts if part.column is not None)
        if index.unique and not index.where and len(columns) == len(index.parts):
            yield Key(columns, tuple(part.collation for part in index.parts))


def _as_postgres_sees(name: str, kind: Kind | None, collation: str) -> str:
    if kind in _CANONICAL:
        return _CANONICAL[kind].replace("{c}", name)
    folded = {"NOCASE": f"lower({name})", "RTRIM": f"rtrim({name}, ' ')"}
    return folded.get(collation, f"{name} COLLATE BINARY")


def equal_rows(
    table: Table, key: Key, kinds: dict[str, Kind | None], place: str, wanted: Sequence[str]
) -> str | None:
    """Return a query for ``wanted`` of all rows but the first among those whose keys are equal.

    None where SQLite's own uniqueness is PostgreSQL's as well. ``kinds`` are the columns' kinds,
    ``place`` is what to read. The rows also have a column ``n``: 2 for the second, and so on.
    """
    if not any(kinds.get(name) in _CANONICAL for name in key.columns):
        return None
    return _numbered(table, key, kinds, place, wanted)


def _numbered(
    table: Table, key: Key, kinds: dict[str, Kind | None], place: str, wanted: Sequence[str]
) -> str:
    forms = ", ".join(
        _as_postgres_sees(quote_name(name), kinds.get(name), collation)
        for name, collation in zip(key.columns, key.collations, strict=True)
    )
    filled = " AND ".join(f"{quote_name(name)} IS NOT NULL" for name in key.columns)
    order = ", ".join(map(quote_name, table.primary_key.columns)) if table.primary_key else "1"
    return (
        f"SELECT * FROM (SELECT {', '.join(wanted)}, "
        f"row_number() OVER (PARTITION BY {forms} ORDER BY {order}) AS n "
        f"FROM {place} WHERE {filled}) WHERE n > 1"
    )


def find_equal_keys(
    connection: apsw.Connection, schema: Schema, census: Census, ruled: Collection[str]
) -> list[Hazard]:
    """Find keys that become equal; in the tables ``ruled``, whose values rules change, all keys."""
    hazards = []
    for table in schema.tables:
        kinds: dict[str, Kind | None] = {
            name: entry.kind for name, entry in census.tables[table.name].columns.items()
        }
        for key in unique_keys(table):
            shown = " || ', ' || ".join(f"quote({quote_name(name)})" for name in key.columns)
            wanted = [f"{row_expression(table)} AS row", f"{shown} AS value"]
            make = _numbered if table.name in ruled else equal_rows
            query = make(table, key, kinds, quote_name(table.name), wanted)
            if query is None:
                continue
            (count,) = connection.execute(f"SELECT count(*) FROM ({query})").fetchone()
            if count:
                samples = readable_rows(
                    connection, ("row", "value"), f"FROM ({query}) LIMIT {SAMPLES}"
                )
                hazards.append(
                    Hazard(
                        "equal-keys",
                        table.name,
                        ", ".join(key.columns),
                        count,
                        tuple(Sample(row, value) for row, value in samples),
                        "to PostgreSQL each of these is the same as a row before it; correct or "
                        "delete them in SQLite",
                    )
                )
    return hazards
