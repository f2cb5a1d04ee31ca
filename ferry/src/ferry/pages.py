"""Tell from the pages of two SQLite files which rows can differ at all.

Of two files of which one is the other some hours later, nearly all pages are the same bytes. A row
lies in one leaf page of its table and the overflow pages of that; if these are the same in both
files, and belong to the same table in both, so is the row. What is left are the rows of the other
leaf pages: ranges of rowids, since a leaf page holds neighbours. That costs a look at every page
instead of a join of every row.

Sources: https://www.sqlite.org/fileformat2.html#b_tree_pages and https://www.sqlite.org/dbstat.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ferry.schema import quote_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    import apsw

_AT_ONCE = 1 << 20  # bytes
_LEAF_OF_A_TABLE = 0x0D

# What is known of a page: its kind and its path in the tree.
_Pages = dict[int, tuple[str, str]]


class Differing:
    """Which pages of the attached databases ``new`` and ``base`` differ.

    Both must be read as they lie on the disk, with nothing in a write-ahead log.
    """

    def __init__(self, bench: apsw.Connection) -> None:
        """Compare the files."""
        self._bench = bench
        self._size = bench.pragma("page_size", schema="new")
        self._comparable = self._size == bench.pragma("page_size", schema="base")
        self._numbers = set(self._compare()) if self._comparable else set()

    def _compare(self) -> Iterator[int]:
        """Yield the numbers of the pages that are not the same bytes; one has more than the other.

        Those that only one file has are left out: no table of the other one owns them.
        """
        pages = min(self._bench.pragma("page_count", schema=name) for name in ("new", "base"))
        for offset in range(0, pages * self._size, _AT_ONCE):
            amount = min(_AT_ONCE, pages * self._size - offset)
            new, base = (self._read(name, offset, amount) for name in ("new", "base"))
            if new == base:
                continue
            for start in range(0, amount, self._size):
                if new[start : start + self._size] != base[start : start + self._size]:
                    yield (offset + start) // self._size + 1

    def _read(self, database: str, offset: int, amount: int) -> bytes:
        whole, data = self._bench.read(database, 0, offset, amount)
        if not whole:
            raise OSError(f"the file of {database} has become shorter while it was read")
        return data

    def rowids(self, table: str) -> list[tuple[int, int]] | None:
        """Return ranges (first, last) of rowids; a row outside of them is the same in both files.

        None where that cannot be told, as for a table without rowids.
        """
        if not self._comparable:
            return None
        new, base = (self._pages_of(name, table) for name in ("new", "base"))
        ranges = []
        for database, here, there in (("new", new, base), ("base", base, new)):
            leaves = {path: page for page, (kind, path) in here.items() if kind == "leaf"}
            for page, (kind, path) in here.items():
                if page not in self._numbers and there.get(page, ("", ""))[0] == kind:
                    continue
                if kind == "overflow":  # /its/leaf/cell+number
                    page = leaves[path[: path.rindex("/") + 1]]
                elif kind == "internal":  # holds no rows
                    continue
                elif kind != "leaf":
                    return None
                data = self._read(database, (page - 1) * self._size, self._size)
                if data[0] != _LEAF_OF_A_TABLE:
                    return None
                ranges += rowids_of_leaf(data)
        return _joined(ranges)

    def _pages_of(self, database: str, table: str) -> _Pages:
        rows = self._bench.execute(
            "SELECT pageno, pagetype, path FROM dbstat(?) WHERE name = ?", (database, table)
        )
        return {page: (kind, path) for page, kind, path in rows}


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
    bench: apsw.Connection, database: str, table: str, row: str, ranges: list[tuple[int, int]]
) -> str:
    """Copy the rows of these ranges into a temporary table; return its place.

    ``row`` is SQL's name of the rowid.
    """
    place = f"temp.{quote_name(f'ferry candidates {database}')}"
    bench.execute("CREATE TEMP TABLE IF NOT EXISTS ferry_ranges (low INTEGER, high INTEGER)")
    bench.execute("DELETE FROM temp.ferry_ranges")
    bench.executemany("INSERT INTO temp.ferry_ranges VALUES (?, ?)", ranges)
    bench.execute(f"DROP TABLE IF EXISTS {place}")
    bench.execute(
        f"CREATE TABLE {place} AS SELECT t.* FROM temp.ferry_ranges r "
        f"CROSS JOIN {database}.{quote_name(table)} t ON t.{row} BETWEEN r.low AND r.high"
    )
    return place
