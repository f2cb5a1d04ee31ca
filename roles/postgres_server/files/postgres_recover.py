#!/usr/bin/env python3
"""Bring a database as it was at a moment into an empty one, from the continuous archive.

    postgres-recover TIME TARGET      TIME as in "2026-11-22 14:32:00+00"; run as postgres

The archive (pgBackRest) holds the whole server, so the server of that moment is made beside the
running one: in a directory of its own, on a socket that only postgres reaches, archiving nothing.
The database is carried over from there into TARGET, which exists and is empty, and both are
compared table by table. As with a backup, reading runs no function of anybody, and what came out is
restored by the role without rights that owns TARGET. Then that second server is removed. The
running one is not touched but for the note that its archive must reach up to now. Prints what was
found as one JSON object.

Settings: /etc/postgres-backup.json. Runs under the distribution's Python (3.10 or newer), standard
library only. Exit codes: 0 done · 1 failed · 2 usage · 3 refused: that moment cannot be had.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/postgres-backup.json")
BACKUP = "/usr/local/sbin/postgres-backup"
PORT = 5432  # part of the socket's name only
ARCHIVE_SECONDS = 120  # for the running server to hand over its last changes
START_SECONDS = 6 * 3600  # for reading all changes since the base backup


class RecoverError(Exception):
    """It failed; the message says what to do. Nothing but TARGET was written to."""


class RefusedError(RecoverError):
    """That moment cannot be had."""


def run(argv: list[str], what: str, **options: Any) -> str:
    """Run a program and return what it printed. Raises RecoverError with what it complained of."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise RecoverError(f"{what}: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout.strip()


def moment(text: str) -> datetime.datetime:
    """Return the time that ``text`` names. Raises RefusedError unless it says its UTC offset."""
    normal = re.sub(r"([+-]\d\d)$", r"\1:00", text.strip().replace("Z", "+00:00"))
    try:
        at = datetime.datetime.fromisoformat(normal)
    except ValueError as error:
        raise RefusedError(f'{text} is no time; write it as "2026-11-22 14:32:00+00"') from error
    if at.tzinfo is None:
        raise RefusedError(f"{text} says no UTC offset: add +00, or that of your clock")
    if at.timestamp() > time.time():
        raise RefusedError(f"{text} lies in the future")
    return at


