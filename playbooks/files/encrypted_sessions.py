"""Count a client's encrypted sessions, by its own ports. As root on the database server.

    encrypted_sessions.py SETTINGS

SETTINGS is JSON: ``role``, ``database``, ``address`` and ``ports`` of the client, ``port`` of
PostgreSQL, ``pgbouncer_port`` (0: clients come to PostgreSQL itself), ``patience`` (seconds to wait
for the first one).

Behind PgBouncer it is PgBouncer that is asked: to PostgreSQL all sessions come from there, and the
client's address in ``application_name`` is gone once asyncpg resets a connection (RESET ALL).

Prints JSON: ``sessions`` and ``error`` (why the server could not be asked, else empty). Standard
library only.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from typing import Any

POLL = 0.5  # seconds
SESSIONS = """
SELECT host(a.client_addr) AS addr, a.client_port AS port, a.usename AS user,
       a.datname AS database, CASE WHEN s.ssl THEN s.version END AS tls
FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
WHERE a.backend_type = 'client backend'
"""


def rows(settings: dict[str, Any]) -> list[dict[str, str]]:
    """Return the sessions of all clients; each has addr, port, user, database and tls.

    Raises:
        subprocess.CalledProcessError: psql failed; its stderr says why.

    """
    psql = ["psql", "-X", "-q", "--csv", "-v", "ON_ERROR_STOP=1"]
    if settings["pgbouncer_port"]:
        user, query = "pgbouncer", "SHOW CLIENTS"
        psql += ["-h", "/run/pgbouncer", "-p", str(settings["pgbouncer_port"])]
        psql += ["-U", "pgbouncer", "-d", "pgbouncer"]
    else:
        user, query = "postgres", SESSIONS
        psql += ["-p", str(settings["port"]), "-d", "postgres"]
    done = subprocess.run(
        ["runuser", "-u", user, "--", *psql, "-c", query],
        check=True,
        capture_output=True,
        text=True,
        cwd="/",
        timeout=30,
    )
    return list(csv.DictReader(done.stdout.splitlines()))


def count(sessions: list[dict[str, str]], settings: dict[str, Any]) -> int:
    """Return how many of the sessions are the client's and encrypted."""
    wanted = (settings["address"], settings["role"], settings["database"])
    ports = {str(port) for port in settings["ports"]}
    return sum(
        (row["addr"], row["user"], row["database"]) == wanted
        and row["port"] in ports
        and bool(row["tls"])
        for row in sessions
    )


def main() -> None:
    """Ask until there is one, and print."""
    settings = json.loads(sys.argv[1])
    deadline = time.monotonic() + float(settings["patience"])
    while True:
        found, error = 0, ""
        try:
            found = count(rows(settings), settings)
        except subprocess.CalledProcessError as failure:
            error = failure.stderr.strip()
        except subprocess.TimeoutExpired as failure:
            error = str(failure)
        if found or time.monotonic() > deadline:
            break
        time.sleep(POLL)
    print(json.dumps({"sessions": found, "error": error}))


if __name__ == "__main__":
    main()
