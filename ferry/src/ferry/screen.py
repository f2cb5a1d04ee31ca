"""What a person sees: tables and progress bars on a terminal, plain lines elsewhere.

Results go to standard output, progress and errors to standard error.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ferry.errors import FerryError


# Signs of ours that not every terminal has.
_PLAIN = {"→": "->", "…": "...", "·": "-", "–": "-", "×": "x", "≤": "<="}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks in another way, instead of failing."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(
        _PLAIN.get(sign, sign.encode("ascii", "backslashreplace").decode()) for sign in text
    )
    return plain, error.end


def make_printable() -> None:
    """Let everything be printed, also where the terminal knows ASCII only."""
    codecs.register_error("ferry", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors != "ferry":
            stream.reconfigure(errors="ferry")


class Screen:
    """Standard output and standard error."""

    def __init__(self) -> None:
        make_printable()
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def _reader_may_leave(self) -> Iterator[None]:
        """Go on without a reader (``| head``): what a command does is more than what it prints."""
        try:
            yield
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def say(self, text: str) -> None:
        """Print a line of the result."""
        with self._reader_may_leave():
            self.out.print(Text(text))

    def note(self, text: str) -> None:
        """Print a line about the progress."""
        self.err.print(Text(text))

    def fail(self, error: FerryError) -> None:
        """Print an error and what can be done about it."""
        self.err.print(Text(f"ferry: {error.word}: {error.message}", style="bold red"))
        if error.remedy:
            self.err.print(Text(f"  what to do: {error.remedy}"))

    def short(self, checksum: str) -> str:
        """Return as much of a checksum as a person compares; all of it where a program reads."""
        return checksum[:8] if self.out.is_terminal else checksum

    def grid(self, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print rows as a table; numbers to the right."""
        if not self.out.is_terminal:
            lines = ["\t".join(heads).replace("\n", " ")]
            lines += ["\t".join(map(str, row)) for row in rows]
            with self._reader_may_leave():
                print("\n".join(lines))
            return
        table = Table(box=SIMPLE, pad_edge=False)
        for position, head in enumerate(heads):
            numeric = bool(rows) and all(isinstance(row[position], int) for row in rows)
            # A name may not be cut off; it would be another name.
            table.add_column(
                head, justify="right" if numeric else "left", overflow="fold", no_wrap=not position
            )
        for row in rows:
            table.add_row(*(f"{cell:,}" if type(cell) is int else Text(str(cell)) for cell in row))
        self.out.print(table)

    @contextlib.contextmanager
    def rows_progress(self, totals: dict[str, int]) -> Iterator[Callable[[str, int], None]]:
        """Show how many rows of which table are done; yields ``advance(table, rows)``."""
        if not self.err.is_terminal:
            yield self._plain_progress(totals)
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self.err,
            transient=True,
        ) as progress:
            task = progress.add_task("rows", total=sum(totals.values()), speed="")
            started = time.monotonic()

            def advance(table: str, rows: int) -> None:
                progress.update(task, advance=rows, description=table)
                seconds = max(time.monotonic() - started, 0.001)
                done = progress.tasks[0].completed
                progress.update(task, speed=f"{done / seconds:,.0f} rows/s")

            yield advance

    def _plain_progress(self, totals: dict[str, int]) -> Callable[[str, int], None]:
        done: dict[str, int] = {}
        started: dict[str, float] = {}

        def advance(table: str, rows: int) -> None:
            started.setdefault(table, time.monotonic())
            done[table] = done.get(table, 0) + rows
            if done[table] == totals.get(table):
                seconds = time.monotonic() - started[table]
                self.note(f"{table}: {done[table]} rows in {seconds:.1f} s")

        return advance
