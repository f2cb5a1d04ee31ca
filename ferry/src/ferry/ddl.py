"""From SQLite's schema to PostgreSQL's: what is created, in which order, and what cannot be.

Tables first, empty and without constraints; then the rows; then keys, indexes, foreign keys. Each
step after the tables is either compulsory (the copy fails with it) or optional (an expression that
PostgreSQL does not accept is named as not carried).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

from ferry.defaults import computed_default, constant, quote_text
from ferry.errors import RefusedError
from ferry.expressions import Meanings, UntranslatableError
from ferry.names import MAX_NAME
from ferry.schema import (
    FOLDING,
    ICU,
    Column,
    ForeignKey,
    Index,
    Key,
    NotCarried,
    Program,
    Schema,
    Table,
    quote_name,
)
from ferry.types import Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import psycopg

    from ferry.census import Census, TableCensus

MAX_COLUMNS = 1600
COMMENT = "Moved from SQLite by ferry; what `ferry reverse` needs: "


@dataclass(frozen=True)
class Step:
    """One statement after the load, and what it carries."""

    sql: str
    what: str
    name: str
    origin: str = ""  # SQLite's text, for the report
    optional: bool = False
    otherwise: tuple[str, ...] = ()  # statements that will do as well, if this one fails
    strict: bool = False  # optional, but not where the contents break it


@dataclass
class Plan:
    """Everything that is to be run in PostgreSQL."""

    tables: dict[str, str] = field(default_factory=dict)  # name -> CREATE TABLE
    # Generated columns that were translated, by table, and SQLite's expressions of them.
    computed: dict[str, dict[str, str]] = field(default_factory=dict)
    # Each table's columns: name, definition, and the definition if it is not generated.
    columns: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    collations: list[str] = field(default_factory=list)  # statements, before the tables
    not_carried: list[NotCarried] = field(default_factory=list)

    def create(self, table: str, computed: Collection[str]) -> str:
        """Return a table's CREATE TABLE in which only the columns ``computed`` are generated."""
        head = self.tables[table].partition("\n")[0]
        lines = (full if name in computed else plain for name, full, plain in self.columns[table])
        return head + "\n" + ",\n".join(f"    {line}" for line in lines) + "\n)"

    def statements(self) -> list[str]:
        """Return all statements in order, for a person to read."""
        return [*self.collations, *self.tables.values(), *(step.sql for step in self.steps)]


def translate(
    text: str,
    table: Table,
    census: TableCensus,
    *,
    exact: bool = True,
    json: bool = False,
    computed: bool = False,
) -> str:
    """Translate an SQL expression over a table's columns; raises UntranslatableError.

    ``exact`` and ``json`` are those of :class:`Meanings`; with ``computed`` a generated column is
    replaced by what it is computed from.
    """
    columns = {column.original.lower(): column.name for column in table.columns}
    collations = {column.name: column.collation for column in table.columns}
    meanings = Meanings(
        lambda name: census.columns[name].kind if name in census.columns else None,
        lambda name: collations.get(name, "BINARY"),
        exact=exact,
        json=json,
    )
    formulas = {c.original.lower(): c.generated for c in table.columns if c.generated is not None}

    def names(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Column):
            known = columns.get(node.name.lower())
            if known is None and node.this.quoted:
                # SQLite takes "text" in double quotes for a string where no column has that name.
                return exp.Literal.string(node.name)
            if known is None:
                raise UntranslatableError(f"unknown column {node.name}")
            return exp.column(known, quoted=True)
        return node

    def formulas_in_full(node: exp.Expression) -> exp.Expression:
        """PostgreSQL computes no column from another one that is computed."""
        if isinstance(node, exp.Column) and node.name.lower() in formulas:
            inner = sqlglot.parse_one(formulas[node.name.lower()], read="sqlite")
            return exp.Paren(this=inner.transform(formulas_in_full))
        return node

    try:
        tree = sqlglot.parse_one(text, read="sqlite")
        if computed:
            tree = tree.transform(formulas_in_full)
        tree = meanings.apply(tree.transform(names))
        return tree.sql(dialect="postgres", unsupported_level=ErrorLevel.RAISE)
    except SqlglotError as error:
        raise UntranslatableError(str(error).splitlines()[0]) from error


