#!/usr/bin/env python3
"""Back up one PostgreSQL database so that the backup is known to restore.

    postgres-backup run              make one now (systemd: postgres-backup.service)
    postgres-backup show [STAMP]     print the manifest of the newest backup, or of that one
    postgres-backup list             print stamp, bytes and rows of every backup, newest first
    postgres-backup verify DATABASE  compare a database with the manifest on standard input

`run` exports one snapshot. pg_dump's stream of it goes, at the same time, into age (only public
keys are known here; no plain byte touches the disk) and into pg_restore into a scratch database.
Only when that database equals the snapshot, table by table, does the encrypted file appear, with
its manifest, in a directory of its own: <directory>/<stamp>/{dump.age,manifest.json}.

Settings: /etc/postgres-backup.json. Runs under the distribution's Python (3.10 or newer) with
psycopg2, over the local socket, as the role that is called like the system user. Exit codes:
0 done · 1 failed, earlier backups are untouched · 2 usage · 4 the contents differ.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import psycopg2
from psycopg2 import sql

CONFIG = Path("/etc/postgres-backup.json")
CHUNK = 256 * 1024  # bytes
PARTIAL = ".partial-"
SHRINK_DAYS = 8  # a dump is compared with the largest of so many days
STAMP_FORMAT = "%Y%m%dT%H%M%SZ"

# Text of a row must not depend on who asks.
SESSION = (
    "SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; "
    "SET extra_float_digits = 1; SET bytea_output = 'hex'; SET statement_timeout = 0"
)
OWN_OBJECTS = """
    nspname !~ '^pg_' AND nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = o.tableoid AND d.objid = o.oid AND d.deptype = 'e')
"""
RELATIONS = f"""
    SELECT nspname, relname FROM pg_class AS o JOIN pg_namespace AS n ON n.oid = relnamespace
    WHERE relkind = ANY(%s) AND relpersistence <> 't' AND relispopulated AND {OWN_OBJECTS}
    ORDER BY nspname, relname
"""
OBJECTS = f"""
    SELECT
    (SELECT count(*) FROM pg_index JOIN pg_class AS o ON o.oid = indrelid
       JOIN pg_namespace AS n ON n.oid = relnamespace WHERE {OWN_OBJECTS}) AS indexes,
    (SELECT count(*) FROM pg_constraint AS o
       JOIN pg_namespace AS n ON n.oid = connamespace WHERE {OWN_OBJECTS}) AS constraints,
    (SELECT count(*) FROM pg_class AS o JOIN pg_namespace AS n ON n.oid = relnamespace
      WHERE relkind IN ('v', 'm') AND {OWN_OBJECTS}) AS views,
    (SELECT count(*) FROM pg_proc AS o
       JOIN pg_namespace AS n ON n.oid = pronamespace WHERE {OWN_OBJECTS}) AS functions,
    (SELECT count(*) FROM pg_trigger AS t JOIN pg_class AS o ON o.oid = tgrelid
       JOIN pg_namespace AS n ON n.oid = relnamespace
      WHERE NOT tgisinternal AND {OWN_OBJECTS}) AS triggers
