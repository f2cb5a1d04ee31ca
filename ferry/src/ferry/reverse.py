"""From PostgreSQL back to a new SQLite file that the old program can open.

The schema is the original's: its DDL, from the report of the copy or from the comments that the
copy left on the tables. Values are written as the column had them: booleans as 0/1 (or the word
that was used), times in the format of the column. Tables and columns that came to be in PostgreSQL
get the nearest SQLite has.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
from psycopg import sql

from ferry import database, ddl, difference, snapshot, sqlite, storage, virtual
from ferry.census import row_name
from ferry.database import Database
from ferry.errors import RefusedError, UsageError
from ferry.names import Rename, Renaming, renames_of_table
from ferry.rows import RowMemory
from ferry.rules import Rules
from ferry.schema import (
    Column,
    NotCarried,
    Schema,
    Table,
    quote_name,
    read_schema,
    without_stored_expressions,
)
from ferry.types import TRUE_WORDS
from ferry.virtual import Keeps, VirtualTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import psycopg

    from ferry.difference import TableDifference
    from ferry.proof import TableProof

_FETCH = 5000  # rows per round trip

# How a value is asked for, by the type's name in the catalogue; other types as text.
_SELECT = {
    "int2": "{c}",
    "int4": "{c}",
    "int8": "{c}",
    "float4": "{c}",
    "float8": "{c}",
    "bool": "{c}",
    "bytea": "{c}",
    "numeric": "{c}",
    "timestamp": "to_char({c}, 'YYYY-MM-DD HH24:MI:SS.US')",
    "timestamptz": "to_char({c} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
    "date": "to_char({c}, 'YYYY-MM-DD')",
    "time": "to_char(date '2000-01-01' + {c}, 'HH24:MI:SS.US')",
}
_SQLITE_TYPES = {
    "int2": "INTEGER",
    "int4": "INTEGER",
    "int8": "INTEGER",
    "float4": "REAL",
    "float8": "REAL",
    "bool": "BOOLEAN",
    "bytea": "BLOB",
    "numeric": "NUMERIC",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMP",
    "date": "DATE",
    "time": "TIME",
}


@dataclass
class Memory:
    """What is known about the SQLite database that once was copied."""

    ddl: dict[str, list[str]] = field(default_factory=dict)  # table -> its CREATE statements
    extra: list[str] = field(default_factory=list)  # views and triggers
    shapes: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    exceptions: dict[tuple[str, str], dict[str, list[Any]]] = field(default_factory=dict)
    rows: dict[str, RowMemory] = field(default_factory=dict)
    renames: dict[str, list[Rename]] = field(default_factory=dict)
    database: Database = field(default_factory=Database)
    loose: set[str] = field(default_factory=set)  # tables with rows that break their own CHECKs

    def rules(self) -> Rules:
        """Return rules that give SQLite's tables the names they have in PostgreSQL."""
        return Rules(Path(), Path(), renames=[r for part in self.renames.values() for r in part])

    def learn(self, other: Memory) -> None:
        """Take over what another memory knows; it goes before what is known already."""
        # Tables in the other's order, so that they are created as they once were.
        self.ddl = {**other.ddl, **{k: v for k, v in self.ddl.items() if k not in other.ddl}}
        self.extra = other.extra or self.extra
        self.database = other.database if other.database.settings else self.database
        self.shapes |= other.shapes
        self.exceptions |= other.exceptions
        self.rows |= other.rows
        self.renames |= other.renames
        self.loose |= other.loose


def memory_from_report(report: dict[str, Any]) -> Memory:
    """Read what a report of `copy` or `verify` knows; raises UsageError if it is another's."""
    memory = Memory()
    for table in report.get("tables", []):
        if "ddl" not in table:
            raise UsageError(
                f"the baseline is a report of `{report.get('command')}`, which does not hold the "
                "schema",
                "give the report of the `copy` or `verify` that the cutover was made with",
            )
        name = table["name"]
        memory.ddl[name] = table["ddl"]
        if "renamed" in table:
            memory.renames[name] = list(renames_of_table(name, table["renamed"]))
        for column in table.get("columns", []):  # `verify` does not look at formats
            place = (name, column["name"])
            memory.shapes[place] = column["shapes"]
            memory.exceptions[place] = column["exceptions"]
        if table.get("row_memory"):
            memory.rows[name] = RowMemory.from_json(table["row_memory"])
    memory.extra = report["programs"]
    if report.get("database"):
        memory.database = Database.from_json(report["database"])
    return memory


