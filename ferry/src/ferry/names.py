"""Names: which of SQLite's PostgreSQL does not take, and what becomes of a renamed thing.

A rename changes the schema as everything after the rules sees it: tables, columns, keys, indexes
and foreign keys bear PostgreSQL's names, and ``original`` the ones in SQLite. Expressions and views
stay as SQLite wrote them; :mod:`ferry.ddl` gives them the new names when it translates them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ferry.census import Hazard, Sample
from ferry.errors import UsageError
from ferry.schema import Column, ForeignKey, Index, Key, Program, Schema, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_NAME = 63  # bytes; PostgreSQL cuts longer names off without an error
SYSTEM_COLUMNS = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")

_KINDS = ("index", "view", "table")
_DIGITS = 8  # of the hash in a proposed name


@dataclass(frozen=True)
class Rename:
    """One ``[[rename]]``: a table, a column of a table, an index or a view, and its new name."""

    number: int
    kind: str  # "table", "column", "index" or "view"
    table: str  # the column's table; "" for all others
    name: str  # in SQLite, in any case
    to: str

    def __str__(self) -> str:
        """Return how the thing is called in messages."""
        return f"{self.kind} {self.table}.{self.name}" if self.table else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class NameHazard(Hazard):
    """A name that PostgreSQL would change or does not allow."""

    kind: str = "table"
    proposal: str = ""


def read_rename(place: str, number: int, entry: dict[str, Any]) -> Rename:
    """Read a ``[[rename]]`` of a rules file; raises UsageError with ``place`` before it."""
    kinds = [kind for kind in _KINDS if kind in entry]
    unknown = sorted(entry.keys() - {*_KINDS, "column", "to"})
    if (
        len(kinds) != 1
        or unknown
        or "to" not in entry
        or ("column" in entry and kinds[0] != "table")
    ):
        raise UsageError(
            f"{place}: {', '.join(unknown) + ' is unknown' if unknown else 'it is incomplete'}",
            "a rename has a table (and a column of it), an index or a view, and `to`",
        )
    kind, table, name = kinds[0], "", entry[kinds[0]]
    if "column" in entry:
        kind, table, name = "column", name, entry["column"]
    rename = Rename(number, kind, table, name, entry["to"])
    problem = _problem(kind, rename.to)
    if problem is not None:
        raise UsageError(f"{place}: the new name {rename.to!r} will not do either: {problem[1]}")
    if rename.to.lower().startswith("sqlite_"):
        raise UsageError(f"{place}: names that begin with sqlite_ are SQLite's own")
    return rename


def renames_of_table(name: str, renamed: dict[str, Any]) -> Iterator[Rename]:
    """Return the renames that a report or a table's comment remembers (``Table.renamed``)."""
    original = renamed["table"]
    if original != name:
        yield Rename(0, "table", "", original, name)
    for column, to in renamed["columns"].items():
        yield Rename(0, "column", original, column, to)