class Recovery:
    """The second server."""

    def __init__(self, config: dict[str, Any], stanza: str, directory: Path) -> None:
        self.config = config
        self.stanza = stanza
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"

    def program(self, name: str) -> str:
        """Return the path of one of PostgreSQL's programs."""
        return f"{self.config['bin_directory']}/{name}"

    def sql(self, statement: str) -> str:
        """Ask the running server."""
        port = f"--port={self.config['port']}"
        return run(
            [self.program("psql"), "-XAtq", port, "--dbname=postgres", "--command", statement],
            "the running server",
        )

    def reach_up_to_now(self) -> None:
        """See to it that the archive holds all that was committed until now, and one commit more.

        Without a commit after the wanted moment PostgreSQL would not know that it has arrived.
        """
        self.sql("SELECT pg_current_xact_id()")
        last = self.sql("SELECT pg_walfile_name(pg_switch_wal())")
        deadline = time.time() + ARCHIVE_SECONDS
        while self.sql("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver") < last:
            if time.time() > deadline:
                raise RecoverError(
                    f"WAL {last} was not archived within {ARCHIVE_SECONDS} s; look at "
                    "pg_stat_archiver and the journal (journalctl -t postgres)"
                )
            time.sleep(0.2)

    def refuse_without_room(self) -> None:
        """Raise RefusedError unless a second server and a second database fit on the disk."""
        size = int(self.sql("SELECT sum(pg_database_size(oid)) FROM pg_database"))
        free = shutil.disk_usage(self.directory).free
        if free < size * 5 // 2:
            raise RefusedError(
                f"{self.directory.parent} has {free // 2**20} MiB free; the server of that moment "
                f"beside this one may need {size * 5 // 2 // 2**20} MiB. Make room."
            )

    def fetch(self, at: datetime.datetime) -> None:
        """Take the last base backup before the moment out of the archive."""
        self.data.mkdir(mode=0o700)
        try:
            run(
                [
                    "pgbackrest",
                    f"--stanza={self.stanza}",
                    f"--pg1-path={self.data}",
                    "--type=time",
                    f"--target={at:%Y-%m-%d %H:%M:%S.%f%z}",
                    "--target-action=promote",
                    "--archive-mode=off",
                    "--log-level-console=warn",
                    "restore",
                ],
                "the archive",
            )
        except RecoverError as error:
            if "unable to find backup set" in str(error):
                raise RefusedError(
                    f"the archive has no base backup from before {at}; `pgbackrest info` shows how "
                    "far it goes back"
                ) from error
            raise

    def start(self, at: datetime.datetime) -> None:
        """Let the second server read all changes up to the moment."""
        settings = {
            "data_directory": self.data,
            "hba_file": self.directory / "pg_hba.conf",
            "ident_file": self.directory / "pg_ident.conf",
            "listen_addresses": "",
            "unix_socket_directories": self.directory,
            "unix_socket_permissions": "0700",
            "port": PORT,
            "hot_standby": "off",
            "fsync": "off",  # thrown away after use
            "jit": "off",
            "autovacuum": "off",
            "log_destination": "stderr",
            "logging_collector": "off",
        }
        text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        conf = self.directory / "postgresql.conf"
        conf.write_text(text)
        (self.directory / "pg_hba.conf").write_text("local all postgres peer\n")
        (self.directory / "pg_ident.conf").write_text("")
        run(
            [
                *(self.program("pg_ctl"), "start", "--wait", f"--timeout={START_SECONDS}"),
                *(f"--pgdata={self.data}", f"--log={self.log}"),
                f"--options=--config-file={conf}",
            ],
            "the server of that moment",
            stdin=subprocess.DEVNULL,
        )
        # "Started" only means that it reads; it takes connections when it has arrived.
        ask = [self.program("pg_isready"), "--quiet", f"--host={self.directory}", f"--port={PORT}"]
        deadline = time.time() + START_SECONDS
        while subprocess.run(ask, check=False).returncode:
            said = self.log.read_text()
            if "before configured recovery target was reached" in said:
                raise RefusedError(f"the archive ends before {at}")
            if not (self.data / "postmaster.pid").exists() or time.time() > deadline:
                fatal = [line for line in said.splitlines() if "FATAL" in line or "PANIC" in line]
                raise RecoverError(f"the server of that moment: {' '.join(fatal[-3:])}")
            time.sleep(0.1)

    def last_change(self) -> str:
        """Return the time of the last change that the second server has."""
        found = re.findall(r"last completed transaction was at log time (.+)", self.log.read_text())
        return found[-1] if found else ""

    def carry_over(self, target: str) -> dict[str, Any]:
        """Fill the target and compare. Returns what is in it, in the form of a manifest."""
        database = self.config["database"]
        there = [f"--host={self.directory}", f"--port={PORT}"]
        contents = json.loads(run([BACKUP, "contents", database, *there], "reading"))
        dump = subprocess.Popen(
            [
                *(self.program("pg_dump"), *there, f"--dbname={database}", "--format=custom"),
                *("-Z0", "--no-blobs", "--no-owner", "--no-privileges", *contents["options"]),
            ],
            stdout=subprocess.PIPE,
        )
        port = f"--port={self.config['port']}"
        if contents["creates_public"]:  # the dump brings its own
            drop = ["-XAtq", port, f"--dbname={target}", "--command=DROP SCHEMA public"]
            run([self.program("psql"), *drop], "the empty database")
        run(
            [
                *(self.program("pg_restore"), port, f"--dbname={target}"),
                f"--username={self.config['restore_role']}",
                *("--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions"),
                *("--single-transaction", "--exit-on-error"),
            ],
            "carrying over",
            stdin=dump.stdout,
        )
        if dump.wait():
            raise RecoverError("carrying over: pg_dump failed")
        run([BACKUP, "verify", target], "comparing", input=json.dumps(contents))
        return contents

    def stop(self) -> None:
        """End the second server at once; nothing of it is needed any more."""
        if (self.data / "postmaster.pid").exists():
            run(
                [self.program("pg_ctl"), "stop", "--mode=immediate", f"--pgdata={self.data}"],
                "the server of that moment",
            )


@contextlib.contextmanager
def recovery(config: dict[str, Any], stanza: str) -> Iterator[Recovery]:
    """Give the second server a place, and remove both in the end."""
    home = Path(config["data_directory"]).parents[1]
    with tempfile.TemporaryDirectory(prefix="recover-", dir=home) as directory:
        second = Recovery(config, stanza, Path(directory))
        try:
            yield second
        finally:
            second.stop()


def main() -> int:
    """Run from the command line and return the exit code."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description="A database as it was at a moment.")
    parser.add_argument("time")
    parser.add_argument("target")
    parser.add_argument("--stanza", default="main")
    arguments = parser.parse_args()
    try:
        config = json.loads(CONFIG.read_text())
        at = moment(arguments.time)
        with recovery(config, arguments.stanza) as second:
            second.refuse_without_room()
            second.reach_up_to_now()
            second.fetch(at)
            second.start(at)
            contents = second.carry_over(arguments.target)
            found = {
                "time": at.isoformat(" "),
                "last_change": second.last_change(),
                "tables": len(contents["tables"]),
                "rows": contents["rows"],
            }
        print(json.dumps(found))
    except (RecoverError, OSError, ValueError) as error:
        print(f"postgres-recover: {' '.join(str(error).split())}", file=sys.stderr)
        return 3 if isinstance(error, RefusedError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
