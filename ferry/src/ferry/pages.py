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
    import apsw

_AT_ONCE = 1 << 20  # bytes
_LEAF_OF_A_TABLE = 0x0D

# What a page is to its table; 0: nothing.
_KINDS = {"internal": 1, "leaf": 2, "overflow": 3}
_INTERNAL, _LEAF, _OVERFLOW = _KINDS.values()

# Where more of a table's leaf pages differ, as after VACUUM, its rows are joined as they lie.
_MOST = 0.3
_FEW = 100  # leaf pages, which are no matter in any case


class Differing:
    """Which pages of the attached databases ``new`` and ``base`` differ.

    Both must be read as they lie on the disk, with nothing in a write-ahead log. Keeps a byte for
    each page.
    """

    def __init__(self, bench: apsw.Connection) -> None:
        """Compare the files."""
        self._bench = bench
        self._size = bench.pragma("page_size", schema="new")
        self._comparable = self._size == bench.pragma("page_size", schema="base")
        self._pages = {name: bench.pragma("page_count", schema=name) for name in ("new", "base")}
        self._differs = bytearray(max(self._pages.values()) + 1)  # by number, from 1 on
        if self._comparable:
            self._compare()

    def _compare(self) -> None:
        """Mark the pages that are not the same bytes.

        Those that only one file has are left out: no table of the other one owns them.
        """
        end = min(self._pages.values()) * self._size
        for offset in range(0, end, _AT_ONCE):
            amount = min(_AT_ONCE, end - offset)
            new, base = (self._read(name, offset, amount) for name in ("new", "base"))
            if new == base:
                continue
            for start in range(0, amount, self._size):
                if new[start : start + self._size] != base[start : start + self._size]:
                    self._differs[(offset + start) // self._size + 1] = 1

    def _read(self, database: str, offset: int, amount: int) -> bytes:
        whole, data = self._bench.read(database, 0, offset, amount)
        if not whole:
            raise OSError(f"the file of {database} has become shorter while it was read")
        return data

    def rowids(self, table: str) -> list[tuple[int, int]] | None:
        """Return ranges (first, last) of rowids; a row outside of them is the same in both files.

        None where that cannot be told, as for a table without rowids, or would save nothing.
        """
        if not self._comparable:
            return None
        new, base = (self._kinds_of(name, table) for name in ("new", "base"))
        if new is None or base is None:
            return None
        ranges = []
        for database, here, there in (("new", new, base), ("base", base, new)):
            suspects = [
                page
                for page, kind in enumerate(here)
                if kind not in (0, _INTERNAL)  # which hold no rows
                and (self._differs[page] or there[page] != kind)
            ]
            leaves = {page for page in suspects if here[page] == _LEAF}
            if len(leaves) < len(suspects):
                leaves |= self._leaves_of(database, table, set(suspects) - leaves)
            if len(leaves) > max(_FEW, _MOST * here.count(_LEAF)):
                return None
            for page in leaves:
                data = self._read(database, (page - 1) * self._size, self._size)
                if data[0] != _LEAF_OF_A_TABLE:
                    return None
                ranges += rowids_of_leaf(data)
        return _joined(ranges)

    def _kinds_of(self, database: str, table: str) -> bytearray | None:
        """Return what each page is to a table; None for a tree that cannot be walked."""
        kinds = bytearray(len(self._differs))
        for page, kind in self._bench.execute(
            "SELECT pageno, pagetype FROM dbstat(?) WHERE name = ?", (database, table)
        ):
            if kind not in _KINDS:
                return None
            kinds[page] = _KINDS[kind]
        return kinds

    def _leaves_of(self, database: str, table: str, overflow: set[int]) -> set[int]:
        """Return the leaf pages whose rows go on in these overflow pages."""
        walk = "SELECT pageno, path FROM dbstat(?) WHERE name = ? AND pagetype = ?"
        paths = {
            path[: path.rindex("/") + 1]  # /its/leaf/cell+number
            for page, path in self._bench.execute(walk, (database, table, "overflow"))
            if page in overflow
        }
        leaves = self._bench.execute(walk, (database, table, "leaf"))
        return {page for page, path in leaves if path in paths}


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
