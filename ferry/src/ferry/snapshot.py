#!/usr/bin/env python3
"""Take a consistent copy of a SQLite database that may be in use, without touching it.

Runs alone, with nothing but a Python of 3.8 or later, so that it can be sent to any machine::

    python3 snapshot.py SOURCE OUT

OUT must not exist; it appears complete and checked, or not at all, and is a single file (no -wal,
no -journal). On success one line of JSON goes to standard output. Messages go to standard error.

Exit codes: 0 done and proven · 2 usage · 3 refused, nothing was written · 1 a bug.

How the source is kept as it is. ``sqlite3.connect(path)`` may create the file, roll a journal back
into it or move a write-ahead log into it; even a read-only connection leaves an empty ``-wal`` and
a ``-shm`` behind, owned by whoever ran it. So the way in depends on what lies beside the file:

=============================================  ===============================================
rollback mode, no journal that has to be       read-only connection; a shared lock for the
rolled back                                    length of the copy (writers wait): nothing that
                                               happened before the lock matters
WAL mode with a ``-shm`` (a program has it     read-only connection (writers go on undisturbed)
open, or died with it open)
WAL mode, nothing beside it                    ``immutable`` connection; the file is looked at
                                               again afterwards, and copied again if it has changed
WAL mode, ``-wal`` with pages but no           both files are copied; SQLite joins the copies
``-shm``; or a hot journal                     (again, if they have changed meanwhile)
=============================================  ===============================================
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # modules beside it have names of the standard library's
    sys.path = [place for place in sys.path if place != __file__.rpartition("/")[0]]

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC = b"SQLite format 3\x00"
LOCK_TIMEOUT = 30.0  # seconds to wait for another program's write lock
LOCK_PAUSE = 0.002  # seconds between attempts: a busy program leaves gaps of this length only
# A file written later than this may have been written within one tick of its file system's clock.
FRESH = 0.1
HOT_JOURNAL = "attempt to write a readonly database"

_MAX_PROBLEMS = 20
# integrity_check also lists values whose type is unlike their column's; that is no damage (ferry's
# census judges it). Neither are broken NOT NULL and CHECK constraints damage to the file.
_NO_DAMAGE = re.compile(
    r"^((NUMERIC|TEXT|REAL|INTEGER|INT|BLOB|NULL) value in |CHECK constraint failed in )"
)


# What a database refers to and only the program that made it defines.
_OF_THE_APPLICATION = re.compile(
    r"no such (collation sequence|function|module|tokenizer)|unknown (function|tokenizer)"
    r"|error in tokenizer constructor|vtable constructor failed|SQL logic error",
    re.IGNORECASE,
)


class SnapshotError(Exception):
    """The source is not fit, or the copy is not; nothing was left behind."""


class BusyError(SnapshotError):
    """The file was written while it was read; another attempt may succeed."""


class Header(NamedTuple):
    """What the first 100 bytes of a SQLite file say."""

    page_size: int  # bytes
    pages: int
    wal: bool
    encoding: str


class OpenSource(NamedTuple):
    """A read-only connection and how it came about."""

    connection: sqlite3.Connection
    uri: str  # opens further connections to the same contents
    path: str  # the file that is really read: the source, or a private copy of it
    live: bool  # another program may write; the open transaction shields us
    warnings: list[str]
    check_unchanged: Callable[[], None]  # raises SnapshotError if the file was written meanwhile


def read_header(path: str) -> Header:
    """Read and judge the header; raise SnapshotError when the file is no whole SQLite database."""
    source = Path(path)
    try:
        if source.is_dir():
            raise SnapshotError(f"{path} is a directory, not a SQLite file")
        if source.exists() and not source.is_file():  # a pipe would never end
            raise SnapshotError(f"{path} is no regular file")
        with source.open("rb") as file:
            raw = file.read(100)
        size = source.stat().st_size
    except FileNotFoundError:
        raise SnapshotError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read: {error.strerror}") from None
    if not raw:
        raise SnapshotError(
            f"{path} is empty (0 bytes); SQLite makes such a file when a program is started "
            "in the wrong directory, so look for the real one"
        )
    if len(raw) < 100 or not raw.startswith(MAGIC):
        raise SnapshotError(f"{path} is not a SQLite 3 database (or an encrypted one)")
    page_size = int.from_bytes(raw[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    pages = int.from_bytes(raw[28:32], "big")
    # The page count is to be trusted only where the last writer kept it (SQLite 3.7 and later).
    if raw[24:28] != raw[92:96] or pages == 0:
        pages = size // page_size
    if size < pages * page_size and _stays_short(path, pages * page_size):
        raise SnapshotError(
            f"{path} is cut off: its header promises {pages} pages of {page_size} bytes, the file "
            f"has {size} bytes. {how_to_save(path)}"
        )
    encoding = {1: "UTF-8", 2: "UTF-16le", 3: "UTF-16be"}.get(
        int.from_bytes(raw[56:60], "big"), "UTF-8"
    )
    return Header(page_size=page_size, pages=pages, wal=raw[18] == 2, encoding=encoding)


def _stays_short(path: str, promised: int) -> bool:
    """Tell a file that is cut off from one whose writer has not come to its last pages yet.

    What has a journal or a write-ahead log with contents is left to SQLite, which knows both.
    """
    before = None
    for _ in range(5):
        if _size(path) >= promised or _size(path + "-journal") or _size(path + "-wal"):
            return False
        now = fingerprint(path)
        if before not in (None, now):
            return False
        before = now
        time.sleep(FRESH / 2)
    return True


def how_to_save(path: str) -> str:
    """Say what can be done with a damaged file."""
    return (
        "Take the last good backup, or save what can be saved with: "
        f'sqlite3 "{path}" .recover | sqlite3 recovered.db'
    )


def fingerprint(path: str) -> tuple[tuple[int, int, int], ...]:
    """Return (inode, size, mtime) of the database and its companions, to see whether one moved."""
    marks = []
    for suffix in ("", "-wal", "-journal"):
        try:
            status = Path(path + suffix).stat()
        except FileNotFoundError:
            marks.append((0, 0, 0))
        else:
            marks.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(marks)


def _settled(path: str) -> tuple[tuple[int, int, int], ...]:
    """Return the fingerprint of files that nobody is writing; raises BusyError.

    Only of such files does an equal fingerprint say later that they are the same: a write within
    one tick of the file system's clock leaves the time as it was.
    """
    marks = fingerprint(path)
    if any(abs(time.time() - written / 1e9) < FRESH for _, _, written in marks):
        time.sleep(FRESH)
        if fingerprint(path) != marks:
            raise _written(path)
    return marks


def _written(path: str) -> BusyError:
    return BusyError(
        f"{path} was written while it was read; stop the program that writes it, or take a "
        "snapshot first (`ferry snapshot`)"
    )


def file_uri(path: str, query: str) -> str:
    """Return the ``file:`` URI of a path with SQLite's parameters."""
    return Path(path).resolve().as_uri() + "?" + query


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0


