"""Find out whether the old bot could work on PostgreSQL, on the old PC, as its user.

    BOT'S-PYTHON try_old_bot.py CHECKOUT < SETTINGS

SETTINGS is JSON, the variables that the bot would get. Prints JSON: ``adapter`` (whether a source
file of the checkout imports a PostgreSQL driver), ``setting`` (whether one names a setting that
SETTINGS has) and ``error`` (why the login with those fails, or empty): asyncpg from the bot's own
Python, TLS with the name and the authority checked, and a look at the tables. Writes nothing.
Python 3.8 or later.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

DRIVER = re.compile(r"^\s*(?:import|from)\s+(?:asyncpg|psycopg2?)\b", re.MULTILINE)


def sources(checkout: str) -> Iterator[str]:
    """Yield the text of each source file, but not of installed packages."""
    for directory, folders, files in os.walk(checkout):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in ("site-packages", "node_modules", "tests")
            and not Path(directory, name, "pyvenv.cfg").exists()
        ]
        for name in files:
            if name.endswith(".py"):
                yield Path(directory, name).read_text(encoding="utf-8", errors="replace")


async def log_in(settings: Mapping[str, str]) -> None:
    """Log in as the bot would; leave with an exception where that fails."""
    import asyncpg  # the bot's own, or none

    connection = await asyncpg.connect(
        host=settings["DATABASE_HOST"],
        port=int(settings["DATABASE_PORT"]),
        user=settings["DATABASE_USER"],
        password=settings["DATABASE_PASSWORD"],
        database=settings["DATABASE_NAME"],
        ssl=ssl.create_default_context(cafile=settings["PGSSLROOTCERT"]),
        timeout=15,
        statement_cache_size=0,
    )
    try:
        tables = await connection.fetchval(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        )
        if not tables:
            raise RuntimeError("the database has no tables")
    finally:
        await connection.close(timeout=5)


def main() -> None:
    """Look, try and print."""
    settings = json.load(sys.stdin)
    names = re.compile(r"\b(?:{})\b".format("|".join(map(re.escape, settings))))
    found = {"adapter": False, "setting": False, "error": ""}
    for text in sources(sys.argv[1]):
        found["adapter"] = found["adapter"] or bool(DRIVER.search(text))
        found["setting"] = found["setting"] or bool(names.search(text))
    try:
        asyncio.run(log_in(settings))
    except ImportError as error:
        found["error"] = f"{error}: its Python has no such package"
    except Exception as error:  # whatever it is, it is the answer
        found["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
