"""Measure ferry against the floor and against pgloader: in one run, on one server, as ratios.

Usage: python ferry/bench/bench.py [--weapons 1000000] [--keep DIRECTORY]

The floor is what no program can beat: PostgreSQL reading ready binary files from its own disk into
empty tables and building the same keys and indexes afterwards. pgloader is measured where it is
installed (Debian's package of that name); it checks nothing. A PostgreSQL server of its own is
started in a temporary directory and stopped at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src"), str(HERE.parents[1] / "tests")]

from generate import generate  # noqa: E402
from support.postgres import Cluster  # noqa: E402

from ferry.census import take_census  # noqa: E402
from ferry.ddl import make_plan  # noqa: E402
from ferry.schema import quote_name, read_schema  # noqa: E402
from ferry.source import open_sqlite  # noqa: E402

if TYPE_CHECKING:
    from support.postgres import Database

SETTINGS = {
    "shared_buffers": "512MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "8GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


def run_ferry(*arguments: str | Path) -> tuple[float, int, dict]:
    """Run ferry as a user would; returns seconds, peak memory in MB, and its report."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "ferry", *map(str, arguments), "--report", report.name],
            env={**os.environ, "PYTHONPATH": str(HERE.parent / "src")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        errors = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        if status:
            raise SystemExit(f"ferry {arguments[0]} failed:\n{errors}")
        return seconds, usage.ru_maxrss // 1024, json.loads(Path(report.name).read_text())


def measure_floor(path: Path, filled: Database, empty: Database, directory: Path) -> float:
    """Let the server export binary files and load them, with the same keys and indexes."""
    with open_sqlite(str(path), check=False) as source:
        schema = read_schema(source.connection)
        plan = make_plan(schema, take_census(source.connection, schema), "public")
    directory.chmod(0o777)
    with filled.connect() as connection:
        for name in plan.tables:
            file = directory / f"{name}.bin"
            connection.execute(f"COPY {quote_name(name)} TO '{file}' WITH (FORMAT binary)")
    with empty.connect(autocommit=False) as connection:
        started = time.monotonic()
        for statement in plan.tables.values():
            connection.execute(statement)
        for name in plan.tables:
            file = directory / f"{name}.bin"
            connection.execute(
                f"COPY {quote_name(name)} FROM '{file}' WITH (FORMAT binary, FREEZE)"
            )
        for step in plan.steps:
            connection.execute(step.sql)
        for name in plan.tables:
            connection.execute(f"ANALYZE {quote_name(name)}")
        connection.commit()
        return time.monotonic() - started


def measure_pgloader(path: Path, empty: Database) -> float | None:
    """Let pgloader do its default; None where it is not installed."""
    program = shutil.which("pgloader")
    if program is None:
        return None
    started = time.monotonic()
    done = subprocess.run(
        [program, f"sqlite://{path}", empty.tcp_dsn], capture_output=True, text=True
    )
    seconds = time.monotonic() - started
    if done.returncode != 0 or "error" in done.stdout.lower():
        print(f"  pgloader had trouble (exit {done.returncode}):\n{done.stdout[-600:]}")
    return seconds


def change(path: Path, rows: int) -> None:
    """Change, add and delete rows all over the largest table."""
    chance = random.Random(2)  # noqa: S311 - reproducible, not secret
    connection = sqlite3.connect(path, isolation_level=None)
    (highest,) = connection.execute("SELECT max(id) FROM weapon_comprehensive_stats").fetchone()
    connection.execute("BEGIN")
    for _ in range(rows):
        connection.execute(
            "UPDATE weapon_comprehensive_stats SET hits = hits + 1, accuracy = accuracy + 0.25 "
            "WHERE id = (SELECT min(id) FROM weapon_comprehensive_stats WHERE id >= ?)",
            (chance.randint(1, highest),),
        )
    connection.execute("COMMIT")
    connection.close()


def line(name: str, seconds: float, rows: int, floor: float, note: str = "") -> None:
    """Print one result."""
    print(f"{name:<34}{seconds:>8.1f} s {rows / seconds:>10,.0f} rows/s"
          f"{seconds / floor:>8.2f} × floor  {note}")  # fmt: skip


def bench(path: Path, weapons: int) -> None:
    """Generate, measure, print."""
    if not path.exists():
        print(f"generating {path} …")
        generate(path, weapons)
    changed = path.with_name("changed.db")
    shutil.copyfile(path, changed)
    change(changed, 1000)
    connection = sqlite3.connect(path)
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    rows = sum(
        connection.execute(f"SELECT count(*) FROM {quote_name(name)}").fetchone()[0]
        for (name,) in names
    )
    connection.close()
    print(f"{rows:,} rows, {path.stat().st_size / 2**20:,.0f} MB, {os.cpu_count()} cores")
    with (
        Cluster.of_major(**SETTINGS) as cluster,
        cluster.fresh_database("ferry") as filled,
        cluster.fresh_database("floor") as floor_database,
        cluster.fresh_database("pgloader") as pgloader_database,
        tempfile.TemporaryDirectory(dir=cluster.directory) as exported,
    ):
        seconds, memory, report = run_ferry("copy", path, filled.dsn)
        floor = measure_floor(path, filled, floor_database, Path(exported))
        line("floor (server-side binary COPY)", floor, rows, floor)
        stages = ", ".join(f"{name} {value:.1f}" for name, value in report["timings"].items())
        line("ferry copy (inspects and proves)", seconds, rows, floor, f"{memory} MB; {stages}")
        verified, memory, _ = run_ferry("verify", path, filled.dsn)
        line("ferry verify", verified, rows, floor, f"{memory} MB")
        synced, memory, report = run_ferry("sync", changed, filled.dsn, "--base", path)
        line("ferry sync --base, 1000 changes", synced, rows, floor,
             f"{memory} MB; copy takes {seconds / synced:.1f} × as long")  # fmt: skip
        loader = measure_pgloader(path, pgloader_database)
        if loader is None:
            print("pgloader is not installed: apt-get install pgloader")
        else:
            line("pgloader (checks nothing)", loader, rows, floor,
                 f"{loader / seconds:.2f} × ferry copy")  # fmt: skip


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weapons", type=int, default=1_000_000, help="rows of the largest table")
    parser.add_argument("--keep", type=Path, help="directory for the SQLite file, to use it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        bench(directory / f"bench-{options.weapons}.db", options.weapons)


if __name__ == "__main__":
    main()