def _begin(uri: str) -> sqlite3.Connection:
    """Open a connection and take the read lock (a plain BEGIN does not) for a stable view.

    SQLite's own wait for a lock sleeps 0.1 s at a time, and would miss the gaps between the commits
    of a program that does nothing else.
    """
    connection = sqlite3.connect(
        uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False
    )
    deadline = time.monotonic() + LOCK_TIMEOUT
    try:
        connection.execute("BEGIN")
        while True:
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(LOCK_PAUSE)
            else:
                return connection
    except BaseException:
        connection.close()
        raise


def _private_copy(path: str, workdir: str) -> str:
    """Copy the file with its -wal or -journal and let SQLite bring the copy in order."""
    before = _settled(path)
    copy = str(Path(workdir) / "private.db")
    try:
        for suffix in ("", "-wal", "-journal"):
            if Path(path + suffix).exists():
                shutil.copyfile(path + suffix, copy + suffix)
    except FileNotFoundError:  # its program has put it away just now
        raise _written(path) from None
    if fingerprint(path) != before:
        raise _written(path)
    connection = sqlite3.connect(copy, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    finally:
        connection.close()
    return copy


@contextlib.contextmanager
def open_source(
    path: str,
    workdir: str | None = None,
    begin: Callable[[str], sqlite3.Connection] = _begin,
) -> Iterator[OpenSource]:
    """Open a SQLite file for reading so that no byte of it or of its companions changes.

    The connection is inside a read transaction: it sees one state throughout. ``workdir`` is where
    a private copy is put if one is needed (default: the directory for temporary files). ``begin``
    opens a URI and takes the read lock, with another SQLite library perhaps; it raises sqlite3's
    errors.
    Raises SnapshotError when the file is not fit or locked, BusyError when it was written meanwhile
    and no lock of ours could keep writers away.
    """
    header = read_header(path)
    path = os.path.realpath(path)  # what belongs to it lies beside the file, not beside a link
    before = None  # with a lock of SQLite's, what happens beside the file is of no consequence
    warnings = []
    live = header.wal and Path(path + "-shm").exists()
    with contextlib.ExitStack() as stack:

        def private_copy() -> str:
            directory = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="ferry-", dir=workdir)
            )
            return _private_copy(path, directory)

        real = path
        if header.wal and not live:
            before = _settled(path)
            if _size(path + "-wal"):
                real = private_copy()
            elif not Path(path + "-wal").exists():
                warnings.append(
                    f"{path} is in WAL mode and has no -wal beside it. That is how a database looks"
                    " that was closed in order; if it was copied here without its -wal, its newest "
                    "changes are missing"
                )
            uri = file_uri(real, "mode=ro&immutable=1")
        else:
            uri = file_uri(path, "mode=ro")
        try:
            try:
                connection = begin(uri)
            except sqlite3.OperationalError as error:
                if HOT_JOURNAL in str(error):
                    warnings.append(
                        f"{path} has the journal of a write that never finished (a crash); read "
                        "is the state before that write, as SQLite itself would restore it"
                    )
                elif "unable to open" not in str(error):  # a -shm that we may not write
                    raise
                before = _settled(path)
                real = private_copy()
                live = False
                uri = file_uri(real, "mode=ro&immutable=1")
                connection = begin(uri)
            stack.callback(connection.close)
        except sqlite3.DatabaseError as error:
            raise explain(path, error) from error

        def check_unchanged() -> None:
            if before is not None and fingerprint(path) != before:
                raise _written(path)

        yield OpenSource(connection, uri, real, live, warnings, check_unchanged)
        check_unchanged()