def translate_default(
    default: str, kind: Kind, table: Table, census: TableCensus, zone: str = ""
) -> str | None:
    """Translate a column's DEFAULT, keeping its meaning; None for DEFAULT NULL.

    Raises UntranslatableError.
    """
    try:
        tree = sqlglot.parse_one(default, read="sqlite").unnest()
    except SqlglotError as error:
        raise UntranslatableError(str(error).splitlines()[0]) from error
    if isinstance(tree, exp.Null):
        return None
    negative = isinstance(tree, exp.Neg)
    literal = tree.this if negative else tree
    if isinstance(literal, exp.Column) and not literal.table:
        if literal.name.lower() in ("true", "false") and not literal.this.quoted:
            literal = exp.Boolean(this=literal.name.lower() == "true")
        else:  # a word, or a text in double quotes: SQLite takes both for a string
            literal = exp.Literal.string(literal.name)
    if isinstance(literal, exp.HexString):
        digits = f"{int(literal.this):x}" if str(literal.this).isdigit() else str(literal.this)
        match = re.fullmatch(r"\s*[xX]'([0-9a-fA-F]*)'\s*", default)
        if kind == Kind.BYTEA and match:
            return f"'\\x{match[1]}'::bytea"
        raise UntranslatableError(f"the blob {digits} as default of a column of type {kind}")
    if isinstance(literal, exp.Boolean):
        literal = exp.Literal.number(int(literal.this))
    if isinstance(literal, exp.Literal):
        text = ("-" if negative else "") + literal.this
        return constant(text, kind, is_string=literal.is_string)
    try:
        return computed_default(default, kind, zone)
    except UntranslatableError:
        if kind in (Kind.TIMESTAMP, Kind.DATE, Kind.TIME) or tree.find(exp.Anonymous):
            raise
        return f"({translate(default, table, census)})"


