"""Tell from the pages of two SQLite files which rows can differ at all.

Of two files of which one is the other some hours later, nearly all pages are the same bytes. A row
lies in one leaf page of its table and the overflow pages of that; if these are the same in both
files, and belong to the same table in both, so is the row. What is left are the rows of the other
leaf pages: ranges of rowids, since a leaf page holds neighbours. That costs a comparison of both
files' bytes, and a walk over the inner pages of their trees (one in some hundred), instead of a
join of every row.

Sources: https://www.sqlite.org/fileformat2.html#b_tree_pages and https://www.sqlite.org/dbstat.html
"""

from __future__ import annotations

import hashlib
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ferry.schema import quote_name

if TYPE_CHECKING:
    import apsw

    from ferry.schema import Table

_AT_ONCE = 1 << 20  # bytes

# The first byte of a tree's page.
_INNER = {0x05, 0x02}  # of a table with rowids, of an index
_LEAF_OF_A_TABLE = 0x0D

# Where more of a table's leaf pages differ, as after VACUUM, its rows are joined as they lie.
_MOST = 0.3
_FEW = 100  # leaf pages, which are no matter in any case


@dataclass
class _Layout:
    """What the pages of one file are."""

    # The leaf pages of each table that has rowids.
    leaves: dict[str, list[int]] = field(default_factory=dict)
    # Pages of trees and of the list of free pages; all others hold what goes on from a leaf page.
    explained: set[int] = field(default_factory=set)


class _DamagedTreeError(Exception):
    """A tree cannot be walked."""


class Differing:
    """Which pages of the attached databases ``new`` and ``base`` differ, and the files' SHA-256.

    Both must hold everything, with nothing in a write-ahead log. Keeps some bytes for each page.
    """

    def __init__(self, bench: apsw.Connection, sizes: dict[str, int]) -> None:
        """Read both files, which have these ``sizes`` in bytes."""
        self._bench = bench
        self._size = bench.pragma("page_size", schema="new")
        self._pages = {name: bench.pragma("page_count", schema=name) for name in ("new", "base")}
        self._differing: set[int] = set()
        self._layouts: dict[str, _Layout] = {}
        self.sha256 = self._compare(sizes)
        if self._size == bench.pragma("page_size", schema="base"):
            try:
                self._layouts = {name: self._layout(name) for name in self._pages}
            except _DamagedTreeError:
                self._layouts = {}  # SQLite's integrity check names the damage

    def _compare(self, sizes: dict[str, int]) -> dict[str, str]:
        """Note the numbers of the pages that are not the same bytes; return both SHA-256 in hex.

        Pages that only one file has are left out: no table of the other one owns them.
        """
        hashes = {name: hashlib.sha256() for name in sizes}
        waiting = []
        with ThreadPoolExecutor(len(sizes)) as pool:
            for offset in range(0, max(sizes.values()), _AT_ONCE):
                amounts = {name: min(_AT_ONCE, size - offset) for name, size in sizes.items()}
                data = {
                    name: self._read(name, offset, amount)
                    for name, amount in amounts.items()
                    if amount > 0
                }
                for part in waiting:
                    part.result()
                waiting = [pool.submit(hashes[name].update, part) for name, part in data.items()]
                new, base = data.get("new", b""), data.get("base", b"")
                if new != base:
                    self._differing.update(
                        (offset + start) // self._size + 1
                        for start in range(0, min(len(new), len(base)), self._size)
                        if new[start : start + self._size] != base[start : start + self._size]
                    )
        return {name: digest.hexdigest() for name, digest in hashes.items()}

    def _read(self, database: str, offset: int, amount: int) -> bytes:
        whole, data = self._bench.read(database, 0, offset, amount)
        if not whole:
            raise OSError(f"the file of {database} has become shorter while it was read")
        return data

    def _page(self, database: str, number: int) -> bytes:
        if not 1 <= number <= self._pages[database]:
            raise _DamagedTreeError
        return self._read(database, (number - 1) * self._size, self._size)

    def _layout(self, database: str) -> _Layout:
        """Walk all trees of a file, without their leaf pages, and its list of free pages."""
        found = _Layout(explained=self._free_pages(database))
        trees = self._bench.execute(
            f"SELECT type, name, rootpage FROM {database}.sqlite_schema WHERE rootpage > 0"
        ).fetchall()
        for kind, name, root in [("table", "sqlite_schema", 1), *trees]:
            inner, leaves = self._walk(database, root)
            found.explained.update(inner, leaves)
            # A table without rowids is laid out as an index.
            if kind == "table" and self._kind(database, leaves[0]) == _LEAF_OF_A_TABLE:
                found.leaves[name] = leaves
        return found

    def _walk(self, database: str, root: int) -> tuple[list[int], list[int]]:
        """Return the inner pages of a tree and its leaf pages, which are all equally deep."""
        inner: list[int] = []
        level = [root]
        while self._kind(database, level[0]) in _INNER:
            inner += level
            level = [child for page in level for child in self._children(database, page)]
            if len(inner) + len(level) > self._pages[database]:
                raise _DamagedTreeError
        return inner, level

    def _kind(self, database: str, page: int) -> int:
        return self._page(database, page)[_start(page)]

    def _children(self, database: str, page: int) -> list[int]:
        """Return the pages below an inner page of a tree, in order."""
        data = self._page(database, page)
        start = _start(page)
        kind, _, cells, _, _, last = struct.unpack_from(">BHHHBI", data, start)
        if kind not in _INNER:
            raise _DamagedTreeError
        try:
            places = struct.unpack_from(f">{cells}H", data, start + 12)
            return [*(struct.unpack_from(">I", data, place)[0] for place in places), last]
        except struct.error:
            raise _DamagedTreeError from None

    def _free_pages(self, database: str) -> set[int]:
        """Return the pages that are not in use: a chain of lists."""
        found: set[int] = set()
        (trunk,) = struct.unpack_from(">I", self._page(database, 1), 32)
        while trunk:
            if trunk in found:
                raise _DamagedTreeError
            found.add(trunk)
            data = self._page(database, trunk)
            trunk, count = struct.unpack_from(">II", data)
            found.update(struct.unpack_from(f">{min(count, self._size // 4 - 2)}I", data, 8))
        return found

    def rowids(self, table: str) -> list[tuple[int, int]] | None:
        """Return ranges (first, last) of rowids; a row outside of them is the same in both files.

        None where that cannot be told, as for a table without rowids, or would save nothing.
        """
        if not self._layouts or any(table not in file.leaves for file in self._layouts.values()):
            return None
        ranges = []
        for database, there in (("new", "base"), ("base", "new")):
            here = self._layouts[database]
            alike = set(self._layouts[there].leaves[table]) - self._differing
            suspects = set(here.leaves[table]) - alike
            overflow = self._differing - here.explained
            if overflow:
                suspects |= self._leaves_of(database, table, overflow)
            if len(suspects) > max(_FEW, _MOST * len(here.leaves[table])):
                return None
            for page in suspects:
                data = self._page(database, page)
                if data[0] != _LEAF_OF_A_TABLE:
                    return None
                ranges += rowids_of_leaf(data)
        return _joined(ranges)

    def _leaves_of(self, database: str, table: str, overflow: set[int]) -> set[int]:
        """Return the leaf pages whose rows go on in these pages, if they are overflow pages."""
        walk = "SELECT pageno, path FROM dbstat(?) WHERE name = ? AND pagetype = ?"
        paths = {
            path[: path.rindex("/") + 1]  # /its/leaf/cell+number
            for page, path in self._bench.execute(walk, (database, table, "overflow"))
            if page in overflow
        }
        if not paths:
            return set()
        leaves = self._bench.execute(walk, (database, table, "leaf"))
        return {page for page, path in leaves if path in paths}


