"""Apply a directory of numbered SQL files to a database, each once and in order.

    schema_migrations.py plan DIRECTORY     say what is due; changes nothing
    schema_migrations.py audit DIRECTORY SOURCE RUNNING [EXCLUDE…]
                                            judge a program's SQL as ferry audit-sql does, after
                                            what is due, which is undone again
    schema_migrations.py apply DIRECTORY    apply it
    schema_migrations.py try DIRECTORY      run all on the tables of the search_path (PGOPTIONS)
                                            and undo it

The files are called ``NUMBER_words.sql`` (``0002_add_season.sql``); the connection comes from
libpq's variables (PGHOST, PGUSER, PGPASSFILE …). Each file runs in one transaction together with
its entry in the table ``public.schema_migrations`` (name, SHA-256, time, role): it is there whole
or not at all.

Refused are a file that was changed after it was applied, one numbered below the last that was
applied, two with one number, and one that ends its transaction by itself. An entry without a file
belongs to a newer release and is left alone.

**A database that has tables but no entries** was filled by something else (ferry, or the bot
itself). The first file has to describe those tables and to do nothing where they exist (CREATE
TABLE IF NOT EXISTS, names without a schema). Whether they are the same is found out by making the
file's tables in an empty schema, in a transaction that is rolled back, and comparing columns; a
column that is missing is refused.

**A program that speaks of what a file adds** can be judged only after that file. So ``audit`` runs
all that is due in one transaction, lets PostgreSQL prepare every statement in SOURCE (files that
fit an EXCLUDE pattern left out) and rolls back. DIRECTORY "" stands for no files. What the bot
wants from a table that a file changes waits meanwhile, as it does when the file is applied. RUNNING
is the program as it runs now ("" for none): a statement that is refused is new, unless that one has
it too and PostgreSQL refuses it there already, without what is due.

**Tables that come from elsewhere**, while nobody uses them yet, are fit for the bot if none of the
files fails on them, and none adds, changes or takes away a column: then their own bot has seen to
that already. ``try`` says so, or refuses.

Prints JSON. ``plan``: ``due``, ``applied``, ``unknown`` (names), ``tables`` (count in public),
``role``. ``audit``: ``tried`` (names), ``refused`` (``file``, ``line``, ``message`` and ``new`` of
each statement that PostgreSQL would refuse). ``apply``: ``applied``, ``remarks`` (columns whose
type differs from the first file's).
``try``: ``tried`` (names).
Exit codes as ferry's: 0; 3 refused or failed, with a message on standard error; 5 no connection.
Needs psycopg 3; ``audit`` needs ferry.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

NAME = re.compile(r"(\d{3,})_[A-Za-z0-9_.-]+\.sql")
# Outside of a function's body, where BEGIN stands without a semicolon.
ENDS_TRANSACTION = re.compile(
    r"^\s*(BEGIN|COMMIT|ROLLBACK|END|START\s+TRANSACTION)\s*;", re.IGNORECASE | re.MULTILINE
)
RECORD = """
    CREATE TABLE IF NOT EXISTS public.schema_migrations (
        name text PRIMARY KEY,
        sha256 text NOT NULL,
        applied_at timestamp NOT NULL DEFAULT date_trunc('second', now() AT TIME ZONE 'utc'),
        applied_by text NOT NULL DEFAULT session_user
    )
"""
TABLES = """
    SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace
    AND relkind IN ('r', 'p') AND relname <> 'schema_migrations'
"""
COLUMNS = """
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p')
    AND a.attnum > 0 AND NOT a.attisdropped
