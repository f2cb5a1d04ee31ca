#!/usr/bin/env python3
"""Keep copies of backups that other hosts may add to, and do nothing else with.

    backup-keeper receive SOURCE        what a source's SSH key is allowed to run (forced command)
    backup-keeper tidy                  look at every copy, complain, remove what has expired
                                        (systemd: backup-keeper.service)
    backup-keeper list [SOURCE]         print source, stamp, bytes and time of arrival, newest first
    backup-keeper show SOURCE [STAMP]   print the manifest of the newest copy, or of that one
    backup-keeper stamp SOURCE [STAMP]  print the stamp of the newest copy, or that one if it is

A copy is <directory>/<source>/<stamp>/{dump.age,manifest.json,manifest.json.sig}. It appears there
in one step, after its signature and its checksum have been found right, and is never written to
again. `receive` knows two requests:

    offer                  standard input: a JSON list of [stamp, sha256]; answer: a JSON list of
                           the stamps that are not here
    put STAMP BYTES SIZE   standard input: a manifest of BYTES bytes, its signature of SIZE bytes,
                           then the encrypted file

Whoever takes over the source can therefore not read, change or remove what is here, nor push it out
by inventing backups: of a day, week or month the first that arrived is kept, one that arrives late
takes nothing from those that arrived in time, and a source that looks wrong (too old, shrunk,
altered) loses nothing to expiry until it looks right.

Settings: /etc/backup-keeper.json; who signs: /etc/backup-keeper.signers. Runs under the
distribution's Python (3.10 or newer), standard library only. Exit codes: 0 done · 1 failed or
something is wrong, nothing was removed · 2 usage · 3 refused, nothing was changed.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

CONFIG = Path("/etc/backup-keeper.json")
SIGNERS = Path("/etc/backup-keeper.signers")  # in the format ALLOWED SIGNERS of ssh-keygen
NAMESPACE = "postgres-backup"  # of signatures
CHUNK = 256 * 1024  # bytes
PARTIAL = ".partial-"
PARTIAL_SECONDS = 24 * 3600  # a transfer that old is dead
MANIFEST_BYTES = 16 * 2**20  # greatest manifest
SIGNATURE_BYTES = 64 * 2**10  # greatest signature
OFFER_BYTES = 2**20  # greatest offer
AGE = b"age-encryption.org/v1\n"  # how an encrypted file begins
AGE_HEADER_BYTES = 64 * 2**10  # greatest header: a line or two for each recipient
AGE_CHUNK = 64 * 2**10  # plain bytes that are sealed together
AGE_TAG = 16  # bytes that each chunk grows by, and that stand before the first
AHEAD_SECONDS = 600  # so much a source's clock may be ahead
LATE_SECONDS = 2 * 86400  # a backup that arrives later than this is late
SHRINK_SECONDS = 8 * 86400  # a copy is compared with the largest that arrived in this time
STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
STAMP_FORMAT = "%Y%m%dT%H%M%SZ"


class KeeperError(Exception):
    """Something is wrong with the copies; the message says what."""


class RefusedError(KeeperError):
    """A source asked for what it may not have. Nothing was changed."""


@dataclass(frozen=True)
class Config:
    """What /etc/backup-keeper.json holds."""

    directory: str
    sources: list[str]
    minimum_free_mb: int
    max_age_hours: int
    shrink_percent: int
    keep_days: int
    keep_weeks: int
    keep_months: int

    @classmethod
    def load(cls) -> Config:
        """Read the file that the role writes."""
        return cls(**json.loads(CONFIG.read_text()))

    def place(self, source: str) -> Path:
        """Return the directory of a source."""
        return Path(self.directory) / source


@dataclass(frozen=True)
class Kept:
    """A copy that is here."""

    directory: Path
    manifest: dict[str, Any]
    received: float  # by this host's clock

    @classmethod
    def read(cls, directory: Path) -> Kept:
        """Read a copy's manifest."""
        path = directory / "manifest.json"
        return cls(directory, json.loads(path.read_text()), path.stat().st_mtime)

    @property
    def stamp(self) -> str:
        """When the source says that it was made."""
        return self.directory.name

    @property
    def in_time(self) -> bool:
        """Whether it arrived soon after it was made."""
        return self.received - moment(self.stamp).timestamp() <= LATE_SECONDS

    @property
    def altered(self) -> bool:
        """Whether the file is no longer what its manifest says."""
        dump = self.directory / "dump.age"
        return not dump.exists() or sha256_of(dump) != self.manifest["sha256"]