class Renaming:
    """All renames of a run."""

    def __init__(self, renames: Sequence[Rename] = ()) -> None:
        self._renames = renames
        self._names = {
            (rename.kind, rename.table.lower(), rename.name.lower()): rename.to
            for rename in renames
        }

    def table(self, name: str) -> str:
        """Return a table's name in PostgreSQL."""
        return self._names.get(("table", "", name.lower()), name)

    def column(self, table: str, name: str) -> str:
        """Return a column's name in PostgreSQL; ``table`` is the name in SQLite."""
        return self._names.get(("column", table.lower(), name.lower()), name)

    def _other(self, kind: str, name: str) -> str:
        return self._names.get((kind, "", name.lower()), name)

    def unused(self, schema: Schema) -> list[Rename]:
        """Return the renames of things that do not exist."""
        there = {("view", "", program.name.lower()) for program in schema.programs}
        for table in schema.tables:
            there.add(("table", "", table.name.lower()))
            there |= {("index", "", index.name.lower()) for index in table.indexes}
            there |= {("column", table.name.lower(), c.name.lower()) for c in table.columns}
        return [
            rename
            for rename in self._renames
            if (rename.kind, rename.table.lower(), rename.name.lower()) not in there
        ]

    def apply(self, schema: Schema) -> Schema:
        """Return the schema with PostgreSQL's names; raises UsageError if two become the same."""
        tables = [self._table(table) for table in schema.tables]
        programs = [self._program(program) for program in schema.programs]
        views = [program.name for program in programs if program.kind == "view"]
        indexes = [index.name for table in tables for index in table.indexes]
        _check_distinct("tables, indexes and views", [t.name for t in tables] + indexes + views)
        for table in tables:
            _check_distinct(f"columns of {table.original}", [c.name for c in table.columns])
        return dataclasses.replace(schema, tables=tables, programs=programs)

    def _program(self, program: Program) -> Program:
        name = self._other("view", program.name) if program.kind == "view" else program.name
        return dataclasses.replace(program, name=name, origin=_origin(program.name, name))

    def _table(self, table: Table) -> Table:
        def names(columns: Iterable[str]) -> tuple[str, ...]:
            return tuple(self.column(table.name, name) for name in columns)

        def key(old: Key) -> Key:
            return dataclasses.replace(old, columns=names(old.columns))

        name = self.table(table.name)
        return dataclasses.replace(
            table,
            name=name,
            origin=_origin(table.name, name),
            columns=tuple(self._column(table, column) for column in table.columns),
            rowid_alias=table.rowid_alias and self.column(table.name, table.rowid_alias),
            primary_key=table.primary_key and key(table.primary_key),
            uniques=tuple(map(key, table.uniques)),
            indexes=tuple(self._index(table, index) for index in table.indexes),
            foreign_keys=tuple(self._foreign_key(table, key) for key in table.foreign_keys),
        )

    def _column(self, table: Table, column: Column) -> Column:
        name = self.column(table.name, column.name)
        return dataclasses.replace(column, name=name, origin=_origin(column.name, name))

    def _index(self, table: Table, index: Index) -> Index:
        parts = tuple(
            part
            if part.column is None
            else dataclasses.replace(part, column=self.column(table.name, part.column))
            for part in index.parts
        )
        return dataclasses.replace(index, name=self._other("index", index.name), parts=parts)

    def _foreign_key(self, table: Table, key: ForeignKey) -> ForeignKey:
        return dataclasses.replace(
            key,
            columns=tuple(self.column(table.name, name) for name in key.columns),
            parent=self.table(key.parent),
            references=tuple(self.column(key.parent, name) for name in key.references),
        )


def _origin(old: str, new: str) -> str:
    return old if old != new else ""


def _check_distinct(what: str, names: list[str]) -> None:
    # Without regard to case: SQLite, too, sees the new names.
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise UsageError(f"the renames give the name {name} to two of the {what}")
        seen.add(name.lower())


def _problem(kind: str, name: str) -> tuple[str, str] | None:
    """Return a hazard's code and what is wrong with a name, None if nothing is."""
    if not name:
        return "empty-name", "PostgreSQL has no empty names"
    if len(name.encode()) > MAX_NAME:
        return "name-too-long", f"longer than {MAX_NAME} bytes, PostgreSQL would cut it off"
    if kind == "column" and name in SYSTEM_COLUMNS:
        return "system-column-name", "the name of a system column"
    return None


def _propose(name: str, taken: set[str]) -> str:
    """Return a name like this one that fits and is free."""
    if len(name.encode()) > MAX_NAME:
        digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()[:_DIGITS]
        head = name.encode()[: MAX_NAME - _DIGITS - 1].decode("utf-8", "ignore")
        return f"{head}_{digest}"
    proposal = f"{name}_" if name else "unnamed"
    while proposal.lower() in taken:
        proposal += "_"
    return proposal


def find_name_hazards(schema: Schema, *, indexes: bool = True) -> list[NameHazard]:
    """Name what PostgreSQL cannot call as SQLite does; names of tables and columns are SQLite's.

    Without ``indexes`` only tables and columns count: the others exist in PostgreSQL already.
    """
    names = {table.name.lower() for table in schema.tables}
    things: list[tuple[str, Table | None, str, set[str]]] = []
    for table in schema.tables:
        columns = {column.name.lower() for column in table.columns}
        things.append(("table", table, table.name, names))
        things += [("column", table, column.name, columns) for column in table.columns]
        if indexes:
            things += [("index", None, index.name, names) for index in table.indexes]
    if indexes:
        things += [("view", None, p.name, names) for p in schema.programs if p.kind == "view"]
    hazards = []
    for kind, table, name, taken in things:
        problem = _problem(kind, name)
        if problem is None:
            continue
        code, reason = problem
        hazards.append(
            NameHazard(
                code,
                table.original if table is not None else name,
                name if kind == "column" else "",
                1,
                (Sample(kind, reason),),
                "a [[rename]] in the rules file, or ALTER TABLE … RENAME in SQLite, on a copy of "
                "the file",
                kind=kind,
                proposal=_propose(name, taken),
            )
        )
    return hazards
