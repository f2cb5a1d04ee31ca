"""Copy into tables that the application made itself: what differs, and what would be lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ferry.types import Kind

if TYPE_CHECKING:
    import psycopg

    from ferry.census import Census
    from ferry.schema import Schema

# Types that can hold everything a kind can; others are narrower, and PostgreSQL or the proof
# decides whether the values there are fit nevertheless.
_WIDE_ENOUGH: dict[Kind, tuple[str, ...]] = {
    Kind.INTEGER: ("int4", "int8", "numeric"),
    Kind.BIGINT: ("int8", "numeric"),
    Kind.DOUBLE: ("float8",),
    Kind.NUMERIC: ("numeric",),
    Kind.BOOLEAN: ("bool",),
    Kind.TIMESTAMP: ("timestamp", "timestamptz"),
    Kind.DATE: ("date", "timestamp", "timestamptz"),
    Kind.TIME: ("time",),
    Kind.TEXT: ("text", "varchar"),
    Kind.BYTEA: ("bytea",),
}
# Types that take the text of a value without complaint and keep something else.
_LOSES: dict[Kind, tuple[str, ...]] = {
    Kind.DOUBLE: ("float4", "int2", "int4", "int8"),
    Kind.TIMESTAMP: ("date", "time"),
    Kind.NUMERIC: ("int2", "int4", "int8", "float4", "float8"),
}


@dataclass
class SchemaDifferences:
    """How the application's tables differ from what ferry would have made."""

    lossy: list[str] = field(default_factory=list)  # data would be lost, or rows not accepted
    notes: list[str] = field(default_factory=list)
    columns: dict[str, list[str]] = field(default_factory=dict)  # to load, by table


@dataclass(frozen=True)
class _Column:
    type_name: str
    type_text: str
    needs_value: bool  # NOT NULL, and nothing fills it in
    generated: bool


def _remote_columns(target: psycopg.Connection, namespace: str) -> dict[str, dict[str, _Column]]:
    found: dict[str, dict[str, _Column]] = {}
    for table, column, type_name, type_text, needs_value, generated in target.execute(
        """
        SELECT c.relname, a.attname, t.typname, format_type(a.atttypid, a.atttypmod),
               a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', a.attgenerated <> ''
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid
        WHERE n.nspname = %s AND c.relkind IN ('r', 'p')
        """,
        (namespace,),
    ):
        found.setdefault(table, {})[column] = _Column(type_name, type_text, needs_value, generated)
    return found


def compare_schemas(
    target: psycopg.Connection, schema: Schema, census: Census, namespace: str
) -> SchemaDifferences:
    """Match tables and columns by name; name every difference."""
    remote = _remote_columns(target, namespace)
    found = SchemaDifferences()
    for table in schema.tables:
        counted = census.tables[table.name]
        if table.name not in remote:
            where = found.lossy if counted.rows else found.notes
            where.append(f"table {table.name} is missing in PostgreSQL ({counted.rows} rows)")
            continue
        there = remote[table.name]
        found.columns[table.name] = []
        for column in table.columns:
            place = f"{table.name}.{column.name}"
            entry = counted.columns[column.name]
            filled = counted.rows - entry.nulls
            if column.name not in there:
                where = found.lossy if filled else found.notes
                where.append(f"column {place} is missing in PostgreSQL ({filled} values)")
                continue
            other = there[column.name]
            if not other.generated:
                found.columns[table.name].append(column.name)
            if other.type_name in _WIDE_ENOUGH[entry.kind]:
                continue
            text = f"column {place} is {other.type_text}, ferry would have made it {entry.pg_type}"
            lossy = other.type_name in _LOSES.get(entry.kind, ()) and filled
            (found.lossy if lossy else found.notes).append(text)
        names = {column.name for column in table.columns}
        for name, other in there.items():
            if name in names:
                continue
            if other.needs_value and counted.rows:
                found.lossy.append(
                    f"column {table.name}.{name} exists only in PostgreSQL, is NOT NULL and has no "
                    "default"
                )
            else:
                found.notes.append(
                    f"column {table.name}.{name} exists only in PostgreSQL: left to its default"
                )
    for name in sorted(set(remote) - {table.name for table in schema.tables}):
        found.notes.append(f"table {name} exists only in PostgreSQL: left alone")
    return found


def foreign_comments(target: psycopg.Connection, namespace: str, prefix: str) -> set[str]:
    """Return the tables that bear a comment of somebody else's."""
    rows = target.execute(
        """
        SELECT c.relname, obj_description(c.oid, 'pg_class')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relkind IN ('r', 'p')
        """,
        (namespace,),
    )
    return {name for name, text in rows if text is not None and not text.startswith(prefix)}
