"""sync --base takes rows for proven that nobody has written to since; here somebody has."""

import shutil
import sqlite3

import pytest

SCRIPT = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER);"
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) "
    "INSERT INTO t SELECT i, i * 2, i * 3 FROM n; CREATE INDEX i ON t (a)"
)


@pytest.fixture
def base(ferry, make_sqlite, database):
    path = make_sqlite(SCRIPT, name="base.db")
    assert ferry("copy", path, database.dsn).code == 0
    return path


def successor(base, name, statement):
    path = base.with_name(name)
    shutil.copyfile(base, path)
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    return path


def recognised(run):
    return [line for line in run.report["not_compared"] if "since they were proven" in line]


def test_rows_that_nobody_has_touched_are_not_hashed_again(ferry, base, database):
    second = successor(base, "second.db", "UPDATE t SET a = -1 WHERE id IN (7, 8)")
    run = ferry("sync", second, database.dsn, "--base", base)
    assert run.code == 0, run
    assert recognised(run) == [
        "table t: the contents of 498 rows that nobody has written to since they were proven "
        "(`ferry verify` compares them again)"
    ]
    assert (
        run.report["tables"][0]["checksum_sqlite"] == run.report["tables"][0]["checksum_postgres"]
    )
    assert ferry("verify", second, database.dsn).code == 0

    # What sync has proven is a base again.
    third = successor(second, "third.db", "DELETE FROM t WHERE id > 490")
    run = ferry("sync", third, database.dsn, "--base", second)
    assert run.code == 0, run
    assert recognised(run)
    checksum = run.report["tables"][0]["checksum_postgres"]
    verified = ferry("verify", third, database.dsn)
    assert verified.code == 0
    assert verified.report["tables"][0]["checksum_postgres"] == checksum


def test_maintenance_does_not_count_as_writing(ferry, base, database):
    with database.connect() as connection:
        connection.execute("VACUUM (FREEZE, FULL) t")
        connection.execute("REINDEX TABLE t")
        connection.execute("CLUSTER t USING t_pkey")
    second = successor(base, "second.db", "UPDATE t SET a = -1 WHERE id = 7")
    run = ferry("sync", second, database.dsn, "--base", base)
    assert run.code == 0, run
    assert recognised(run)


@pytest.mark.parametrize(
    "meddling",
    [
        "UPDATE t SET b = b + 1 WHERE id = 400",
        "DELETE FROM t WHERE id = 400",
        "WITH gone AS (DELETE FROM t WHERE id = 400 RETURNING *) "
        "INSERT INTO t SELECT id, a, 0 FROM gone",
        "INSERT INTO t VALUES (501, 1, 1)",
        "ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN b integer",
        "ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b",
        "ALTER TABLE t ALTER b TYPE bigint USING b + 1",
        "CREATE TABLE u (LIKE t INCLUDING ALL); INSERT INTO u SELECT id, a, 0 FROM t; "
        "DO $$ BEGIN EXECUTE format('COMMENT ON TABLE u IS %L', "
        "obj_description('t'::regclass)); END $$; DROP TABLE t; ALTER TABLE u RENAME TO t",
    ],
    ids=["update", "delete", "replace", "insert", "new column", "swapped", "retyped", "new table"],
)
def test_whoever_wrote_is_found_out(ferry, base, database, meddling):
    with database.connect() as connection:
        connection.execute(meddling)
        before = connection.execute("SELECT * FROM t ORDER BY id").fetchall()
    second = successor(base, "second.db", "UPDATE t SET a = -1 WHERE id = 7")
    run = ferry("sync", second, database.dsn, "--base", base)
    assert run.code in (3, 4), run
    assert not recognised(run)
    with database.connect() as connection:
        assert connection.execute("SELECT * FROM t ORDER BY id").fetchall() == before
    # Without the base both sides are compared, and mended.
    if "COLUMN" not in meddling and "RENAME a" not in meddling and "TYPE" not in meddling:
        assert ferry("sync", second, database.dsn).code == 0
        assert ferry("verify", second, database.dsn).code == 0


def test_other_rules_than_at_the_copy_are_found_out(ferry, base, database, tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\ntable = "t"\ncolumn = "b"\nhazard = "fraction-in-integer"\naction = "null"\n'
    )
    second = successor(base, "second.db", "UPDATE t SET a = -1 WHERE id = 7")
    run = ferry("sync", second, database.dsn, "--base", base, "--rules", rules)
    assert run.code == 0, run
    assert not recognised(run), "everything was compared, because the rules are others"


def test_a_damaged_base_that_was_not_copied_from_is_refused(ferry, base, database):
    damaged = successor(base, "damaged.db", "VACUUM")
    with damaged.open("r+b") as file:
        file.seek(-20, 2)  # in the index
        file.write(b"\xff" * 20)
    second = successor(base, "second.db", "UPDATE t SET b = -1 WHERE id = 7")
    run = ferry("sync", second, database.dsn, "--base", damaged)
    assert run.code == 3, run
    assert "damaged.db is damaged" in str(run.report["messages"])
    with database.connect() as connection:
        assert connection.execute("SELECT b FROM t WHERE id = 7").fetchone() == (21,)
