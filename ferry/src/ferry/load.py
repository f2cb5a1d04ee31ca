"""Carry the rows: SQLite's values in PostgreSQL's binary form.

psycopg packs numbers, text and bytes in C. What has no such form in SQLite is computed by SQLite
itself: a moment as microseconds since 2000, which is what PostgreSQL's binary timestamp is. Tables
with columns of other types (which an application made) take the values as text, and PostgreSQL
reads them as it would in an INSERT.
"""

from __future__ import annotations

import contextlib
from decimal import Decimal
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import sql

from ferry import attempt
from ferry.errors import RefusedError
from ferry.schema import NotCarried, Schema, Table, quote_name
from ferry.types import TRUE_WORDS, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import apsw

    from ferry.census import Census, TableCensus
    from ferry.ddl import Plan

_ROWS_PER_REPORT = 5000


class _Binary(NamedTuple):
    """How values of a kind go over binarily."""

    column: str  # PostgreSQL's name of the column's type, as in pg_type
    packed_as: str = ""  # the type that psycopg packs, where it is another one of the same form
    expression: str = "{c}"  # SQL for SQLite


_FRACTION = "CAST(substr(substr({c}, %d) || '000000', 1, 6) AS INTEGER)"
_MICROSECONDS = f"unixepoch(substr({{c}}, 1, 19)) * 1000000 - 946684800000000 + {_FRACTION % 21}"
_OF_THE_DAY = f"unixepoch('1970-01-01 ' || substr({{c}}, 1, 8)) * 1000000 + {_FRACTION % 10}"
_TRUTH = (
    "iif(typeof({c}) = 'text', lower({c}) IN ("
    + ", ".join(f"'{word}'" for word in TRUE_WORDS)
    + "), {c})"
)
_BINARY = {
    Kind.INTEGER: _Binary("int4"),
    Kind.BIGINT: _Binary("int8"),
    Kind.DOUBLE: _Binary("float8"),
    Kind.NUMERIC: _Binary("numeric"),
    Kind.TEXT: _Binary("text"),
    Kind.BYTEA: _Binary("bytea"),
    Kind.BOOLEAN: _Binary("bool", expression=_TRUTH),
    Kind.TIMESTAMP: _Binary("timestamp", "int8", _MICROSECONDS),
    Kind.DATE: _Binary("date", "int4", "unixepoch({c}) / 86400 - 10957"),
    Kind.TIME: _Binary("time", "int8", _OF_THE_DAY),
}


def copy_table(
    source: apsw.Connection,
    target: psycopg.Connection,
    table: Table,
    census: TableCensus,
    namespace: str,
    names: Sequence[str],
    progress: Callable[[int], None],
    *,
    fresh: bool,
) -> None:
    """Load the columns ``names`` of one table; ``progress`` is told the rows of each block.

    ``fresh``: the table was created in this transaction.
    """
    place = f"{quote_name(namespace)}.{quote_name(table.name)}"
    types = dict(
        target.execute(
            "SELECT attname, typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (place,),
        ).fetchall()
    )
    kinds = [census.columns[name].kind for name in names]
    forms = [_BINARY[kind] for kind in kinds]
    binary = all(types[name] == form.column for name, form in zip(names, forms, strict=True))
    options = ["FORMAT binary"] if binary else []
    if fresh:
        options.append("FREEZE")  # rows of a table that nobody has seen yet need no vacuum later
    columns = ", ".join(map(quote_name, names))
    wanted = ", ".join(
        (form.expression if binary else "{c}").replace("{c}", quote_name(name))
        for name, form in zip(names, forms, strict=True)
    )
    rows = source.execute(f"SELECT {wanted} FROM {quote_name(table.name)}")
    if binary and Kind.NUMERIC in kinds:
        rows = _with_decimals(rows, kinds)
    statement = f"COPY {place} ({columns}) FROM STDIN"
    if options:
        statement += f" WITH ({', '.join(options)})"
    with target.cursor().copy(statement) as copy:
        if binary:
            copy.set_types([form.packed_as or form.column for form in forms])
        write_row = copy.write_row
        number = 0
        for number, row in enumerate(rows, 1):
            write_row(row)
            if number % _ROWS_PER_REPORT == 0:
                progress(_ROWS_PER_REPORT)
        progress(number % _ROWS_PER_REPORT)