def explain(path: str, error: sqlite3.Error) -> SnapshotError:
    """Turn SQLite's error into one that says what to do."""
    text = str(error)
    if "locked" in text:
        return SnapshotError(
            f"{path} is locked by another program (waited {LOCK_TIMEOUT:.0f} s); stop it, or try "
            "again when it is idle"
        )
    if "malformed" in text or "not a database" in text or "disk I/O error" in text:
        return SnapshotError(f"{path} is damaged: {text}. {how_to_save(path)}")
    return SnapshotError(f"{path}: {text}")


def is_of_the_application(error: Exception | str) -> bool:
    """Tell whether SQLite misses a function, collation or tokenizer that the program brings."""
    return bool(_OF_THE_APPLICATION.search(str(error)))


def integrity_problems(
    connection: sqlite3.Connection, unchecked: list[str] | None = None
) -> list[str]:
    """Run the full integrity check; return what is wrong with the file (nothing if it is sound).

    Oddly typed values are left out: they are no damage. The quick check would miss an index that
    disagrees with its table. Where only the program that made the file knows how an index is
    ordered or what is in it, its table gets the quick check, and its name is added to
    ``unchecked``.
    """
    # Values that break a CHECK are no damage, and it may ask for a function of the program's.
    connection.execute("PRAGMA ignore_check_constraints = ON")
    try:
        return _check(connection, "integrity_check(1000000000)")
    except Exception as error:
        if not is_of_the_application(error):
            raise
    problems = _check_as_far_as_possible(connection, "quick_check(1000000000)")
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        quoted = '"' + table.replace('"', '""') + '"'
        found = _check_as_far_as_possible(connection, f"integrity_check({quoted})")
        if found is None and unchecked is not None:
            unchecked.append(table)
        if found is None and problems is None:
            found = _check_as_far_as_possible(connection, f"quick_check({quoted})")
        problems = (problems or []) + [line for line in found or [] if line not in (problems or ())]
    return problems or []


def _check_as_far_as_possible(connection: sqlite3.Connection, pragma: str) -> list[str] | None:
    """Run a check; None where it asks for what only the application defines."""
    try:
        return _check(connection, pragma)
    except Exception as error:
        if not is_of_the_application(error):
            raise
        return None


def _check(connection: sqlite3.Connection, pragma: str) -> list[str]:
    problems = []
    # The limit counts the harmless lines as well, so it must not be the default of 100.
    for (line,) in connection.execute(f"PRAGMA {pragma}"):
        if line != "ok" and not _NO_DAMAGE.match(line):
            problems.append(line)
            if len(problems) == _MAX_PROBLEMS:
                break
    return problems


def not_fully_checked(table: str) -> str:
    """Say what the integrity check could not look at."""
    return (
        f"the indexes of {table} were not compared with it: they need a function, collation or "
        "tokenizer that only the application has"
    )