"""
UNKNOWN_STATE = "the database has tables, but nothing says which migrations they have had"
LOOK = "schema_migrations_look"  # exists within one transaction only
# The running bot must not wait behind a migration that itself waits for the bot.
LOCK_TIMEOUT = "30s"
LOCK = 7238412  # of pg_try_advisory_lock: one run at a time


class Refused(Exception):
    """Nothing more was applied; the message says why."""


@dataclass(frozen=True)
class Migration:
    """One file."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Return the hash of its text in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read(directory: Path) -> list[Migration]:
    """Return the files in the order of their numbers.

    Raises:
        Refused: one is not a migration, or two have the same number.

    """
    found: list[Migration] = []
    if not directory.is_dir():
        raise Refused(f"there is no directory {directory} (bot_server_migrations_directory)")
    for path in sorted(directory.glob("*.sql")):
        match = NAME.fullmatch(path.name)
        if not match:
            raise Refused(f"{path.name} is not called NUMBER_words.sql (0002_add_season.sql)")
        migration = Migration(int(match[1]), path.name, path.read_text("utf-8"))
        if ends := ENDS_TRANSACTION.search(migration.text):
            line = migration.text[: ends.start(1)].count("\n") + 1
            raise Refused(
                f"{path.name}, line {line}: {ends[1]} would end the transaction that it runs in; "
                "take it out"
            )
        found.append(migration)
    found.sort(key=lambda migration: migration.number)
    for one, other in itertools.pairwise(found):
        if one.number == other.number:
            raise Refused(f"{one.name} and {other.name} have the same number")
    return found


def recorded(connection: psycopg.Connection) -> dict[str, str]:
    """Return name and hash of what was applied; empty where there is no table of that yet."""
    there = connection.execute("SELECT to_regclass('public.schema_migrations')").fetchone()
    if there is None or there[0] is None:
        return {}
    return dict(connection.execute("SELECT name, sha256 FROM public.schema_migrations").fetchall())


def due(files: list[Migration], applied: dict[str, str]) -> list[Migration]:
    """Return the files that are to be applied.

    Raises:
        Refused: files and database contradict each other.

    """
    for migration in files:
        if applied.get(migration.name, migration.sha256) != migration.sha256:
            raise Refused(
                f"{migration.name} was changed after it was applied: restore it, and put what is "
                "to change into a new file"
            )
    wanted = [migration for migration in files if migration.name not in applied]
    numbers = [int(match[1]) for name in applied if (match := NAME.fullmatch(name))]
    for migration in wanted:
        if numbers and migration.number <= max(numbers):
            raise Refused(
                f"{migration.name} comes before {max(numbers):04d}, which was applied already: "
                "give it a higher number"
            )
    return wanted


def compare(connection: psycopg.Connection, first: Migration) -> list[str]:
    """Compare the tables of the first file with those that are there.

    Returns:
        Sentences about columns whose types differ.

    Raises:
        Refused: tables that are there lack a column.

    """
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(LOOK)))
        connection.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(LOOK)))
        connection.execute(first.text)
        wanted = connection.execute(COLUMNS, (LOOK,)).fetchall()
        have = {(t, c): kind for t, c, kind in connection.execute(COLUMNS, ("public",)).fetchall()}
    if not wanted:
        raise Refused(
            f"{UNKNOWN_STATE}, and {first.name} makes no table by a name without a schema that "
            "they could be compared with"
        )
    tables = {table for table, _ in have}
    missing = [f"{t}.{c}" for t, c, _ in wanted if t in tables and (t, c) not in have]
    if missing:
        raise Refused(
            f"{UNKNOWN_STATE}, and compared with {first.name} these columns are missing: "
            f"{', '.join(sorted(missing))}. Bring the tables to that state by hand, or let the "
            "first file be the state they are in"
        )
    return [
        f"{table}.{column} is {have[table, column]}, in {first.name} {kind}"
        for table, column, kind in sorted(wanted)
        if have.get((table, column), kind) != kind
    ]


def count_tables(connection: psycopg.Connection) -> int:
    """Return the number of tables in public, ours not counted."""
    row = connection.execute(TABLES).fetchone()
    return row[0] if row else 0


def plan(connection: psycopg.Connection, files: list[Migration]) -> dict[str, object]:
    """Say what is due."""
    applied = recorded(connection)
    wanted = due(files, applied)
    tables = count_tables(connection)
    if wanted and tables and not applied:
        compare(connection, wanted[0])
    role = connection.execute("SELECT current_user").fetchone()
    return {
        "due": [migration.name for migration in wanted],
        "applied": sorted(applied),
        "unknown": sorted(applied.keys() - {migration.name for migration in files}),
        "tables": tables,
        "role": role[0] if role else "",
    }