def memory_from_comments(target: psycopg.Connection, namespace: str) -> Memory:
    """Read what the comments on the tables know."""
    memory = Memory()
    for name, kept in ddl.read_memories(target, namespace).items():
        memory.ddl[name] = kept["ddl"]
        if "renamed" in kept:
            memory.renames[name] = list(renames_of_table(name, kept["renamed"]))
        memory.extra += kept.get("extra", [])
        if "database" in kept:
            memory.database = Database.from_json(kept["database"])
        if kept.get("loose"):
            memory.loose.add(name)
        for column, shapes in kept["shapes"].items():
            memory.shapes[name, column] = shapes
        for column, exceptions in kept["exceptions"].items():
            memory.exceptions[name, column] = exceptions
    return memory


@dataclass(frozen=True)
class _RemoteColumn:
    name: str
    type_name: str
    not_null: bool
    identity: bool
    generated: bool


def _remote_tables(
    target: psycopg.Connection, namespace: str
) -> tuple[dict[str, list[_RemoteColumn]], dict[str, list[str]]]:
    """Return the columns and the primary key of each table in PostgreSQL."""
    tables: dict[str, list[_RemoteColumn]] = {}
    keys: dict[str, list[str]] = {}
    for table, column, type_name, not_null, identity, generated, in_key in target.execute(
        """
        SELECT c.relname, a.attname, t.typname, a.attnotnull,
               a.attidentity <> '' OR pg_get_serial_sequence(c.oid::regclass::text, a.attname)
                   IS NOT NULL,
               a.attgenerated <> '', coalesce(a.attnum = ANY (i.indkey), false)
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid
        LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
        WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                          AND d.objid = c.oid AND d.deptype = 'e')
        ORDER BY c.relname, a.attnum
        """,
        (namespace,),
    ):
        tables.setdefault(table, []).append(
            _RemoteColumn(column, type_name, not_null, identity, generated)
        )
        if in_key:
            keys.setdefault(table, []).append(column)
    return tables, keys


def _derived_ddl(name: str, columns: list[_RemoteColumn], key: list[str]) -> str:
    """Return a CREATE TABLE for a table that SQLite never had."""
    lines = []
    for column in columns:
        declared = _SQLITE_TYPES.get(column.type_name, "TEXT")
        line = f"{quote_name(column.name)} {declared}"
        if key == [column.name] and declared == "INTEGER":
            line += " PRIMARY KEY AUTOINCREMENT" if column.identity else " PRIMARY KEY"
            key = []
        elif column.not_null:
            line += " NOT NULL"
        lines.append(line)
    if key:
        lines.append(f"PRIMARY KEY ({', '.join(map(quote_name, key))})")
    return f"CREATE TABLE {quote_name(name)} ({', '.join(lines)})"


class _TimeWriter:
    """Writes a moment in the format that its column had."""

    def __init__(self, shapes: dict[str, int], whole: int) -> None:
        """Take the shapes (see ferry.census) and the length of a moment without a fraction."""
        self.whole = whole
        ordered = sorted(shapes, key=lambda shape: -shapes[shape])
        # Where the column never had such a value, Python's way: no fraction if it is zero.
        separator = ordered[0].rstrip("z0123456789") if ordered else " "
        self.plain = [s for s in ordered if s.endswith("z") or self._length(s) <= whole]
        self.fractions = [s for s in ordered if s not in self.plain]
        prefix = separator if whole == 19 else ""
        self.default_plain = f"{prefix}{whole}"
        self.default_fraction = f"{prefix}{whole + 7}"

    @staticmethod
    def _length(shape: str) -> int:
        return int(shape.strip("Tz "))

    def write(self, moment: str, special: str | None) -> str:
        """Return the text for a moment given with six digits of fraction."""
        if len(moment) != self.whole + 7:  # infinity, a year beyond 9999
            return moment
        zero = moment.endswith("000000")
        usual = self.plain if zero else self.fractions
        default = self.default_plain if zero else self.default_fraction
        for shape in (special, *usual, default):
            if shape is not None and (text := self._in_shape(moment, shape)) is not None:
                return text
        return moment

    def _in_shape(self, moment: str, shape: str) -> str | None:
        """Return the text, None if digits other than 0 would be cut off."""
        length = self._length(shape)
        rest = moment[length:]
        if rest.strip("0:. "):
            return None
        text = moment[:length]
        return text[:10] + shape[0] + text[11:] if length > 10 and self.whole == 19 else text


