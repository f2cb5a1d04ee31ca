"""Say how the database serves the bot, as one JSON object. As root on the database server.

Usage: watch_database.py SETTINGS

SETTINGS is JSON: ``wait`` (seconds, before asking), ``database``, ``role``, ``port`` and ``rows``,
a query for one number that grows with each stats file, or "".

    {"at": 1795348811.5, "sessions": 5, "running_seconds": 0.0, "running": "", "rows": 243,
     "statement_ms": 12.5, "statement": "SELECT …"}

``running`` is the statement that has been working longest, ``statement`` the one that is slowest on
average of those that ran three times or more. Leaves with psql's exit status and message where the
database cannot be asked. Standard library only.
"""

import json
import subprocess
import sys
import time

# pg_stat_statements is read where it was made, in the database postgres; it counts for all of them.
STATEMENTS = """
SELECT coalesce((
  SELECT json_build_object('statement_ms', round(mean_exec_time::numeric, 1),
                           'statement', left(query, 120))
  FROM pg_stat_statements s
  JOIN pg_roles r ON r.oid = s.userid JOIN pg_database d ON d.oid = s.dbid
  WHERE r.rolname = :'role' AND d.datname = :'database' AND calls >= 3
  ORDER BY mean_exec_time DESC LIMIT 1
), '{"statement_ms": 0, "statement": ""}')
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


def main() -> None:
    """Ask and print."""
    settings = json.loads(sys.argv[1])
    time.sleep(settings["wait"])
    found = json.loads(ask(settings, "postgres", SESSIONS))
    found |= json.loads(ask(settings, "postgres", STATEMENTS))
    rows = settings["rows"]
    found["rows"] = int(ask(settings, settings["database"], rows)) if rows else None
    print(json.dumps(found))


if __name__ == "__main__":
    main()
