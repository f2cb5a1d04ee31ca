"""One interface over SQLite (aiosqlite) and PostgreSQL (asyncpg).

It knows nothing of the bot around it: copy this file into yours (docs/porting-a-bot.md walks
through that). The backend is named by ``DATABASE_TYPE`` or by the scheme of ``DATABASE_URL``; there
is no default and no silent fall-back, and where ``DATABASE_MUST_BE=postgresql`` is set another
backend is refused. Statements are written once, with ``?`` placeholders::

    database = Database(DatabaseSettings.from_environment())
    await database.open()
    rows = await database.fetch_all("SELECT * FROM rounds WHERE map_name = ?", "supply")
    async with database.transaction() as session:
        await session.execute("UPDATE rounds SET is_tied = ? WHERE id = ?", True, 7)
    await database.close()

Rows answer to names and positions (``row["id"]``, ``row[0]``) on both backends. Columns declared
BOOLEAN and TIMESTAMP come back as ``bool`` and naive ``datetime`` on both; expressions over them
(``MAX(created_at)``) are text in SQLite. ``AVG`` of integers is a ``Decimal`` in PostgreSQL.

Every failure is a :class:`DatabaseError`; its kind says what to do about it. A short absence of
the server (restart, failover) is bridged for ``DATABASE_RETRY_SECONDS``, with growing pauses: a
connection that cannot be had is asked for again, a SELECT through :meth:`Database.fetch_all` and
its kin whose connection was lost is sent again, and so is a transaction in :meth:`Database.repeat`.
All else that loses its connection half-way fails, because only its caller knows whether it may be
done twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import sqlite3
import ssl
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import aiosqlite
import asyncpg

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
T = TypeVar("T")
Row = Any  # asyncpg.Record or sqlite3.Row: both are read by name and by position


class DatabaseError(Exception):
    """A statement failed for a reason that neither waiting nor another value will mend."""


class DatabaseConfigurationError(DatabaseError):
    """The settings cannot work; the message says which one to change."""


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be reached or cannot take work now; the same call may succeed later."""


class DatabaseTimeoutError(DatabaseUnavailableError):
    """No answer in time, or no free connection: the database is there but too busy."""


class DatabaseValueError(DatabaseError):
    """The database refused a value: out of range, a broken constraint, a wrong type."""