class _BooleanWriter:
    """Writes a boolean as its column had them: 0/1, or words."""

    def __init__(self, shapes: dict[str, int]) -> None:
        ordered = sorted(shapes, key=lambda shape: -shapes[shape])
        self.usual = {
            truth: next((shape for shape in ordered if _truth(shape) == truth), f"int{truth:d}")
            for truth in (True, False)
        }

    def write(self, value: bool, special: str | None) -> int | str:
        if special is None or _truth(special) != value:
            special = self.usual[value]
        return int(value) if special in ("int0", "int1") else special


def _truth(shape: str) -> bool:
    return shape == "int1" or shape.lower() in TRUE_WORDS


def _as_asked_for(key: Any, type_name: str) -> Any:
    """Return a row's key, noted as SQLite had it, as it comes from PostgreSQL."""
    if type_name == "bool":
        return _truth(key) if isinstance(key, str) else bool(key)
    if type_name in ("timestamp", "timestamptz") and isinstance(key, str):
        return key.replace("T", " ") + "0000-00-00 00:00:00.000000"[len(key) :]
    if type_name == "time" and isinstance(key, str):
        return key + "00:00:00.000000"[len(key) :]
    return key


def _number(value: Any) -> int | float:
    """Return a numeric as SQLite stores numbers; raises RefusedError if it cannot."""
    number = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        number = float(value)
    return number


def _text_writer(
    table: Table, column: Column, shapes: dict[str, int]
) -> Callable[[Any, str | None], Any] | None:
    """Return what turns the text of a column into what SQLite had there, None if it stays."""
    affinity = storage.has_numeric_affinity(column.declared, strict=table.strict)
    if affinity is False or (affinity is None and shapes.keys() <= {"text"}):
        return None

    def write(value: Any, special: str | None) -> Any:
        if not isinstance(value, str):
            return value
        found = special or storage.looks_like(value, shapes)
        value = storage.as_it_was(value, found)
        # SQLite would do the same, but miss a double's last bit.
        return storage.as_number(value) if affinity and found == "text" else value

    return write


@dataclass
class Result:
    """What a reverse run has made."""

    added_tables: list[str] = field(default_factory=list)
    added_columns: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    lost: list[NotCarried] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)


