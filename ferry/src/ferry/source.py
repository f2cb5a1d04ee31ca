"""Open the SQLite file for a command: untouched, whole, and not changing meanwhile.

The ways in are those of :mod:`ferry.snapshot`; here they are joined with what every command needs:
the hash of the file, the integrity check, and what the report says about the source.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferry import snapshot
from ferry.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


# What SQLite says when it is the file's fault, not ours.
_FAULTS_OF_THE_FILE = ("malformed", "not a database", "disk I/O error", "locked", "unable to open")


@dataclass
class Source:
    """An open source: the connection stands in a read transaction, so it sees one state."""

    connection: sqlite3.Connection
    uri: str  # opens further connections to the same contents
    path: str
    sha256: str
    size: int
    header: snapshot.Header
    warnings: list[str]
    # To be called before anything is committed; raises RefusedError (by way of open_sqlite).
    check_unchanged: Callable[[], None]

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


@contextlib.contextmanager
def open_sqlite(path: str, *, check: bool = True) -> Iterator[Source]:
    """Open a SQLite file read-only and, with ``check``, refuse it unless it is sound.

    Raises RefusedError when the file is missing, damaged, locked or being written.
    """
    try:
        header = snapshot.read_header(path)
        # Before the first connection: see snapshot.sha256 about locks.
        digest = snapshot.sha256(path)
        with snapshot.open_source(path) as opened:
            if check:
                problems = snapshot.integrity_problems(opened.connection)
                if problems:
                    raise RefusedError(
                        f"{path} is damaged: {'; '.join(problems)}", snapshot.how_to_save(path)
                    )
            yield Source(
                connection=opened.connection,
                uri=opened.uri,
                path=path,
                sha256=digest,
                size=Path(path).stat().st_size,
                header=header,
                warnings=list(opened.warnings),
                check_unchanged=opened.check_unchanged,
            )
    except snapshot.SnapshotError as error:
        raise RefusedError(str(error)) from error
    except sqlite3.DatabaseError as error:
        if not any(part in str(error) for part in _FAULTS_OF_THE_FILE):
            raise
        raise RefusedError(str(snapshot.explain(path, error))) from error
    except PermissionError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from error