# --------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class DatabaseSettings:
    """Where the database is and how to talk to it. Times are in seconds."""

    backend: str  # "postgresql" or "sqlite"
    path: Path | None = None  # sqlite
    url: str | None = None  # postgresql; what stands in it wins over the single settings
    host: str | None = None
    port: int | None = None
    name: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ssl_mode: str | None = None
    ssl_root_cert: Path | None = None
    pool_min: int = 5
    pool_max: int = 20
    command_timeout: float = 60.0
    connect_timeout: float = 10.0  # and, with sqlite, the wait for another's lock
    statement_cache: int = 100
    retry_for: float = 3.0  # how long a lost connection is tried again

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> DatabaseSettings:
        """Read the ``DATABASE_*`` settings.

        libpq's own variables (``PGSSLMODE``, ``PGSSLROOTCERT``, ``PGPASSFILE``, ...) count where
        the setting of ours is absent.

        Raises:
            DatabaseConfigurationError: a setting is missing, malformed or contradicts another.

        """
        values = {key: value.strip() for key, value in environment.items() if value.strip()}
        url = values.get("DATABASE_URL")
        backend = _chosen_backend(values.get("DATABASE_TYPE"), url)
        _check_intention(values.get("DATABASE_MUST_BE"), backend)
        if backend == "sqlite":
            path = unquote(urlsplit(url).path)[1:] if url else values.get("DATABASE_PATH")
            return cls(
                backend,
                path=Path(path or "bot/etlegacy_production.db"),
                connect_timeout=_number(values, "DATABASE_CONNECT_TIMEOUT", float, 10.0),
                retry_for=_number(values, "DATABASE_RETRY_SECONDS", float, 3.0),
            )

        settings = cls(
            backend,
            url=url,
            host=values.get("DATABASE_HOST"),
            port=_number(values, "DATABASE_PORT", int),
            name=values.get("DATABASE_NAME"),
            user=values.get("DATABASE_USER"),
            password=values.get("DATABASE_PASSWORD"),
            ssl_mode=values.get("DATABASE_SSL_MODE"),
            ssl_root_cert=_path(values.get("DATABASE_SSL_ROOT_CERT")),
            pool_min=_number(values, "DATABASE_POOL_MIN", int, 5),
            pool_max=_number(values, "DATABASE_POOL_MAX", int, 20),
            command_timeout=_number(values, "DATABASE_COMMAND_TIMEOUT", float, 60.0),
            connect_timeout=_number(values, "DATABASE_CONNECT_TIMEOUT", float, 10.0),
            statement_cache=_number(values, "DATABASE_STATEMENT_CACHE_SIZE", int, 100),
            retry_for=_number(values, "DATABASE_RETRY_SECONDS", float, 3.0),
        )
        settings._check(values)
        return settings

    def _check(self, values: Mapping[str, str]) -> None:
        in_url = _url_options(self.url) if self.url else {}
        if self.url is None:
            absent = [
                f"DATABASE_{name.upper()}"
                for name in ("host", "name", "user")
                if getattr(self, name) is None
            ]
            if absent:
                raise DatabaseConfigurationError(
                    f"{', '.join(absent)} must be set for DATABASE_TYPE=postgresql "
                    "(or all of it in DATABASE_URL=postgresql://user:password@host:port/name)"
                )
        if not 1 <= self.pool_min <= self.pool_max:
            raise DatabaseConfigurationError(
                f"DATABASE_POOL_MIN={self.pool_min} and DATABASE_POOL_MAX={self.pool_max}: "
                "the first must be at least 1 and not above the second"
            )
        if self.ssl_mode and self.ssl_mode != in_url.get("sslmode", self.ssl_mode):
            raise DatabaseConfigurationError(
                f"DATABASE_SSL_MODE={self.ssl_mode}, but DATABASE_URL says "
                f"sslmode={in_url['sslmode']}: remove one of the two"
            )
        mode = self.ssl_mode or in_url.get("sslmode") or values.get("PGSSLMODE")
        if mode and mode not in SSL_MODES:
            raise DatabaseConfigurationError(
                f"TLS mode {mode!r}: DATABASE_SSL_MODE must be one of {', '.join(SSL_MODES)}"
            )
        authority = (
            self.ssl_root_cert or in_url.get("sslrootcert") or values.get("PGSSLROOTCERT") or None
        )
        if authority and not os.access(authority, os.R_OK):
            raise DatabaseConfigurationError(
                f"the CA certificate {authority} cannot be read: correct DATABASE_SSL_ROOT_CERT "
                "(or PGSSLROOTCERT)"
            )
        default = Path(values.get("HOME", "/nonexistent"), ".postgresql", "root.crt")
        if (
            mode in ("verify-ca", "verify-full")
            and not authority
            and not os.access(default, os.R_OK)
        ):
            raise DatabaseConfigurationError(
                f"DATABASE_SSL_MODE={mode} needs the CA's certificate: "
                "set DATABASE_SSL_ROOT_CERT to its file"
            )

    def asyncpg_arguments(self) -> dict[str, Any]:
        """Keyword arguments for ``asyncpg.connect`` and ``create_pool`` (PostgreSQL only)."""
        options = {"sslmode": self.ssl_mode, "sslrootcert": self.ssl_root_cert}
        query = urlencode({key: str(value) for key, value in options.items() if value})
        url = self.url or "postgresql://"
        arguments: dict[str, Any] = {
            "dsn": f"{url}{'&' if '?' in url else '?'}{query}" if query else url,
            "timeout": self.connect_timeout,
            "command_timeout": self.command_timeout,
            "statement_cache_size": self.statement_cache,
        }
        if self.url is None:
            arguments |= {
                "host": self.host,
                "port": self.port,
                "user": self.user,
                "database": self.name,
                "password": self.password,
            }
        elif self.password and not urlsplit(self.url).password:
            arguments["password"] = self.password
        return arguments


_BACKENDS = {"postgresql": "postgresql", "postgres": "postgresql", "sqlite": "sqlite"}


def _check_intention(intended: str | None, backend: str) -> None:
    if intended is None:
        return
    if intended.lower() not in _BACKENDS:
        raise DatabaseConfigurationError(
            f"DATABASE_MUST_BE must be postgresql or sqlite, not {intended!r}"
        )
    if _BACKENDS[intended.lower()] != backend:
        raise DatabaseConfigurationError(
            f"the settings choose {backend}, but this must run on {intended} (DATABASE_MUST_BE): "
            "correct DATABASE_TYPE or DATABASE_URL, or the line in .env that sets it"
        )