class _Writer:
    """Writes one SQLite file."""

    def __init__(
        self,
        out: apsw.Connection,
        target: psycopg.Connection,
        namespace: str,
        memory: Memory,
        progress: Callable[[str, int], None],
    ) -> None:
        self.out = out
        self.target = target
        self.namespace = namespace
        self.memory = memory
        self.progress = progress
        self.remote, self.keys = _remote_tables(target, namespace)
        self.renaming = Renaming(memory.rules().renames)
        self.virtual = {table.name: table for table in memory.database.virtual}
        self.lost: list[NotCarried] = []
        self.plain: dict[str, str] = {}  # tables that are declared otherwise until they are full
        self.foreign: set[str] = set()  # functions that only the program has

    def write(self) -> Result:
        result = Result(lost=self.lost)
        self.stand_ins = sqlite.StandIns(self.out)
        self.foreign = self.stand_ins.functions
        late: list[str] = []
        database.begin_file(self.out, self.memory.database)
        self.out.execute("BEGIN")
        names = [*self.memory.ddl, *(name for name in self.remote if name not in self.memory.ddl)]
        for name in names:
            if name in self.memory.ddl:
                create, *indexes = self.memory.ddl[name]
                self._create_table(create)
                late += indexes
            else:
                self.out.execute(_derived_ddl(name, self.remote[name], self.keys.get(name, [])))
                result.added_tables.append(name)
        for table in self._read_schema().tables:
            self._add_columns(table, result)
        for table in self._read_schema().tables:
            if table.name not in self.remote:
                result.missing.append(f"table {table.name} is gone in PostgreSQL: left empty")
                continue
            result.rows[table.name] = self._fill(table, result)
            self._set_sequence(table)
        for statement in late:
            self._create_index(statement)
        for name, create in self.plain.items():
            self._declare("UPDATE sqlite_master SET sql = ?2 WHERE name = ?1", name, create)
        self._create_programs()
        self._name_stand_ins()
        self.lost += database.finish_file(self.out, self.memory.database)
        self.out.execute("COMMIT")
        return result

    def _create_table(self, create: str) -> None:
        """Create a table; stored columns that SQLite cannot compute take PostgreSQL's values."""
        known = set(self.stand_ins.functions)
        self.stand_ins.run(create)
        plain = without_stored_expressions(create)
        if self.stand_ins.functions == known or plain == create:
            return
        name = virtual.name_of(create)
        self.out.execute(f"DROP TABLE {quote_name(name)}")
        self.stand_ins.run(plain)
        self.plain[name] = create

    def _declare(self, statement: str, name: str, declaration: str) -> None:
        """Change what the schema says, not what is stored."""
        self.out.execute("PRAGMA writable_schema = ON")
        self.out.execute(statement, (name, declaration))
        self.out.execute("PRAGMA writable_schema = RESET")

    def _create_index(self, statement: str) -> None:
        """Create an index, unless its order or contents are known to the program alone."""
        try:
            self.out.execute(statement)
        except apsw.ConstraintError:
            raise
        except apsw.Error as error:
            self._lose("index", statement, str(error))
            return
        (name,) = self.out.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY rowid DESC LIMIT 1"
        ).fetchone()
        unknown = self._unknown_collations(name)
        if unknown:
            self.out.execute(f"DROP INDEX {quote_name(name)}")
            self._lose("index", statement, f"no such collation sequence: {', '.join(unknown)}")

    def _lose(self, what: str, statement: str, reason: str) -> None:
        name = virtual.name_of(statement)
        remedy = "the program, or somebody who has what it needs, has to create it"
        self.lost.append(NotCarried(what, name, f"{reason}; {remedy}", statement))

    def _unknown_collations(self, index: str) -> set[str]:
        if not self.stand_ins.collations:
            return set()
        rows = self.out.execute("SELECT coll FROM pragma_index_xinfo(?) WHERE key = 1", (index,))
        return {name.upper() for (name,) in rows} & self.stand_ins.collations

    def _name_stand_ins(self) -> None:
        """Name keys that are in another order than the program's."""
        if not self.stand_ins.collations:
            return
        for name, table in self.out.execute(
            "SELECT i.name, t.name FROM pragma_table_list t JOIN pragma_index_list(t.name) i "
            "WHERE t.schema = 'main' AND t.type = 'table' AND i.origin <> 'c'"
        ).fetchall():
            for collation in self._unknown_collations(name):
                self.lost.append(
                    NotCarried(
                        "order of a key",
                        table,
                        f"its order is that of bytes, since only the program has {collation}; it "
                        "has to run this before it reads the table",
                        f"REINDEX {quote_name(table)}",
                    )
                )

    # Views, triggers, and virtual tables that hold no rows of their own ----------------------

    def _create_programs(self) -> None:
        views = [text for text in self.memory.extra if virtual.kind_of(text) != "trigger"]
        triggers = [text for text in self.memory.extra if virtual.kind_of(text) == "trigger"]
        others = [table for table in self.virtual.values() if table.keeps != Keeps.ROWS]
        for table in others:
            self._create_virtual(table)
        for text in views:
            self._create_program("view", text)
        for table in self.virtual.values():
            self._settle_virtual(table, triggers)
        gone = [item.name for item in self.lost if item.what == "virtual table"]
        for text in triggers:
            needed = virtual.mentioned(text, gone)
            if needed:
                reason = f"it writes to {', '.join(needed)}, which did not come back"
                self.lost.append(NotCarried("trigger", virtual.name_of(text), reason, text))
            else:
                self._create_program("trigger", text)

    def _create_program(self, kind: str, text: str) -> None:
        try:
            self.out.execute(text)
        except apsw.Error as error:
            self._lose(kind, text, str(error))

    def _create_virtual(self, table: VirtualTable) -> None:
        if table.keeps != Keeps.STORAGE:
            try:
                self.out.execute(table.sql)
            except apsw.Error as error:
                self._lose("virtual table", table.sql, str(error))
            return
        # Its storage tables are there already: only the declaration is missing.
        self._declare(
            "INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) "
            "VALUES ('table', ?1, ?1, 0, ?2)",
            table.name,
            table.sql,
        )
        if table.module in virtual.FULL_TEXT:
            self.lost.append(
                NotCarried(
                    "index of a virtual table",
                    table.name,
                    "it is as it was when it was copied; if its texts have changed since, the "
                    "program has to build it again",
                    table.sql,
                )
            )

    def _settle_virtual(self, table: VirtualTable, triggers: list[str]) -> None:
        """Fill an index again; give full text search its settings."""
        name = quote_name(table.name)
        if any(item.name == table.name for item in self.lost if item.what == "virtual table"):
            return
        try:
            for key, value in table.settings:
                self.out.execute(f"INSERT INTO {name} ({name}, rank) VALUES (?, ?)", (key, value))
            if table.keeps == Keeps.INDEX:
                self.out.execute(f"INSERT INTO {name} ({name}) VALUES ('rebuild')")
            elif table.keeps == Keeps.REPLAY:
                for trigger in triggers:
                    replay = virtual.replay_of(trigger, table.name)
                    if replay is not None:
                        self._replay(replay)
        except apsw.Error as error:
            self.lost.append(
                NotCarried(
                    "index of a virtual table",
                    table.name,
                    f"it could not be filled: {error}; the program has to do that",
                    table.sql,
                )
            )

    def _replay(self, replay: virtual.Replay) -> None:
        """Let a trigger's INSERTs run for every row, through a view that stands for the table."""
        place = f"main.{quote_name(replay.table)}"
        (found,) = self.out.execute(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND lower(name) = lower(?)",
            (replay.table,),
        ).fetchone()
        table = next(t for t in read_schema(self.out).tables if t.name == found)
        names = [quote_name(column.name) for column in table.columns]
        if (row := row_name(table)) is not None:
            names.append(row)
        columns = ", ".join(names)
        body = "; ".join(replay.statements)
        self.out.execute(f"CREATE TEMP VIEW ferry_replay AS SELECT {columns} FROM {place}")
        try:
            self.out.execute(
                "CREATE TEMP TRIGGER ferry_replay_row INSTEAD OF INSERT ON ferry_replay "
                f"{replay.condition} BEGIN {body}; END"
            )
            self.out.execute(f"INSERT INTO ferry_replay ({columns}) SELECT {columns} FROM {place}")
        finally:
            self.out.execute("DROP VIEW temp.ferry_replay")

    def _read_schema(self) -> Schema:
        """Return what there is now in SQLite, by the names in PostgreSQL."""
        return self.renaming.apply(read_schema(self.out))

    def _add_columns(self, table: Table, result: Result) -> None:
        have = {column.name for column in table.columns}
        for column in self.remote.get(table.name, []):
            if column.name not in have and table.virtual:
                reason = "columns cannot be added to a virtual table"
                place = f"{table.original}.{column.name}"
                self.lost.append(NotCarried("column", place, reason))
            elif column.name not in have:
                declared = _SQLITE_TYPES.get(column.type_name, "TEXT")
                self.out.execute(
                    f"ALTER TABLE {quote_name(table.original)} "
                    f"ADD COLUMN {quote_name(column.name)} {declared}"
                )
                result.added_columns.append(f"{table.name}.{column.name}")

    def change(self, items: Sequence[TableDifference]) -> Result:
        """Carry what has changed into a copy of the file that was moved."""
        result = Result(lost=self.lost)
        self.out.execute("BEGIN")
        tables = {table.name: table for table in self._read_schema().tables}
        touched = [item for item in items if item.touched]
        for item in touched:
            difference.delete_gone(self.out, item)
        for item in touched:
            if item.new_rows:
                self._fill(tables[item.table.name], result, item)
        for item in items:
            result.rows[item.table.name] = item.rows
            self._set_sequence(tables[item.table.name])
        for table in self.virtual.values() if touched else ():
            if table.keeps == Keeps.INDEX:
                self._settle_virtual(table, [])
        return result

    def _fill(self, table: Table, result: Result, item: TableDifference | None = None) -> int:
        """Write a table's rows; of ``item``, if it is given, those that are new."""
        remote = {column.name: column for column in self.remote[table.name]}
        names = []
        for column in table.columns:
            if column.generated is not None:
                continue
            if column.name in remote:
                names.append(column.name)
            else:
                result.missing.append(
                    f"column {table.name}.{column.name} is gone in PostgreSQL: left to its default"
                )
        if not names:
            return 0
        wanted = ", ".join(
            _SELECT.get(remote[name].type_name, "{c}::text").replace("{c}", quote_name(name))
            for name in names
        )
        place = f"{quote_name(self.namespace)}.{quote_name(table.name)}"
        key = [name for name in self.keys.get(table.name, []) if name in names]
        order = f" ORDER BY {', '.join(map(quote_name, key))}" if key else ""
        own = ", ".join(quote_name(table.column(name).original) for name in names)
        insert = (
            f"INSERT INTO {quote_name(table.original)} ({own}) "
            f"VALUES ({', '.join('?' * len(names))})"
        )
        where, parameters = "", ()
        if item is not None:
            where, parameters = " WHERE xmin <> ALL (%s::xid[])", (item.writers,)
        key_places = [names.index(name) for name in key]
        key_type = remote[key[0]].type_name if len(key) == 1 else ""
        writers = self._writers(table, names, remote, key_type)
        place_of_key = names.index(key[0]) if len(key) == 1 else None
        count = 0

        def rows() -> Iterator[list[Any]]:
            nonlocal count
            with self.target.cursor(name="ferry_reverse") as cursor:
                cursor.itersize = _FETCH
                query = f"SELECT {wanted} FROM {place}"
                if parameters:
                    query = query.replace("%", "%%")
                cursor.execute(sql.SQL(f"{query}{where}{order}"), parameters or None)
                for row in cursor:
                    values = list(row)
                    identity = values[place_of_key] if place_of_key is not None else None
                    for position, convert in writers:
                        if values[position] is not None:
                            values[position] = convert(values[position], identity)
                    if item is not None:
                        item.came.append(tuple(values[position] for position in key_places))
                    count += 1
                    if count % _FETCH == 0:
                        self.progress(table.name, _FETCH)
                    yield values

        # A stand-in's NULL does not pass every CHECK, and only the program can judge these.
        foreign = any(
            re.search(rf"\b{re.escape(name)}\b", table.ddl, re.IGNORECASE) for name in self.foreign
        )
        loose = "ON" if foreign or table.name in self.memory.loose else "OFF"
        self.out.execute(f"PRAGMA ignore_check_constraints = {loose}")
        try:
            self.out.executemany(insert, rows())
        except apsw.ConstraintError as error:
            raise RefusedError(
                f"SQLite does not take the rows of {table.name}: {error}",
                "PostgreSQL's table holds rows that break the original's constraints; correct "
                "them, or drop the constraint from the DDL in the baseline report",
            ) from error
        self.progress(table.name, count % _FETCH)
        return count

    def _writers(
        self, table: Table, names: list[str], remote: dict[str, _RemoteColumn], key_type: str
    ) -> list[tuple[int, Callable[[Any, Any], Any]]]:
        """Return the columns whose values have to be rewritten, by position."""
        writers: list[tuple[int, Callable[[Any, Any], Any]]] = []
        for position, name in enumerate(names):
            kind = remote[name].type_name
            shapes = self.memory.shapes.get((table.name, name), {})
            special = {
                _as_asked_for(key, key_type): shape
                for shape, keys in self.memory.exceptions.get((table.name, name), {}).items()
                for key in keys
            }
            if kind in ("timestamp", "timestamptz", "time"):
                writer: Any = _TimeWriter(shapes, 8 if kind == "time" else 19)
            elif kind == "bool":
                writer = _BooleanWriter(shapes)
            elif kind == "numeric":
                writers.append((position, lambda value, _: _number(value)))
                continue
            elif kind not in _SELECT and (write := _text_writer(table, table.column(name), shapes)):
                writers.append(
                    (
                        position,
                        lambda value, key, write=write, special=special: write(
                            value, special.get(key)
                        ),
                    )
                )
                continue
            else:
                continue
            writers.append(
                (
                    position,
                    lambda value, key, writer=writer, special=special: writer.write(
                        value, special.get(key)
                    ),
                )
            )
        return writers

    def _set_sequence(self, table: Table) -> None:
        """Keep ids that were given away from being given again."""
        if not table.autoincrement or table.rowid_alias is None:
            return
        place = f"{quote_name(self.namespace)}.{quote_name(table.name)}"
        (sequence,) = self.target.execute(
            "SELECT pg_get_serial_sequence(%s, %s)", (place, table.rowid_alias)
        ).fetchone()
        if sequence is None:
            return
        last, called = self.target.execute(
            f"SELECT last_value, is_called FROM {sequence}"
        ).fetchone()
        if not called:
            return
        self.out.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (last, table.original)
        )
        if self.out.changes() == 0:
            self.out.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table.original, last)
            )


