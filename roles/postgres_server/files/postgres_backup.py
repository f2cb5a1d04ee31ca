#!/usr/bin/env python3
"""Back up one PostgreSQL database so that the backup is known to restore.

    postgres-backup run              make one now (systemd: postgres-backup.service)
    postgres-backup show [STAMP]     print the manifest of the newest backup, or of that one
    postgres-backup stamp [STAMP]    print the stamp of the newest backup, or that one if it is
    postgres-backup list             print stamp, bytes and rows of every backup, newest first
    postgres-backup verify DATABASE  compare a database with the manifest on standard input
    postgres-backup contents DATABASE [--host DIRECTORY] [--port PORT]
                                     print what `verify` compares of a database
    postgres-backup copy             send what the other places lack (postgres-backup-copy.service)
    postgres-backup check            complain of what is old, small, altered or not copied
                                     (postgres-backup-check.service)

`run` exports one snapshot. pg_dump's stream of it goes, at the same time, into age (only public
keys are known here; no plain byte touches the disk) and into pg_restore into a scratch database.
Only when that database equals the snapshot, table by table, does the encrypted file appear, with
its manifest and the manifest's signature by this server, in a directory of its own:
<directory>/<stamp>/{dump.age,manifest.json,manifest.json.sig}.

What people and the application put into the database is data to this program. A dump is restored,
and what came out of it is read, by a role that owns the scratch database and nothing else. Nothing
is read that could run a function (only tables and materialized views, names are looked up in
pg_catalog alone, no cast and no policy is used). Schemas whose owner is neither the database's nor
a superuser, and large objects, are left out. A session that keeps a lock which the backup waits for
is ended.

`copy` only ever adds: to another host, whose side of the talk is a forced command that can do
nothing else (role backup_keeper), and to an rclone remote (`--immutable`).

Settings: /etc/postgres-backup.json. Runs under the distribution's Python (3.10 or newer) with
psycopg2, over the local socket, as the role that is called like the system user. Exit codes:
0 done · 1 failed, earlier backups are untouched · 2 usage · 4 the contents differ.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import psycopg2
from psycopg2 import sql

CONFIG = Path("/etc/postgres-backup.json")
# Keys for the other host and for signatures, the other's host key, rclone.conf.
SECRETS = Path("/etc/postgres-backup.d")
NAMESPACE = "postgres-backup"  # of signatures, so that one of another kind is good for nothing
SIGNATURE = "manifest.json.sig"
COPIED = Path("/var/lib/postgres-backup/copied.json")  # place → stamps that are there
ARCHIVED = Path("/var/lib/postgres-archive/last")  # touched after each base backup
CHUNK = 256 * 1024  # bytes
PARTIAL = ".partial-"
SOCKET = "/var/run/postgresql"
COPY_HOURS = 6  # a copy may be late by so much, the other host being updated or rebooted
RCLONE_NO_DIRECTORY = 3  # exit code
SHRINK_DAYS = 8  # a dump is compared with the largest of so many days
STAMP_FORMAT = "%Y%m%dT%H%M%SZ"

LOCK_SECONDS = 30  # so long the backup waits for a lock before it ends who holds it
RESTORE_SECONDS = 3600  # so long one statement of a restore may take
WATCH_SECONDS = 2

# Text of a row must not depend on who asks. Names are PostgreSQL's own, whatever stands in the
# database, and a view that takes a table's place meanwhile is not read (CVE-2024-7348; not in the
# oldest releases).
SESSION = """
    SET search_path = pg_catalog, pg_temp; SET row_security = off;
    SET timezone = 'UTC'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres';
    SET extra_float_digits = 1; SET bytea_output = 'hex'; SET statement_timeout = 0;
    SET idle_in_transaction_session_timeout = 0;
    SELECT set_config(name, 'view,foreign-table', false) FROM pg_settings
    WHERE name = 'restrict_nonsystem_relation_kind'
