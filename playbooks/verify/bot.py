"""Do what the bot does, with what the bot has, and print the results as one JSON list.

Usage: bot.py JSON

Runs on the bot's host as the bot's user with the unit's own environment (systemd-run with its
EnvironmentFile), in a Python that has psycopg 3: ferry's. What is written is rolled back. The
argument:

    {"milliseconds": 100, "foreign_ca": "/etc/ssl/certs/ca-certificates.crt", "queries": {…},
     "release": "/opt/etlegacy-bot/current", "own_check": "database_manager.py validate",
     "patience": 60}

queries: name → SQL, what players ask for; a table that is not there makes it no question. patience:
seconds for stats files that have just been written. Results are those of host.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql

RESULTS: list[dict] = []
ROUND = re.compile(r"\d{4}-\d\d-\d\d-\d{6}-.+-round-[12]\.txt")
# Each must be refused to the bot's role; {table} is one of its tables.
FORBIDDEN = {
    "CREATE TABLE": "CREATE TABLE public.verify_was_here (id integer)",
    "DROP TABLE": "DROP TABLE {table}",
    "ALTER TABLE": "ALTER TABLE {table} ADD COLUMN verify_was_here integer",
    "TRUNCATE": "TRUNCATE {table}",
    "CREATE SCHEMA": "CREATE SCHEMA verify_was_here",
    "CREATE ROLE": "CREATE ROLE verify_was_here",
    "reading passwords": "SELECT rolpassword FROM pg_authid",
    "reading files": "SELECT pg_read_file('/etc/passwd')",
    "running programs": "COPY (SELECT 1) TO PROGRAM 'true'",
    "reloading the server": "SELECT pg_reload_conf()",
}
REPEATS = 5  # of a query; the quickest counts, since it is the machine's own speed


def check(name: str, sentence: str, ask: Callable[[], tuple[bool | None, str]]) -> None:
    """Ask, and note the answer; a question that breaks is a failure that says how."""
    try:
        ok, said = ask()
    except (psycopg.Error, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        ok, said = False, f"could not be asked: {str(error).strip().splitlines()[0]}"
    ok = None if ok is None else bool(ok)  # such as the number that a question has found
    RESULTS.append({"id": name, "check": sentence, "ok": ok, "said": str(said)})


def connect(**changes: str) -> psycopg.Connection:
    """Connect as the bot's settings say, but for ``changes``; libpq reads PGSSL* by itself."""
    settings = os.environ
    parts = {
        "host": settings.get("DATABASE_HOST") or settings.get("POSTGRES_HOST"),
        "port": settings.get("DATABASE_PORT") or settings.get("POSTGRES_PORT"),
        "dbname": settings.get("DATABASE_NAME") or settings.get("POSTGRES_DATABASE"),
        "user": settings.get("DATABASE_USER") or settings.get("POSTGRES_USER"),
        "password": settings.get("DATABASE_PASSWORD") or settings.get("POSTGRES_PASSWORD"),
    }
    if url := settings.get("DATABASE_URL"):
        parts = {}
    return psycopg.connect(url or "", connect_timeout=10, **(parts | changes))


def pool() -> tuple[bool, str]:
    """Hold as many sessions as the bot's pool begins with, all at once."""
    wanted = int(os.environ.get("DATABASE_POOL_MIN", "5"))
    begun = time.monotonic()
    sessions = []
    try:
        for _ in range(wanted):
            sessions.append(connect())
        answers = {session.execute("SELECT 1").fetchone() for session in sessions}
    finally:
        for session in sessions:
            session.close()
    seconds = time.monotonic() - begun
    return answers == {(1,)}, f"{wanted} sessions beside the bot's own, open in {seconds:.2f} s"


def verified() -> tuple[bool, str]:
    """Tell whether the settings ask for a verified certificate, and get one."""
    mode = os.environ.get("PGSSLMODE", os.environ.get("DATABASE_SSL_MODE", ""))
    with connect() as session:
        used = session.pgconn.ssl_in_use
    return used and mode == "verify-full", f"{mode or 'no mode'}, TLS {'on' if used else 'OFF'}"


def refused(reason: str, **changes: str) -> Callable[[], tuple[bool, str]]:
    """Return a question that is right when a login is refused for this reason (a pattern)."""

    def ask() -> tuple[bool, str]:
        try:
            connect(**changes).close()
        except psycopg.OperationalError as error:
            said = " ".join(str(error).split())
            found = re.search(reason, said)
            return found is not None, said[found.start() if found else 0 :][:110]
        return False, "it was let in"

    return ask


def tables(session: psycopg.Connection) -> list[sql.Identifier]:
    """Return the bot's tables."""
    rows = session.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind = 'r' ORDER BY relname"
    )
    return [sql.Identifier("public", name) for (name,) in rows]


def writes() -> tuple[bool, str]:
    """Insert into, change and delete from every table, and take all of it back."""
    with connect() as session:
        names = tables(session)
        for table in names:
            session.execute(sql.SQL("INSERT INTO {} SELECT * FROM {} LIMIT 0").format(table, table))
            column = session.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
                " AND NOT attisdropped AND attidentity = '' ORDER BY attnum LIMIT 1",
                [table.as_string(session)],
            ).fetchone()[0]
            one = sql.SQL("(SELECT ctid FROM {} LIMIT 1)").format(table)
            session.execute(
                sql.SQL("UPDATE {} SET {} = {} WHERE ctid = {}").format(
                    table, sql.Identifier(column), sql.Identifier(column), one
                )
            )
            session.execute(sql.SQL("DELETE FROM {} WHERE false").format(table))
        session.rollback()
    return bool(names), f"insert, update and delete in {len(names)} tables, rolled back"