@contextlib.contextmanager
def new_file(path: str) -> Iterator[Path]:
    """Yield the name to write to; the file gets its real name only if all went well.

    Raises RefusedError when the name is taken, when what SQLite kept beside a former file of that
    name is still there, or when the directory cannot be written.
    """
    final = Path(path)
    if final.exists():
        raise RefusedError(f"{path} exists already", "name a file that does not exist")
    for suffix in ("-journal", "-wal", "-shm"):
        if Path(path + suffix).exists():
            raise RefusedError(
                f"{path}{suffix} belongs to a former {path}: SQLite would work it into the "
                "new file and destroy that",
                "keep it beside the former file, by that file's name",
            )
    partial = final.with_name(f".{final.name}.partial-{os.getpid()}")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise RefusedError(f"{path} cannot be written: {error.strerror}") from error
    try:
        yield partial
        snapshot.publish(partial, final)
    except snapshot.SnapshotError as error:
        raise RefusedError(str(error)) from error
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(str(partial) + suffix).unlink(missing_ok=True)


def write(
    path: Path,
    target: psycopg.Connection,
    namespace: str,
    memory: Memory,
    progress: Callable[[str, int], None],
) -> Result:
    """Write PostgreSQL's tables into the empty file ``path``.

    ``progress`` is told the table and the rows of each block. Raises RefusedError when SQLite does
    not take them.
    """
    out = sqlite.connect(str(path.absolute()))
    try:
        # Not worth a journal: the file is thrown away if anything fails, and synced at the end.
        out.execute("PRAGMA journal_mode = OFF")
        out.execute("PRAGMA synchronous = OFF")
        return _Writer(out, target, namespace, memory, progress).write()
    except apsw.ConstraintError as error:
        raise RefusedError(
            f"SQLite does not take PostgreSQL's rows: {error}",
            "they break an index of the original's; correct them in PostgreSQL",
        ) from error
    except (apsw.SQLError, apsw.FullError, apsw.IOError) as error:
        raise RefusedError(f"SQLite cannot write {path}: {error}") from error
    finally:
        out.close()


