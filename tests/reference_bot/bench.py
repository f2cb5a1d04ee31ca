"""Time every command of the bot at one year of data, from the question to the answer.

    python tests/reference_bot/bench.py [--repeat 40] [--weeks 52] [--limit 1.0]

The bot runs as a process with unmodified discord.py, a PostgreSQL of its own and the fake Discord
(TLS); the time is from the moment the message goes out on the gateway until the answer has arrived.
Players, kinds, pages and sessions change from question to question. Ends with 1 if a command's p95
is above the limit. No test asks for that: it says as much about the machine as about the bot, so
the machine's load is printed with it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / name) for name in ("tests", "demo", "reference_bot")]

from bot.core.database import Database, DatabaseSettings  # noqa: E402
from bot.core.player_report import CATEGORIES  # noqa: E402
from support.discord import FakeDiscord  # noqa: E402
from support.postgres import Cluster  # noqa: E402
from support.year import fill, write_files  # noqa: E402

CHECKOUT = REPOSITORY / "reference_bot"
TABLES = ("rounds", "player_comprehensive_stats", "weapon_comprehensive_stats")


async def prepare(url: str, files: Path) -> tuple[dict[str, int], list[str], int]:
    """Import the year; return row counts, GUIDs and the number of sessions."""
    settings = DatabaseSettings("postgresql", url=url, pool_min=1)
    async with Database(settings) as database:
        await fill(database, files)
        await database.execute("ANALYZE")
        counts = {
            table: await database.fetch_value(f"SELECT COUNT(*) FROM {table}") for table in TABLES
        }
        rows = await database.fetch_all(
            "SELECT DISTINCT player_guid FROM player_comprehensive_stats ORDER BY player_guid"
        )
        sessions = await database.fetch_value("SELECT MAX(gaming_session_id) FROM rounds")
    return counts, [row["player_guid"] for row in rows], sessions


def questions(guids: list[str], sessions: int) -> dict[str, tuple[str, list[str]]]:
    """Return for each command who asks and what, in endless variety."""
    kinds = [f"!leaderboard {kind}" for kind in CATEGORIES if kind != "accuracy"]
    return {
        "!last_session": ("player", ["!last_session"]),
        "!sessions": ("player", [f"!sessions {page}" for page in range(1, 20)]),
        "!stats": ("player", [f"!stats {guid}" for guid in guids]),
        "!leaderboard": ("player", kinds + [f"{kind} 30" for kind in kinds]),
        "!leaderboard accuracy": ("player", ["!leaderboard accuracy"]),
        "!team_history": ("player", [f"!team_history {guid}" for guid in guids]),
        "!stopwatch": ("player", [f"!stopwatch {number}" for number in range(1, sessions)]),
        "!health": ("admin", ["!health"]),
    }


def measure(discord: FakeDiscord, author: str, asked: list[str], repeat: int) -> list[float]:
    """Ask so many times; return the seconds to each answer, in ascending order."""
    return sorted(
        discord.ask(question, author, quiet=0)["seconds"]
        for question in islice(cycle(asked), repeat)
    )


def measure_links(discord: FakeDiscord, guids: list[str], repeat: int) -> list[list[float]]:
    """Link and unlink players."""
    times: list[list[float]] = [[], []]
    for guid in islice(cycle(guids), repeat):
        times[0].append(discord.ask(f"!link {guid}", quiet=0)["seconds"])
        times[1].append(discord.ask("!unlink", quiet=0)["seconds"])
    return [sorted(found) for found in times]


def show(name: str, seconds: list[float]) -> float:
    """Print a command's times in ms; return the 95th percentile in seconds."""
    p95 = statistics.quantiles(seconds, n=20)[-1]
    figures = (statistics.median(seconds), p95, seconds[-1])
    print(f"{name:<24}" + "".join(f"{1000 * figure:>10.0f}" for figure in figures), flush=True)
    return p95


def bench(directory: Path, repeat: int, weeks: int) -> dict[str, float]:
    """Run it; return each command's 95th percentile in seconds."""
    begun = time.monotonic()
    write_files(directory / "files", weeks)
    settings = {"shared_buffers": "256MB"}
    with (
        Cluster.of_major(**settings) as cluster,
        cluster.fresh_database() as database,
        FakeDiscord(directory / "discord") as discord,
    ):
        counts, guids, sessions = asyncio.run(prepare(database.tcp_dsn, directory / "files"))
        rows = ", ".join(f"{count:,} {table}" for table, count in counts.items())
        print(f"{rows}; {len(guids)} players, {sessions} sessions")
        print(f"(made in {time.monotonic() - begun:.0f} s)\n")
        discord.post("/settings", messages_per_window=10**6)
        own = {"PATH": os.environ["PATH"], "BOT_STATE_DIR": str(directory / "state")}
        bot = subprocess.Popen(
            [sys.executable, "bot/ultimate_bot.py"],
            cwd=CHECKOUT,
            env=own | discord.environment | {"DATABASE_URL": database.tcp_dsn},
            stdout=subprocess.DEVNULL,
        )
        try:
            discord.wait_for_sessions(1)
            begun = time.monotonic()
            print(f"{'milliseconds':<24}{'p50':>10}{'p95':>10}{'max':>10}")
            p95 = {
                name: show(name, measure(discord, author, asked, repeat))
                for name, (author, asked) in questions(guids, sessions).items()
            }
            linking = measure_links(discord, guids, repeat)
            for name, times in zip(("!link", "!unlink"), linking, strict=True):
                p95[name] = show(name, times)
            minutes = (time.monotonic() - begun) / 60
            print(
                f"\nload of the {os.cpu_count()} cores in the last minute: "
                f"{os.getloadavg()[0]:.1f} (measured for {minutes:.1f} minutes)"
            )
            return p95
        finally:
            bot.terminate()
            bot.wait()


def main() -> int:
    """Run as a program; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=40, help="questions per command")
    parser.add_argument("--weeks", type=int, default=52)
    parser.add_argument("--limit", type=float, default=1.0, help="seconds that p95 may take")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-bot-") as directory:
        p95 = bench(Path(directory), options.repeat, options.weeks)
    slow = [
        f"{name} {1000 * seconds:.0f} ms"
        for name, seconds in p95.items()
        if seconds > options.limit
    ]
    if slow:
        print(f"FAILED: p95 above {1000 * options.limit:.0f} ms: {', '.join(slow)}")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
