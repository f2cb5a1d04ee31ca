"""Look at every value before anything is created: what is there, and what would not fit.

One aggregate query per table counts what does not fit its column's kind; only where that is not
zero are the values looked at closely and turned into hazards: table, column, how many, the first
rows and values, and ways out. Text is also read once, because SQLite accepts bytes that are no
UTF-8 and NUL characters, and PostgreSQL neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

import apsw

from ferry.schema import Column, Schema, Table, quote_name
from ferry.sqlite import codec, readable_rows
from ferry.types import (
    FITS,
    HAZARDS,
    INT4_MAX,
    INT4_MIN,
    TRUE_WORDS,
    Kind,
    declared_kind,
    kind_of_contents,
    precision_and_scale,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SAMPLES = 5  # rows shown per hazard
_COLUMNS_PER_QUERY = 200
_COLUMNS_SHOWN = 4  # of a row that has no name
MAX_EXCEPTIONS = 20_000
_COLUMNS_PER_FUNCTION = 100  # SQLite's functions take 127 arguments
_PLAIN_CLASSES = {
    Kind.INTEGER: "integer",
    Kind.BIGINT: "integer",
    Kind.DOUBLE: "real",
    Kind.TEXT: "text",
}
_MOMENTS_AND_CHANCE = re.compile(r"\b(unixepoch|strftime|random)\s*\(", re.IGNORECASE)
_CLASSES = ("integer", "real", "text", "blob")


@dataclass(frozen=True)
class Sample:
    """One row of a hazard: how to find it, and the value as SQL would write it."""

    row: str
    value: str


@dataclass(frozen=True)
class Hazard:
    """Something that cannot be carried as it is."""

    code: str
    table: str
    column: str
    count: int
    samples: tuple[Sample, ...]
    remedy: str

    def __str__(self) -> str:
        """Return one line for the screen."""
        where = f"{self.table}.{self.column}" if self.column else self.table
        shown = ", ".join(f"{sample.row}: {sample.value}" for sample in self.samples)
        more = ", …" if self.count > len(self.samples) > 0 else ""
        return f"{where}: {self.code}, {self.count} ({shown}{more}). Way out: {self.remedy}"


@dataclass
class ColumnCensus:
    """What one column holds and what it becomes."""

    kind: Kind
    pg_type: str
    nulls: int = 0
    # How many values are written in which way, for kinds that have several (shape_expression).
    shapes: dict[str, int] = field(default_factory=dict)
    # Which rows (by their one-column key) are not written in the way most of their class are.
    exceptions: dict[str, list[Any]] = field(default_factory=dict)
    # How many such rows could not be noted: no such key, or too many.
    forgotten: int = 0


@dataclass
class TableCensus:
    """What one table holds."""

    rows: int
    columns: dict[str, ColumnCensus]
    # How many rows break a CHECK, by its number; only those that some break.
    broken_checks: dict[int, int] = field(default_factory=dict)


@dataclass
class Census:
    """What the database holds, and everything that is in the way."""

    tables: dict[str, TableCensus] = field(default_factory=dict)
    hazards: list[Hazard] = field(default_factory=list)


def shape_expression(kind: Kind, column: str) -> str | None:
    """Return SQL that tells in which way a value is written; None where there is only one way.

    Times: separator and length, and ``z`` for a fraction of nothing but zeros (``T26``, `` 19``,
    ``T23z``). Booleans: ``int0``, ``int1``, or the word.
    """
    if kind in (Kind.TIMESTAMP, Kind.TIME):
        separator, whole = ("substr({c}, 11, 1)", 19) if kind == Kind.TIMESTAMP else ("''", 8)
        zeros = (
            f"iif(length({{c}}) > {whole} AND rtrim(substr({{c}}, {whole + 1}), '.0') = '', "
            "'z', '')"
        )
        return f"{separator} || length({{c}}) || {zeros}".replace("{c}", column)
    if kind == Kind.BOOLEAN:
        return f"iif(typeof({column}) = 'integer', 'int' || {column}, {column})"
    return None


def _class_of(kind: Kind, shape: str) -> bool:
    """Tell values apart that PostgreSQL tells apart, by their shape alone.

    Times: whether there is a fraction. Booleans: which of the two. Within such a class the value
    itself does not tell how it was written.
    """
    if kind == Kind.BOOLEAN:
        return shape == "int1" or shape.lower() in TRUE_WORDS
    whole = 19 if kind == Kind.TIMESTAMP else 8
    return not shape.endswith("z") and int(shape.strip("Tz ")) > whole


def row_name(table: Table) -> str | None:
    """Return the name under which SQL reaches the rowid, None where there is none."""
    if not table.has_rowid:
        return None
    taken = {column.name.lower() for column in table.columns}
    return next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), None)


def row_expression(table: Table) -> str:
    """Return SQL for a readable name of a row."""
    if table.rowid_alias is not None:
        return f"{_literal(table.rowid_alias + ' ')} || {quote_name(table.rowid_alias)}"
    rowid = row_name(table)
    if rowid is not None:
        return f"'rowid ' || {rowid}"
    key = table.primary_key.columns if table.primary_key else ()
    if not key:  # columns have all of the rowid's names
        key = tuple(column.name for column in table.columns[:_COLUMNS_SHOWN])
    return " || ', ' || ".join(
        f"{_literal(name + ' ')} || quote({quote_name(name)})" for name in key
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def ferry_fits(value: Any, precision: int, scale: int) -> bool:
    """Tell whether a number's shortest decimal form fits numeric(precision, scale)."""
    if not isinstance(value, (int, float)):  # SQLite evaluates AND in any order
        return False
    number = Decimal(repr(value))
    if not number.is_finite():
        return False
    if precision < 0:
        return True
    if number != round(number, scale):
        return False
    return abs(number) < Decimal(10) ** (precision - scale)