class _Planner:
    def __init__(self, schema: Schema, census: Census, namespace: str) -> None:
        self.schema = schema
        self.census = census
        self.namespace = namespace
        self.plan = Plan(not_carried=list(schema.not_carried))
        # What is called by its own name; PostgreSQL's own choices have to keep clear of it.
        self.named = {table.name for table in schema.tables}
        self.named |= {index.name for table in schema.tables for index in table.indexes}
        self.named |= {program.name for program in schema.programs if program.kind == "view"}

    def run(self) -> Plan:
        for table in self.schema.tables:
            for column in table.columns:
                self._name_collation(table, column)
        for table in self.schema.tables:
            self.plan.tables[table.name] = self._create_table(table)
        for table in self.schema.tables:
            self._add_keys(table)
        for table in self.schema.tables:
            self._add_checks(table)
        for table in self.schema.tables:
            self._add_foreign_keys(table)
        for program in self.schema.programs:
            if program.kind == "view":
                self._add_view(program)
        return self.plan

    def _name_collation(self, table: Table, column: Column) -> None:
        if column.collation == "BINARY":
            return
        reason = f"comparisons in PostgreSQL do not follow {column.collation}"
        if column.collation.startswith(ICU):
            return
        if column.collation in FOLDING:
            reason = f"it stays unique where it was, but {reason}"
        else:
            reason = (
                f"{reason}, which only the application knows; where it was unique, plain text is"
            )
        place = f"{table.name}.{column.name}"
        self._lost("collation", place, reason, f"COLLATE {column.collation}")

    def _icu(self, collation: str) -> str:
        """Return the name of a collation of ICU's, which is created when it is first asked for."""
        locale = collation[len(ICU) :]
        name = self._qualified(f"ferry {locale}")
        statement = (
            f"CREATE COLLATION {name} (provider = icu, locale = {quote_text(locale)}, "
            "deterministic = false)"
        )
        if statement not in self.plan.collations:
            self.plan.collations.append(statement)
        return name

    def _qualified(self, table: str) -> str:
        return f"{quote_name(self.namespace)}.{quote_name(table)}"

    def _free(self, name: str) -> str:
        """Return a name that is free, like this one; it is taken then."""
        number = 1
        while (free := f"{name[: MAX_NAME - 4]}{number}") in self.named:
            number += 1
        self.named.add(free)
        return free

    def _constraint(self, name: str) -> str:
        """Name a constraint where PostgreSQL would choose the name of a view that comes later."""
        return f"CONSTRAINT {quote_name(self._free(name))} " if name in self.named else ""

    def _lost(self, what: str, name: str, reason: str, origin: str) -> None:
        self.plan.not_carried.append(NotCarried(what, name, reason, origin))

    def _create_table(self, table: Table) -> str:
        census = self.census.tables[table.name]
        lines = []
        for column in table.columns:
            entry = census.columns[column.name]
            generated = None
            place = f"{table.name}.{column.name}"
            parts = [quote_name(column.name), entry.pg_type]
            if entry.kind == Kind.TEXT and column.collation.startswith(ICU):
                parts.append(f"COLLATE {self._icu(column.collation)}")
            if column.name == table.rowid_alias:
                parts.append("GENERATED BY DEFAULT AS IDENTITY")
                sequence = f"{table.name}_{column.name}_seq"
                if sequence in self.named:  # PostgreSQL sees only what is there already
                    parts.append(f"(SEQUENCE NAME {self._qualified(self._free(sequence))})")
            elif column.generated is not None:
                try:
                    expression = translate(
                        column.generated, table, census, json=True, computed=True
                    )
                    if "#>>" in expression and entry.kind != Kind.TEXT:
                        expression = f"CAST({expression} AS {entry.pg_type})"
                    generated = f"GENERATED ALWAYS AS ({expression}) STORED"
                    parts.append(generated)
                except UntranslatableError as error:
                    self._lost(
                        "generated column",
                        place,
                        f"it arrives with its values, but no longer computes them: {error}",
                        column.generated,
                    )
            elif column.default is not None:
                try:
                    default = translate_default(
                        column.default, entry.kind, table, census, self.schema.zone
                    )
                except UntranslatableError as error:
                    self._lost("default", place, str(error), column.default)
                else:
                    if default is not None and default.startswith("("):
                        self._default_later(table, column, default)
                    elif default is not None:
                        parts.append(f"DEFAULT {default}")
            if column.not_null:
                parts.append("NOT NULL")
            plain = " ".join(part for part in parts if part != generated)
            lines.append((column.name, " ".join(parts), plain))
            if generated is not None:
                self.plan.computed.setdefault(table.name, {})[column.name] = column.generated or ""
        self.plan.columns[table.name] = lines
        self.plan.tables[table.name] = f"CREATE TABLE {self._qualified(table.name)} (\n)"
        return self.plan.create(table.name, [column.name for column in table.columns])

    def _default_later(self, table: Table, column: Column, default: str) -> None:
        """Set a computed default in a step of its own: PostgreSQL may not accept it."""
        self.plan.steps.append(
            Step(
                f"ALTER TABLE {self._qualified(table.name)} "
                f"ALTER COLUMN {quote_name(column.name)} SET DEFAULT {default}",
                "default",
                f"{table.name}.{column.name}",
                column.default or "",
                optional=True,
            )
        )

    def _add_keys(self, table: Table) -> None:
        # Named indexes first: PostgreSQL chooses the constraints' names around them.
        for index in table.indexes:
            self._add_index(table, index)
        if table.primary_key is not None:
            columns = ", ".join(map(quote_name, table.primary_key.columns))
            self.plan.steps.append(
                Step(
                    f"ALTER TABLE {self._qualified(table.name)} ADD "
                    f"{self._constraint(f'{table.name}_pkey')}PRIMARY KEY ({columns})",
                    "primary key",
                    table.name,
                )
            )
            if {*FOLDING} & {*table.primary_key.collations}:
                self._add_unique(table, table.primary_key)
        for key in table.uniques:
            self._add_unique(table, key)

    def _add_unique(self, table: Table, key: Key) -> None:
        name = f"{table.name} ({', '.join(key.columns)})"
        if {*FOLDING} & {*key.collations}:
            parts = ", ".join(
                self._collated(quote_name(column), collation)
                for column, collation in zip(key.columns, key.collations, strict=True)
            )
            sql = f"CREATE UNIQUE INDEX ON {self._qualified(table.name)} ({parts})"
        else:
            columns = ", ".join(map(quote_name, key.columns))
            own = self._constraint("_".join((table.name, *key.columns, "key")))
            sql = f"ALTER TABLE {self._qualified(table.name)} ADD {own}UNIQUE ({columns})"
        self.plan.steps.append(Step(sql, "unique constraint", name))

    @staticmethod
    def _collated(expression: str, collation: str) -> str:
        """Apply SQLite's collation: lower() under "C" folds ASCII letters, as NOCASE does."""
        if collation == "RTRIM":
            return f"rtrim({expression}, ' ')"
        return f'lower({expression} COLLATE "C")' if collation == "NOCASE" else expression

    def _add_index(self, table: Table, index: Index) -> None:
        census = self.census.tables[table.name]
        try:
            parts = []
            for part in index.parts:
                own = "BINARY" if part.column is None else table.column(part.column).collation
                icu = part.collation.startswith(ICU)
                if part.collation not in ("BINARY", *FOLDING) and not icu:
                    self._lost(
                        "collation of an index",
                        index.name,
                        f"only the application knows {part.collation}: the index is "
                        + ("unique and " if index.unique else "")
                        + "ordered by plain text",
                        index.ddl,
                    )
                if part.column is not None:
                    expression = quote_name(part.column)
                elif part.expression is not None:
                    # Only uniqueness depends on how letters are folded; other indexes should fit
                    # the lower() that a program writes.
                    translated = translate(
                        part.expression, table, census, exact=index.unique, json=True
                    )
                    expression = f"({translated})"
                else:
                    raise UntranslatableError("an index over what does not arrive")
                if icu and own != part.collation:
                    expression += f" COLLATE {self._icu(part.collation)}"
                descending = " DESC" if part.descending else ""
                parts.append(self._collated(expression, part.collation) + descending)
            where = ""
            if index.where:
                where = f" WHERE {translate(index.where, table, census, exact=index.unique)}"
        except UntranslatableError as error:
            self._lost("index", index.name, str(error), index.ddl)
            return
        unique = "UNIQUE " if index.unique else ""
        self.plan.steps.append(
            Step(
                f"CREATE {unique}INDEX {quote_name(index.name)} ON "
                f"{self._qualified(table.name)} ({', '.join(parts)}){where}",
                "index",
                index.name,
                index.ddl,
                # Uniqueness of plain columns cannot fail for reasons of language.
                optional=bool(index.where) or any(part.column is None for part in index.parts),
                otherwise=self._by_hash(table, index),
                strict=all(part.column is not None for part in index.parts),
            )
        )

    def _by_hash(self, table: Table, index: Index) -> tuple[str, ...]:
        """Return an index that takes values of any length, if this one only helps to find rows."""
        if index.unique or index.where or len(index.parts) > 1 or index.parts[0].column is None:
            return ()
        column = quote_name(index.parts[0].column)
        place = self._qualified(table.name)
        return (f"CREATE INDEX {quote_name(index.name)} ON {place} USING hash ({column})",)

    def _add_checks(self, table: Table) -> None:
        taken = {f"{table.name}_pkey"}
        broken = self.census.tables[table.name].broken_checks
        for number, check in enumerate(table.checks):
            try:
                expression = translate(check.expression, table, self.census.tables[table.name])
            except UntranslatableError as error:
                self._lost("check", table.name, str(error), f"CHECK ({check.expression})")
                continue
            name = f"CONSTRAINT {quote_name(check.name)} " if check.name else ""
            if check.name and len(check.name.encode()) > MAX_NAME:
                name = ""
                self._lost(
                    "name of a check",
                    f"{table.name}.{check.name}",
                    f"longer than {MAX_NAME} bytes; the check itself is carried",
                    f"CONSTRAINT {quote_name(check.name)}",
                )
            if check.name and check.name in taken:
                name = ""
                self._lost(
                    "name of a check",
                    f"{table.name}.{check.name}",
                    "another constraint of the table has it; the check itself is carried",
                    f"CONSTRAINT {quote_name(check.name)}",
                )
            taken.add(check.name or "")
            adding, later = f"ALTER TABLE {self._qualified(table.name)} ADD ", ""
            if number in broken:
                later = " NOT VALID"
                self._lost(
                    "check of rows that are there",
                    table.name,
                    f"{broken[number]} rows break it in SQLite as well: it holds for what is "
                    "written from now on",
                    f"CHECK ({check.expression})",
                )
            self.plan.steps.append(
                Step(
                    f"{adding}{name}CHECK ({expression}){later}",
                    "check",
                    table.name,
                    f"CHECK ({check.expression})",
                    optional=True,
                    # An index may have the name: PostgreSQL chooses another one then.
                    otherwise=(f"{adding}CHECK ({expression}){later}",) if name else (),
                )
            )

    def _add_view(self, program: Program) -> None:
        names = _ViewNames(self.schema, self.census)
        try:
            sql = translate_view(program, names, self.namespace)
        except UntranslatableError as error:
            self._lost("view", program.name, str(error), program.sql)
            return
        self.plan.steps.append(Step(sql, "view", program.name, program.sql, optional=True))

    def _types_apart(
        self, table: Table, key: ForeignKey, parent: Table, names: Sequence[str]
    ) -> str:
        """Say which types of a foreign key PostgreSQL does not compare; empty if it does."""
        for child, name in zip(key.columns, names, strict=True):
            column = table.column(child).name
            here = self.census.tables[table.name].columns[column]
            there = self.census.tables[parent.name].columns[name]
            order = [_WIDTHS.get(entry.kind) for entry in (here, there)]
            if here.kind != there.kind and (None in order or order[0] > order[1]):
                return (
                    f"{table.name}.{column} is {here.pg_type} and {parent.name}.{name} "
                    f"{there.pg_type}, which PostgreSQL does not compare"
                )
        return ""

    def _add_foreign_keys(self, table: Table) -> None:
        for key in table.foreign_keys:
            origin = f"FOREIGN KEY ({', '.join(key.columns)}) REFERENCES {key.parent}"
            parent = self.schema.table(key.parent)
            if parent is None:
                self._lost("foreign key", table.name, f"no table {key.parent}", origin)
                continue
            names = self.schema.referenced(key)
            if not names:
                self._lost("foreign key", table.name, _why_no_key(parent, key), origin)
                continue
            apart = self._types_apart(table, key, parent, names)
            if apart:
                self._lost("foreign key", table.name, apart, origin)
                continue
            columns = ", ".join(quote_name(table.column(name).name) for name in key.columns)
            references = ", ".join(map(quote_name, names))
            deferrable = ""
            if key.deferrable:
                deferrable = " DEFERRABLE" + (
                    " INITIALLY DEFERRED" if key.initially_deferred else ""
                )
            self.plan.steps.append(
                Step(
                    f"ALTER TABLE {self._qualified(table.name)} ADD FOREIGN KEY ({columns}) "
                    f"REFERENCES {self._qualified(parent.name)} ({references}) "
                    f"ON UPDATE {key.on_update} ON DELETE {key.on_delete}{deferrable}",
                    "foreign key",
                    table.name,
                    origin,
                    optional=True,
                )
            )


