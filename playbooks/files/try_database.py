"""Go the bot's and ferry's ways into the database, on the bot server, and say what is there.

    try_database.py < WISH      in ferry's venv, with libpq's variables

WISH is JSON: ``migrator_password``, ``app_role``, ``app_password``, ``app_port`` and ``staging`` (a
schema); not in the environment, which sudo writes into its log. Prints JSON: ``migrator`` and
``app`` (why the login fails, or empty), ``encrypted`` (whether the bot's connection is),
``version`` (of the server), ``tables`` (how many in public) and ``staged`` (how many in the staging
schema).
"""

import json
import sys

import psycopg

TABLES = """
    SELECT count(*) FILTER (WHERE nspname = 'public'), count(*) FILTER (WHERE nspname = %s)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')
"""


def why(error: psycopg.Error) -> str:
    """Return the last line of what the server or libpq says."""
    return (str(error).strip().splitlines() or ["?"])[-1]


def main() -> None:
    """Try both ways and print."""
    wish = json.load(sys.stdin)
    found = {"migrator": "", "app": "", "encrypted": False, "version": "", "tables": 0, "staged": 0}
    try:
        with psycopg.connect("", password=wish["migrator_password"]) as connection:
            found["version"] = connection.execute("SHOW server_version").fetchone()[0]
            found["tables"], found["staged"] = connection.execute(
                TABLES, (wish["staging"],)
            ).fetchone()
    except psycopg.Error as error:
        found["migrator"] = why(error)
    way = {"user": wish["app_role"], "password": wish["app_password"]}
    try:
        # Behind PgBouncer the server's own view is of another connection: libpq knows this one.
        with psycopg.connect("", port=wish["app_port"], **way) as connection:
            found["encrypted"] = bool(connection.pgconn.ssl_in_use)
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        found["app"] = why(error)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
