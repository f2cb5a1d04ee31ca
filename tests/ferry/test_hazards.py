"""Values that cannot be carried as they are: each is refused by name before anything is written."""

import pytest

CASES = [
    ("INTEGER", "''", "empty-text"),
    ("INTEGER", "'many'", "text-in-number"),
    ("INTEGER", "1.5", "fraction-in-integer"),
    ("INTEGER", "9223372036854775808", "beyond-64-bit"),
    ("INTEGER", "x'00'", "blob"),
    ("REAL", "'many'", "text-in-number"),
    ("BOOLEAN", "2", "number-in-boolean"),
    ("BOOLEAN", "'maybe'", "text-in-boolean"),
    ("BOOLEAN", "''", "empty-text"),
    ("TIMESTAMP", "1700000000", "epoch-in-timestamp"),
    ("TIMESTAMP", "2459000.5", "julian-day-in-timestamp"),
    ("TIMESTAMP", "'now'", "word-in-timestamp"),
    ("TIMESTAMP", "'infinity'", "word-in-timestamp"),
    ("TIMESTAMP", "'2024-01-01 00:00:00+02:00'", "time-zone-in-timestamp"),
    ("TIMESTAMP", "'2024-01-01T00:00:00Z'", "time-zone-in-timestamp"),
    ("TIMESTAMP", "'2024-02-30 00:00:00'", "not-a-timestamp"),
    ("TIMESTAMP", "'2024-01-01 24:00:00'", "not-a-timestamp"),
    ("TIMESTAMP", "'2024-01-01 10:00:00.1234567'", "fine-fraction-in-timestamp"),
    ("TIMESTAMP", "'01.02.2024'", "not-a-timestamp"),
    ("TIMESTAMP", "'2024-01-01Q10:11:12'", "not-a-timestamp"),
    ("TIMESTAMP", "'2024-13-01 10:11:12'", "not-a-timestamp"),
    ("TIMESTAMP", "'2024-00-01 10:11:12'", "not-a-timestamp"),
    ("TIMESTAMP", "'2024-01-00 10:11:12'", "not-a-timestamp"),
    ("TIMESTAMP", "'0000-01-01 10:11:12'", "not-a-timestamp"),
    ("TIMESTAMP", "''", "empty-text"),
    ("DATE", "'2024-01-01 10:00:00'", "time-in-date"),
    ("TIME", "'25:00:00'", "not-a-timestamp"),
    ("TEXT", "x'41'", "blob-in-text"),
    ("TEXT", "'a' || char(0) || 'b'", "nul-in-text"),
    ("TEXT", "CAST(x'41ff42' AS TEXT)", "invalid-utf-8"),
    ("BLOB", "'text'", "text-in-blob"),
    ("DECIMAL(5,2)", "1.005", "beyond-declared-decimal"),
    ("DECIMAL(5,2)", "1000", "beyond-declared-decimal"),
    ("DECIMAL(5,2)", "'many'", "text-in-number"),
]


@pytest.fixture(scope="module")
def empty_database(postgres_cluster):
    """One database for all refusals: whatever was written would be seen by the next test."""
    with postgres_cluster.fresh_database("empty") as database:
        yield database


@pytest.mark.parametrize(("declared", "value", "code"), CASES)
def test_a_value_that_does_not_fit_is_refused(
    ferry, make_sqlite, empty_database, declared, value, code
):
    path = make_sqlite(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declared});"
        f"INSERT INTO t VALUES (7, {value}), (8, NULL), (9, {value})"
    )
    before = path.read_bytes()
    for arguments in (("inspect", path), ("copy", path, empty_database.dsn)):
        run = ferry(*arguments)
        assert run.code == 3, run
        (hazard,) = run.report["hazards"]
        assert (hazard["code"], hazard["table"], hazard["column"]) == (code, "t", "v")
        assert hazard["count"] == 2
        assert [sample["row"] for sample in hazard["samples"]] == ["id 7", "id 9"]
        assert f"t.v: {code}, 2 (id 7: " in run.err
        assert hazard["remedy"] in run.err
    with empty_database.connect() as connection:
        assert connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone() == (0,)
    assert path.read_bytes() == before


def test_all_hazards_of_a_file_are_listed_at_once(ferry, make_sqlite):
    path = make_sqlite(
        "CREATE TABLE a (x INTEGER, y BOOLEAN); INSERT INTO a VALUES ('', 7), (1.5, 0);"
        "CREATE TABLE b (x); INSERT INTO b VALUES (1), ('text')"
    )
    run = ferry("inspect", path)
    assert run.code == 3
    found = {(h["table"], h["column"], h["code"]) for h in run.report["hazards"]}
    assert found == {
        ("a", "x", "empty-text"),
        ("a", "x", "fraction-in-integer"),
        ("a", "y", "number-in-boolean"),
        ("b", "x", "mixed-types"),
    }