def forbidden() -> tuple[bool, str]:
    """Try what the bot's role must not be able to do."""
    allowed = []
    with connect() as session:
        table = (tables(session) or [sql.Identifier("nothing")])[0]
        for what, statement in FORBIDDEN.items():
            session.rollback()
            try:
                session.execute(sql.SQL(statement).format(table=table))
                allowed.append(what)
            except psycopg.errors.InsufficientPrivilege:
                pass
        session.rollback()
    return not allowed, f"ALLOWED: {', '.join(allowed)}" if allowed else (
        f"{len(FORBIDDEN)} things tried, all refused"
    )  # fmt: skip


def quick(queries: dict[str, str], limit: float) -> tuple[bool | None, str]:
    """Ask what players ask for; the slowest must be quick."""
    times = {}
    with connect() as session:
        session.autocommit = True
        for name, statement in queries.items():
            best = float("inf")
            try:
                for _ in range(REPEATS):
                    begun = time.perf_counter()
                    session.execute(statement).fetchall()
                    best = min(best, time.perf_counter() - begun)
            except psycopg.errors.UndefinedTable:
                continue
            times[name] = best * 1000
    if not times:
        return None, "its tables are not there"
    slowest = max(times, key=times.__getitem__)
    return max(times.values()) < limit, (
        f"{len(times)} queries over the network, slowest {times[slowest]:.1f} ms ({slowest}), "
        f"allowed {limit:g} ms"
    )


def own_check(release: str, command: str) -> tuple[bool | None, str]:
    """Run the bot's own check of its data."""
    words = command.split()
    if not words or not (Path(release) / words[0]).exists():
        return None, "it has none"
    done = subprocess.run(
        [f"{release}/.venv/bin/python", *words],
        capture_output=True, text=True, cwd=release, check=False,
    )  # fmt: skip
    lines = (done.stdout + done.stderr).strip().splitlines() or ["no word"]
    return done.returncode == 0, f"{command}: {lines[-1][:120]}"


def rounds_in(session: psycopg.Connection) -> int | None:
    """Count the rounds: a bot notes files as read that it left out, such as those of warm-ups."""
    try:
        return session.execute("SELECT count(*) FROM rounds").fetchone()[0]
    except psycopg.errors.UndefinedTable:
        return None


def files(patience: float) -> tuple[bool | None, str]:
    """Compare the game server's rounds with those that were imported."""
    if os.environ.get("SSH_ENABLED", "false").lower() not in ("true", "yes", "1", "on"):
        return None, "SSH_ENABLED is not true"
    environment = os.environ
    listing = subprocess.run(
        [
            "sftp", "-q", "-b", "-", "-P", environment["SSH_PORT"],
            "-i", environment["SSH_KEY_PATH"],
            "-o", f"UserKnownHostsFile={environment['SSH_KNOWN_HOSTS']}",
            "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
            f"{environment['SSH_USER']}@{environment['SSH_HOST']}",
        ],
        input=f"cd {environment['REMOTE_STATS_PATH']}\nls -1\n",
        capture_output=True, text=True, errors="replace", check=False, timeout=60,
    )  # fmt: skip
    if listing.returncode:
        return False, f"the game server: {(listing.stderr.strip() or 'no word').splitlines()[-1]}"
    there = {line.strip() for line in listing.stdout.splitlines() if ROUND.fullmatch(line.strip())}
    end = time.monotonic() + patience
    while True:
        with connect() as session:
            rows = session.execute("SELECT filename FROM processed_files WHERE success")
            missing = there - {name for (name,) in rows}
            imported = rounds_in(session)
        if not missing or time.monotonic() > end:
            break
        time.sleep(1)
    return not missing, (
        f"{len(missing)} of {len(there)} files on the game server are not in processed_files, such "
        f"as {min(missing)}"
        if missing
        else f"all {len(there)} files on the game server are in processed_files"
        + ("" if imported is None else f"; the table rounds has {imported} rows")
    )


def main(wish: dict) -> None:
    """Ask everything and print."""
    check("pool", "The connection pool works", pool)
    check("verified", "The bot verifies the database's certificate", verified)
    check(
        "plain-refused",
        "Without TLS the bot's password is refused",
        refused("no pg_hba.conf entry|SSL required", sslmode="disable"),
    )
    foreign = {"sslmode": "verify-full", "sslrootcert": wish["foreign_ca"]}
    check("foreign-refused", "A database under a foreign CA is refused",
          refused("certificate verify failed", **foreign))  # fmt: skip
    check("writes", "Database writes succeed", writes)
    check("forbidden", "What the bot must not do is refused", forbidden)
    check("queries", "Queries are quick",
          lambda: quick(wish["queries"], wish["milliseconds"]))  # fmt: skip
    check("data", "The data is right by the bot's own check",
          lambda: own_check(wish["release"], wish["own_check"]))  # fmt: skip
    check("files", "Every stats file of the game server was read",
          lambda: files(wish["patience"]))  # fmt: skip
    print(json.dumps(RESULTS))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
