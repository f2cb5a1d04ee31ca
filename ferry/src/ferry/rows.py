"""A compact memory of which rows a table had, to tell later which are new, changed or gone.

Per row a 64-bit key and 32 bits of its hash; keys sorted, as differences, compressed: about five
bytes a row. It serves to count and name rows, not to prove anything: that is ferry.proof's.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import zlib
from array import array
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_ROWS = 500_000  # per database; the report stays below four megabytes
_FIRST = 10  # keys named per table
_MASK = (1 << 64) - 1


def row_key(values: tuple[Any, ...]) -> int:
    """Return a signed 64-bit key: the value itself if it is one integer, else a hash."""
    if len(values) == 1 and isinstance(values[0], int):
        return values[0]
    text = "\x1f".join(repr(value) for value in values)
    digest = hashlib.md5(text.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


@dataclass
class Changes:
    """What happened to a table since; the lists hold the first keys only."""

    new: int = 0
    changed: int = 0
    deleted: int = 0
    first_new: list[Any] = field(default_factory=list)
    first_changed: list[Any] = field(default_factory=list)

    def note(self, key: Sequence[Any], *, is_new: bool) -> None:
        """Count a row that is new, or else changed."""
        if is_new:
            self.new += 1
        else:
            self.changed += 1
        first = self.first_new if is_new else self.first_changed
        if len(first) < _FIRST:
            first.append(list(key))


@dataclass
class RowMemory:
    """The rows of one table as ``{key: hash}``, and over which columns the hash goes."""

    columns: list[str]
    rows: dict[int, int] = field(default_factory=dict)

    def add(self, key: tuple[Any, ...], digest: bytes) -> None:
        """Remember a row by its key; where a table has none, by its hash."""
        number, value = _entry(key, digest)
        while not key and number in self.rows:  # the same row once more
            number += 1
        self.rows[number] = value

    def as_json(self) -> dict[str, Any]:
        """Return the form that stands in the report."""
        keys = sorted(self.rows)
        steps = array("Q", ((key - last) & _MASK for last, key in pairwise([0, *keys])))
        return {
            "columns": self.columns,
            "count": len(keys),
            "keys": _pack(steps),
            "hashes": _pack(array("I", (self.rows[key] for key in keys))),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RowMemory:
        """Read the form that stands in the report."""
        memory = cls(list(data["columns"]))
        key = 0
        hashes = _unpack("I", data["hashes"])
        for step, value in zip(_unpack("Q", data["keys"]), hashes, strict=True):
            key = (key + step) & _MASK
            memory.rows[key - (1 << 64) if key >= 1 << 63 else key] = value
        return memory

    def changes(self, rows: Iterable[tuple[bytes, tuple[Any, ...]]]) -> Changes:
        """Compare with today's ``rows`` (hash and key of each)."""
        found = Changes()
        gone = dict(self.rows)
        for digest, key in rows:
            number, value = _entry(key, digest)
            while not key and number in self.rows and number not in gone:
                number += 1
            before = gone.pop(number, None)
            if before != value:
                found.note(key, is_new=before is None)
        found.deleted = len(gone)
        return found


def _entry(key: tuple[Any, ...], digest: bytes) -> tuple[int, int]:
    value = int.from_bytes(digest[12:], "little")
    if not key:
        return int.from_bytes(digest[:8], "little", signed=True), value
    return row_key(key), value


def _pack(numbers: array) -> str:
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(zlib.compress(numbers.tobytes(), 6)).decode()


def _unpack(code: str, text: str) -> array:
    numbers = array(code)
    numbers.frombytes(zlib.decompress(base64.b64decode(text)))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