"""
# People's own schemas are left out: by their owner, since a comment is theirs to change. Of the
# database owner's and a superuser's those are left out that say so (PgBouncer's, the migration's).
# Schemas that nobody else can own are in any case public, and all in a database just restored.
BACKED_UP = """
    (nspname = 'public'
     OR (nspowner IN (SELECT oid FROM pg_roles WHERE rolsuper OR rolname = 'pg_database_owner'
                      UNION SELECT datdba FROM pg_database WHERE datname = current_database())
         AND obj_description(n.oid, 'pg_namespace') IS DISTINCT FROM 'not backed up'))
"""
OWN_OBJECTS = f"""
    nspname !~ '^pg_' AND nspname <> 'information_schema' AND {BACKED_UP}
    AND NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = o.tableoid AND d.objid = o.oid AND d.deptype = 'e')
"""
SCHEMAS = f"""
    SELECT nspname, pg_get_userbyid(nspowner), quote_ident(nspname), {BACKED_UP}
    FROM pg_namespace AS n WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
    ORDER BY nspname
"""
# A cast is in no schema, so pg_dump takes those of a schema that it leaves out; without their types
# nothing would restore.
CASTS = f"""
    SELECT count(*) FILTER (WHERE strange), count(*) FILTER (WHERE NOT strange)
    FROM (SELECT EXISTS (SELECT FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = typnamespace
                         WHERE t.oid IN (castsource, casttarget) AND nspname !~ '^pg_'
                           AND nspname <> 'information_schema' AND NOT {BACKED_UP}) AS strange
          FROM pg_cast AS o WHERE oid >= 16384
            AND NOT EXISTS (SELECT FROM pg_depend AS d
                            WHERE d.classid = o.tableoid AND d.objid = o.oid AND d.deptype = 'e')
         ) AS casts
"""
# Whom the backup waits for: those who hold a lock, and those who wait for one before it.
BLOCKERS = """
    SELECT DISTINCT blocker.pid, blocker.usename
    FROM pg_stat_activity AS waiting
    CROSS JOIN unnest(pg_blocking_pids(waiting.pid)) AS blocking (pid)
    JOIN pg_stat_activity AS blocker ON blocker.pid = blocking.pid
    WHERE waiting.usename = current_user AND waiting.wait_event_type = 'Lock'
      AND waiting.datname = %s AND blocker.usename <> current_user
      AND clock_timestamp() - waiting.query_start > make_interval(secs => %s)
