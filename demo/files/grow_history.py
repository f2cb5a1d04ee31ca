"""Make a bot's history longer: the rounds in its SQLite file again and again, in earlier weeks.

    grow_history.py FILE ROWS

Copies rounds with their players and weapons, each copy a week earlier and under ids, matches and
sessions of its own, until the file has about ROWS rows; what was there stays. Prints the number of
rows. The bot is stopped meanwhile. Standard library only.
"""

from __future__ import annotations

import sqlite3
import sys

PARTS = ("player_comprehensive_stats", "weapon_comprehensive_stats")


def copy_of(connection: sqlite3.Connection, table: str, changed: dict[str, str]) -> str:
    """Return the INSERT that copies a table's first rows, with some columns changed and new ids."""
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    names = [name for name in names if name != "id" or "id" in changed]
    values = ", ".join(changed.get(name, name) for name in names)
    key = "id" if table == "rounds" else "round_id"
    into = f"INSERT INTO {table} ({', '.join(names)})"
    return f"{into} SELECT {values} FROM {table} WHERE {key} <= :last"


def count(connection: sqlite3.Connection) -> int:
    """Return the number of rows of all tables together."""
    tables = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return sum(
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for (table,) in tables
    )


def grow(path: str, rows: int) -> int:
    """Copy the history until there are about this many rows; return how many there are."""
    connection = sqlite3.connect(path)
    last, sessions = connection.execute(
        "SELECT max(id), max(coalesce(gaming_session_id, 0)) + 1 FROM rounds"
    ).fetchone()
    before = count(connection)
    once = sum(
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("rounds", *PARTS)
    )
    day = "date(round_date, '-' || (7 * :copy) || ' days')"
    statements = [
        copy_of(
            connection,
            "rounds",
            {
                "id": "id + :copy * :last",
                "match_id": "match_id || '-' || (:copy * :last)",
                "round_date": day,
                "gaming_session_id": "gaming_session_id - :copy * :sessions",
            },
        )
    ]
    for table in PARTS:
        changed = {"round_id": "round_id + :copy * :last"}
        if table == "player_comprehensive_stats":
            changed["round_date"] = day
        statements.append(copy_of(connection, table, changed))
    with connection:
        for copy in range(1, 1 + max(0, round((rows - before) / once))):
            given = {"copy": copy, "last": last, "sessions": sessions}
            for statement in statements:
                connection.execute(statement, given)
    return count(connection)


if __name__ == "__main__":
    print(grow(sys.argv[1], int(sys.argv[2])))
