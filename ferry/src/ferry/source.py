"""Open the SQLite file for a command: untouched, whole, and not changing meanwhile.

The ways in are those of :mod:`ferry.snapshot`; here they are joined with what every command needs:
the hash of the file, the integrity check, and what the report says about the source.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from ferry import snapshot, sqlite
from ferry.errors import DifferentError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_ATTEMPTS = 3  # to find a file that is being written at rest
# What SQLite says when it is the file's fault, not ours.
_FAULTS_OF_THE_FILE = ("malformed", "not a database", "disk I/O error", "locked", "unable to open")


@dataclass
class Source:
    """An open source: the connection stands in a read transaction, so it sees one state."""

    connection: apsw.Connection
    uri: str  # opens further connections to the same contents
    path: str
    sha256: str
    size: int
    header: snapshot.Header
    live: bool  # a program has it open in WAL mode: the file alone is not its contents
    warnings: list[str]
    # To be called before anything is committed; raises RefusedError (by way of open_sqlite).
    check_unchanged: Callable[[], None]
    integrity: _IntegrityCheck

    def start_check(self) -> None:
        """Start the integrity check; it runs beside what is done with the source."""
        self.integrity.start()

    def check_sound(self) -> None:
        """Wait for the integrity check, if one runs; raises RefusedError for a damaged file."""
        if self.integrity.started:
            problems = self.integrity.result()
            if problems:
                raise RefusedError(
                    f"{self.path} is damaged: {'; '.join(problems)}",
                    snapshot.how_to_save(self.path),
                )
            for table in self.integrity.unchecked:
                warning = snapshot.not_fully_checked(table)
                if warning not in self.warnings:
                    self.warnings.append(warning)

    def describe(self) -> dict[str, Any]:
        """Return what the report says about the source."""
        return {
            "path": self.path,
            "size": self.size,
            "sha256": self.sha256,
            "page_size": self.header.page_size,
            "pages": self.header.pages,
            "encoding": self.header.encoding,
            "wal": self.header.wal,
        }


class _IntegrityCheck:
    """SQLite's integrity check on a connection and in a thread of its own.

    It takes as long as reading everything, and SQLite leaves Python's lock alone meanwhile.
    """

    def __init__(self, uri: str) -> None:
        self.started = False
        self._uri = uri
        self._problems: list[str] = []
        self.unchecked: list[str] = []  # tables whose indexes only the application understands
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="integrity check")

    def start(self) -> None:
        """Begin; may be called once."""
        # With a stand-in for a collation, sound indexes would look damaged.
        self._connection = sqlite.connect(self._uri, stand_ins=False)
        self._thread.start()
        self.started = True

    def _run(self) -> None:
        try:
            self._problems = snapshot.integrity_problems(self._connection, self.unchecked)
        except apsw.Error as error:
            self._error = error

    def result(self) -> list[str]:
        """Wait for the end; return what was found, or raise what went wrong."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._problems

    def close(self) -> None:
        """Stop the check if it still runs."""
        if not self.started:
            return
        while self._thread.is_alive():
            self._connection.interrupt()
            self._thread.join(0.05)
        self._connection.close()


def lies_alone(path: str) -> bool:
    """Tell whether nothing of SQLite's lies beside a file, which then holds everything."""
    real = Path(path).resolve()
    return not any(Path(f"{real}{end}").exists() for end in ("-wal", "-shm", "-journal"))


def _open_and_hash(
    stack: contextlib.ExitStack, path: str, *, hashed: bool
) -> tuple[snapshot.OpenSource, str]:
    """Open a file, with the SHA-256 of what is read; raises SnapshotError.

    The file is hashed before the first connection (see snapshot.sha256 about locks), so what was
    hashed may be another state than the one that the lock then keeps.
    """
    for attempt in range(_ATTEMPTS):
        with contextlib.ExitStack() as own:
            before = snapshot.fingerprint(path)[0]
            digest = snapshot.sha256(path) if hashed else ""
            try:
                opened = own.enter_context(snapshot.open_source(path, begin=sqlite.begin))
            except snapshot.BusyError:
                if attempt + 1 == _ATTEMPTS:
                    raise
                continue
            if opened.live or not hashed or snapshot.fingerprint(path)[0] == before:
                stack.push(own.pop_all())
                return opened, digest
            with contextlib.suppress(snapshot.BusyError):
                own.close()
    raise snapshot.SnapshotError(
        f"{path} is being written; take a snapshot first (`ferry snapshot`) and read that, or stop "
        "the program that writes it"
    )


@contextlib.contextmanager
def open_sqlite(path: str, *, check: bool = True, hashed: bool = True) -> Iterator[Source]:
    """Open a SQLite file read-only and, with ``check``, refuse it unless it is sound.

    Without ``hashed`` its SHA-256 is left to the caller, who reads the file anyway.
    The check runs beside what is done with the source; ``check_sound`` waits for it and must have
    been called before anything is committed. Raises RefusedError when the file is missing, damaged,
    locked or being written.
    """
    try:
        header = snapshot.read_header(path)
        with contextlib.ExitStack() as stack:
            opened, digest = _open_and_hash(stack, path, hashed=hashed)
            integrity = _IntegrityCheck(opened.uri)
            stack.callback(integrity.close)
            source = Source(
                connection=opened.connection,
                uri=opened.uri,
                path=path,
                sha256=digest,
                size=Path(path).stat().st_size,
                header=header,
                live=opened.live,
                warnings=list(opened.warnings),
                check_unchanged=opened.check_unchanged,
                integrity=integrity,
            )
            if check:
                source.start_check()
            try:
                yield source
            except (apsw.Error, DifferentError):
                source.check_sound()  # says more than the first thing that damage leads to
                raise
            source.check_sound()
    except snapshot.SnapshotError as error:
        raise RefusedError(str(error)) from error
    except apsw.Error as error:
        if not any(part in str(error) for part in _FAULTS_OF_THE_FILE):
            raise
        raise RefusedError(str(snapshot.explain(path, error))) from error
    except PermissionError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from error