def _chosen_backend(named: str | None, url: str | None) -> str:
    choice = "DATABASE_TYPE must be postgresql or sqlite"
    if named is None and url is None:
        raise DatabaseConfigurationError(
            "no database is configured: "
            "set DATABASE_URL=postgresql://user:password@host:port/name, "
            "or DATABASE_TYPE=postgresql with DATABASE_HOST, DATABASE_NAME, DATABASE_USER and "
            "DATABASE_PASSWORD, or DATABASE_TYPE=sqlite with DATABASE_PATH"
        )
    if named is not None and named.lower() not in _BACKENDS:
        raise DatabaseConfigurationError(f"{choice}, not {named!r}")
    backend = _BACKENDS[named.lower()] if named else None
    if url is None:
        return backend
    scheme = url.partition("://")[0].lower()
    if scheme not in _BACKENDS:
        raise DatabaseConfigurationError(
            "DATABASE_URL must begin with postgresql:// or sqlite:///"  # the rest may be secret
        )
    try:
        parts = urlsplit(url)
        _ = parts.port, parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        raise DatabaseConfigurationError(
            "DATABASE_URL is no valid URL; in a password, characters like / ? # @ [ % must be "
            "percent-encoded (or set DATABASE_PASSWORD instead)"
        ) from None
    if backend not in (None, _BACKENDS[scheme]):
        raise DatabaseConfigurationError(
            f"DATABASE_TYPE={named}, but DATABASE_URL is for {_BACKENDS[scheme]}: "
            "remove one of the two"
        )
    return _BACKENDS[scheme]


def _url_options(url: str) -> dict[str, str]:
    return {key: found[-1] for key, found in parse_qs(urlsplit(url).query).items()}


def _number(
    values: Mapping[str, str], name: str, kind: Callable[[str], Any], default: Any = None
) -> Any:
    if name not in values:
        return default
    try:
        return kind(values[name])
    except ValueError:
        raise DatabaseConfigurationError(f"{name}={values[name]!r} is not a number") from None


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


# ------------------------------------------------------------------------------------- statements

_TOKEN = re.compile(
    r"""
      '(?:[^']|'')*'                 # string
    | "(?:[^"]|"")*"                 # quoted name
    | --[^\n]*                       # comment to the end of the line
    | /\*.*?\*/                      # comment
    | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ # dollar-quoted string
    | (?P<mark>\?)
    """,
    re.VERBOSE | re.DOTALL,
)


@functools.lru_cache(maxsize=512)
def numbered_placeholders(statement: str) -> str:
    """Turn each ``?`` that is not inside a string, a quoted name or a comment into ``$1, $2, ...``.

    A statement without any comes back unchanged, so ``$1`` may be used directly. PostgreSQL's own
    operators that contain a question mark have names to use instead (``jsonb_exists`` for ``?``).
    """
    count = 0

    def number(match: re.Match[str]) -> str:
        nonlocal count
        if match["mark"] is None:
            return match[0]
        count += 1
        return f"${count}"

    return _TOKEN.sub(number, statement)


class Session:
    """One connection, for as long as its ``async with`` block lasts."""

    async def execute(self, statement: str, *parameters: Any) -> int:
        """Run a statement; return the number of rows it changed."""
        raise NotImplementedError

    async def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each row of parameters."""
        raise NotImplementedError

    async def execute_script(self, script: str) -> None:
        """Run several statements without parameters, separated by semicolons."""
        raise NotImplementedError

    async def fetch_all(self, statement: str, *parameters: Any) -> list[Row]:
        """Return all rows."""
        raise NotImplementedError

    async def fetch_one(self, statement: str, *parameters: Any) -> Row | None:
        """Return the first row, or None when there is none."""
        rows = await self.fetch_all(statement, *parameters)
        return rows[0] if rows else None

    async def fetch_value(self, statement: str, *parameters: Any) -> Any:
        """Return the first column of the first row, or None when there is no row."""
        row = await self.fetch_one(statement, *parameters)
        return row[0] if row else None

    def transaction(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Commit at the end of the block, roll back on an error; nested blocks are savepoints."""
        raise NotImplementedError


