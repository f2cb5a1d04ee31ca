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
    """Let pgloader do its default; None, with a line that says why, where that ends in failure."""
    program = shutil.which("pgloader")
    if program is None:
        print("pgloader is not installed: apt-get install pgloader")
        return None
    started = time.monotonic()
    done = subprocess.run(
        [program, f"sqlite://{path}", empty.tcp_dsn],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    seconds = time.monotonic() - started
    if done.returncode != 0:
        print(f"pgloader failed after {seconds:.0f} s: {done.stderr.strip()[:200]}")
        return None
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
    print(f"{name:<40}{seconds:>8.1f} s {rows / seconds:>10,.0f} rows/s"
          f"{seconds / floor:>8.2f} × floor  {note}", flush=True)  # fmt: skip


def count_rows(path: Path) -> int:
    """Return the number of rows of all tables."""
    connection = sqlite3.connect(path)
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    rows = sum(
        connection.execute(f"SELECT count(*) FROM {quote_name(name)}").fetchone()[0]
        for (name,) in names
    )
    connection.close()
    return rows


def bench_rows(path: Path, cluster: Cluster) -> None:
    """Time the commands over one large database; print."""
    changed = path.with_name("changed.db")
    shutil.copyfile(path, changed)
    change(changed, 1000)
    rows = count_rows(path)
    print(f"{rows:,} rows, {path.stat().st_size / 2**20:,.0f} MB, {os.cpu_count()} cores")
    with (
        cluster.fresh_database("ferry") as filled,
        cluster.fresh_database("floor") as floor_database,
        cluster.fresh_database("pgloader") as pgloader_database,
        tempfile.TemporaryDirectory(dir=cluster.directory) as exported,
    ):
        copied, memory, report = run_ferry("copy", path, filled.dsn)
        floor = measure_floor(path, filled, floor_database, Path(exported))
        stages = report["timings"]
        unproven = copied - stages["prove"]
        verified, verify_memory, _ = run_ferry("verify", path, filled.dsn)
        synced, sync_memory, _ = run_ferry("sync", changed, filled.dsn, "--base", path)
        loader = measure_pgloader(path, pgloader_database)
        line("floor (server-side binary COPY)", floor, rows, floor)
        line(
            "ferry copy, before its proof",
            unproven,
            rows,
            floor,
            ", ".join(f"{name} {stages[name]:.1f}" for name in ("inspect", "load", "build")),
        )
        line("ferry copy (inspects and proves)", copied, rows, floor, f"{memory} MB")
        line("ferry verify", verified, rows, floor, f"{verify_memory} MB")
        line(
            "ferry sync --base, 1000 changes",
            synced,
            rows,
            floor,
            f"{sync_memory} MB; copy takes {copied / synced:.1f} × as long",
        )
        if loader is not None:
            line("pgloader (checks nothing)", loader, rows, floor,
                 f"{loader / unproven:.1f} × ferry copy before its proof, "
                 f"{loader / copied:.1f} × ferry copy, "
                 f"{loader / (copied + verified):.1f} × ferry copy and verify")  # fmt: skip


def bench_small(directory: Path, cluster: Cluster) -> None:
    """Time 200 small tables, and 300 statements of a bot; print."""
    path = directory / "small.db"
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    for number in range(200):
        connection.execute(
            f"CREATE TABLE t{number} (id INTEGER PRIMARY KEY, name TEXT UNIQUE, n INTEGER)"
        )
        connection.execute(f"INSERT INTO t{number} VALUES (1, 'a', 2), (2, 'b', 3)")
    connection.commit()
    connection.close()
    source = directory / "statements.py"
    source.write_text(
        "".join(
            f"q{number} = 'SELECT name, n FROM t{number % 200} WHERE id = ? AND n > {number}'\n"
            for number in range(300)
        )
    )
    with cluster.fresh_database("small") as database:
        seconds, _, _ = run_ferry("copy", path, database.dsn)
        print(f"ferry copy of 200 small tables          {seconds:>8.1f} s")
        seconds, _, _ = run_ferry("audit-sql", source, database.dsn)
        print(f"ferry audit-sql of 300 statements       {seconds:>8.1f} s")


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weapons", type=int, default=1_000_000, help="rows of the largest table")
    parser.add_argument("--keep", type=Path, help="directory for the SQLite file, to use it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"bench-{options.weapons}.db"
        if not path.exists():
            print(f"generating {path} …", flush=True)
            generate(path, options.weapons)
        with Cluster.of_major(**SETTINGS) as cluster:
            bench_rows(path, cluster)
            bench_small(directory, cluster)


if __name__ == "__main__":
    main()
