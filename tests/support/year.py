"""A year of rounds in the bot's tables, made by the sample world and by the bot itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bot.core.database import Database
from bot.core.round_import import files_in, import_file
from bot.core.schema import create_schema

GENERATOR = Path(__file__).resolve().parents[2] / "demo" / "sample_world" / "generate_stats.py"


async def fill(database: Database, files: Path) -> None:
    """Create the tables and import a directory of stats files."""
    await create_schema(database)
    here = files_in(files)
    async with database.transaction() as session:
        for name in sorted(here.values()):
            partner = name.first_round(here.values()) if name.round_number == 2 else None
            await import_file(session, files, name, partner)


def write_files(directory: Path, weeks: int = 52) -> None:
    """Write a year's stats files: 4 evenings a week with 24 rounds make 5,000."""
    command = [sys.executable, GENERATOR, "--out", directory, "--weeks", str(weeks)]
    options = ["--rounds-per-day", "24", "--players", "60", "--until", "2026-11-20"]
    subprocess.run([*command, *options], check=True, capture_output=True)
