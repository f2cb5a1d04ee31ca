"""Connect to PostgreSQL, and turn its errors into ones that say what to do."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from ferry.errors import RefusedError, ServerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

CONNECT_TIMEOUT = 15  # seconds
# A network that is gone without a word is noticed within two minutes, not after two hours. Seconds,
# but for tcp_user_timeout: milliseconds.
_LIFE_SIGNS = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
    "tcp_user_timeout": 90_000,
}
MINIMUM_VERSION = 130000

# Settings of the transaction, so that neither the server's nor the client's defaults matter. LOCAL:
# behind a connection pooler nothing of it stays with the server's session.
_SETTINGS = """
    SET LOCAL TimeZone = 'UTC';
    SET LOCAL DateStyle = 'ISO, YMD';
    SET LOCAL IntervalStyle = 'postgres';
    SET LOCAL extra_float_digits = 1;
    SET LOCAL bytea_output = 'hex';
    SET LOCAL standard_conforming_strings = on;
    SET LOCAL client_encoding = 'UTF8';
    SET LOCAL statement_timeout = 0;
    SET LOCAL idle_in_transaction_session_timeout = 0;
    SET LOCAL lock_timeout = '30s';
"""

_HINTS = (
    ("password authentication failed", "check PGUSER and PGPASSWORD (or PGPASSFILE)"),
    ("no password supplied", "set PGPASSWORD, or PGPASSFILE to a file with mode 0600"),
    ("certificate verify failed", "PGSSLROOTCERT must name the CA that signed the server's"),
    ("root certificate file", "PGSSLROOTCERT must name a readable file with the CA"),
    ("server certificate for", "connect by the name that stands in the server's certificate"),
    ("no pg_hba.conf entry", "the server does not let this address, user or database in"),
    (
        "does not have CONNECT privilege",
        "as the database's owner: GRANT CONNECT ON DATABASE (its name) TO (the role's)",
    ),
    ("does not exist", "check the names of database and role"),
    ("Connection refused", "is the server running, and are host and port right?"),
    ("timeout expired", "is the address right, and does the firewall let this host in?"),
)


def connect(dsn: str) -> psycopg.Connection:
    """Connect as libpq would; an empty ``dsn`` means the environment.

    Raises UsageError for a malformed DSN or one with a password, ServerError when there is no
    connection to be had.
    """
    try:
        parameters = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise UsageError(
            f"the DSN is no connection string: {str(error).strip()}",
            "use a URI (postgresql://user@host/database) or key=value pairs",
        ) from error
    if "password" in parameters:
        raise UsageError(
            "the DSN holds a password; every user of this machine can read command lines",
            "take it out, and give it by PGPASSWORD, PGPASSFILE or a service file",
        )
    options: dict[str, Any] = {"application_name": "ferry"}
    if "connect_timeout" not in parameters and "PGCONNECT_TIMEOUT" not in os.environ:
        options["connect_timeout"] = CONNECT_TIMEOUT
    options |= {name: value for name, value in _LIFE_SIGNS.items() if name not in parameters}
    try:
        connection = psycopg.connect(dsn, prepare_threshold=None, **options)
    except psycopg.OperationalError as error:
        text = str(error).strip()
        hint = next((hint for part, hint in _HINTS if part in text), "")
        raise ServerError(f"no connection to PostgreSQL: {text}", hint) from error
    if connection.info.server_version < MINIMUM_VERSION:
        version = connection.info.parameter_status("server_version")
        connection.close()
        raise RefusedError(f"the server runs PostgreSQL {version}; ferry needs 13 or later")
    if connection.info.parameter_status("server_encoding") != "UTF8":
        encoding = connection.info.parameter_status("server_encoding")
        connection.close()
        raise RefusedError(
            f"the database's encoding is {encoding}, which cannot hold every text",
            "create the database with ENCODING 'UTF8'",
        )
    return connection


@contextlib.contextmanager
def transaction(dsn: str, *, write: bool) -> Iterator[psycopg.Connection]:
    """Open a connection with one transaction; commit at the end, roll back on any error.

    A reading transaction sees one state throughout; a writing one what is committed, because it
    must see what another ferry has done before it got the lock. Raises RefusedError and
    ServerError.
    """
    connection = connect(dsn)
    with contextlib.closing(connection), explained():
        mode = "READ COMMITTED, READ WRITE" if write else "REPEATABLE READ, READ ONLY"
        connection.execute(f"SET TRANSACTION ISOLATION LEVEL {mode}")
        connection.execute(_SETTINGS)
        try:
            yield connection
        except Exception:
            # Closing alone would leave the lock to a server process that ends some time later, and
            # the next ferry would be told that this one still works.
            with contextlib.suppress(psycopg.Error):
                connection.rollback()
            raise
        connection.commit()


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn psycopg's errors into ferry's."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise RefusedError(
            f"PostgreSQL refuses: {error.diag.message_primary}",
            "give the role what it lacks; ferry/README.md lists the GRANTs it needs",
        ) from error
    except (psycopg.IntegrityError, psycopg.DataError) as error:
        detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
        context = f" [{error.diag.context.splitlines()[0]}]" if error.diag.context else ""
        raise RefusedError(
            f"PostgreSQL refuses the contents: {error.diag.message_primary}{detail}{context}",
            "nothing was written; correct these values in SQLite and run again",
        ) from error
    except errors.ProgramLimitExceeded as error:
        raise RefusedError(
            f"PostgreSQL cannot hold this: {error.diag.message_primary}",
            "nothing was written; drop the index, or shorten the values, on a copy of the file",
        ) from error
    except psycopg.OperationalError as error:
        raise ServerError(
            f"the server or the connection failed: {str(error).strip()}",
            "nothing was written; when the server is well again, run the same command again",
        ) from error


def describe(connection: psycopg.Connection, namespace: str) -> dict[str, Any]:
    """Return what the report says about the target; there is no secret in it."""
    info = connection.info
    return {
        "host": info.host,
        "port": info.port,
        "database": info.dbname,
        "schema": namespace,
        "role": connection.execute("SELECT current_user").fetchone()[0],
        "tls": bool(info.pgconn.ssl_in_use),
        "server_version": info.parameter_status("server_version"),
    }


def lock_target(connection: psycopg.Connection, namespace: str) -> None:
    """Make sure that no other ferry writes to this schema until the transaction ends."""
    (got,) = connection.execute(
        "SELECT pg_try_advisory_xact_lock(hashtextextended('ferry:' || %s, 0))", (namespace,)
    ).fetchone()
    if not got:
        raise RefusedError(
            f"another ferry is working on the schema {namespace} of this database",
            "wait until it has ended, then run again",
        )


def ensure_schema(connection: psycopg.Connection, namespace: str) -> None:
    """Create the schema if it is missing, and make sure that tables may be created in it."""
    role, database, exists, may_create_schema = connection.execute(
        "SELECT current_user, current_database(), "
        "EXISTS (SELECT FROM pg_namespace WHERE nspname = %s), "
        "has_database_privilege(current_database(), 'CREATE')",
        (namespace,),
    ).fetchone()
    name = sql.Identifier(namespace)
    if not exists:
        if not may_create_schema:
            grant = sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
                sql.Identifier(database), sql.Identifier(role)
            )
            raise RefusedError(
                f"the role {role} may not create the schema {namespace}",
                f"as the database's owner: {grant.as_string(connection)}",
            )
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
        return
    (may_use, may_create) = connection.execute(
        "SELECT has_schema_privilege(%(name)s, 'USAGE'), has_schema_privilege(%(name)s, 'CREATE')",
        {"name": namespace},
    ).fetchone()
    if not (may_use and may_create):
        grant = sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(name, sql.Identifier(role))
        raise RefusedError(
            f"the role {role} may not create tables in the schema {namespace}",
            f"as the schema's owner: {grant.as_string(connection)}",
        )


def check_reading(
    connection: psycopg.Connection, namespace: str, tables: Collection[str] | None = None
) -> None:
    """Make sure that tables and their sequences may be read: those named, or all of the schema.

    Raises RefusedError that names the GRANT.
    """
    role, usage = connection.execute(
        "SELECT current_user, has_schema_privilege(oid, 'USAGE') FROM pg_namespace "
        "WHERE nspname = %s",
        (namespace,),
    ).fetchone() or (None, True)
    if role is None:
        return  # there is no such schema; each command says itself what that means
    kinds = {
        kind
        for (kind,) in connection.execute(
            """
            SELECT DISTINCT CASE c.relkind WHEN 'S' THEN 'SEQUENCES' ELSE 'TABLES' END
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
                AND d.deptype IN ('a', 'i') AND c.relkind = 'S'
            LEFT JOIN pg_class t ON t.oid = coalesce(d.refobjid, c.oid)
            WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'S')
              AND (%(tables)s::text[] IS NULL OR t.relname = ANY (%(tables)s))
              AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass
                              AND e.objid = c.oid AND e.deptype = 'e')
              AND NOT CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                      ELSE has_table_privilege(c.oid, 'SELECT') END
            """,
            {"schema": namespace, "tables": None if tables is None else list(tables)},
        )
    }
    place, receiver = sql.Identifier(namespace), sql.Identifier(role)
    grants = [] if usage else [sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(place, receiver)]
    grants += [
        sql.SQL(f"GRANT SELECT ON ALL {kind} IN SCHEMA {{}} TO {{}}").format(place, receiver)
        for kind in sorted(kinds, reverse=True)
    ]
    if grants:
        raise RefusedError(
            f"the role {role} may not read all tables in the schema {namespace}",
            f"as their owner: {'; '.join(grant.as_string(connection) for grant in grants)}",
        )


def check_search_path(connection: psycopg.Connection) -> None:
    """Make sure that names without a schema are looked up somewhere; raises RefusedError."""
    role, present, path = connection.execute(
        "SELECT current_user, current_schema(), current_setting('search_path')"
    ).fetchone()
    if present is None:
        grant = sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(sql.Identifier(role))
        raise RefusedError(
            f"the role {role} may use no schema of its search_path ({path})",
            f"as the schema's owner: {grant.as_string(connection)}",
        )


def check_owning(connection: psycopg.Connection, namespace: str, tables: Collection[str]) -> None:
    """Make sure that the tables belong to the role (or one it is a member of).

    Foreign keys are dropped and made again, which only an owner may do. Raises RefusedError.
    """
    owners = connection.execute(
        """
        SELECT current_user, pg_get_userbyid(c.relowner), min(c.relname::text)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND c.relname = ANY (%s)
          AND NOT pg_has_role(c.relowner, 'USAGE')
        GROUP BY 1, 2
        """,
        (namespace, list(tables)),
    ).fetchall()
    if owners:
        role, owner, table = owners[0]
        grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(owner), sql.Identifier(role))
        raise RefusedError(
            f"the table {table} belongs to {owner}, and {role} is no member of that role",
            f"as a superuser, or as {owner} with the right to: {grant.as_string(connection)}",
        )


def relations(connection: psycopg.Connection, namespace: str) -> dict[str, str]:
    """Return ``{name: kind}`` of tables and views in a schema; those of extensions do not count."""
    rows = connection.execute(
        """
        SELECT c.relname, c.relkind::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                          AND d.objid = c.oid AND d.deptype = 'e')
        ORDER BY c.relname
        """,
        (namespace,),
    ).fetchall()
    return dict(rows)