class _PostgresSession(Session):
    def __init__(self, connection: asyncpg.Connection, *, pin_statements: bool) -> None:
        self._connection = connection
        # Without a statement cache there is a pooler in between (see .env.example) which may hand
        # a statement's second half to another server unless a transaction holds it in place.
        self._pin_statements = pin_statements

    async def execute(self, statement: str, *parameters: Any) -> int:
        async with self._pinned():
            status = await self._connection.execute(numbered_placeholders(statement), *parameters)
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        with _postgres_errors():
            await self._connection.executemany(numbered_placeholders(statement), rows)

    async def execute_script(self, script: str) -> None:
        with _postgres_errors():
            await self._connection.execute(script)

    async def fetch_all(self, statement: str, *parameters: Any) -> list[Row]:
        async with self._pinned():
            return await self._connection.fetch(numbered_placeholders(statement), *parameters)

    @contextlib.asynccontextmanager
    async def _pinned(self) -> AsyncIterator[None]:
        if self._pin_statements and not self._connection.is_in_transaction():
            async with self.transaction():
                with _postgres_errors():
                    yield
        else:
            with _postgres_errors():
                yield

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        transaction = self._connection.transaction()
        with _postgres_errors():
            await transaction.start()
        try:
            yield
        except BaseException:
            # On a lost connection the server has rolled back already, and the pool has taken the
            # connection away.
            with contextlib.suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError):
                await transaction.rollback()
            raise
        with _postgres_errors():
            await transaction.commit()


class _SqliteSession(Session):
    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._depth = 0

    async def execute(self, statement: str, *parameters: Any) -> int:
        with _sqlite_errors():
            async with self._connection.execute(statement, _to_sqlite(parameters)) as cursor:
                return max(cursor.rowcount, 0)

    async def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        async with self.transaction():  # all or none, as in PostgreSQL
            with _sqlite_errors():
                await self._connection.executemany(statement, map(_to_sqlite, rows))

    async def execute_script(self, script: str) -> None:
        async with self.transaction():
            for statement in _statements(script):
                await self.execute(statement)

    async def fetch_all(self, statement: str, *parameters: Any) -> list[Row]:
        with _sqlite_errors():
            return await self._connection.execute_fetchall(statement, _to_sqlite(parameters))

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        # IMMEDIATE takes the write lock at once: two writers queue instead of failing half-way.
        name = f"level_{self._depth}"
        await self.execute(f"SAVEPOINT {name}" if self._depth else "BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
            await self.execute(f"RELEASE {name}" if self._depth > 1 else "COMMIT")
        except BaseException:
            if self._depth > 1:
                await self.execute(f"ROLLBACK TO {name}")
                await self.execute(f"RELEASE {name}")
            elif self._connection.in_transaction:  # a full disk has rolled back already
                await self.execute("ROLLBACK")
            raise
        finally:
            self._depth -= 1


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _to_sqlite(parameters: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
        for value in parameters
    )


sqlite3.register_converter("BOOLEAN", lambda text: bool(int(text)))
sqlite3.register_converter("TIMESTAMP", lambda text: datetime.fromisoformat(text.decode()))


# ----------------------------------------------------------------------------------------- errors


@contextlib.contextmanager
def _postgres_errors() -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise DatabaseConfigurationError(
            f"the database server's certificate is not accepted: {error.verify_message or error}; "
            "check DATABASE_SSL_ROOT_CERT (the CA) and DATABASE_HOST (the certificate's name)"
        ) from error
    except TimeoutError as error:
        raise DatabaseTimeoutError("the database did not answer in time") from error
    except OSError as error:
        raise DatabaseUnavailableError(f"the database cannot be reached: {error}") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
            raise DatabaseConfigurationError(f"the database settings: {error}") from error
        if isinstance(error, ValueError):  # a parameter of the wrong type, found before sending
            raise DatabaseValueError(str(error)) from error
        raise DatabaseUnavailableError(f"the database connection was lost: {error}") from error
    except asyncpg.PostgresError as error:
        said = " ".join(
            str(error).split()
        )  # with DETAIL and HINT, which stand on lines of their own
        if error.sqlstate in ("26000", "42P05"):  # prepared statement: not there, there already
            raise DatabaseConfigurationError(
                "a pooler between us and PostgreSQL mixes up prepared statements: set "
                f"DATABASE_STATEMENT_CACHE_SIZE=0 ({said[:100]})"
            ) from error
        raise _error_of_state(error.sqlstate or "")(f"PostgreSQL: {said}") from error


def _error_of_state(state: str) -> type[DatabaseError]:
    """Judge an SQLSTATE by its class, the first two characters."""
    if state[:2] == "28" or state == "3D000":  # login refused, no such database
        return DatabaseConfigurationError
    # Connection, resources, operator intervention, deadlock or serialization, read-only standby.
    if state[:2] in ("08", "53", "57", "40") or state == "25006":
        return DatabaseUnavailableError
    if state[:2] in ("22", "23"):
        return DatabaseValueError
    return DatabaseError


@contextlib.contextmanager
def _sqlite_errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError) as error:
        raise DatabaseValueError(f"SQLite: {error}") from error
    except sqlite3.OperationalError as error:
        # The primary result code is the low byte.
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        waiting = (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
            sqlite3.SQLITE_FULL,
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_CANTOPEN,
        )
        kind = DatabaseUnavailableError if code in waiting else DatabaseError
        raise kind(f"SQLite: {error}") from error
    except sqlite3.Error as error:
        raise DatabaseError(f"SQLite: {error}") from error