def _start(page: int) -> int:
    """Return where a tree's part of a page begins: the file's header precedes it on the first."""
    return 100 if page == 1 else 0


def rowids_of_leaf(data: bytes) -> list[tuple[int, int]]:
    """Return the first and the last rowid in a leaf page of a table; nothing if it is empty."""
    cells = int.from_bytes(data[3:5], "big")
    if not cells:
        return []
    first, last = (
        int.from_bytes(data[place : place + 2], "big") for place in (8, 8 + 2 * (cells - 1))
    )
    return [(_rowid(data, first), _rowid(data, last))]


def _rowid(data: bytes, cell: int) -> int:
    """Return the rowid of a cell: the second of its variable-length integers."""
    _, place = _variable(data, cell)
    value, _ = _variable(data, place)
    return value - (1 << 64) if value >= 1 << 63 else value


def _variable(data: bytes, place: int) -> tuple[int, int]:
    """Return one of SQLite's variable-length integers and the place after it."""
    value = 0
    for byte in data[place : place + 8]:
        place += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place
    return value << 8 | data[place], place + 1


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges in order, those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def put_candidates(
    bench: apsw.Connection, database: str, table: Table, row: str, ranges: list[tuple[int, int]]
) -> str:
    """Copy the rows of these ranges into a temporary table; return its place.

    ``row`` is SQL's name of the rowid.
    """
    columns = ", ".join(f"t.{quote_name(column.name)}" for column in table.columns)
    place = f"temp.{quote_name(f'ferry candidates {database}')}"
    bench.execute("CREATE TEMP TABLE IF NOT EXISTS ferry_ranges (low INTEGER, high INTEGER)")
    bench.execute("DELETE FROM temp.ferry_ranges")
    bench.executemany("INSERT INTO temp.ferry_ranges VALUES (?, ?)", ranges)
    bench.execute(f"DROP TABLE IF EXISTS {place}")
    bench.execute(
        f"CREATE TABLE {place} AS SELECT {columns} FROM temp.ferry_ranges r "
        f"CROSS JOIN {database}.{quote_name(table.name)} t ON t.{row} BETWEEN r.low AND r.high"
    )
    return place