def run_sql(connection: psycopg.Connection, migration: Migration) -> None:
    """Run the text of a file in the transaction that is open."""
    connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    connection.execute(migration.text)
    connection.execute("RESET ALL")  # what the file has set is not for the next one


def apply(connection: psycopg.Connection, files: list[Migration]) -> dict[str, object]:
    """Apply what is due.

    Raises:
        Refused: a file failed; the ones before it stay applied, it left nothing.

    """
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
    if row is None or not row[0]:
        raise Refused("another run applies migrations to this database")
    applied = recorded(connection)
    wanted = due(files, applied)
    remarks: list[str] = []
    if wanted and not applied and count_tables(connection):
        remarks = compare(connection, wanted[0])
    done: list[str] = []
    for migration in wanted:
        try:
            with connection.transaction():
                run_sql(connection, migration)
                connection.execute(RECORD)
                connection.execute(
                    "INSERT INTO public.schema_migrations (name, sha256) VALUES (%s, %s)",
                    (migration.name, migration.sha256),
                )
        except psycopg.Error as error:
            before = f" Applied before it: {', '.join(done)}." if done else ""
            raise Refused(
                f"{migration.name} failed and left nothing behind: {str(error).strip()}{before}"
            ) from error
        done.append(migration.name)
    return {"applied": done, "remarks": remarks}


def audit(
    connection: psycopg.Connection,
    files: list[Migration],
    source: str,
    running: str,
    exclude: list[str],
) -> dict[str, object]:
    """Judge the SQL of a program on what the database will be after the files that are due.

    Args:
        connection: to the database.
        files: all of the program's.
        source: the program's directory.
        running: that of the one whose refused statements are no news; "" for none.
        exclude: patterns of files that are left out.

    Raises:
        Refused: one of the files fails.

    """
    from ferry.audit import audit as judge

    def failing(directory: str) -> list[Any]:
        found = judge(connection, [directory], exclude)
        return [statement for statement in found.statements if statement.verdict == "fails"]

    wanted = due(files, recorded(connection))
    known: set[str] = set()
    if running:
        with connection.transaction(force_rollback=True):
            known = {statement.sql for statement in failing(running)}
    with connection.transaction(force_rollback=True):
        for migration in wanted:
            try:
                run_sql(connection, migration)
            except psycopg.Error as error:
                raise Refused(f"{migration.name} fails: {str(error).strip()}") from error
        refused = failing(source)
    return {
        "tried": [migration.name for migration in wanted],
        "refused": [
            {
                "file": one.file,
                "line": one.line,
                "message": one.message,
                "new": one.sql not in known,
            }
            for one in refused
        ],
    }


def attempt(connection: psycopg.Connection, files: list[Migration]) -> dict[str, object]:
    """Run all files in one transaction that is rolled back.

    Raises:
        Refused: one fails, or the tables have other columns afterwards.

    """
    schema = connection.execute("SELECT current_schema()").fetchone()
    with connection.transaction(force_rollback=True):
        before = set(connection.execute(COLUMNS, schema).fetchall())
        for migration in files:
            try:
                connection.execute(migration.text)
            except psycopg.Error as error:
                raise Refused(f"{migration.name} fails on them: {str(error).strip()}") from error
            after = set(connection.execute(COLUMNS, schema).fetchall())
            if other := sorted({f"{table}.{column}" for table, column, _ in after ^ before}):
                raise Refused(f"{migration.name} adds or changes {', '.join(other)}")
    return {"tried": [migration.name for migration in files]}


def main() -> int:
    """Carry out the command; return the exit code."""
    command, directory, *more = sys.argv[1:]
    try:
        files = read(Path(directory)) if directory else []
        with psycopg.connect(autocommit=True, application_name="schema_migrations") as connection:
            if command == "audit":
                answer = audit(connection, files, more[0], more[1], more[2:])
            else:
                answer = {"plan": plan, "apply": apply, "try": attempt}[command](connection, files)
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 3
    except psycopg.OperationalError as error:
        print(f"no connection to the database: {str(error).strip()}", file=sys.stderr)
        return 5
    except psycopg.Error as error:
        print(f"PostgreSQL refused: {str(error).strip()}", file=sys.stderr)
        return 3
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