# Numbers of one kind may point to numbers of another, if all of their values fit.
_WIDTHS = {Kind.INTEGER: 0, Kind.BIGINT: 0, Kind.NUMERIC: 1, Kind.DOUBLE: 2}


def _why_no_key(parent: Table, key: ForeignKey) -> str:
    """Say why a foreign key has nothing in the parent to point to."""
    wanted = {name.lower() for name in key.references}
    for own in (parent.primary_key, *parent.uniques):
        if own is None or (wanted and wanted != {name.lower() for name in own.columns}):
            continue
        other = sorted({*own.collations} - {"BINARY"})
        if other:
            return (
                f"{parent.name} ({', '.join(own.columns)}) is unique as {', '.join(other)} says, "
                "and PostgreSQL's foreign keys compare plain text"
            )
    return f"{key.parent} has no such unique key, so SQLite cannot enforce it either"


def own_collation(column: Column) -> str:
    """Return the collation that PostgreSQL's column lacks; BINARY where it has SQLite's meaning."""
    return "BINARY" if column.collation.startswith(ICU) else column.collation


class _ViewNames:
    """How tables, views and columns are spelled in PostgreSQL, and what the columns are."""

    def __init__(self, schema: Schema, census: Census) -> None:
        self.relations: dict[str, str] = {}
        self.columns: dict[str, set[str]] = {}  # may be called otherwise in one table only
        self.columns_of: dict[str, dict[str, str]] = {}  # by the table's name in SQLite
        self._kinds: dict[str, set[Kind]] = {}
        # Tables (and views with all of their columns) that have a column with its own collation.
        self.folded_stars = {
            table.name.lower()
            for table in schema.tables
            if any(own_collation(column) != "BINARY" for column in table.columns)
        }
        self._collations: dict[str, str] = {}
        for table in schema.tables:
            self.relations[table.original.lower()] = table.name
            columns = self.columns_of.setdefault(table.original.lower(), {})
            for column in table.columns:
                columns[column.original.lower()] = column.name
                self.columns.setdefault(column.original.lower(), set()).add(column.name)
                entry = census.tables[table.name].columns[column.name]
                self._kinds.setdefault(column.name.lower(), set()).add(entry.kind)
                if column.collation != "BINARY":
                    self._collations[column.name.lower()] = column.collation
        for program in schema.programs:
            self.relations[program.original.lower()] = program.name

    def kind_of(self, name: str) -> Kind | None:
        """Return a column's kind, None where tables differ or a view has made the column."""
        kinds = self._kinds.get(name.lower(), set())
        return next(iter(kinds)) if len(kinds) == 1 else None

    def collation_of(self, name: str) -> str:
        """Return the collation of a column of this name, in any table, that is not BINARY."""
        return self._collations.get(name.lower(), "BINARY")

    def learn(self, query: exp.Expression, program: Program, columns: Sequence[str]) -> None:
        """Note which columns of a view have a collation: by their names, whatever they are now."""
        for number, item in enumerate(query.named_selects):
            behind = query.selects[number].unalias() if number < len(query.selects) else None
            name = columns[number] if number < len(columns) else item
            if isinstance(behind, exp.Column) and self.collation_of(behind.name) != "BINARY":
                self._collations[name.lower()] = self.collation_of(behind.name)
        self.folded_stars |= {program.name.lower()} if self.has_folded_star(query) else set()

    def has_folded_star(self, query: exp.Expression) -> bool:
        """Tell whether a query takes all columns of a table with a collation of its own."""
        tables = {table.name.lower() for table in query.find_all(exp.Table)}
        stars = [
            star for star in query.find_all(exp.Star) if not isinstance(star.parent, exp.Count)
        ]
        return bool(stars) and bool(tables & self.folded_stars)

    def of_column(self, name: str, tables: Collection[str]) -> str | None:
        """Return a column's name in a query that reads ``tables`` (by their names in SQLite).

        None if no table has it. Raises UntranslatableError if it is renamed in one table only.
        """
        here = [self.columns_of[table] for table in tables if table in self.columns_of]
        found = {columns[name.lower()] for columns in here if name.lower() in columns}
        found = found or self.columns.get(name.lower(), set())
        if len({spelled.lower() for spelled in found}) > 1:
            raise UntranslatableError(f"the column {name} has different new names in its tables")
        return min(found, default=None)