"""


class BackupError(Exception):
    """The backup was not made or is not to be trusted; the message says what to do."""


class Differs(BackupError):
    """A restored database is not what it should be."""


@dataclass(frozen=True)
class Config:
    """What /etc/postgres-backup.json holds."""

    database: str
    scratch_database: str
    port: int
    bin_directory: str
    data_directory: str
    directory: str
    recipients: list[str]
    keep_days: int
    keep_weeks: int
    keep_months: int
    shrink_percent: int

    @classmethod
    def load(cls) -> Config:
        """Read the file that the role writes."""
        return cls(**json.loads(CONFIG.read_text()))

    def connect(self, database: str) -> Any:
        """Open a connection over the local socket."""
        return psycopg2.connect(dbname=database, host="/var/run/postgresql", port=self.port)

    def program(self, name: str, database: str, *options: str) -> list[str]:
        """Return the command line of a PostgreSQL program for ``database``."""
        return [
            f"{self.bin_directory}/{name}",
            "--no-password",
            "--host=/var/run/postgresql",
            f"--port={self.port}",
            f"--dbname={database}",
            *options,
        ]


@dataclass(frozen=True)
class Contents:
    """What is in a database, in a form that can be compared."""

    tables: dict[str, dict[str, Any]]  # name → rows, checksum (does not depend on their order)
    sequences: dict[str, int]  # name → next value to come out
    objects: dict[str, int]  # kind → number

    @classmethod
    def of(cls, connection: Any) -> Contents:
        """Read all of a database in the connection's transaction."""
        with connection.cursor() as cursor:
            cursor.execute(SESSION)
            cursor.execute(RELATIONS, (["r", "m"],))
            tables = {}
            for schema, name in cursor.fetchall():
                cursor.execute(
                    sql.SQL(
                        "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)"
                        " FROM ONLY {} AS t"
                    ).format(sql.Identifier(schema, name))
                )
                rows, checksum = cursor.fetchone()
                tables[f"{schema}.{name}"] = {"rows": rows, "checksum": str(checksum)}
            cursor.execute(RELATIONS, (["S"],))
            sequences = {}
            for schema, name in cursor.fetchall():
                cursor.execute(
                    sql.SQL("SELECT last_value + is_called::int FROM {}").format(
                        sql.Identifier(schema, name)
                    )
                )
                sequences[f"{schema}.{name}"] = cursor.fetchone()[0]
            cursor.execute(OBJECTS)
            objects = {
                column.name: number
                for column, number in zip(cursor.description, cursor.fetchone(), strict=True)
            }
        return cls(tables, sequences, objects)

    def differences(self, restored: Contents) -> list[str]:
        """Return a sentence for everything in which ``restored`` is not the same.

        Sequences stand outside of snapshots: the restored one may be ahead, never behind.
        """
        found = []
        for name in sorted(self.tables.keys() | restored.tables.keys()):
            ours, theirs = self.tables.get(name), restored.tables.get(name)
            if ours is None or theirs is None:
                found.append(f"table {name} is only in the {'copy' if ours is None else 'source'}")
            elif ours != theirs:
                found.append(
                    f"table {name}: {ours['rows']} rows, checksum {ours['checksum']}; "
                    f"restored {theirs['rows']} rows, checksum {theirs['checksum']}"
                )
        for name, value in self.sequences.items():
            if restored.sequences.get(name, value - 1) < value:
                found.append(
                    f"sequence {name}: {value}; restored {restored.sequences.get(name, 'none')}"
                )
        for kind, number in self.objects.items():
            if restored.objects[kind] != number:
                found.append(f"{kind}: {number}; restored {restored.objects[kind]}")
        return found


def free_bytes(path: str) -> int:
    """Return the bytes free on the file system of ``path`` (or of its nearest parent)."""
    directory = Path(path)
    while not directory.exists():
        directory = directory.parent
    room = os.statvfs(directory)
    return room.f_bavail * room.f_frsize


def refuse_without_room(config: Config, size: int) -> None:
    """Raise BackupError unless database and backup fit beside what is there (``size`` in bytes)."""
    for path in (config.data_directory, config.directory):
        free = free_bytes(path)
        if free < size * 3 // 2:
            raise BackupError(
                f"{path}: {free // 2**20} MiB free, but a restored copy and a dump of "
                f"{size // 2**20} MiB of database may need {size * 3 // 2 // 2**20} MiB. Make room."
            )


@contextlib.contextmanager
def scratch_database(config: Config, like: Any) -> Iterator[str]:
    """Make the empty scratch database, with the source's locale, and drop it in the end."""
    with like.cursor() as cursor:
        cursor.execute(
            "SELECT pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database"
            " WHERE datname = current_database()"
        )
        encoding, collate, ctype = cursor.fetchone()
    name = sql.Identifier(config.scratch_database)
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name)
    maintenance = config.connect("postgres")
    maintenance.autocommit = True
    try:
        with maintenance.cursor() as cursor:
            cursor.execute(drop)
            cursor.execute(
                sql.SQL(
                    "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}"
                ).format(name, sql.Literal(encoding), sql.Literal(collate), sql.Literal(ctype))
            )
            try:
                yield config.scratch_database
            finally:
                cursor.execute(drop)
    finally:
        maintenance.close()