"""
LINGERING = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = %s AND state = 'active' AND datname = %s
      AND clock_timestamp() - query_start > make_interval(secs => %s)
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
    max_age_hours: int
    copy_to: dict[str, Any]  # host, port, user; empty for none
    rclone_remote: str  # empty for none
    archive_enabled: bool
    check_role: str  # owns the scratch database, and nothing else
    restore_role: str  # the same for what playbooks/restore.yml restores

    @classmethod
    def load(cls) -> Config:
        """Read the file that the role writes."""
        return cls(**json.loads(CONFIG.read_text()))

    def connect(
        self,
        database: str,
        user: str | None = None,
        host: str | None = None,
        port: int | None = None,
    ) -> Any:
        """Open a connection over a local socket, by default as the system user."""
        return psycopg2.connect(
            dbname=database, user=user, host=host or SOCKET, port=port or self.port
        )

    def program(self, name: str, database: str, *options: str) -> list[str]:
        """Return the command line of a PostgreSQL program for ``database``."""
        return [
            f"{self.bin_directory}/{name}",
            "--no-password",
            f"--host={SOCKET}",
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
                    # Not t::text: who owns a table may make a cast of it to text.
                    sql.SQL(
                        "SELECT count(*), coalesce(sum("
                        "hashtextextended(textin(record_out(t.*)), 0)::numeric), 0)"
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


@dataclass(frozen=True)
class Selection:
    """What of a database is dumped."""

    options: list[str]  # of pg_dump
    creates_public: bool  # the dump makes the schema public, which must not be there then
    left_out: dict[str, Any]

    @classmethod
    def of(cls, connection: Any) -> Selection:
        """Look what is whose. Wants SESSION."""
        with connection.cursor() as cursor:
            cursor.execute(SCHEMAS)
            schemas = cursor.fetchall()
            cursor.execute(CASTS)
            strange, own = cursor.fetchone()
            cursor.execute("SELECT count(*) FROM pg_largeobject_metadata")
            (large_objects,) = cursor.fetchone()
        left_out = {
            "schemas": {name: owner for name, owner, _, taken in schemas if not taken},
            "casts": strange + own if strange else 0,
            "large_objects": large_objects,
        }
        if strange:  # named, what is wanted comes without anything that is in no schema
            taken = [f"--schema={quoted}" for _, _, quoted, taken in schemas if taken]
            return cls([*taken, "--extension=*"], True, left_out)
        others = [f"--exclude-schema={quoted}" for _, _, quoted, taken in schemas if not taken]
        return cls(others, False, left_out)


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


class Watch(threading.Thread):
    """Ends what would hold the backup for as long as it likes, and knows whom it ended."""

    def __init__(self, config: Config) -> None:
        super().__init__(daemon=True)
        self.config = config
        self.ended: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        """Look every few seconds until it is over. A look that fails is made again."""
        while not self.over.wait(WATCH_SECONDS):
            with contextlib.suppress(psycopg2.Error):
                self.look()

    def look(self) -> None:
        """End who keeps the backup waiting, and a restore that does not come to its end."""
        connection = self.config.connect("postgres")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET search_path = pg_catalog, pg_temp")
                cursor.execute(BLOCKERS, (self.config.database, LOCK_SECONDS))
                for pid, role in cursor.fetchall():
                    with contextlib.suppress(psycopg2.Error):  # a superuser's own business
                        cursor.execute("SELECT pg_terminate_backend(%s)", (pid,))
                        self.ended.append(role)
                config = self.config
                cursor.execute(
                    LINGERING, (config.check_role, config.scratch_database, RESTORE_SECONDS)
                )
        finally:
            connection.close()


@contextlib.contextmanager
def watched(config: Config) -> Iterator[Watch]:
    """Let nobody hold up what is done meanwhile."""
    watch = Watch(config)
    watch.start()
    try:
        yield watch
    finally:
        watch.over.set()
        watch.join()


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
                    "CREATE DATABASE {} OWNER {} TEMPLATE template0"
                    " ENCODING {} LC_COLLATE {} LC_CTYPE {}"
                ).format(
                    name,
                    sql.Identifier(config.check_role),
                    *(sql.Literal(value) for value in (encoding, collate, ctype)),
                )
            )
            try:
                cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
                yield config.scratch_database
            finally:
                cursor.execute(drop)
    finally:
        maintenance.close()


def drop_public(config: Config, scratch: str) -> None:
    """Make room for the schema public of a dump that brings its own."""
    connection = config.connect(scratch, config.check_role)
    try:
        with connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA public")
        connection.commit()
    finally:
        connection.close()


class Stage:
    """One program of the pipeline, with what it says about errors."""

    def __init__(self, argv: list[str], **streams: Any) -> None:
        self.name = Path(argv[0]).name
        self.errors = os.memfd_create(self.name)  # unlike a pipe it never blocks the program
        self.process = subprocess.Popen(argv, stderr=self.errors, **streams)

    def feed(self, chunk: bytes) -> bool:
        """Hand over a piece; a program that has ended (false) is judged by its exit code later."""
        try:
            self.process.stdin.write(chunk)
        except BrokenPipeError:
            return False
        return True

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


def pump(
    config: Config, snapshot: str, selection: Selection, scratch: str, file: IO[bytes]
) -> tuple[int, str]:
    """Send one dump of what ``selection`` says into age and into the scratch database.

    Returns the number of plain bytes and their SHA-256. Raises BackupError when a program fails.
    """
    dump = Stage(
        config.program(
            "pg_dump",
            config.database,
            "--format=custom",
            f"--snapshot={snapshot}",
            "--no-blobs",  # nobody but their owner may read large objects
            "--no-owner",
            "--no-privileges",
            *selection.options,
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    recipients = [word for key in config.recipients for word in ("--recipient", key)]
    age = Stage(["age", *recipients], stdin=subprocess.PIPE, stdout=file)
    restore = Stage(
        config.program(
            "pg_restore",
            scratch,
            f"--username={config.check_role}",
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


def signature_of(manifest: bytes) -> bytes:
    """Return this server's signature of a manifest (it is the same each time)."""
    key = str(SECRETS / "signing_ed25519")
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", NAMESPACE],
        input=manifest,
        capture_output=True,
        check=False,
    )
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip()
        raise BackupError(f"the manifest could not be signed with {key}: {said}")
    return done.stdout