def test_rows_that_break_their_constraints_are_refused(ferry, make_sqlite):
    path = make_sqlite(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);"
        "CREATE TABLE child (id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent);"
        "CREATE TABLE keyed (a TEXT PRIMARY KEY, b INTEGER);"
        "INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1), (2, 99), (3, NULL);"
        "INSERT INTO keyed VALUES (NULL, 1), ('x', 2)"
    )
    run = ferry("inspect", path)
    assert run.code == 3
    found = {h["code"]: h for h in run.report["hazards"]}
    assert set(found) == {"orphan", "null-in-primary-key"}
    assert found["orphan"]["samples"] == [{"row": "id 2", "value": "99"}]
    assert "parent" in found["orphan"]["remedy"]


def test_the_first_rows_are_found_whatever_the_table_looks_like(ferry, make_sqlite):
    path = make_sqlite(
        "CREATE TABLE wide (rowid TEXT, v INTEGER); INSERT INTO wide VALUES ('a', 'x');"
        "CREATE TABLE none (k TEXT, l TEXT, v INTEGER, PRIMARY KEY (k, l)) WITHOUT ROWID;"
        "INSERT INTO none VALUES ('a''b', 'c', 'x')"
    )
    run = ferry("inspect", path)
    rows = {h["table"]: h["samples"][0]["row"] for h in run.report["hazards"]}
    assert rows == {"wide": "rowid 1", "none": "k 'a''b', l 'c'"}


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (f'CREATE TABLE "{"x" * 64}" (a)', "longer than 63 bytes"),
        (f'CREATE TABLE t ("{"ä" * 32}" TEXT)', "longer than 63 bytes"),
        ("CREATE TABLE t (xmin INTEGER)", "system column"),
    ],
)
def test_names_that_postgresql_would_change_are_refused(ferry, make_sqlite, script, message):
    run = ferry("inspect", make_sqlite(script))
    assert run.code == 3
    assert message in run.err
    assert "RENAME" in run.err


def test_values_that_fit_are_not_complained_about(ferry, make_sqlite, database):
    path = make_sqlite(
        "CREATE TABLE t (i INTEGER, r REAL, b BOOLEAN, ts TIMESTAMP, d DATE, tm TIME,"
        " n DECIMAL(5,2), x TEXT, bl BLOB, free);"
        "INSERT INTO t VALUES"
        "(1, 1, 'YES', '2024-02-29', '2024-02-29', '10:11', 1.25, '', x'', 1),"
        "(9223372036854775807, -0.0, 't', '2024-01-01T10:11', '0001-01-01', '10:11:12.5', 999.99,"
        " 'now', x'00ff', 2),"
        "(-9223372036854775808, 9e999, 0, '2024-01-01 10:11:12', NULL, '00:00:00', -5,"
        " char(9, 10, 13, 92), NULL, 3),"
        "(NULL, 5e-324, 1, '9999-12-31T23:59:59.999999', NULL, NULL, NULL, '\\N', NULL, 4)"
    )
    run = ferry("copy", path, database.dsn)
    assert run.code == 0, run
    assert {c["rule"] for c in run.report["conversions"]} == {
        "text 'YES' to boolean",
        "text 't' to boolean",
    }
    with database.connect() as connection:
        rows = connection.execute("SELECT * FROM t ORDER BY free").fetchall()
    assert [row[2] for row in rows] == [True, True, False, True]
    assert [row[7] for row in rows] == ["", "now", "\t\n\r\\", "\\N"]
    assert rows[2][1] == float("inf")


def test_keys_that_become_equal_are_found_before_the_copy(ferry, make_sqlite, empty_database):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, ts TIMESTAMP, ok BOOLEAN, n INTEGER, tm TIME,"
        " UNIQUE (n, ts)); CREATE UNIQUE INDEX i ON t (ok, tm);"
        "INSERT INTO t VALUES (1, '2024-01-01 00:00:00', 1, 1, '10:00'),"
        " (2, '2024-01-01T00:00:00', 't', 1, '10:00:00.0'), (3, '2024-01-01', 0, 1, '10:00'),"
        " (4, '2024-01-01 00:00', 1, 2, NULL), (5, NULL, 't', 2, NULL);"
        "CREATE TABLE w (ok BOOLEAN PRIMARY KEY, v) WITHOUT ROWID;"
        "INSERT INTO w VALUES (1, 'a'), ('yes', 'b'), ('TRUE', 'c'), (0, 'd')"
    )
    for arguments in (("inspect", path), ("copy", path, empty_database.dsn)):
        run = ferry(*arguments)
        assert run.code == 3, run
        found = {(h["table"], h["column"]): h for h in run.report["hazards"]}
        assert {place: hazard["code"] for place, hazard in found.items()} == {
            ("t", "n, ts"): "equal-keys", ("t", "ok, tm"): "equal-keys", ("w", "ok"): "equal-keys"
        }  # fmt: skip
        assert found["t", "n, ts"]["samples"] == [
            {"row": "id 2", "value": "1, '2024-01-01T00:00:00'"},
            {"row": "id 3", "value": "1, '2024-01-01'"},
        ]
        assert found["t", "ok, tm"]["samples"] == [
            {"row": "id 2", "value": "'t', '10:00:00.0'"}]  # fmt: skip
        assert found["w", "ok"]["count"] == 2