def sha256(path: str) -> str:
    """Return the SHA-256 of a file in hex.

    Never call it while SQLite holds a lock on the file in this process: closing any descriptor of
    a file drops all POSIX locks the process has on it.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while True:
            block = file.read(1 << 20)
            if not block:
                return digest.hexdigest()
            digest.update(block)


def _fsync(path: Path) -> None:
    if os.name == "nt":  # Windows syncs neither directories nor files opened for reading
        return
    handle = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(partial: Path, target: Path) -> None:
    """Give the finished file its name, unless somebody else has taken that name meanwhile.

    The file and its directory are synced; the old name may be left over.
    """
    _fsync(partial)
    try:
        os.link(str(partial), str(target))
    except FileExistsError:
        raise SnapshotError(f"{target} has appeared meanwhile; it was left alone") from None
    except OSError:  # a file system without hard links
        if target.exists():
            raise SnapshotError(f"{target} has appeared meanwhile; it was left alone") from None
        partial.rename(target)
    _fsync(target.parent)


class _Copied(NamedTuple):
    """How an attempt to copy went."""

    blocked: float  # seconds for which writers had to wait
    warnings: list[str]


def _copy(source: str, partial: Path) -> _Copied:
    """Copy ``source`` over the file ``partial``; again, if another program came in between.

    The lock is given back as soon as the last page is copied: everything else can be done with the
    copy.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT
    for pause in itertools.cycle((0.013, 0.047, 0.029, 0.071)):  # out of step with any other's loop
        try:
            with open_source(source, workdir=str(partial.parent)) as opened:
                blocked = time.monotonic()
                copy = sqlite3.connect(str(partial), isolation_level=None)
                try:
                    # One step: in small steps the copy starts again at every foreign write.
                    opened.connection.backup(copy, pages=-1)
                finally:
                    copy.close()
                opened.connection.execute("ROLLBACK")
                blocked = time.monotonic() - blocked
            # WAL writers never wait; those in rollback mode do for as long as the copying takes.
            return _Copied(0.0 if opened.live else round(blocked, 3), opened.warnings)
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)
            os.truncate(str(partial), 0)
    raise AssertionError("an endless loop has ended")


def take(source: str, out: str) -> dict[str, Any]:
    """Copy ``source`` to the new file ``out`` in one step, check it and describe it.

    Returns the JSON-ready description. Raises SnapshotError; ``out`` then does not exist.
    """
    started = time.monotonic()
    target = Path(out)
    if target.exists():
        raise SnapshotError(f"{out} exists already; name a file that does not")
    if not target.parent.is_dir():
        raise SnapshotError(f"{target.parent} is not a directory")
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        # Private from the first byte: the database may hold what not every user may read.
        os.close(os.open(str(partial), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise SnapshotError(f"{out} cannot be written: {error.strerror}") from None
    try:
        copied = _copy(source, partial)
        copy = sqlite3.connect(str(partial), isolation_level=None)
        try:
            # The copy must stand alone: a file in WAL mode needs companions to be opened.
            copy.execute("PRAGMA journal_mode = DELETE").fetchone()
            unchecked: list[str] = []
            problems = integrity_problems(copy, unchecked)
            page_size = copy.execute("PRAGMA page_size").fetchone()[0]
            pages = copy.execute("PRAGMA page_count").fetchone()[0]
        finally:
            copy.close()
        if problems:
            found = "; ".join(problems)
            raise SnapshotError(f"{source} is damaged: {found}. {how_to_save(source)}")
        digest = sha256(str(partial))
        publish(partial, target)
    except sqlite3.Error as error:
        raise explain(source, error) from error
    except OSError as error:
        raise SnapshotError(f"{out} cannot be written: {error.strerror}") from None
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(str(partial) + suffix).unlink()
    return {
        "source": source,
        "out": out,
        "size": target.stat().st_size,
        "sha256": digest,
        "page_size": page_size,
        "pages": pages,
        "integrity": "ok",
        "writers_blocked_seconds": copied.blocked,
        "seconds": round(time.monotonic() - started, 3),
        "warnings": [*copied.warnings, *map(not_fully_checked, unchecked)],
    }


def main(arguments: list[str]) -> int:
    """Run as a program; return the exit code."""
    if len(arguments) != 2 or arguments[0].startswith("-"):
        print("usage: python3 snapshot.py SOURCE OUT", file=sys.stderr)
        return 2
    try:
        result = take(arguments[0], arguments[1])
    except SnapshotError as error:
        print(f"snapshot: refused: {error}", file=sys.stderr)
        return 3
    for warning in result["warnings"]:
        print(f"snapshot: warning: {warning}", file=sys.stderr)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
