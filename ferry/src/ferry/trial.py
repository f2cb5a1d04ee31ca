"""Try whether a program can use a SQLite file: its views, its triggers, a write into each table.

A statement is prepared with all that hangs on it: the CHECKs, the triggers and what these write to.
What the original refused as well is no fault of a copy, so what is refused is noted by statement
and compared; nor is a function, a collation or a module that only the program has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from ferry.snapshot import is_of_the_application

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_VERBS = ("insert", "update", "delete")


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _relations(connection: apsw.Connection) -> Iterator[tuple[str, str]]:
    """Yield kind and name of what can be written to or read."""
    yield from connection.execute(
        "SELECT l.type, l.name FROM pragma_table_list l WHERE l.schema = 'main' "
        "AND l.type IN ('table', 'view', 'virtual') AND l.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
        "ORDER BY l.name"
    ).fetchall()


def _columns(connection: apsw.Connection, table: str) -> list[str]:
    """Return the columns that can be written to."""
    return [
        _name(name)
        for name, hidden in connection.execute(
            "SELECT name, hidden FROM pragma_table_xinfo(?)", (table,)
        )
        if not hidden
    ]


def _statements(connection: apsw.Connection) -> Iterator[tuple[str, str]]:
    """Yield what is prepared: a name for it, and the statement."""
    for kind, name in _relations(connection):
        place = f"main.{_name(name)}"
        if kind == "view":
            yield f"select {name}", f"SELECT * FROM {place}"
        columns: list[str] | None = None
        for verb in _VERBS:
            if kind == "view" and not _instead_of(connection, name, verb):
                continue
            if columns is None:
                try:
                    columns = _columns(connection, name)
                except apsw.Error:  # a module, or a view's table, that is not there
                    columns = []
            if verb == "delete":
                yield f"delete {name}", f"DELETE FROM {place}"
            elif verb == "insert" and columns:
                values = ", ".join(["NULL"] * len(columns))
                yield (
                    f"insert {name}",
                    f"INSERT INTO {place} ({', '.join(columns)}) VALUES ({values})",
                )
            elif columns:
                changes = ", ".join(f"{column} = {column}" for column in columns)
                yield f"update {name}", f"UPDATE {place} SET {changes}"


def _instead_of(connection: apsw.Connection, view: str, verb: str) -> bool:
    return any(
        verb in sql.lower()
        for (sql,) in connection.execute(
            "SELECT sql FROM main.sqlite_master WHERE type = 'trigger' AND tbl_name = ?", (view,)
        )
    )


def find_refused(connection: apsw.Connection) -> dict[str, str]:
    """Prepare each statement; return what SQLite says to those that it does not take."""
    refused = {}
    for what, statement in _statements(connection):
        try:
            connection.execute(f"EXPLAIN {statement}").fetchall()
        except apsw.Error as error:
            refused[what] = str(error)
    return refused


def find_broken(connection: apsw.Connection, known: dict[str, str]) -> dict[str, str]:
    """Prepare and run each kind of write; return what is refused now and was not before.

    Everything is rolled back. That the program's own constraints refuse a write is no fault.
    """
    refused = find_refused(connection)
    broken = {
        what: said
        for what, said in refused.items()
        if known.get(what) != said and not is_of_the_application(said)
    }
    connection.execute("PRAGMA foreign_keys = OFF")
    for kind, name in _relations(connection):
        verbs = [verb for verb in _VERBS if f"{verb} {name}" not in refused]
        if kind == "table" and verbs:
            broken |= _write_once(connection, name, verbs)
    return broken


def _write_once(connection: apsw.Connection, name: str, verbs: Sequence[str]) -> dict[str, str]:
    """Change the first row of a table, delete it and insert it again, and undo all that."""
    place, broken = f"main.{_name(name)}", {}
    columns = _columns(connection, name)
    if not columns:
        return {}
    wanted = ", ".join(columns)
    key = _key(connection, name)
    if key is None:
        return {}
    try:
        found = connection.execute(
            f"SELECT {', '.join(key)}, {wanted} FROM {place} LIMIT 1"
        ).fetchone()
    except apsw.SQLError:  # a key in an order that only the program knows; the proof has read it
        return {}
    if found is None:
        return {}
    values, row = found[: len(key)], found[len(key) :]
    here = " AND ".join(f"{column} IS ?{number}" for number, column in enumerate(key, 1))
    changes = ", ".join(f"{column} = {column}" for column in columns)
    marks = ", ".join("?" * len(columns))
    writes = {
        "update": (f"UPDATE {place} SET {changes} WHERE {here}", values),
        "delete": (f"DELETE FROM {place} WHERE {here}", values),
        "insert": (f"INSERT INTO {place} ({wanted}) VALUES ({marks})", row),
    }
    connection.execute("BEGIN")
    try:
        for verb, (statement, parameters) in writes.items():
            if verb not in verbs:
                continue
            try:
                connection.execute(statement, parameters)
            except apsw.ConstraintError:
                pass
            except apsw.Error as error:
                if not is_of_the_application(error):
                    broken[f"{verb} {name}"] = str(error)
            if connection.in_transaction is False:  # RAISE(ROLLBACK), which ends everything
                connection.execute("BEGIN")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return broken


def _key(connection: apsw.Connection, name: str) -> list[str] | None:
    """Return what tells the rows of a table apart, None if nothing does."""
    rows = connection.execute("SELECT name, pk FROM pragma_table_info(?)", (name,)).fetchall()
    key = [_name(column) for column, pk in sorted(rows, key=lambda row: row[1]) if pk]
    (without,) = connection.execute(
        "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (name,)
    ).fetchone()
    if without:
        return key
    taken = {column.lower() for column, _ in rows}
    return next(([n] for n in ("rowid", "_rowid_", "oid") if n not in taken), key or None)
