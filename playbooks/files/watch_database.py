"""Say how the database serves the bot, as one JSON object. As root on the database server.

Usage: watch_database.py SETTINGS

SETTINGS is JSON: ``wait`` (seconds, before asking), ``database``, ``role``, ``port``, ``rows``,
a query for one number that grows with each stats file, or "", and ``counted``: what the first look
printed under that name, or null in the first one.

    {"at": 1795348811.5, "sessions": 5, "running_seconds": 0.0, "running": "", "rows": 243,
     "statement_ms": 12.5, "statement": "SELECT …", "counted": {"-42": [7, 80.5]}}

``running`` is the statement that has been working longest, ``statement`` the one that was slowest
on average of those that ran three times or more since the first look, ``counted`` (of the first
look) how often each had run until then and for how many milliseconds in all: what an evening of
another move has left in there is not this one's. Leaves with psql's exit status and message where
the database cannot be asked. Standard library only.
"""

import json
import subprocess
import sys
import time

# pg_stat_statements is read where it was made, in the database postgres; it counts for all of them.
STATEMENTS = """
SELECT coalesce(json_agg(its_statements), '[]') FROM (
  SELECT queryid::text AS id, sum(calls) AS calls, sum(total_exec_time) AS ms,
         left(min(query), 120) AS query
  FROM pg_stat_statements s
  JOIN pg_roles r ON r.oid = s.userid JOIN pg_database d ON d.oid = s.dbid
  WHERE r.rolname = :'role' AND d.datname = :'database'
  GROUP BY queryid ORDER BY sum(calls) DESC LIMIT 500
) AS its_statements
"""
SESSIONS = """
SELECT json_build_object(
  'at', round(extract(epoch FROM now())::numeric, 3),
  'sessions', count(*),
  'running_seconds', coalesce(round(max(seconds) FILTER (WHERE active), 1), 0),
  'running',
  coalesce((array_agg(left(query, 120) ORDER BY seconds DESC) FILTER (WHERE active))[1], '')
) FROM (
  SELECT query, state = 'active' AS active, extract(epoch FROM now() - query_start) AS seconds
  FROM pg_stat_activity WHERE usename = :'role' AND datname = :'database'
) AS its_sessions
"""


def ask(settings: dict, database: str, query: str) -> str:
    """Return the one value that a query gives; ends the program where it gives none."""
    command = ["runuser", "-u", "postgres", "--", "psql", "-X", "-A", "-t", "-q"]
    command += ["-p", str(settings["port"]), "-d", database, "-v", "ON_ERROR_STOP=1"]
    command += ["-v", f"role={settings['role']}", "-v", f"database={settings['database']}"]
    done = subprocess.run(command, input=query, capture_output=True, text=True, cwd="/", timeout=30)
    if done.returncode:
        sys.stderr.write(done.stderr)
        sys.exit(done.returncode)
    return done.stdout.strip()


def slowest(statements: list[dict], counted: dict) -> dict:
    """Return the statement that was slowest on average since it was counted, in milliseconds."""
    found = {"statement_ms": 0, "statement": ""}
    for statement in statements:
        calls, ms = counted.get(statement["id"], (0, 0))
        if calls > statement["calls"]:  # PostgreSQL has begun anew, after a crash for instance
            calls, ms = 0, 0
        calls, ms = statement["calls"] - calls, statement["ms"] - ms
        if calls >= 3 and ms / calls > found["statement_ms"]:
            found = {"statement_ms": round(ms / calls, 1), "statement": statement["query"]}
    return found


def main() -> None:
    """Ask and print."""
    settings = json.loads(sys.argv[1])
    time.sleep(settings["wait"])
    found = json.loads(ask(settings, "postgres", SESSIONS))
    statements = json.loads(ask(settings, "postgres", STATEMENTS))
    counted = {each["id"]: (each["calls"], each["ms"]) for each in statements}
    if settings["counted"] is None:
        found |= slowest([], {}) | {"counted": counted}
    else:
        found |= slowest(statements, settings["counted"])
    rows = settings["rows"]
    found["rows"] = int(ask(settings, settings["database"], rows)) if rows else None
    print(json.dumps(found))


if __name__ == "__main__":
    main()