def _with_decimals(
    rows: Iterator[tuple[Any, ...]], kinds: Sequence[Kind]
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows with numbers of numeric columns as the decimals that they are written as."""
    for row in rows:
        yield tuple(
            Decimal(repr(value)) if kind == Kind.NUMERIC and value is not None else value
            for kind, value in zip(kinds, row, strict=True)
        )


def create_collations(target: psycopg.Connection, plan: Plan) -> None:
    """Create the collations that rules ask for; raises RefusedError where there are none such."""
    for statement in plan.collations:
        try:
            with target.transaction():
                target.execute(statement)
        except psycopg.Error as error:
            if not attempt.is_of_the_statement(error):
                raise
            raise RefusedError(
                f"PostgreSQL does not take the collation of a rule: {error.diag.message_primary}",
                'use another locale in the rules file, or as = "nocase" or "binary"',
            ) from error


def set_sequences(target: psycopg.Connection, schema: Schema, namespace: str) -> None:
    """Let each identity go on above ``max(id)`` and above what was given away already."""
    for table in schema.tables:
        if table.rowid_alias is None:
            continue
        name = quote_name(table.rowid_alias)
        place = f"{quote_name(namespace)}.{quote_name(table.name)}"
        (highest,) = target.execute(f"SELECT max({name}) FROM {place}").fetchone()
        (sequence,) = target.execute(
            "SELECT pg_get_serial_sequence(%s, %s)", (place, table.rowid_alias)
        ).fetchone()
        if sequence is None:
            continue
        value, called = target.execute(f"SELECT last_value, is_called FROM {sequence}").fetchone()
        last = max(highest or 0, table.sequence or 0)
        if last > (value if called else value - 1):
            target.execute("SELECT setval(%s, %s)", (sequence, last))


@contextlib.contextmanager
def without_foreign_keys(
    target: psycopg.Connection,
    namespace: str,
    tables: Sequence[str],
    replaced: Collection[str] | None = None,
) -> Iterator[list[str]]:
    """Drop the foreign keys from and to these tables, and make and validate them again after.

    To validate one takes as long as its tables are. So with ``replaced``, the tables of which rows
    are deleted, those to other tables are kept, and PostgreSQL checks each new row. Yields the
    tables in the order in which they are to be filled.
    """
    constraints = target.execute(
        """
        SELECT c.relname, p.relname, k.conname, pg_get_constraintdef(k.oid)
        FROM pg_constraint k
        JOIN pg_class c ON c.oid = k.conrelid
        JOIN pg_class p ON p.oid = k.confrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE k.contype = 'f' AND k.conparentid = 0 AND n.nspname = %(schema)s
          AND (c.relname = ANY (%(tables)s) OR p.relname = ANY (%(tables)s))
        """,
        {"schema": namespace, "tables": list(tables)},
    ).fetchall()
    before: dict[str, set[str]] = {table: set() for table in tables}
    for child, parent, _, _ in constraints:
        if child in before and parent in before and child != parent:
            before[child].add(parent)
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError:  # whichever is filled first refers to what is not there yet
        order, replaced = list(tables), None
    dropped = [
        (f"{quote_name(namespace)}.{quote_name(child)}", quote_name(name), definition)
        for child, parent, name, definition in constraints
        if replaced is None or parent in replaced
    ]
    for place, name, _ in dropped:
        target.execute(f"ALTER TABLE {place} DROP CONSTRAINT {name}")
    yield order
    for place, name, definition in dropped:
        target.execute(f"ALTER TABLE {place} ADD CONSTRAINT {name} {definition}")


def load(
    source: apsw.Connection,
    target: psycopg.Connection,
    schema: Schema,
    census: Census,
    plan: Plan,
    namespace: str,
    progress: Callable[[str, int], None],
) -> list[NotCarried]:
    """Create and fill the tables inside the caller's transaction.

    ``progress`` is told the table and the rows of each block. Returns what could not be carried
    beside what the plan already says.
    """
    not_carried = []
    create_collations(target, plan)
    for table in schema.tables:
        entry = census.tables[table.name]

        def fill(
            names: Sequence[str],
            advance: Callable[[int], None] = lambda _: None,
            table: Table = table,
            entry: TableCensus = entry,
        ) -> None:
            copy_table(source, target, table, entry, namespace, names, advance, fresh=True)

        if plan.computed.get(table.name):
            not_carried += attempt.load_computed(source, target, table, plan, namespace, fill)
            progress(table.name, entry.rows)
        else:
            attempt.create_table(target, plan, table.name)
            names = [column.name for column in table.columns]
            fill(names, lambda rows, name=table.name: progress(name, rows))
    return not_carried


def build(
    target: psycopg.Connection, schema: Schema, plan: Plan, namespace: str
) -> list[NotCarried]:
    """Build keys, constraints and indexes over the filled tables, and set the sequences.

    Returns what could not be carried beside what the plan already says.
    """
    not_carried = []
    for step in plan.steps:
        lost = attempt.run_step(target, step)
        if lost is not None:
            not_carried.append(lost)
    set_sequences(target, schema, namespace)
    for table in schema.tables:
        target.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(namespace, table.name)))
    return not_carried