def fill_condition(template: str, column: Column, name: str) -> str:
    """Fill a condition of ferry.types with the column's name and its declared precision."""
    precision, scale = precision_and_scale(column.declared) or (-1, 0)
    kind = str(declared_kind(column.declared))
    filled = template.replace("{c}", name).replace("{k}", kind)
    return filled.replace("{p}", str(precision)).replace("{s}", str(scale))


class _TableCounter:
    """Takes the census of one table."""

    def __init__(self, connection: apsw.Connection, table: Table) -> None:
        self.connection = connection
        self.table = table
        self.name = quote_name(table.name)
        self.hazards: list[Hazard] = []

    def count(self) -> TableCensus:
        """Run the queries; hazards are collected on the way."""
        (rows,) = self.connection.execute(f"SELECT count(*) FROM {self.name}").fetchone()
        census = TableCensus(rows, {})
        if rows:
            self._settle_plain_columns(census)
        rest = [column for column in self.table.columns if column.name not in census.columns]
        for start in range(0, len(rest), _COLUMNS_PER_QUERY):
            self._count_columns(rest[start : start + _COLUMNS_PER_QUERY], census)
        census.columns = {c.name: census.columns[c.name] for c in self.table.columns}
        self._judge_nulls(census)
        self._read_text(census)
        return census

    def _settle_plain_columns(self, census: TableCensus) -> None:
        """Settle columns without NULLs that hold nothing but what they were declared for.

        That is nearly all of them nearly always, and one question for many columns costs a third of
        asking about each. Where the answer is no, the columns are asked one by one afterwards.
        """
        groups: dict[Kind, list[Column]] = {}
        for column in self.table.columns:
            kind = declared_kind(column.declared)
            if kind == Kind.INTEGER and column.name == self.table.rowid_alias:
                kind = Kind.BIGINT
            if kind in _PLAIN_CLASSES:
                groups.setdefault(kind, []).append(column)
        questions, parts = [], []
        for kind, members in groups.items():
            for start in range(0, len(members), _COLUMNS_PER_FUNCTION):
                part = members[start : start + _COLUMNS_PER_FUNCTION]
                names = [quote_name(column.name) for column in part]
                storage = _PLAIN_CLASSES[kind]
                questions.append(
                    f"sum({' AND '.join(f'typeof({name}) = {storage!r}' for name in names)})"
                )
                if kind == Kind.INTEGER:
                    # With several arguments min and max compare the columns of one row.
                    low, high = (f"{which}({', '.join(names)})" for which in ("min", "max"))
                    questions += [f"min({low})", f"max({high})"] if len(names) > 1 else [low, high]
                parts.append((kind, part))
        if not questions:
            return
        answers = iter(
            self.connection.execute(f"SELECT {', '.join(questions)} FROM {self.name}").fetchone()
        )
        for kind, part in parts:
            settled = next(answers) == census.rows
            if kind == Kind.INTEGER:
                low, high = next(answers), next(answers)
                settled = settled and INT4_MIN <= low <= high <= INT4_MAX
            if settled:
                for column in part:
                    self._record(column, kind, census, census.rows)

    def _count_columns(self, columns: Sequence[Column], census: TableCensus) -> None:
        wanted: list[str] = []
        readers: list[Callable[[Iterator[Any]], None]] = []
        for column in columns:
            parts, reader = self._questions(column, census)
            wanted += parts
            readers.append(reader)
        answers = iter(
            self.connection.execute(f"SELECT {', '.join(wanted)} FROM {self.name}").fetchone()
        )
        for reader in readers:
            reader(answers)

    def _questions(
        self, column: Column, census: TableCensus
    ) -> tuple[list[str], Callable[[Iterator[Any]], None]]:
        """Return what to ask about a column, and what to do with the answers."""
        name = quote_name(column.name)
        kind = declared_kind(column.declared)

        if kind is None:

            def by_contents(answers: Iterator[Any]) -> None:
                filled = next(answers)
                counts = {storage: next(answers) or 0 for storage in _CLASSES}
                self._judge_contents(column, census, filled, counts)

            return [
                f"count({name})",
                *(f"sum(typeof({name}) = '{storage}')" for storage in _CLASSES),
            ], by_contents

        fits = fill_condition(FITS[kind], column, name)
        parts = [f"count({name})", f"sum({name} IS NOT NULL AND NOT {fits})"]
        if kind == Kind.INTEGER:
            parts += [f"min({name})", f"max({name})"]

        def by_kind(answers: Iterator[Any]) -> None:
            filled, unfit = next(answers), next(answers) or 0
            chosen = kind
            if kind == Kind.INTEGER:
                low, high = next(answers), next(answers)
                beyond = any(
                    isinstance(value, int) and not INT4_MIN <= value <= INT4_MAX
                    for value in (low, high)
                )
                if beyond or column.name == self.table.rowid_alias:
                    chosen = Kind.BIGINT
            if unfit:
                self._explain(column, kind, fits)
            # Values that do not fit have no shape, and are refused anyway.
            self._record(column, chosen, census, filled, shapes=not unfit)

        return parts, by_kind

    def _judge_contents(
        self, column: Column, census: TableCensus, filled: int, counts: dict[str, int]
    ) -> None:
        classes = {storage for storage, count in counts.items() if count}
        kind = kind_of_contents(classes)
        if kind is None:
            name = quote_name(column.name)
            parts = ", ".join(f"{count} {storage}" for storage, count in counts.items() if count)
            self._hazard(
                "mixed-types",
                column.name,
                filled,
                f"{name} IS NOT NULL",
                f"the column has no telling type and holds {parts}; declare a type and convert",
            )
            kind = Kind.TEXT
        elif kind == Kind.DOUBLE:
            name = quote_name(column.name)
            fits = fill_condition(FITS[kind], column, name)
            self._explain(column, kind, fits)
        self._record(column, kind, census, filled)

    def _default_needs_bigint(self, column: Column) -> bool:
        """Tell whether a column's default does not fit 32 bits, now or in some years."""
        if column.default is None:
            return False
        if _MOMENTS_AND_CHANCE.search(column.default):
            return True
        try:
            (value,) = self.connection.execute(f"SELECT {column.default}").fetchone()
            return not INT4_MIN <= int(value) <= INT4_MAX
        except (apsw.Error, TypeError, ValueError, OverflowError):
            return False

    def _record(
        self,
        column: Column,
        kind: Kind,
        census: TableCensus,
        filled: int,
        *,
        shapes: bool = True,
    ) -> None:
        if kind == Kind.INTEGER and self._default_needs_bigint(column):
            kind = Kind.BIGINT
        pg_type = str(kind)
        digits = precision_and_scale(column.declared)
        if kind == Kind.NUMERIC and digits is not None:
            pg_type = f"numeric({digits[0]},{digits[1]})"
        entry = ColumnCensus(kind=kind, pg_type=pg_type, nulls=census.rows - filled)
        if filled and shapes:
            self.record_shapes(column, entry)
        census.columns[column.name] = entry

    def record_shapes(self, column: Column, entry: ColumnCensus) -> None:
        """Note how the values are written, so that ``reverse`` can write them so again."""
        name = quote_name(column.name)
        shape = shape_expression(entry.kind, name)
        if shape is None:
            return
        usual: dict[bool, str] = {}
        unusual: dict[str, int] = {}
        for written, count in self.connection.execute(
            f"SELECT {shape}, count(*) FROM {self.name} "
            f"WHERE {name} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
        ):
            entry.shapes[written] = count
            if usual.setdefault(_class_of(entry.kind, written), written) != written:
                unusual[written] = count
        if not unusual:
            return
        key = self.table.primary_key.columns if self.table.primary_key else ()
        if len(key) != 1 or sum(unusual.values()) > MAX_EXCEPTIONS:
            entry.forgotten = sum(unusual.values())
            return
        for written, row in self.connection.execute(
            f"SELECT {shape}, {quote_name(key[0])} FROM {self.name} "
            f"WHERE {name} IS NOT NULL ORDER BY 2"
        ):
            if written not in unusual:
                continue
            if isinstance(row, (int, str)):
                entry.exceptions.setdefault(written, []).append(row)
            else:  # JSON has no such key
                entry.forgotten += 1

    def _explain(self, column: Column, kind: Kind, fits: str) -> None:
        """Name the values that do not fit."""
        name = quote_name(column.name)
        rules = HAZARDS[kind]
        cases = " ".join(
            f"WHEN {fill_condition(rule.condition, column, name)} THEN {number}"
            for number, rule in enumerate(rules)
        )
        code = f"CASE {cases} END"
        unfit = f"{name} IS NOT NULL AND NOT {fits}"
        for number, count in self.connection.execute(
            f"SELECT {code}, count(*) FROM {self.name} WHERE {unfit} GROUP BY 1 ORDER BY 1"
        ).fetchall():
            rule = rules[number]
            condition = f"{unfit} AND {code} = {number}"
            self._hazard(rule.code, column.name, count, condition, rule.remedy)

    def _hazard(self, code: str, column: str, count: int, condition: str, remedy: str) -> None:
        # substr: a value may be megabytes long, and quote() of a blob twice that.
        name = quote_name(column)
        short = (
            f"substr(quote(CASE WHEN typeof({name}) IN ('text', 'blob') "
            f"THEN substr({name}, 1, 60) ELSE {name} END), 1, 80)"
        )
        rows = readable_rows(
            self.connection,
            [row_expression(self.table), short],
            f"FROM {self.name} WHERE {condition} LIMIT {SAMPLES}",
        )
        samples = tuple(Sample(row, value) for row, value in rows)
        self.hazards.append(Hazard(code, self.table.name, column, count, samples, remedy))

    def _judge_nulls(self, census: TableCensus) -> None:
        key = self.table.primary_key.columns if self.table.primary_key else ()
        for column in self.table.columns:
            entry = census.columns[column.name]
            if not entry.nulls or column.name == self.table.rowid_alias:
                continue
            if column.name in key:
                code, remedy = "null-in-primary-key", "fill them in, or delete these rows"
            elif column.not_null:
                code, remedy = "null-in-not-null", "fill them in, or drop the NOT NULL"
            else:
                continue
            condition = f"{quote_name(column.name)} IS NULL"
            self._hazard(code, column.name, entry.nulls, condition, remedy)

    def _read_text(self, census: TableCensus) -> None:
        """Read all text once: not all of it is what PostgreSQL calls text."""
        names = [name for name, entry in census.columns.items() if entry.kind == Kind.TEXT]
        if not names or not census.rows:
            return
        joined = [
            f"concat({', '.join(map(quote_name, names[start : start + _COLUMNS_PER_FUNCTION]))})"
            for start in range(0, len(names), _COLUMNS_PER_FUNCTION)
        ]
        cursor = self.connection.execute(f"SELECT {', '.join(joined)} FROM {self.name}")
        try:
            while rows := list(islice(cursor, 1000)):
                if any("\0" in text for text in map("".join, rows)):
                    break
            else:
                return
        except UnicodeDecodeError:
            pass
        self._find_bad_text(names)

    def _find_bad_text(self, names: Sequence[str]) -> None:
        """Find which values are no text for PostgreSQL."""
        encoding = codec(self.connection)
        for name in names:
            found: dict[str, list[Sample]] = {}
            counts: dict[str, int] = {}
            for row, value in self.connection.execute(
                f"SELECT CAST({row_expression(self.table)} AS BLOB), "
                f"CAST({quote_name(name)} AS BLOB) FROM {self.name} "
                f"WHERE typeof({quote_name(name)}) = 'text'"
            ):
                try:
                    if "\0" not in value.decode(encoding):
                        continue
                    code = "nul-in-text"
                except UnicodeDecodeError:
                    code = "invalid-utf-8"
                counts[code] = counts.get(code, 0) + 1
                samples = found.setdefault(code, [])
                if len(samples) < SAMPLES:
                    samples.append(Sample(row.decode(encoding, "replace"), f"{value[:60]!r}"))
            for code, samples in found.items():
                self.hazards.append(
                    Hazard(
                        code,
                        self.table.name,
                        name,
                        counts[code],
                        tuple(samples),
                        "PostgreSQL's text holds neither; correct these values in SQLite, or "
                        "declare the column BLOB",
                    )
                )