def _use_new_names(query: exp.Expression, names: _ViewNames, namespace: str) -> None:
    """Spell every name of a query as PostgreSQL has it, and quote it."""
    temporary = {found.alias.lower() for found in query.find_all(exp.CTE)}
    tables = {
        node.alias_or_name.lower(): node.name.lower()
        for node in query.find_all(exp.Table)
        if node.name.lower() not in temporary
    }
    # SQLite does not mind how the query's own names are written, PostgreSQL does.
    own: dict[str, str] = {}
    for node in query.find_all(exp.Alias, exp.TableAlias):
        own.setdefault(node.alias_or_name.lower(), node.alias_or_name)
    relations = []
    found = [  # with what stands before it, as it is now
        (node, node.parent.table.lower() if isinstance(node.parent, exp.Column) else "")
        for node in query.find_all(exp.Identifier)
    ]
    for node, qualifier in found:
        parent, key, name = node.parent, node.arg_key, node.name.lower()
        spelled = None
        if isinstance(parent, exp.Table) and key == "this":
            if name not in temporary and name in names.relations:
                relations.append(parent)
                spelled = names.relations[name]
        elif isinstance(parent, exp.Column) and key == "table":
            if tables.get(name) == name:  # not hidden by an alias
                spelled = names.relations.get(name)
        elif qualifier in tables:
            spelled = names.of_column(name, [tables[qualifier]])
        elif not (isinstance(parent, exp.TableAlias) and key == "this"):
            spelled = names.of_column(name, tables.values())
        node.set("this", spelled or own.get(name, node.name))
        node.set("quoted", True)
    for table in relations:
        table.set("db", exp.to_identifier(namespace, quoted=True))