def change(
    path: Path,
    target: psycopg.Connection,
    namespace: str,
    memory: Memory,
    items: Sequence[TableDifference],
    progress: Callable[[str, int], None],
) -> tuple[Result, list[TableProof]]:
    """Carry what has changed into ``path``, a copy of the file that was moved, and prove it.

    Raises NoDifferenceError where that takes what only the program has.
    """
    # An index that is in an order which only the program knows must not be written to.
    out = sqlite.connect(str(path.absolute()), stand_ins=False)
    try:
        out.execute("PRAGMA journal_mode = DELETE")
        out.execute("PRAGMA journal_mode = OFF")
        out.execute("PRAGMA synchronous = OFF")
        # The rows that triggers wrote are in PostgreSQL too, if they ran there.
        out.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        result = _Writer(out, target, namespace, memory, progress).change(items)
        if result.lost:
            raise difference.NoDifferenceError(result.lost[0].reason)
        proofs = [difference.judge(out, target, item) for item in items]
        out.execute("COMMIT")
        return result, proofs
    except apsw.SQLError as error:  # a function, a collation or a module of the program
        raise difference.NoDifferenceError(str(error)) from error
    except (apsw.FullError, apsw.IOError) as error:
        raise RefusedError(f"SQLite cannot write {path}: {error}") from error
    finally:
        out.close()
