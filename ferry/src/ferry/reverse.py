"""From PostgreSQL back to a new SQLite file that the old program can open.

The schema is the original's: its DDL, from the report of the copy or from the comments that the
copy left on the tables. Values are written as the column had them: booleans as 0/1 (or the word
that was used), times in the format of the column. Tables and columns that came to be in PostgreSQL
get the nearest SQLite has.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg import sql

from ferry import ddl, snapshot
from ferry.errors import RefusedError, UsageError
from ferry.names import Rename, Renaming, renames_of_table
from ferry.rows import RowMemory
from ferry.rules import Rules
from ferry.schema import Schema, Table, quote_name, read_schema
from ferry.types import TRUE_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

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

    def rules(self) -> Rules:
        """Return rules that give SQLite's tables the names they have in PostgreSQL."""
        return Rules(Path(), Path(), renames=[r for part in self.renames.values() for r in part])

    def learn(self, other: Memory) -> None:
        """Take over what another memory knows; it goes before what is known already."""
        # Tables in the other's order, so that they are created as they once were.
        self.ddl = {**other.ddl, **{k: v for k, v in self.ddl.items() if k not in other.ddl}}
        self.extra = other.extra or self.extra
        self.shapes |= other.shapes
        self.exceptions |= other.exceptions
        self.rows |= other.rows
        self.renames |= other.renames


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
    return memory


def memory_from_comments(target: psycopg.Connection, namespace: str) -> Memory:
    """Read what the comments on the tables know."""
    memory = Memory()
    for name, kept in ddl.read_memories(target, namespace).items():
        memory.ddl[name] = kept["ddl"]
        if "renamed" in kept:
            memory.renames[name] = list(renames_of_table(name, kept["renamed"]))
        memory.extra += kept.get("extra", [])
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


@dataclass
class Result:
    """What a reverse run has made."""

    added_tables: list[str] = field(default_factory=list)
    added_columns: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)


class _Writer:
    """Writes one SQLite file."""

    def __init__(
        self,
        out: sqlite3.Connection,
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

    def write(self) -> Result:
        result = Result()
        late: list[str] = []
        names = [*self.memory.ddl, *(name for name in self.remote if name not in self.memory.ddl)]
        for name in names:
            if name in self.memory.ddl:
                create, *indexes = self.memory.ddl[name]
                self.out.execute(create)
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
        for statement in (*late, *self.memory.extra):
            self.out.execute(statement)
        return result

    def _read_schema(self) -> Schema:
        """Return what there is now in SQLite, by the names in PostgreSQL."""
        return self.renaming.apply(read_schema(self.out))

    def _add_columns(self, table: Table, result: Result) -> None:
        have = {column.name for column in table.columns}
        for column in self.remote.get(table.name, []):
            if column.name not in have:
                declared = _SQLITE_TYPES.get(column.type_name, "TEXT")
                self.out.execute(
                    f"ALTER TABLE {quote_name(table.original)} "
                    f"ADD COLUMN {quote_name(column.name)} {declared}"
                )
                result.added_columns.append(f"{table.name}.{column.name}")

    def _fill(self, table: Table, result: Result) -> int:
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
        key_type = remote[key[0]].type_name if len(key) == 1 else ""
        writers = self._writers(table, names, remote, key_type)
        place_of_key = names.index(key[0]) if len(key) == 1 else None
        count = 0

        def rows() -> Iterator[list[Any]]:
            nonlocal count
            with self.target.cursor(name="ferry_reverse") as cursor:
                cursor.itersize = _FETCH
                cursor.execute(sql.SQL(f"SELECT {wanted} FROM {place}{order}"))
                for row in cursor:
                    values = list(row)
                    identity = values[place_of_key] if place_of_key is not None else None
                    for position, convert in writers:
                        if values[position] is not None:
                            values[position] = convert(values[position], identity)
                    count += 1
                    if count % _FETCH == 0:
                        self.progress(table.name, _FETCH)
                    yield values

        try:
            self.out.executemany(insert, rows())
        except sqlite3.IntegrityError as error:
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
        updated = self.out.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (last, table.original)
        )
        if updated.rowcount == 0:
            self.out.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table.original, last)
            )


@contextlib.contextmanager
def new_file(path: str) -> Iterator[Path]:
    """Yield the name to write to; the file gets its real name only if all went well.

    Raises RefusedError when the name is taken or the directory cannot be written.
    """
    final = Path(path)
    if final.exists():
        raise RefusedError(f"{path} exists already", "name a file that does not exist")
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
        for suffix in ("", "-journal"):
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
    out = sqlite3.connect(path, isolation_level=None)
    try:
        # Not worth a journal: the file is thrown away if anything fails, and synced at the end.
        out.execute("PRAGMA journal_mode = OFF")
        out.execute("PRAGMA synchronous = OFF")
        out.execute("BEGIN")
        result = _Writer(out, target, namespace, memory, progress).write()
        out.execute("COMMIT")
        return result
    except sqlite3.OperationalError as error:
        raise RefusedError(f"SQLite cannot write {path}: {error}") from error
    finally:
        out.close()
