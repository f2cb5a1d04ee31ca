"""The SQLite library that ferry reads with.

All reading goes through apsw, which brings its own recent SQLite (half again as fast as a
distribution's, the same on every machine) and SQLite's own extension for the eight bytes of a
double. There must be one SQLite library per process: POSIX locks belong to the process, so a second
copy would drop the first one's locks. ``sqlite3`` of the standard library is left to
:mod:`ferry.snapshot`, which has to run alone.
"""

from __future__ import annotations

import re
import sqlite3
import time
from typing import TYPE_CHECKING

import apsw
import apsw.sqlite_extra

from ferry import snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

_NO_FUNCTION = re.compile(r"no such function: (.*)", re.DOTALL)
_CODECS = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}


class _Patience:
    """Waits for another program's lock, in steps that are shorter than the gaps it leaves."""

    def __init__(self) -> None:
        self._deadline = 0.0

    def __call__(self, attempts: int) -> bool:
        if attempts == 0:
            self._deadline = time.monotonic() + snapshot.LOCK_TIMEOUT
        time.sleep(snapshot.LOCK_PAUSE)
        return time.monotonic() < self._deadline


BUILT_IN_COLLATIONS = ("BINARY", "NOCASE", "RTRIM")


def _stand_in(connection: apsw.Connection, name: str) -> None:
    """Give an application's collation a stand-in that compares bytes, so that SQL can be prepared.

    An index that was built by the true one is in another order: what looks something up by such a
    column has to say COLLATE BINARY.
    """
    connection.create_collation(name, lambda left, right: (left > right) - (left < right))


def connect(uri: str, *, stand_ins: bool = True) -> apsw.Connection:
    """Open a connection to a ``file:`` URI (or ``:memory:``); raises apsw.Error.

    Read-only files are said so by the URI. SQL can use ``ieee754_to_blob``. Collations that only
    the application defines get ``stand_ins``.
    """
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    connection = apsw.Connection(uri, flags=flags)
    connection.set_busy_handler(_Patience())
    apsw.sqlite_extra.load(connection, "ieee754")
    if stand_ins:
        connection.collation_needed(_stand_in)
    return connection


def begin(uri: str) -> apsw.Connection:
    """Open a connection and take the read lock; to be given to :func:`ferry.snapshot.open_source`.

    Raises sqlite3's errors, which are the ones known there.
    """
    try:
        connection = connect(uri)
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except BaseException:
            connection.close()
            raise
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise sqlite3.DatabaseError(str(error)) from error
    except apsw.Error as error:
        raise sqlite3.OperationalError(str(error)) from error
    return connection


def codec(connection: apsw.Connection) -> str:
    """Return Python's name for the encoding of the database's text, as in a text cast to a blob."""
    (encoding,) = connection.execute("PRAGMA encoding").fetchone()
    return _CODECS[encoding]


def readable_rows(
    connection: apsw.Connection, expressions: Sequence[str], rest: str
) -> list[tuple[str, ...]]:
    """Return ``SELECT expressions rest`` as texts to be shown, whatever bytes they are made of."""
    encoding = codec(connection)
    wanted = ", ".join(f"CAST({expression} AS BLOB)" for expression in expressions)
    return [
        tuple("NULL" if value is None else value.decode(encoding, "replace") for value in row)
        for row in connection.execute(f"SELECT {wanted} {rest}")
    ]


class StandIns:
    """Takes the place of functions and collations that only the program has.

    A function is NULL for everything, which a CHECK lets pass; a collation compares bytes. They
    must not be used where what they return is stored.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.functions: set[str] = set()
        self.collations: set[str] = set()
        self._connection = connection
        connection.collation_needed(self._add_collation)

    def _add_collation(self, connection: apsw.Connection, name: str) -> None:
        self.collations.add(name.upper())
        connection.create_collation(name, _compare)

    def run(self, statement: str) -> None:
        """Run a statement of DDL; functions that it calls and that do not exist are made."""
        while True:
            try:
                self._connection.execute(statement)
                return
            except apsw.SQLError as error:
                missing = _NO_FUNCTION.fullmatch(str(error))
                if missing is None or missing[1] in self.functions:
                    raise
                self.functions.add(missing[1])
                self._connection.create_scalar_function(
                    missing[1], lambda *_: None, deterministic=True
                )


def _compare(left: str, right: str) -> int:
    return (left > right) - (left < right)
