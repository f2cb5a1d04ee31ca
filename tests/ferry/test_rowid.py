"""Columns that are called as SQLite calls a row's number: rowid, oid, _rowid_."""

import sqlite3

import pytest

NAMES = {
    "one": ("rowid",),
    "two": ("OID", "rowid"),
    "all": ("rowid", "oid", "_rowid_"),
}


def rows(path):
    return sorted(sqlite3.connect(path).execute("SELECT * FROM t").fetchall(), key=repr)


@pytest.mark.parametrize(
    ("names", "key"),
    [("one", ""), ("two", ", PRIMARY KEY (k)"), ("all", ""), ("all", ", UNIQUE (k)")],
)
def test_they_are_columns_like_others(ferry, make_sqlite, database, tmp_path, names, key):
    columns = ", ".join(f"{name} TEXT" for name in NAMES[names])
    values = ", ".join(f"'v{number}'" for number in range(len(NAMES[names])))
    path = make_sqlite(
        f"CREATE TABLE t (k INTEGER NOT NULL, {columns}, x{key});"
        f"INSERT INTO t VALUES (1, {values}, 1), (2, {values}, 'n/a'), (3, {values}, 0.5), "
        f"(4, {values}, 4)"
    )
    refused = ferry("inspect", path)
    assert refused.code == 3, refused
    assert "x: mixed-types" in refused.err
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\ntable = "*"\ncolumn = "x"\nhazard = "mixed-types"\naction = "text"\n'
    )
    assert ferry("copy", path, database.dsn, "--rules", rules).code == 0
    final = tmp_path / "final.db"
    final.write_bytes(path.read_bytes())
    connection = sqlite3.connect(final, isolation_level=None)
    connection.execute("DELETE FROM t WHERE k = 2")
    connection.execute(f"UPDATE t SET {NAMES[names][0]} = 'changed', x = 7 WHERE k = 3")
    connection.execute(f"INSERT INTO t VALUES (9, {values}, 'new')")
    for options in (["--base", path], []):
        run = ferry("sync", final, database.dsn, *options, "--rules", rules)
        assert run.code == 0, run
        path, final = final, path
    run = ferry("verify", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    back = tmp_path / "back.db"
    run = ferry("reverse", database.dsn, back, "--base", path)
    assert run.code == 0, run
    assert rows(back) == rows(path)