def translate_view(program: Program, names: _ViewNames, namespace: str) -> str:
    """Translate a CREATE VIEW; raises UntranslatableError.

    What cannot be resolved here (an alias in HAVING, for example) PostgreSQL refuses itself.
    """
    try:
        tree = sqlglot.parse_one(program.sql, read="sqlite")
    except SqlglotError as error:
        raise UntranslatableError(str(error).splitlines()[0]) from error
    if not isinstance(tree, exp.Create) or not isinstance(tree.expression, exp.Query):
        raise UntranslatableError("it cannot be read as a query")
    query = tree.expression
    columns, own = "", []
    if isinstance(tree.this, exp.Schema):
        own = [names.of_column(item.name, ()) or item.name for item in tree.this.expressions]
        columns = f" ({', '.join(map(quote_name, own))})"
    _use_new_names(query, names, namespace)

    names.learn(query, program, own)
    compared = (exp.Group, exp.Order, exp.Union, exp.Intersect, exp.Except, exp.Distinct)
    if names.has_folded_star(query) and query.find(*compared):
        raise UntranslatableError("a column among * is compared by its own collation")
    meanings = Meanings(names.kind_of, names.collation_of, aggregates=True)
    query = meanings.apply(query)
    try:
        text = query.sql(dialect="postgres", unsupported_level=ErrorLevel.RAISE)
    except SqlglotError as error:
        raise UntranslatableError(str(error).splitlines()[0]) from error
    place = f"{quote_name(namespace)}.{quote_name(program.name)}"
    return f"CREATE VIEW {place}{columns} AS {text}"