class Stage:
    """One program of the pipeline, with what it says about errors."""

    def __init__(self, argv: list[str], **streams: Any) -> None:
        self.name = Path(argv[0]).name
        self.errors = os.memfd_create(self.name)  # unlike a pipe it never blocks the program
        self.process = subprocess.Popen(argv, stderr=self.errors, **streams)

    def feed(self, chunk: bytes) -> None:
        """Hand over a piece; a program that has ended is judged by its exit code later."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(chunk)

    def close(self) -> None:
        """Say that there is no more to come."""
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def finish(self) -> None:
        """Wait for the end and raise BackupError unless it was a good one."""
        code = self.process.wait()
        if code:
            os.lseek(self.errors, 0, os.SEEK_SET)
            said = os.read(self.errors, 2000).decode(errors="replace").strip()
            raise BackupError(f"{self.name} failed ({code}): {said}")

    def stop(self) -> None:
        """End the program if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.errors)


def pump(config: Config, snapshot: str, scratch: str, file: IO[bytes]) -> tuple[int, str]:
    """Send one dump into age and into the scratch database.

    Returns the number of plain bytes and their SHA-256. Raises BackupError when a program fails.
    """
    dump = Stage(
        config.program("pg_dump", config.database, "--format=custom", f"--snapshot={snapshot}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    recipients = [word for key in config.recipients for word in ("--recipient", key)]
    age = Stage(["age", *recipients], stdin=subprocess.PIPE, stdout=file)
    restore = Stage(
        config.program(
            "pg_restore",
            scratch,
            "--no-owner",
            "--no-privileges",
            "--no-publications",
            "--no-subscriptions",
            "--single-transaction",
            "--exit-on-error",
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    stages = (dump, age, restore)
    digest, size = hashlib.sha256(), 0
    try:
        while chunk := dump.process.stdout.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            age.feed(chunk)
            restore.feed(chunk)
        for stage in stages:
            stage.close()
        for stage in stages:
            stage.finish()
    finally:
        for stage in stages:
            stage.stop()
    return size, digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Bring a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def manifests(config: Config) -> list[dict[str, Any]]:
    """Return the manifests of all published backups, newest first."""
    paths = Path(config.directory).glob("[0-9]*T*Z/manifest.json")
    return [json.loads(path.read_text()) for path in sorted(paths, reverse=True)]


def kept(stamps: list[str], config: Config) -> set[str]:
    """Return those of ``stamps`` that the rules keep: the last of each day, week and month."""
    newest_first = sorted(stamps, reverse=True)
    keep = set(newest_first[:1])
    rules = (
        (config.keep_days, "%Y-%m-%d"),
        (config.keep_weeks, "%G-%V"),
        (config.keep_months, "%Y-%m"),
    )
    for number, period in rules:
        seen: dict[str, str] = {}
        for stamp in newest_first:
            moment = datetime.datetime.strptime(stamp, STAMP_FORMAT)
            seen.setdefault(moment.strftime(period), stamp)
        keep |= set(list(seen.values())[:number])
    return keep


def prune(config: Config) -> list[str]:
    """Remove the backups that no rule keeps any longer, and return their stamps."""
    stamps = [manifest["stamp"] for manifest in manifests(config)]
    gone = sorted(set(stamps) - kept(stamps, config))
    for stamp in gone:
        shutil.rmtree(Path(config.directory) / stamp)
    return gone


def refuse_shrunk(config: Config, manifest: dict[str, Any], earlier: list[dict[str, Any]]) -> None:
    """Raise BackupError when the new backup is much smaller than the recent ones."""
    since = time.time() - SHRINK_DAYS * 86400
    recent = [other["plain_bytes"] for other in earlier if other["started"] >= since]
    largest = max(recent, default=0)
    if manifest["plain_bytes"] * 100 < largest * config.shrink_percent:
        raise BackupError(
            f"the backup {manifest['stamp']} has {manifest['plain_bytes']} bytes, the largest of "
            f"the last {SHRINK_DAYS} days has {largest}. It is kept and it restores, but much of "
            "the data is gone from the database: look before older backups expire. "
            "None was removed."
        )


def run(config: Config) -> dict[str, Any]:
    """Make, prove and publish one backup, then remove expired ones. Returns the manifest."""
    directory = Path(config.directory)
    for leftover in directory.glob(f"{PARTIAL}*"):
        shutil.rmtree(leftover)
    earlier = manifests(config)
    started = time.time()
    stamp = time.strftime(STAMP_FORMAT, time.gmtime(started))
    partial, final = directory / f"{PARTIAL}{stamp}", directory / stamp
    source = config.connect(config.database)
    partial.mkdir(mode=0o700)
    try:
        source.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with source.cursor() as cursor:
            cursor.execute("SELECT pg_export_snapshot(), pg_database_size(current_database())")
            snapshot, size = cursor.fetchone()
        refuse_without_room(config, size)
        contents = Contents.of(source)
        dump = partial / "dump.age"
        with scratch_database(config, source) as scratch:
            with dump.open("wb") as file:
                plain_bytes, plain_sha256 = pump(config, snapshot, scratch, file)
            copy = config.connect(scratch)
            try:
                restored = Contents.of(copy)
            finally:
                copy.close()
        found = contents.differences(restored)
        if found:
            raise Differs("the restored dump is not what was dumped: " + "; ".join(found))
        manifest = {
            "stamp": stamp,
            "database": config.database,
            "server_version": source.server_version,
            "started": round(started, 3),
            "seconds": round(time.time() - started, 3),
            "restored_and_compared": True,
            "bytes": dump.stat().st_size,
            "sha256": sha256_of(dump),
            "plain_bytes": plain_bytes,
            "plain_sha256": plain_sha256,
            "recipients": config.recipients,
            "rows": sum(table["rows"] for table in contents.tables.values()),
            # Tables are the snapshot's, sequences what came out of the dump.
            **asdict(Contents(contents.tables, restored.sequences, contents.objects)),
        }
        path = partial / "manifest.json"
        path.write_text(json.dumps(manifest, indent=2) + "\n")
        for written in (dump, path, partial):
            sync(written)
        partial.rename(final)
        sync(directory)
    finally:
        source.close()
        shutil.rmtree(partial, ignore_errors=True)
    refuse_shrunk(config, manifest, earlier)
    manifest["expired"] = prune(config)
    return manifest


def show(config: Config, stamp: str | None) -> dict[str, Any]:
    """Return the manifest of the newest backup, or of ``stamp``."""
    all_of_them = manifests(config)
    found = [manifest for manifest in all_of_them if stamp in (None, manifest["stamp"])]
    if not found:
        names = ", ".join(manifest["stamp"] for manifest in all_of_them) or "none"
        raise BackupError(
            f"no backup {stamp or ''} in {config.directory}; there are: {names}. "
            "`ansible-playbook playbooks/backup.yml` makes one."
        )
    return found[0]


def verify(config: Config, database: str, manifest: dict[str, Any]) -> str:
    """Compare ``database`` with a manifest. Returns a sentence, raises Differs."""
    connection = config.connect(database)
    try:
        contents = Contents.of(connection)
    finally:
        connection.close()
    wanted = Contents(manifest["tables"], manifest["sequences"], manifest["objects"])
    found = wanted.differences(contents)
    if found:
        raise Differs(f"{database} is not what the manifest says: " + "; ".join(found))
    return f"{len(wanted.tables)} tables with {manifest['rows']} rows are equal"


def main() -> int:
    """Run from the command line and return the exit code."""
    os.umask(0o077)
    # systemd ends a unit with SIGTERM: clean up on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description="Backups that are known to restore.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="make a backup now")
    commands.add_parser("list", help="stamp, bytes and rows of every backup")
    commands.add_parser("show", help="print a manifest").add_argument("stamp", nargs="?")
    commands.add_parser(
        "verify", help="compare a database with the manifest on stdin"
    ).add_argument("database")
    arguments = parser.parse_args()
    try:
        config = Config.load()
        if arguments.command == "run":
            manifest = run(config)
            print(
                f"backup {manifest['stamp']}: {len(manifest['tables'])} tables, "
                f"{manifest['rows']} rows, {manifest['bytes']} bytes, restored and compared in "
                f"{manifest['seconds']} s; expired: {', '.join(manifest['expired']) or 'none'}"
            )
        elif arguments.command == "show":
            print(json.dumps(show(config, arguments.stamp), indent=2))
        elif arguments.command == "list":
            for manifest in manifests(config):
                print(manifest["stamp"], manifest["bytes"], manifest["rows"])
        else:
            print(verify(config, arguments.database, json.load(sys.stdin)))
    except (BackupError, psycopg2.Error, OSError) as error:
        # One line, so that it is one entry of the journal.
        print(f"postgres-backup: {' '.join(str(error).split())}", file=sys.stderr)
        return 4 if isinstance(error, Differs) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