def moment(stamp: str) -> datetime.datetime:
    """Return the time that a stamp stands for. Raises ValueError where it is none."""
    return datetime.datetime.strptime(stamp, STAMP_FORMAT).replace(
        tzinfo=datetime.timezone.utc  # noqa: UP017 - datetime.UTC is not in Python 3.10
    )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
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


def copies(config: Config, source: str) -> list[Kept]:
    """Return the copies of a source, newest first."""
    found = config.place(source).glob("[0-9]*T*Z")
    return [Kept.read(path) for path in sorted(found, reverse=True)]


def offer(config: Config, source: str, stream: IO[bytes]) -> list[str]:
    """Return those of the offered stamps that are not here with that checksum."""
    asked = json.loads(stream.read(OFFER_BYTES))
    have = {(kept.stamp, kept.manifest["sha256"]) for kept in copies(config, source)}
    return [stamp for stamp, sha256 in asked if (stamp, sha256) not in have]


def check_signature(source: str, text: bytes, signature: Path) -> None:
    """Raise RefusedError unless the source's key for that has signed ``text``."""
    if not SIGNERS.exists():
        raise RefusedError("it is not known here who signs the backups: run site.yml")
    done = subprocess.run(
        [
            *("ssh-keygen", "-Y", "verify", "-f", str(SIGNERS), "-I", source),
            *("-n", NAMESPACE, "-s", str(signature)),
        ],
        input=text,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RefusedError(f"the manifest is not signed by the key of {source} for that")


def read_manifest(stamp: str, text: bytes) -> dict[str, Any]:
    """Return what a manifest says. Raises RefusedError where it cannot be."""
    try:
        manifest = json.loads(text)
        described = (
            manifest["stamp"],
            *(type(manifest[name]) for name in ("bytes", "plain_bytes", "sha256")),
        )
        proven = manifest["restored_and_compared"]
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError("the manifest is not one, or was cut off") from error
    if described != (stamp, int, int, str):
        raise RefusedError("the manifest is that of another backup")
    if proven is not True:
        raise RefusedError("the manifest does not say that the backup was restored and compared")
    return manifest


def is_sealed(path: Path, plain_bytes: int) -> bool:
    """Return whether a file has the form and the size of one that age made of so many bytes."""
    with path.open("rb") as file:
        head = file.read(AGE_HEADER_BYTES)
    mac = head.find(b"\n--- ")
    end = head.find(b"\n", mac + 1)
    if not head.startswith(AGE) or mac < 0 or end < 0 or plain_bytes < 0:
        return False
    chunks = max(1, -(-plain_bytes // AGE_CHUNK))
    return path.stat().st_size == end + 1 + AGE_TAG + plain_bytes + chunks * AGE_TAG


def receive_dump(
    config: Config, path: Path, manifest: dict[str, Any], stream: IO[bytes]
) -> tuple[int, str]:
    """Write at most the announced bytes and one more; return their number and SHA-256."""
    room = os.statvfs(path.parent)
    free = room.f_bavail * room.f_frsize - config.minimum_free_mb * 2**20
    if manifest["bytes"] > free:
        raise RefusedError(
            f"{manifest['bytes'] // 2**20} MiB do not fit: {config.minimum_free_mb} MiB of this "
            "host's disk have to stay free. Make room here."
        )
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        while size <= manifest["bytes"] and (chunk := stream.read(CHUNK)):
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
    return size, digest.hexdigest()


def put(
    config: Config, source: str, stamp: str, size: int, signature_size: int, stream: IO[bytes]
) -> str:
    """Add one backup. Returns a sentence. Raises RefusedError with nothing changed."""
    if not 0 < size <= MANIFEST_BYTES or not 0 < signature_size <= SIGNATURE_BYTES:
        raise RefusedError(f"a manifest of {size} bytes, signed by {signature_size}, is none")
    if moment(stamp).timestamp() > time.time() + AHEAD_SECONDS:
        raise RefusedError(f"{stamp} lies in the future by this host's clock")
    place = config.place(source)
    final = place / stamp
    if final.exists():
        raise RefusedError(f"{stamp} is here already, and nothing that is here is ever replaced")
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=place))
    try:
        text, signature = stream.read(size), partial / "manifest.json.sig"
        signature.write_bytes(stream.read(signature_size))
        check_signature(source, text, signature)
        manifest = read_manifest(stamp, text)
        dump = partial / "dump.age"
        found = receive_dump(config, dump, manifest, stream)
        if found != (manifest["bytes"], manifest["sha256"]):
            raise RefusedError(f"{stamp} did not arrive as its manifest describes it")
        if not is_sealed(dump, manifest["plain_bytes"]):
            raise RefusedError(f"{stamp} is no encrypted file of {manifest['plain_bytes']} bytes")
        (partial / "manifest.json").write_bytes(text)
        for written in (dump, partial / "manifest.json", signature, partial):
            sync(written)
        partial.rename(final)
        sync(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return f"{stamp}: {manifest['bytes']} bytes from {source}"


def receive(config: Config, source: str, request: str, stream: IO[bytes]) -> str:
    """Answer a request of a source."""
    if source not in config.sources:
        raise RefusedError(f"{source} is no source")
    words = shlex.split(request)
    if words == ["offer"]:
        return json.dumps(offer(config, source, stream))
    if len(words) == 4 and words[0] == "put" and STAMP.fullmatch(words[1]):
        sizes = [int(word) for word in words[2:] if word.isascii() and word.isdigit()]
        if len(sizes) == 2:
            return put(config, source, words[1], *sizes, stream)
    raise RefusedError("this key adds backups and does nothing else")


def first_of_each(found: list[Kept], period: str) -> dict[str, Kept]:
    """Return period → the copy of it that arrived first: no later one takes its place."""
    best: dict[str, Kept] = {}
    for kept in sorted(found, key=lambda kept: (kept.received, kept.stamp)):
        best.setdefault(moment(kept.stamp).strftime(period), kept)
    return best


def unexpired(config: Config, found: list[Kept]) -> set[str]:
    """Return the stamps that the rules keep: one of each day, week and month.

    Those that arrived late are kept by the same rules where there is none that arrived in time,
    beside the others: they take none of their days, weeks and months. All of the last day are kept.
    """
    yesterday = time.strftime(STAMP_FORMAT, time.gmtime(time.time() - 86400))
    keep = {max(kept.stamp for kept in found)}
    keep |= {kept.stamp for kept in found if kept.stamp > yesterday}
    rules = (
        (config.keep_days, "%Y-%m-%d"),
        (config.keep_weeks, "%G-%V"),
        (config.keep_months, "%Y-%m"),
    )
    for number, period in rules:
        good = first_of_each([kept for kept in found if kept.in_time], period)
        late = first_of_each([kept for kept in found if not kept.in_time], period)
        spare = {name: kept for name, kept in late.items() if name not in good}
        for best in (good, spare):
            keep |= {best[name].stamp for name in sorted(best, reverse=True)[:number]}
    return keep


def complaints(config: Config, source: str) -> list[str]:
    """Return a sentence for everything that is wrong with the copies of a source."""
    found = copies(config, source)
    now = time.time()
    # A source that is new has sent nothing yet.
    last = max([kept.received for kept in found], default=config.place(source).stat().st_mtime)
    said = []
    if last < now - config.max_age_hours * 3600:
        said.append(
            f"{source}: nothing has arrived for {(now - last) / 3600:.0f} hours (more than "
            f"{config.max_age_hours}). Does that host live, and its postgres-backup-copy.service?"
        )
    said += [
        f"{source}: {kept.directory} is not what its manifest describes (truncated or altered)"
        for kept in found
        if kept.altered
    ]
    recent = [kept.manifest["bytes"] for kept in found if kept.received > now - SHRINK_SECONDS]
    if recent and found[0].manifest["bytes"] * 100 < max(recent) * config.shrink_percent:
        said.append(
            f"{source}: the newest backup, {found[0].stamp}, has {found[0].manifest['bytes']} "
            f"bytes, another of the last 8 days {max(recent)}. Look at that database."
        )
    return said


def tidy(config: Config) -> str:
    """Look at everything, and let expire what belongs to sources that are well.

    Returns a sentence. Raises KeeperError with all complaints.
    """
    said, gone, total = [], [], 0
    for source in config.sources:
        place = config.place(source)
        for leftover in place.glob(f"{PARTIAL}*"):
            if leftover.stat().st_mtime < time.time() - PARTIAL_SECONDS:
                shutil.rmtree(leftover)
        found = copies(config, source)
        total += len(found)
        wrong = complaints(config, source)
        said += wrong
        if found and not wrong:
            keep = unexpired(config, found)
            for kept in found:
                if kept.stamp not in keep:
                    shutil.rmtree(kept.directory)
                    gone.append(f"{source}/{kept.stamp}")
    if said:
        raise KeeperError("; ".join(said))
    return f"{total} copies are as they should be; expired: {', '.join(gone) or 'none'}"


def show(config: Config, source: str, stamp: str | None) -> dict[str, Any]:
    """Return the manifest of a source's newest copy, or of ``stamp``."""
    found = copies(config, source)
    for kept in found:
        if stamp in (None, kept.stamp):
            return kept.manifest
    names = ", ".join(kept.stamp for kept in found) or "none"
    raise KeeperError(
        f"no copy {stamp or ''} of {source} in {config.directory}; there are: {names}"
    )


def main() -> int:
    """Run from the command line and return the exit code."""
    os.umask(0o077)
    # The connection ended, or systemd ends the unit: clean up on the way out.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description="Copies of backups that others may only add to.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("receive", help="answer a source").add_argument("source")
    commands.add_parser("tidy", help="look at every copy, remove what has expired")
    commands.add_parser("list", help="what is here").add_argument("source", nargs="?")
    for name, what in (("show", "print a manifest"), ("stamp", "print which is the newest")):
        showing = commands.add_parser(name, help=what)
        showing.add_argument("source")
        showing.add_argument("stamp", nargs="?")
    arguments = parser.parse_args()
    try:
        config = Config.load()
        if arguments.command == "receive":
            request = os.environ.get("SSH_ORIGINAL_COMMAND", "")
            print(receive(config, arguments.source, request, sys.stdin.buffer))
        elif arguments.command == "tidy":
            print(tidy(config))
        elif arguments.command == "list":
            for source in [arguments.source] if arguments.source else config.sources:
                for kept in copies(config, source):
                    arrived = datetime.datetime.fromtimestamp(kept.received).isoformat(
                        " ", "seconds"
                    )
                    print(source, kept.stamp, kept.manifest["bytes"], arrived)
        elif arguments.command == "stamp":
            print(show(config, arguments.source, arguments.stamp)["stamp"])
        else:
            print(json.dumps(show(config, arguments.source, arguments.stamp), indent=2))
    except (KeeperError, OSError, ValueError) as error:
        # One line, so that it is one entry of the journal.
        print(f"backup-keeper: {' '.join(str(error).split())}", file=sys.stderr)
        return 3 if isinstance(error, RefusedError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
