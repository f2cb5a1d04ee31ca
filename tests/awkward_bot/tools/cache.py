"""A cache of its own, by hand, in a second file; run by nobody."""

import sqlite3


def remember(name: str) -> None:
    """Keep a name."""
    with sqlite3.connect("cache.sqlite3") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS names (name TEXT)")
        connection.execute("INSERT OR REPLACE INTO names VALUES (?)", (name,))
