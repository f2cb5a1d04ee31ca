"""Pages: rows on pages that two files share are left out of a sync, and no row that differs is."""

import sqlite3
from hashlib import sha256

import apsw
import pytest
from ferry.pages import Differing, rowids_of_leaf
from ferry.snapshot import file_uri
from ferry.sync import workbench
from hypothesis import given, settings
from hypothesis import strategies as st

TABLE = "CREATE TABLE t (a, b)"
MANY = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "INSERT INTO t SELECT i, i FROM n LIMIT 9000"
)
ALL = "SELECT rowid, a, b FROM {}.t"


def ranges(new, base, table="t"):
    with workbench(*(file_uri(str(path), "mode=ro&immutable=1") for path in (new, base))) as bench:
        sizes = {"new": new.stat().st_size, "base": base.stat().st_size}
        differing = Differing(bench, sizes)
        found = differing.rowids(table)
        rows = [set(bench.execute(ALL.format(name))) for name in ("new", "base")]
    for name, path in (("new", new), ("base", base)):
        assert differing.sha256[name] == sha256(path.read_bytes()).hexdigest()
    return found, {row[0] for row in rows[0] ^ rows[1]}


def make(path, *statements, page_size=512, base=None):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA page_size = {page_size}")
    if base is not None:
        with sqlite3.connect(base) as source:
            source.backup(connection)
        source.close()
    for statement, *values in statements:
        connection.execute(statement, values)
    connection.close()
    return path


def within(rows, found):
    return {row for row in rows if any(low <= row <= high for low, high in found)}


ROWIDS = st.integers(-(2**63), 2**63 - 1) | st.integers(1, 60)
VALUES = st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=3000) | st.none()
PUT = "INSERT OR REPLACE INTO t (rowid, a, b) VALUES (?, ?, ?)"
CHANGES = st.one_of(
    st.tuples(st.just(PUT), ROWIDS, VALUES, VALUES),
    st.tuples(st.just("UPDATE t SET b = ? WHERE rowid % 7 = ?"), VALUES, st.integers(0, 6)),
    st.tuples(st.just("DELETE FROM t WHERE rowid % 11 = ?"), st.integers(0, 10)),
    st.tuples(st.just("DELETE FROM t WHERE rowid BETWEEN ? AND ?"), ROWIDS, ROWIDS),
    st.just(("VACUUM",)),
    st.just(("INSERT INTO other SELECT a FROM t",)),
    st.just(("DELETE FROM other",)),
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(ROWIDS, VALUES, VALUES), max_size=40, unique_by=lambda row: row[0]),
    more=st.integers(0, 400),
    changes=st.lists(CHANGES, max_size=8),
)
def test_every_row_that_differs_is_within_the_ranges(tmp_path_factory, rows, more, changes):
    folder = tmp_path_factory.mktemp("pages")
    base = make(
        folder / "base.db",
        (TABLE,),
        ("CREATE TABLE other (x)",),
        *(("INSERT INTO t (rowid, a, b) VALUES (?, ?, ?)", *row) for row in rows),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "INSERT OR IGNORE INTO t (rowid, a) SELECT i, zeroblob(i * 7 % 900) FROM n LIMIT ?",
            more,
        ),
    )
    changed = make(folder / "new.db", *changes, base=base)
    found, differing = ranges(changed, base)
    assert found is None or differing <= within(differing, found)


def test_rows_far_from_the_change_are_left_out(tmp_path):
    base = make(tmp_path / "base.db", (TABLE,), (MANY,))
    new = make(
        tmp_path / "new.db",
        ("UPDATE t SET b = 0 WHERE rowid = 4000",),
        ("INSERT INTO t VALUES (1, 2)",),
        base=base,
    )
    found, differing = ranges(new, base)
    assert differing == {4000, 9001}
    assert sum(high - low + 1 for low, high in found) < 300
    assert ranges(new, new) == ([], set())


def test_only_an_overflow_page_has_changed(tmp_path):
    """The leaf page of a long value is the same, what lies behind it is not."""
    value = b"x" * 5000
    base = make(tmp_path / "base.db", (TABLE,), ("INSERT INTO t VALUES (1, ?)", value))
    new = make(
        tmp_path / "new.db",
        ("UPDATE t SET b = ? WHERE rowid = 1", value[:-1] + b"y"),
        base=base,
    )
    assert ranges(new, base) == ([(1, 1)], {1})


def test_where_most_pages_differ_it_would_save_nothing(tmp_path):
    base = make(tmp_path / "base.db", (TABLE,), (MANY,))
    new = make(tmp_path / "new.db", ("UPDATE t SET b = 0 WHERE rowid % 20 = 0",), base=base)
    assert ranges(new, base)[0] is None


@pytest.mark.parametrize("table", ["CREATE TABLE t (a PRIMARY KEY, b, rowid) WITHOUT ROWID", TABLE])
def test_what_cannot_be_told_is_not_told(tmp_path, table):
    page_size = 512 if "WITHOUT" in table else 1024  # the files' pages are not the same size
    base = make(tmp_path / "base.db", (table,), ("INSERT INTO t (a, b) VALUES (1, 1)",))
    new = make(
        tmp_path / "new.db", (table,), ("INSERT INTO t (a, b) VALUES (2, 2)",), page_size=page_size
    )
    assert ranges(new, base)[0] is None


@pytest.mark.parametrize("rowid", [-(2**63), -1, 0, 127, 128, 2**31, 2**56, 2**63 - 1])
def test_a_leaf_page_tells_its_rowids(tmp_path, rowid):
    path = make(tmp_path / "one.db", (TABLE,), ("INSERT INTO t (rowid, a) VALUES (?, 'x')", rowid))
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    ((page,),) = connection.execute("SELECT pageno FROM dbstat WHERE name = 't'")
    connection.close()
    assert rowids_of_leaf(path.read_bytes()[(page - 1) * 512 : page * 512]) == [(rowid, rowid)]


def test_the_integrity_check_may_be_left_to_verify(ferry, bot_database, own_bot_database, copied):
    """An index that disagrees with its table hurts no sync; verify looks at the whole file."""
    with sqlite3.connect(own_bot_database) as connection:
        connection.execute("INSERT INTO processed_files (filename) VALUES ('a last file')")
    connection.close()
    connection = apsw.Connection(str(own_bot_database), flags=apsw.SQLITE_OPEN_READONLY)
    size = connection.pragma("page_size")
    ((page,),) = connection.execute(
        "SELECT max(pageno) FROM dbstat WHERE name = 'idx_rounds_match' AND pagetype = 'leaf'"
    )
    connection.close()
    with own_bot_database.open("r+b") as file:
        file.seek(page * size - 1)  # the rowid of an entry
        (last,) = file.read(1)
        file.seek(page * size - 1)
        file.write(bytes([last ^ 1]))
    refused = ferry("sync", own_bot_database, copied.dsn, "--base", bot_database)
    assert refused.code == 3
    assert "is damaged" in str(refused.report["messages"])
    carried = ferry("sync", own_bot_database, copied.dsn, "--base", bot_database, "--check-later")
    assert carried.code == 0, carried
    assert "left to `ferry verify`" in str(carried)
    assert ferry("verify", own_bot_database, copied.dsn).code == 3