def _count_broken_checks(connection: apsw.Connection, table: Table) -> dict[int, int]:
    """Count the rows that break a CHECK: SQLite can be told to let them in.

    Left out are those that only the application can judge, or that speak of other names than the
    rules have given.
    """
    if not table.checks:
        return {}
    broken = [f"sum(NOT ({check.expression}))" for check in table.checks]

    def ask(wanted: Sequence[str]) -> tuple[Any, ...]:
        query = f"SELECT {', '.join(wanted)} FROM {quote_name(table.name)}"
        return connection.execute(query).fetchone()

    try:
        counts = list(ask(broken))  # nearly always: the table is read once
    except apsw.SQLError:
        counts = []
        for wanted in broken:
            try:
                counts += ask([wanted])
            except apsw.SQLError:
                counts.append(None)
    return {number: count for number, count in enumerate(counts) if count}


def _find_orphans(connection: apsw.Connection, schema: Schema, table: Table) -> list[Hazard]:
    """Find rows whose foreign key points nowhere (foreign_keys is off in most programs).

    Not by PRAGMA foreign_key_check, which would pass by the views that rules put before tables.
    """
    hazards = []
    for key in table.foreign_keys:
        parent, names = schema.table(key.parent), schema.referenced(key)
        if parent is None or not names:
            continue  # SQLite cannot enforce it either; ferry.ddl names it as not carried
        columns = [table.column(name).name for name in key.columns]
        filled = " AND ".join(f"c.{quote_name(name)} IS NOT NULL" for name in columns)
        same = " AND ".join(
            f"p.{quote_name(there)} = c.{quote_name(here)}"
            for here, there in zip(columns, names, strict=True)
        )
        place = (
            f"{quote_name(table.name)} AS c WHERE {filled} AND NOT EXISTS "
            f"(SELECT 1 FROM {quote_name(parent.name)} AS p WHERE {same})"
        )
        (count,) = connection.execute(f"SELECT count(*) FROM {place}").fetchone()
        if not count:
            continue
        shown = " || ', ' || ".join(f"quote({quote_name(name)})" for name in columns)
        rows = readable_rows(
            connection, [row_expression(table), shown], f"FROM {place} LIMIT {SAMPLES}"
        )
        samples = tuple(Sample(row, value) for row, value in rows)
        hazards.append(
            Hazard(
                "orphan",
                table.name,
                ", ".join(columns),
                count,
                samples,
                f"{parent.name} has no such row: delete these rows, set the column to NULL, or add "
                "the missing parents",
            )
        )
    return hazards


