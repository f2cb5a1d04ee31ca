"""The part of publish.py that talks to the database: as ferry, in ferry's venv.

    publish_database.py WISH

WISH is that of publish.py. The tables move into the schema public in one transaction; that touches
none of their rows. Nobody but the owner had a right to them before: in that transaction they get
those that the owner's default privileges give to new tables of that schema. Then the state is on
the disk, and "published" on the standard output. When a line has come on the standard input (the
comparison is started), this waits until that one has begun to read.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

# Sequences of identity columns, indexes and constraints move with their tables.
MOVABLE = """
    SELECT c.relkind, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                    AND d.objid = c.oid AND d.deptype IN ('i', 'a') AND c.relkind = 'S')
    AND NOT c.relispartition
"""
KINDS = {"r": "TABLE", "p": "TABLE", "v": "VIEW", "m": "MATERIALIZED VIEW", "S": "SEQUENCE"}
# The owner's default privileges in the schema public: to whom (0: everybody), what, on what.
DEFAULTS = """
    SELECT d.defaclobjtype::text, a.grantee, r.rolname, a.privilege_type
    FROM pg_default_acl d CROSS JOIN aclexplode(d.defaclacl) a
    LEFT JOIN pg_roles r ON r.oid = a.grantee
    WHERE d.defaclnamespace = 'public'::regnamespace AND a.grantee <> d.defaclrole
    AND d.defaclrole = (SELECT oid FROM pg_roles WHERE rolname = current_user)
    AND d.defaclobjtype IN ('r', 'S')
"""
RELATIONS = """
    SELECT c.relkind, c.relname FROM pg_class c
    WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
"""
PATIENCE = 30.0  # seconds


def move(connection: psycopg.Connection, schema: str) -> None:
    """Move everything from the staging schema to public, in the caller's transaction."""
    grant(connection, schema)
    for kind, name in connection.execute(MOVABLE, (schema,)).fetchall():
        connection.execute(
            sql.SQL("ALTER {} {} SET SCHEMA public").format(
                sql.SQL(KINDS[kind]), sql.Identifier(schema, name)
            )
        )
    connection.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(schema)))


def grant(connection: psycopg.Connection, schema: str) -> None:
    """Give what is in the staging schema the rights that new tables of the schema public get."""
    relations = connection.execute(RELATIONS, (sql.Identifier(schema).as_string(),)).fetchall()
    for kind, grantee, role, privilege in connection.execute(DEFAULTS).fetchall():
        receiver = sql.Identifier(role) if grantee else sql.SQL("PUBLIC")
        for relkind, name in relations:
            if (relkind == "S") == (kind == "S"):
                connection.execute(
                    sql.SQL("GRANT {} ON {} {} TO {}").format(
                        sql.SQL(privilege),
                        sql.SQL("SEQUENCE" if kind == "S" else "TABLE"),
                        sql.Identifier(schema, name),
                        receiver,
                    )
                )


def record(path: Path, state: dict[str, Any]) -> None:
    """Put the state on the disk, as a whole."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(state, file, indent=4)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def wait_for_snapshot(connection: psycopg.Connection, unit: str) -> None:
    """Return when the comparison's transaction holds its snapshot, or has come to its end."""
    connection.execute("SET ROLE NONE")  # a role sees what its own sessions do, not what others do
    seen = None
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        # Twice the same transaction: then it is the long one, not a question before it.
        now = connection.execute(
            "SELECT pid, xact_start FROM pg_stat_activity WHERE application_name = 'ferry' "
            "AND usename = session_user AND backend_xmin IS NOT NULL"
        ).fetchone()
        if now is not None and now == seen:
            return
        seen = now
        state = subprocess.run(
            ["systemctl", "is-active", unit], check=False, capture_output=True, text=True
        ).stdout.strip()
        if state not in ("active", "activating"):
            return
        time.sleep(0.05)
    raise SystemExit(f"the comparison ({unit}) has not begun to read within {PATIENCE:.0f} s")


def main() -> None:
    """Publish, record, wait."""
    wish = json.loads(sys.argv[1])
    with psycopg.connect("", autocommit=True) as connection:
        with connection.transaction():
            move(connection, wish["schema"])
        record(Path(wish["state_file"]), wish["state"])
        print("published", flush=True)
        if sys.stdin.readline():
            wait_for_snapshot(connection, wish["unit"])


if __name__ == "__main__":
    main()