# --------------------------------------------------------------------------------------- database


@dataclass(frozen=True)
class Health:
    """What the server itself says about our connection, asked just now."""

    backend: str
    version: str
    place: str  # database and server, or the file
    tls: str | None  # protocol of the connection between us and whoever speaks to us
    milliseconds: float  # for a small question, with getting a connection
    connections: int = 1  # open in the pool
    idle: int = 0  # of these, not lent out
    limit: int = 1

    def __str__(self) -> str:
        """Say it in one line."""
        if self.backend == "sqlite":
            return f"SQLite {self.version}, {self.place}"
        return f"PostgreSQL {self.version}, {self.place}, {self.tls or 'no TLS'}"


class Database:
    """A pool of PostgreSQL connections or an SQLite file, behind one interface.

    The statement methods of :class:`Session` are here as well; each call then uses a connection
    of its own. The ``fetch_`` methods repeat a SELECT whose connection was lost.
    """

    def __init__(self, settings: DatabaseSettings, application: str = "etlegacy-bot") -> None:
        self.settings = settings
        self.application = application  # how the sessions are named in pg_stat_activity
        self._pool: asyncpg.Pool | None = None

    @property
    def backend(self) -> str:
        """``"postgresql"`` or ``"sqlite"``."""
        return self.settings.backend

    async def open(self, *, wait: float = 0.0, create: bool = False) -> None:
        """Open the pool (PostgreSQL) or check the file (SQLite).

        Args:
            wait: seconds to go on trying while the server cannot be reached, with growing pauses.
            create: SQLite only, make a new file where there is none.

        Raises:
            DatabaseConfigurationError: wrong settings, refused login, no such database or file.
            DatabaseUnavailableError: not reachable, even after ``wait`` seconds.

        """
        if self.backend == "sqlite":
            await self._check_file(create=create)
            return
        deadline, pause = time.monotonic() + wait, 0.5
        while self._pool is None:
            try:
                with _postgres_errors():
                    self._pool = await asyncpg.create_pool(
                        **self.settings.asyncpg_arguments(),
                        min_size=self.settings.pool_min,
                        max_size=self.settings.pool_max,
                        server_settings={"application_name": self.application},
                    )
            except DatabaseUnavailableError:
                if time.monotonic() + pause > deadline:
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    async def _check_file(self, *, create: bool) -> None:
        path = self.settings.path
        if not create and not path.is_file():
            raise DatabaseConfigurationError(
                f"there is no SQLite file {path.absolute()}: correct DATABASE_PATH, "
                "or make one with: python database_manager.py create"
            )
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        try:
            await self.fetch_value("SELECT count(*) FROM sqlite_master")  # ferry: sqlite
        except DatabaseUnavailableError:
            raise
        except DatabaseError as error:
            raise DatabaseConfigurationError(f"{path.absolute()}: {error}") from error

    async def close(self) -> None:
        """Close all connections; what still runs gets the connect timeout to finish."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                await asyncio.wait_for(pool.close(), self.settings.connect_timeout)
            except (TimeoutError, OSError, asyncpg.InterfaceError):
                pool.terminate()

    async def __aenter__(self) -> Database:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @contextlib.asynccontextmanager
    async def session(self, *, patient: bool = True) -> AsyncIterator[Session]:
        """Lend one connection for the block.

        Args:
            patient: whether a server that cannot be reached is tried again for a while.

        """
        if self.backend == "sqlite":
            # A connection per block: it is cheap, and no block can wait for another one's lock
            # longer than SQLite's own busy timeout. mode=rw never makes an empty file.
            with _sqlite_errors():
                connection = await aiosqlite.connect(
                    f"{self.settings.path.absolute().as_uri()}?mode=rw",
                    uri=True,
                    isolation_level=None,
                    timeout=self.settings.connect_timeout,
                    detect_types=sqlite3.PARSE_DECLTYPES,
                )
            try:
                connection.row_factory = sqlite3.Row
                session = _SqliteSession(connection)
                await session.execute("PRAGMA foreign_keys = ON")  # ferry: sqlite
                yield session
            finally:
                await connection.close()
            return
        if self._pool is None:
            raise DatabaseError("the database is not open: call open() first")
        pool = self._pool

        async def acquire() -> asyncpg.pool.PoolConnectionProxy:
            with _postgres_errors():
                return await pool.acquire(timeout=self.settings.connect_timeout)

        # Nothing was sent yet, so there is nothing that could be done twice.
        connection = await (self._persistently(acquire) if patient else acquire())
        try:
            yield _PostgresSession(connection, pin_statements=self.settings.statement_cache == 0)
        finally:
            # A broken connection cannot be reset; the pool replaces it by itself.
            with contextlib.suppress(asyncpg.InterfaceError, asyncpg.PostgresError, OSError):
                await pool.release(connection)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Lend one connection inside a transaction: committed at the end, else rolled back."""
        async with self.session() as session, session.transaction():
            yield session

    async def repeat(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Run ``work(session)`` in a transaction; where the connection is lost, begin anew.

        A deadlock and a failed serialization are repeated as well. ``work`` has to be safe to run
        twice: who loses the connection during the COMMIT cannot know whether it was done.

        Raises:
            DatabaseUnavailableError: also the last try, after the setting ``retry_for``, failed.
            DatabaseError: see its kinds.

        """

        async def once() -> T:
            async with self.transaction() as session:
                return await work(session)

        return await self._persistently(once)

    async def _persistently(self, call: Callable[[], Awaitable[T]]) -> T:
        deadline, pause = time.monotonic() + self.settings.retry_for, 0.05
        while True:
            try:
                return await call()
            except DatabaseTimeoutError:
                raise  # it is slow or busy: asking again at once would only add to that
            except DatabaseUnavailableError:
                if time.monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)

    async def execute(self, statement: str, *parameters: Any) -> int:
        """See :meth:`Session.execute`."""
        async with self.session() as session:
            return await session.execute(statement, *parameters)

    async def fetch_all(self, statement: str, *parameters: Any) -> list[Row]:
        """See :meth:`Session.fetch_all`."""

        async def once() -> list[Row]:
            async with self.session() as session:
                return await session.fetch_all(statement, *parameters)

        return await (self._persistently(once) if _SELECT.match(statement) else once())

    async def fetch_one(self, statement: str, *parameters: Any) -> Row | None:
        """See :meth:`Session.fetch_one`."""
        rows = await self.fetch_all(statement, *parameters)
        return rows[0] if rows else None

    async def fetch_value(self, statement: str, *parameters: Any) -> Any:
        """See :meth:`Session.fetch_value`."""
        row = await self.fetch_one(statement, *parameters)
        return row[0] if row else None

    async def health(self) -> Health:
        """Ask the server who it is and how it is; nothing is repeated.

        Raises:
            DatabaseError: it does not answer.

        """
        begun = time.perf_counter()
        async with self.session(patient=False) as session:
            if self.backend == "sqlite":
                version = await session.fetch_value("SELECT sqlite_version()")  # ferry: sqlite
            else:
                row = await session.fetch_one(_WHO_ARE_YOU)
        milliseconds = (time.perf_counter() - begun) * 1000
        if self.backend == "sqlite":
            place = f"file {self.settings.path.absolute()}"
            return Health("sqlite", version, place, None, milliseconds)
        server = f"{row['host']}:{row['port']}" if row["host"] else "local socket"
        return Health(
            backend="postgresql",
            version=row["version"].split()[0],
            place=f"database {row['name']} at {server} as {row['role']}",
            tls=row["tls"],
            milliseconds=milliseconds,
            connections=self._pool.get_size() if self._pool else 0,
            idle=self._pool.get_idle_size() if self._pool else 0,
            limit=self.settings.pool_max,
        )


_SELECT = re.compile(r"\s*SELECT\b", re.IGNORECASE)
_WHO_ARE_YOU = (
    "SELECT current_setting('server_version') AS version, current_database() AS name, "
    "current_user AS role, host(inet_server_addr()) AS host, inet_server_port() AS port, "
    "(SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS tls"
)