def sign_what_is_not(config: Config) -> None:
    """Sign the manifests that were written before manifests were signed."""
    for path in Path(config.directory).glob("[0-9]*T*Z/manifest.json"):
        signature = path.with_name(SIGNATURE)
        if not signature.exists():
            partial = path.with_name(f"{PARTIAL}{SIGNATURE}")
            partial.write_bytes(signature_of(path.read_bytes()))
            partial.rename(signature)


def manifests(config: Config) -> list[dict[str, Any]]:
    """Return the manifests of all published backups, newest first."""
    paths = Path(config.directory).glob("[0-9]*T*Z/manifest.json")
    return [json.loads(path.read_text()) for path in sorted(paths, reverse=True)]


def kept(stamps: list[str], config: Config) -> set[str]:
    """Return those of ``stamps`` that the rules keep: the last of each day, week and month.

    And all of the last day: whoever makes a backup before a dangerous step finds it afterwards.
    """
    newest_first = sorted(stamps, reverse=True)
    yesterday = time.strftime(STAMP_FORMAT, time.gmtime(time.time() - 86400))
    keep = {*newest_first[:1], *(stamp for stamp in stamps if stamp > yesterday)}
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


def shrunk(config: Config, manifest: dict[str, Any], earlier: list[dict[str, Any]]) -> str:
    """Return a sentence when the backup is much smaller than the recent ones, else nothing."""
    since = time.time() - SHRINK_DAYS * 86400
    recent = [other["plain_bytes"] for other in earlier if other["started"] >= since]
    largest = max(recent, default=0)
    if manifest["plain_bytes"] * 100 >= largest * config.shrink_percent:
        return ""
    return (
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
    sign_what_is_not(config)
    earlier = manifests(config)
    started = time.time()
    stamp = time.strftime(STAMP_FORMAT, time.gmtime(started))
    partial, final = directory / f"{PARTIAL}{stamp}", directory / stamp
    source = config.connect(config.database)
    partial.mkdir(mode=0o700)
    try:
        source.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with source.cursor() as cursor:
            cursor.execute(SESSION)
            cursor.execute("SELECT pg_export_snapshot(), pg_database_size(current_database())")
            snapshot, size = cursor.fetchone()
        selection = Selection.of(source)
        refuse_without_room(config, size)
        dump = partial / "dump.age"
        with watched(config) as watch:
            contents = Contents.of(source)
            with scratch_database(config, source) as scratch:
                if selection.creates_public:
                    drop_public(config, scratch)
                with dump.open("wb") as file:
                    plain_bytes, plain_sha256 = pump(config, snapshot, selection, scratch, file)
                copy = config.connect(scratch, config.check_role)
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
            "creates_public": selection.creates_public,
            "left_out": selection.left_out,
            "ended_sessions": watch.ended,
            # Tables are the snapshot's, sequences what came out of the dump.
            **asdict(Contents(contents.tables, restored.sequences, contents.objects)),
        }
        path = partial / "manifest.json"
        path.write_text(json.dumps(manifest, indent=2) + "\n")
        signature = partial / SIGNATURE
        signature.write_bytes(signature_of(path.read_bytes()))
        for written in (dump, path, signature, partial):
            sync(written)
        partial.rename(final)
        sync(directory)
    finally:
        source.close()
        shutil.rmtree(partial, ignore_errors=True)
    if complaint := shrunk(config, manifest, earlier):
        raise BackupError(complaint)
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
            "`ansible-playbook playbooks/backup.yml` makes one; on a server that is new, "
            "`playbooks/restore.yml -e restore_from=keeper` takes one from the other host."
        )
    return found[0]