def make_plan(schema: Schema, census: Census, namespace: str) -> Plan:
    """Plan the target; raises RefusedError for tables that are too wide."""
    wide = [table.name for table in schema.tables if len(table.columns) > MAX_COLUMNS]
    if wide:
        raise RefusedError(
            f"PostgreSQL's tables have {MAX_COLUMNS} columns at most: {', '.join(wide)}",
            "divide these tables in SQLite (on a copy of the file)",
        )
    return _Planner(schema, census, namespace).run()


def memories(schema: Schema, census: Census) -> dict[str, dict[str, Any]]:
    """Return what each table's comment has to keep for `reverse`."""
    found: dict[str, dict[str, Any]] = {}
    for number, table in enumerate(schema.tables):
        columns = census.tables[table.name].columns
        found[table.name] = {
            "ddl": [table.ddl, *(index.ddl for index in table.indexes)],
            "shapes": {name: entry.shapes for name, entry in columns.items() if entry.shapes},
            "exceptions": {
                name: entry.exceptions for name, entry in columns.items() if entry.exceptions
            },
            "order": number,
        }
        if table.renamed:
            found[table.name]["renamed"] = table.renamed
        if census.tables[table.name].broken_checks:
            found[table.name]["loose"] = True
    return found


def comment(namespace: str, table: str, memory: dict[str, Any]) -> str:
    """Return the statement that leaves a memory with its table."""
    text = quote_text(COMMENT + json.dumps(memory, ensure_ascii=False))
    return f"COMMENT ON TABLE {quote_name(namespace)}.{quote_name(table)} IS {text}"


def read_memories(target: psycopg.Connection, namespace: str) -> dict[str, dict[str, Any]]:
    """Read back what the tables' comments keep, in the order of the original's tables."""
    rows = target.execute(
        """
        SELECT c.relname, obj_description(c.oid, 'pg_class')
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relkind IN ('r', 'p')
        """,
        (namespace,),
    ).fetchall()
    found = {
        name: json.loads(text[len(COMMENT) :])
        for name, text in rows
        if text is not None and text.startswith(COMMENT)
    }
    return dict(sorted(found.items(), key=lambda item: item[1]["order"]))