def _share_key_types(schema: Schema, census: Census) -> None:
    """Give a foreign key's column the type of the identity that it points to.

    Values of both are drawn from one range: an ``integer`` beside a ``bigint`` identity would be
    the first to overflow.
    """
    changed = True
    while changed:
        changed = False
        for table in schema.tables:
            for key in table.foreign_keys:
                parent = schema.table(key.parent)
                if parent is None:
                    continue
                for child, name in zip(key.columns, schema.referenced(key), strict=False):
                    entry = census.tables[table.name].columns[table.column(child).name]
                    target = census.tables[parent.name].columns[name]
                    if (entry.kind, target.kind) == (Kind.INTEGER, Kind.BIGINT):
                        entry.kind, entry.pg_type, changed = Kind.BIGINT, str(Kind.BIGINT), True


def note_shapes(
    connection: apsw.Connection, table: Table, kinds: dict[str, Kind]
) -> dict[str, ColumnCensus]:
    """Look only at how values are written, in columns whose kinds are known."""
    counter = _TableCounter(connection, table)
    entries = {}
    for column in table.columns:
        if column.name in kinds:
            entry = ColumnCensus(kinds[column.name], str(kinds[column.name]))
            counter.record_shapes(column, entry)
            entries[column.name] = entry
    return entries


def take_census(
    connection: apsw.Connection,
    schema: Schema,
    *,
    orphans: bool = True,
    checks: bool = True,
) -> Census:
    """Read every table once and judge it.

    Judged as well: ``orphans``, rows whose parent is missing, and rows that break ``checks``.
    """
    connection.create_scalar_function("ferry_fits", ferry_fits, 3, deterministic=True)
    census = Census()
    for table in schema.tables:
        counter = _TableCounter(connection, table)
        census.tables[table.name] = counter.count()
        census.hazards += counter.hazards
        if checks:
            census.tables[table.name].broken_checks = _count_broken_checks(connection, table)
        if table.foreign_keys and orphans:
            census.hazards += _find_orphans(connection, schema, table)
    _share_key_types(schema, census)
    return census
