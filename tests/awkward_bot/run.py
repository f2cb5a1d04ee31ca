"""Counts its own heartbeats, and whatever lies in local_stats/. See README.md for its manners."""

import asyncio
import os
import sys
import time
from pathlib import Path

import store

try:
    import turbo_boost  # nobody has it
except ImportError:
    turbo_boost = None


def settings() -> dict:
    """Read .env, then the environment."""
    found = {}
    if Path(".env").exists():
        for line in Path(".env").read_text().splitlines():
            name, _, value = line.partition("=")
            found[name.strip()] = value.strip()
    return {**found, **os.environ}


async def beat(database: store.Store, say) -> None:
    """Write as fast as a hundred times a second, and read new files now and then."""
    beats = 0
    while True:
        await database.beat()
        beats += 1
        if beats % 100 == 1:
            say(f"{beats} beats, {await database.import_files(Path('local_stats'))} new files")
        await asyncio.sleep(0.01)


async def main() -> None:
    """Run, and never tell by the exit code why it ended."""
    values = settings()
    Path("logs").mkdir(exist_ok=True)
    log = Path("logs/run.log")

    def say(text: str) -> None:
        print(text, flush=True)
        with log.open("a") as lines:
            lines.write(f"{time.time():.0f} {text}\n")

    if not values.get("AWKWARD_TOKEN"):
        say("no token")
        sys.exit(0)
    say(
        f"hello from {values.get('AWKWARD_GREETING', 'nowhere')} to {values.get('AWKWARD_CHANNEL')}"
    )
    try:
        database = await store.open_store(values)
        await database.check_columns()
    except Exception as error:
        say(f"no database: {error}")
        sys.exit(0)
    await beat(database, say)


if __name__ == "__main__":
    asyncio.run(main())