def verify(config: Config, database: str, manifest: dict[str, Any]) -> str:
    """Compare ``database`` with a manifest. Returns a sentence, raises Differs.

    Reads it as the role that has restored it; of what is the database now, as whoever asks.
    """
    connection = config.connect(
        database, None if database == config.database else config.restore_role
    )
    try:
        contents = Contents.of(connection)
    finally:
        connection.close()
    wanted = Contents(manifest["tables"], manifest["sequences"], manifest["objects"])
    found = wanted.differences(contents)
    if found:
        raise Differs(f"{database} is not what the manifest says: " + "; ".join(found))
    return f"{len(wanted.tables)} tables with {manifest['rows']} rows are equal"


@dataclass(frozen=True)
class OtherHost:
    """A host with the role backup_keeper, reached over SSH with a key that can only add."""

    host: str
    port: int
    user: str

    @property
    def name(self) -> str:
        """What the place is called in messages and in the note of what is there."""
        return f"{self.user}@{self.host}:{self.port}"

    def ssh(self, *words: str) -> list[str]:
        """Return the command line that says ``words`` to the other side."""
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(SECRETS / "known_hosts"),
            "StrictHostKeyChecking": "yes",
            "HostKeyAlgorithms": "ssh-ed25519",
            "ConnectTimeout": "20",
            "ServerAliveInterval": "20",
        }
        return [
            *("ssh", "-F", "none", "-T", "-i", str(SECRETS / "id_ed25519"), "-p", str(self.port)),
            *(word for name, value in options.items() for word in ("-o", f"{name}={value}")),
            f"{self.user}@{self.host}",
            *words,
        ]

    def talk(self, words: list[str], pieces: Iterable[bytes]) -> str:
        """Send ``pieces`` and return the answer. Raises BackupError with what the other said."""
        ssh = Stage(self.ssh(*words), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            for piece in pieces:
                if not ssh.feed(piece):
                    break
            ssh.close()
            answer = ssh.process.stdout.read().decode(errors="replace")
            ssh.finish()
        finally:
            ssh.stop()
        return answer

    def lacks(self, found: list[dict[str, Any]]) -> set[str]:
        """Return those stamps of ``found`` that are not there."""
        offer = [[manifest["stamp"], manifest["sha256"]] for manifest in found]
        return set(json.loads(self.talk(["offer"], [json.dumps(offer).encode()])))

    def add(self, directory: Path) -> None:
        """Send the backup in ``directory``."""
        manifest = (directory / "manifest.json").read_bytes()
        signature = (directory / SIGNATURE).read_bytes()
        words = ["put", directory.name, str(len(manifest)), str(len(signature))]
        with (directory / "dump.age").open("rb") as file:
            dump = iter(lambda: file.read(CHUNK), b"")
            self.talk(words, itertools.chain([manifest, signature], dump))


@dataclass(frozen=True)
class RcloneRemote:
    """Any storage that rclone knows. What is there is never changed or removed from here."""

    remote: str
    database: str

    @property
    def path(self) -> str:
        """Where the directories of the backups are."""
        return f"{self.remote.rstrip('/')}/{self.database}"

    @property
    def name(self) -> str:
        """What the place is called in messages and in the note of what is there."""
        return self.remote

    def rclone(self, *words: str, unless: int = 0) -> str:
        """Run rclone and return what it printed. Exit code ``unless`` is none of its failures."""
        config = f"--config={SECRETS / 'rclone.conf'}"
        rclone = Stage(["rclone", *words, config], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            answer = rclone.process.stdout.read().decode(errors="replace")
            if not unless or rclone.process.wait() != unless:
                rclone.finish()
        finally:
            rclone.stop()
        return answer

    def lacks(self, found: list[dict[str, Any]]) -> set[str]:
        """Return those stamps of ``found`` that are not there."""
        listed = self.rclone("lsf", "--dirs-only", self.path, unless=RCLONE_NO_DIRECTORY)
        return {manifest["stamp"] for manifest in found} - set(listed.replace("/", "").split())

    def add(self, directory: Path) -> None:
        """Send the backup in ``directory``."""
        target = f"{self.path}/{directory.name}"
        self.rclone("copy", "--immutable", "--retries=2", str(directory), target)


def places(config: Config) -> list[OtherHost | RcloneRemote]:
    """Return where copies go."""
    found: list[OtherHost | RcloneRemote] = []
    if config.copy_to:
        found.append(OtherHost(**config.copy_to))
    if config.rclone_remote:
        found.append(RcloneRemote(config.rclone_remote, config.database))
    return found


def copied() -> dict[str, list[str]]:
    """Return place → stamps of the backups that are known to be there."""
    return json.loads(COPIED.read_text()) if COPIED.exists() else {}


def copy(config: Config) -> str:
    """Send each place what it lacks, oldest first. Returns a sentence, raises BackupError.

    A place that fails does not keep the others from getting theirs.
    """
    found = manifests(config)
    stamps = {manifest["stamp"] for manifest in found}
    done, sentences, failures = copied(), [], []
    for place in places(config):
        there = recorded = set(done.get(place.name, [])) & stamps
        sent = []
        try:
            if recorded != stamps:
                lacking = place.lacks(found) & stamps
                if lacking != stamps:  # else it has lost everything, or is a new one
                    lacking -= recorded  # what it let expire is not sent again
                there = stamps - lacking
                for stamp in sorted(lacking):
                    place.add(Path(config.directory) / stamp)
                    there.add(stamp)
                    sent.append(stamp)
        except (BackupError, OSError, ValueError) as error:
            failures.append(f"{place.name}: {error}")
        done[place.name] = sorted(there)
        sentences.append(f"{place.name}: {', '.join(sent) or 'nothing new'}")
        partial = COPIED.with_name(f"{PARTIAL}{COPIED.name}")
        partial.write_text(json.dumps(done))
        partial.rename(COPIED)
    if failures:
        raise BackupError(
            f"no copy there: {'; '.join(failures)}. It is tried again every hour; the backups on "
            "this server are untouched."
        )
    return f"copied to {'; '.join(sentences)}" if sentences else "no other place is set"


def complaints(config: Config) -> list[str]:
    """Return a sentence for everything that keeps the backups from being good."""
    found = manifests(config)
    oldest_allowed = time.time() - config.max_age_hours * 3600
    if not found:
        # A server that has just been set up has had no night yet.
        since = Path(config.directory).stat().st_mtime
        return [] if since > oldest_allowed else [f"there is no backup in {config.directory}"]
    said = []
    newest, *earlier = found
    if newest["started"] < oldest_allowed:
        hours = (time.time() - newest["started"]) / 3600
        said.append(
            f"the newest backup, {newest['stamp']}, is {hours:.0f} hours old (more than "
            f"{config.max_age_hours}): journalctl -u postgres-backup says why"
        )
    if complaint := shrunk(config, newest, earlier):
        said.append(complaint)
    for manifest in found:
        dump = Path(config.directory) / manifest["stamp"] / "dump.age"
        if not dump.exists() or sha256_of(dump) != manifest["sha256"]:
            said.append(f"{dump} is not what its manifest describes (truncated or altered)")
        signature = dump.with_name(SIGNATURE)
        signed = signature_of(dump.with_name("manifest.json").read_bytes())
        # The next backup signs those that have no signature.
        if signature.exists() and signature.read_bytes() != signed:
            said.append(f"{dump.with_name('manifest.json')} is not what this server has signed")
    done = copied()
    for place in places(config):
        there = done.get(place.name, [])
        late = [
            each["stamp"]
            for each in found
            if each["stamp"] not in there and each["started"] < time.time() - COPY_HOURS * 3600
        ]
        if late:
            said.append(
                f"{place.name} lacks {', '.join(sorted(late))}: "
                "journalctl -u postgres-backup-copy says why"
            )
    return said + (archive_complaints(config) if config.archive_enabled else [])


def archive_complaints(config: Config) -> list[str]:
    """Return a sentence for everything that keeps the continuous archive from being good."""
    connection = config.connect("postgres")
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT last_failed_wal, last_failed_time FROM pg_stat_archiver"
                " WHERE last_failed_time > coalesce(last_archived_time, '-infinity')"
            )
            failed = cursor.fetchone()
    finally:
        connection.close()
    said = []
    if failed:
        said.append(f"WAL {failed[0]} could not be archived since {failed[1]:%Y-%m-%d %H:%M %Z}")
    since = ARCHIVED.stat().st_mtime if ARCHIVED.exists() else 0
    if not since:
        said.append("the archive has no base backup yet")
    elif since < time.time() - config.max_age_hours * 3600:
        said.append(
            f"the archive's newest base backup is {(time.time() - since) / 3600:.0f} hours old: "
            "journalctl -u 'postgres-archive@*' says why"
        )
    return said


def told(manifest: dict[str, Any]) -> str:
    """Return what else whoever reads the journal should know of a backup, if anything."""
    schemas = manifest["left_out"]["schemas"].items()
    said = [f"{name} of {owner}" for name, owner in schemas]
    for kind in ("casts", "large_objects"):
        if number := manifest["left_out"][kind]:
            said.append(f"{number} {kind.replace('_', ' ')}")
    text = f"; left out: {', '.join(said)}" if said else ""
    if manifest["ended_sessions"]:
        roles = ", ".join(sorted(set(manifest["ended_sessions"])))
        text += f"; ended sessions that held it up: of {roles}"
    return text


def contents(config: Config, database: str, host: str, port: int | None) -> dict[str, Any]:
    """Return what `verify` compares of a database, and what pg_dump is told to take."""
    connection = config.connect(database, None, host, port)
    try:
        found = Contents.of(connection)
        selection = Selection.of(connection)
    finally:
        connection.close()
    rows = sum(table["rows"] for table in found.tables.values())
    return {
        "rows": rows,
        "options": selection.options,
        "creates_public": selection.creates_public,
        **asdict(found),
    }


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
    commands.add_parser("stamp", help="print which is the newest").add_argument("stamp", nargs="?")
    commands.add_parser(
        "verify", help="compare a database with the manifest on stdin"
    ).add_argument("database")
    of = commands.add_parser("contents", help="print what `verify` compares of a database")
    of.add_argument("database")
    of.add_argument("--host", default=SOCKET, help="directory of the server's socket")
    of.add_argument("--port", type=int)
    commands.add_parser("copy", help="send what the other places lack")
    commands.add_parser("check", help="complain of what is old, small, altered or not copied")
    arguments = parser.parse_args()
    try:
        config = Config.load()
        if arguments.command == "run":
            manifest = run(config)
            print(
                f"backup {manifest['stamp']}: {len(manifest['tables'])} tables, "
                f"{manifest['rows']} rows, {manifest['bytes']} bytes, restored and compared in "
                f"{manifest['seconds']} s; expired: {', '.join(manifest['expired']) or 'none'}"
                f"{told(manifest)}"
            )
        elif arguments.command == "show":
            print(json.dumps(show(config, arguments.stamp), indent=2))
        elif arguments.command == "stamp":
            print(show(config, arguments.stamp)["stamp"])
        elif arguments.command == "list":
            for manifest in manifests(config):
                print(manifest["stamp"], manifest["bytes"], manifest["rows"])
        elif arguments.command == "contents":
            print(json.dumps(contents(config, arguments.database, arguments.host, arguments.port)))
        elif arguments.command == "copy":
            print(copy(config))
        elif arguments.command == "check":
            if said := complaints(config):
                raise BackupError("; ".join(said))
            print(f"{len(manifests(config))} backups are as they should be")
        else:
            print(verify(config, arguments.database, json.load(sys.stdin)))
    except (BackupError, psycopg2.Error, OSError) as error:
        # One line, so that it is one entry of the journal.
        print(f"postgres-backup: {' '.join(str(error).split())}", file=sys.stderr)
        return 4 if isinstance(error, Differs) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
