"""Carry the rows: SQLite writes COPY's text format itself, Python only the floating point numbers.

All columns but the floating point ones are joined into one line by SQLite, in C; the separators are
control characters that the census did not find in the table's text, so that escaping can be done
for many lines at once. Floating point numbers pass through Python, whose ``repr`` is the shortest
text that reads back as the same double (SQLite's own rounds to 15 digits).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import errors, sql

from ferry.errors import RefusedError
from ferry.schema import NotCarried, Schema, Table, quote_name
from ferry.types import Kind

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence

    from ferry.census import Census, TableCensus
    from ferry.ddl import Plan, Step

_BLOCK_CHARACTERS = 256 * 1024
_COLUMNS_PER_LINE = 100  # joined by SQLite in one expression, whose depth is limited
_FROM_PYTHON = (Kind.DOUBLE, Kind.NUMERIC)

# An expression that PostgreSQL does not understand; everything else is a failure of the copy.
_LANGUAGE_ERRORS = (psycopg.ProgrammingError, errors.FeatureNotSupported)


def _field(name: str, kind: Kind, null: str) -> str:
    """Return SQL for one field, before escaping."""
    column = quote_name(name)
    if kind == Kind.BYTEA:
        return f"iif({column} IS NULL, '{null}', '\\x' || hex({column}))"  # hex(NULL) is ''
    return f"ifnull({column}, '{null}')"


def copy_table(
    source: sqlite3.Connection,
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
    texts = [name for name in names if census.columns[name].kind not in _FROM_PYTHON]
    numbers = [name for name in names if census.columns[name].kind in _FROM_PYTHON]
    columns = ", ".join(map(quote_name, [*texts, *numbers]))
    place = f"{quote_name(namespace)}.{quote_name(table.name)}"
    if len(census.free_controls) >= len(_Separators._fields):
        marks = _Separators(*census.free_controls[: len(_Separators._fields)])
        kinds = {name: census.columns[name].kind for name in texts}
        blocks = _blocks(source, table, kinds, numbers, marks)
    else:
        marks = _Separators(field="\t", null="\\N", row="\n")
        blocks = _careful_blocks(source, table, [*texts, *numbers])
    options = f"DELIMITER {_constant(marks.field)}, NULL {_constant(marks.null)}"
    if fresh:
        options += ", FREEZE"  # rows of a table that nobody has seen yet need no vacuum later
    with target.cursor().copy(f"COPY {place} ({columns}) FROM STDIN WITH ({options})") as copy:
        for rows, text in blocks:
            copy.write(text.encode())
            progress(rows)


class _Separators(NamedTuple):
    """Characters between fields and rows, and what stands for NULL."""

    field: str
    null: str
    row: str


def _constant(text: str) -> str:
    return "E'" + "".join(f"\\x{ord(character):02x}" for character in text) + "'"


def _blocks(
    source: sqlite3.Connection,
    table: Table,
    kinds: dict[str, Kind],
    numbers: Sequence[str],
    marks: _Separators,
) -> Iterator[tuple[int, str]]:
    """Yield blocks of lines and how many rows they hold."""
    lines = []
    names = list(kinds)
    for start in range(0, len(names), _COLUMNS_PER_LINE):
        part = names[start : start + _COLUMNS_PER_LINE]
        fields = ", ".join(_field(name, kinds[name], marks.null) for name in part)
        pattern = marks.field.join(["%s"] * len(part))
        lines.append(f"printf('{pattern}', {fields})")
    split = len(lines)
    wanted = ", ".join([*lines, *map(quote_name, numbers)])
    block: list[str] = []
    size = 0
    # By size, not by rows: a single value may have many megabytes.
    for row in source.execute(f"SELECT {wanted} FROM {quote_name(table.name)}"):
        line = row[0] if not numbers and split == 1 else _join(row, split, marks)
        block.append(line)
        size += len(line)
        if size > _BLOCK_CHARACTERS:
            yield len(block), _escape(block, marks)
            block, size = [], 0
    if block:
        yield len(block), _escape(block, marks)


def _join(row: Sequence[Any], split: int, marks: _Separators) -> str:
    numbers = [marks.null if value is None else repr(value) for value in row[split:]]
    return marks.field.join([*row[:split], *numbers])


def _escape(block: list[str], marks: _Separators) -> str:
    """Return the lines with what COPY would misread escaped, all at once."""
    block.append("")
    text = marks.row.join(block).replace("\\", "\\\\")
    return text.replace("\n", "\\n").replace("\r", "\\r").replace(marks.row, "\n")


def _careful_blocks(
    source: sqlite3.Connection, table: Table, names: Sequence[str]
) -> Iterator[tuple[int, str]]:
    """Yield the same for text that leaves no separator free: value by value."""
    escapes = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})

    def field(value: Any) -> str:
        if value is None:
            return "\\N"
        if isinstance(value, bytes):
            return "\\\\x" + value.hex()
        return value.translate(escapes) if isinstance(value, str) else repr(value)

    query = f"SELECT {', '.join(map(quote_name, names))} FROM {quote_name(table.name)}"
    for row in source.execute(query):
        yield 1, "\t".join(map(field, row)) + "\n"


def create_tables(target: psycopg.Connection, plan: Plan) -> list[NotCarried]:
    """Create the tables, empty; return what PostgreSQL does not take of them."""
    not_carried = []
    for name, statement in plan.tables.items():
        try:
            with target.transaction():
                target.execute(statement)
        except errors.InsufficientPrivilege:
            raise
        except _LANGUAGE_ERRORS as error:
            plain = plan.plain_tables.get(name)
            if plain is None:
                raise RefusedError(
                    f"PostgreSQL does not take the table {name}: {error.diag.message_primary}",
                    f"the statement was:\n{statement}",
                ) from error
            target.execute(plain)
            reason = f"they arrive with their values: {error.diag.message_primary}"
            not_carried.append(NotCarried("generated columns", name, reason, statement))
    return not_carried


def run_step(target: psycopg.Connection, step: Step) -> NotCarried | None:
    """Run one step after the load; return what was not carried, if PostgreSQL cannot express it."""
    try:
        with target.transaction():
            target.execute(step.sql)
    except errors.InsufficientPrivilege:
        raise
    except psycopg.IntegrityError as error:
        detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
        raise RefusedError(
            f"the contents break the {step.what} of {step.name}: {error.diag.message_primary}"
            f"{detail}",
            "nothing was written; correct these rows in SQLite and run again",
        ) from error
    except _LANGUAGE_ERRORS as error:
        reason = f"PostgreSQL: {error.diag.message_primary}"
        if not step.optional:
            raise RefusedError(
                f"the {step.what} of {step.name} cannot be created: {error.diag.message_primary}",
                f"the statement was: {step.sql}",
            ) from error
        return NotCarried(step.what, step.name, reason, step.origin)
    return None


def set_sequences(
    source: sqlite3.Connection, target: psycopg.Connection, schema: Schema, namespace: str
) -> None:
    """Let each identity go on above ``max(id)`` and above what was given away already."""
    for table in schema.tables:
        if table.rowid_alias is None:
            continue
        name = quote_name(table.rowid_alias)
        (highest,) = source.execute(f"SELECT max({name}) FROM {quote_name(table.name)}").fetchone()
        place = f"{quote_name(namespace)}.{quote_name(table.name)}"
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
    target: psycopg.Connection, namespace: str, tables: list[str]
) -> Iterator[None]:
    """Drop the foreign keys from and to these tables, and make and validate them again after."""
    constraints = target.execute(
        """
        SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
        FROM pg_constraint k
        JOIN pg_class c ON c.oid = k.conrelid
        JOIN pg_class p ON p.oid = k.confrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE k.contype = 'f' AND k.conparentid = 0 AND n.nspname = %(schema)s
          AND (c.relname = ANY (%(tables)s) OR p.relname = ANY (%(tables)s))
        """,
        {"schema": namespace, "tables": tables},
    ).fetchall()
    for table, name, _ in constraints:
        place = f"{quote_name(namespace)}.{quote_name(table)}"
        target.execute(f"ALTER TABLE {place} DROP CONSTRAINT {quote_name(name)}")
    yield
    for table, name, definition in constraints:
        place = f"{quote_name(namespace)}.{quote_name(table)}"
        target.execute(f"ALTER TABLE {place} ADD CONSTRAINT {quote_name(name)} {definition}")


def load(
    source: sqlite3.Connection,
    target: psycopg.Connection,
    schema: Schema,
    census: Census,
    plan: Plan,
    namespace: str,
    progress: Callable[[str, int], None],
) -> list[NotCarried]:
    """Create, load, constrain and analyze everything inside the caller's transaction.

    ``progress`` is told the table and the rows of each block. Returns what could not be carried
    beside what the plan already says.
    """
    not_carried = create_tables(target, plan)
    for table in schema.tables:
        generated = _generated_columns(target, namespace, table)
        names = [column.name for column in table.columns if column.name not in generated]
        copy_table(
            source,
            target,
            table,
            census.tables[table.name],
            namespace,
            names,
            lambda rows, name=table.name: progress(name, rows),
            fresh=True,
        )
    for step in plan.steps:
        lost = run_step(target, step)
        if lost is not None:
            not_carried.append(lost)
    set_sequences(source, target, schema, namespace)
    for table in schema.tables:
        target.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(namespace, table.name)))
    return not_carried


def _generated_columns(target: psycopg.Connection, namespace: str, table: Table) -> set[str]:
    if all(column.generated is None for column in table.columns):
        return set()
    rows = target.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attgenerated <> ''",
        (f"{quote_name(namespace)}.{quote_name(table.name)}",),
    ).fetchall()
    return {row[0] for row in rows}
