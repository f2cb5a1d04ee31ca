"""reverse: PostgreSQL's contents as a SQLite file that the old program can open."""

import json
import sqlite3

import psycopg
import pytest

from ferry import difference


def dump(path):
    connection = sqlite3.connect(path)
    lines = list(connection.iterdump())
    lines += (
        connection.execute("SELECT * FROM sqlite_sequence ORDER BY name").fetchall()
        if (
            connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'"
            ).fetchone()
        )
        else []
    )
    connection.close()
    return lines


@pytest.mark.parametrize("baseline", [True, False])
def test_copied_and_reversed_at_once_nothing_has_changed(
    ferry, bot_database, copied, cutover, tmp_path, baseline
):
    back = tmp_path / "back.db"
    options = ["--baseline", cutover] if baseline else []
    run = ferry("reverse", copied.dsn, back, *options)
    assert run.code == 0, run
    # Every value with its storage class and its spelling, the DDL, and the sequences.
    assert dump(back) == dump(bot_database)
    assert run.report["target"]["path"] == str(back)
    assert all(table["equal"] for table in run.report["tables"])
    assert ferry("verify", back, copied.dsn).code == 0
    assert oct(back.stat().st_mode)[-3:] == "600"


@pytest.mark.parametrize("command", ["copy", "verify", "the file"])
def test_rows_written_since_the_cutover_are_named(
    ferry, bot_database, copied, cutover, tmp_path, command
):
    baseline, base = cutover, []
    if command == "the file":  # as with more rows than a report holds
        without_rows(cutover)
        base = ["--base", bot_database]
    if command == "verify":
        run = ferry("verify", bot_database, copied.dsn, "--report", baseline)
        assert run.code == 0
    with copied.connect() as connection:
        (new,) = connection.execute(
            "INSERT INTO processed_files (filename) VALUES ('new.txt') RETURNING id"
        ).fetchone()
        connection.execute(
            "UPDATE player_links SET verified = NOT verified WHERE et_name LIKE '%dots%'"
        )
        changed = connection.execute(
            "SELECT count(*) FROM player_links WHERE et_name LIKE '%dots%'"
        ).fetchone()[0]
        connection.execute("DELETE FROM processed_files WHERE id IN (7, 37)")
    back = tmp_path / "back.db"
    run = ferry("reverse", copied.dsn, back, "--baseline", baseline, *base)
    assert run.code == 0, run
    since = {table["name"]: table["since_baseline"] for table in run.report["tables"]}
    files, links = since["processed_files"], since["player_links"]
    assert (files["new"], files["changed"], files["deleted"]) == (1, 0, 2)
    assert files["first_new"] == [[new]]
    assert (links["new"], links["changed"], links["deleted"]) == (0, changed, 0)
    assert since["rounds"] == {
        "new": 0, "changed": 0, "deleted": 0, "first_new": [], "first_changed": []
    }  # fmt: skip
    connection = sqlite3.connect(back)
    row = connection.execute(
        "SELECT success, typeof(success), processed_at, length(processed_at) FROM processed_files "
        "WHERE id = ?",
        (new,),
    ).fetchone()
    assert row[:2] == (1, "integer")
    assert row[3] == 19
    assert row[2][10] == " ", "as CURRENT_TIMESTAMP would have written it"


def test_times_and_booleans_come_back_as_they_were_written(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, ts TIMESTAMP, b BOOLEAN, d DATE, tm TIME);"
        "CREATE TABLE k (name TEXT PRIMARY KEY, ts TIMESTAMP) WITHOUT ROWID;"
        "INSERT INTO t (ts, b, tm) VALUES"
        "('2024-01-01 10:00:00', 1, '10:00:00'), ('2024-01-01 10:00:00', 0, '10:00:00'),"
        "('2024-01-01T10:00:00', 'true', '10:00'), ('2024-01-01', 'NO', '10:00:00.50'),"
        "('2024-01-01T10:00', NULL, '10:00:00.5'), ('2024-01-01T10:00:00.5', 1, NULL),"
        "('2024-01-01T10:00:00.500000', 1, NULL), ('2024-01-01 10:00:00.500', 1, NULL),"
        "('2024-01-01 10:00:00.000', 'f', NULL), (NULL, 't', '00:00:00.000000');"
        "INSERT INTO k VALUES ('a', '2024-01-01 10:00:00'), ('b', '2024-01-01T10:00:00'),"
        "('c', '2024-01-01 10:00:00')"
    )
    assert ferry("copy", path, database.dsn).code == 0
    run = ferry("reverse", database.dsn, tmp_path / "back.db")
    assert run.code == 0, run
    assert dump(tmp_path / "back.db") == dump(path)


def test_keys_come_back_as_they_were_written(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE a (ts TIMESTAMP PRIMARY KEY, other TIMESTAMP) WITHOUT ROWID;"
        "CREATE TABLE b (ok BOOLEAN PRIMARY KEY, ts TIMESTAMP) WITHOUT ROWID;"
        "CREATE TABLE c (tm TIME PRIMARY KEY) WITHOUT ROWID;"
        "INSERT INTO a VALUES ('2024-01-01 00:00:00', '2024-01-01 00:00:00'),"
        "('2024-01-02T00:00:00', '2024-01-01 00:00:00'), ('2024-01-03 00:00', '2024-01-01'),"
        "('2024-01-04 00:00:00', NULL), ('2024-01-05 00:00:00.250', '2024-01-01T00:00:00');"
        "INSERT INTO b VALUES ('no', '2024-01-01 00:00:00'), (1, '2024-01-01T00:00:00');"
        "INSERT INTO c VALUES ('10:00:00'), ('10:30'), ('11:00:00'), ('12:00:00.50'),"
        "('13:00:00.5')"
    )
    assert ferry("copy", path, database.dsn).code == 0
    run = ferry("reverse", database.dsn, tmp_path / "back.db")
    assert run.code == 0, run
    assert dump(tmp_path / "back.db") == dump(path)


def test_values_of_a_new_kind_follow_the_columns_clock(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, py TIMESTAMP, lite TIMESTAMP, none TIMESTAMP);"
        "INSERT INTO t VALUES (1, '2024-01-01T10:00:00.123456', '2024-01-01 10:00:00', NULL)"
    )
    assert ferry("copy", path, database.dsn).code == 0
    moments = ("2025-05-05 05:05:05", "2025-05-05 05:05:05.25")
    with database.connect() as connection:
        for number, moment in enumerate(moments):
            connection.execute("INSERT INTO t VALUES (%s, %s, %s, %s)", (7 + number, *[moment] * 3))
    assert ferry("reverse", database.dsn, tmp_path / "back.db").code == 0
    rows = sqlite3.connect(tmp_path / "back.db").execute(
        "SELECT py, lite, none FROM t WHERE id > 1"
    )
    assert rows.fetchall() == [
        ("2025-05-05T05:05:05", "2025-05-05 05:05:05", "2025-05-05 05:05:05"),
        ("2025-05-05T05:05:05.250000", "2025-05-05 05:05:05.250000", "2025-05-05 05:05:05.250000"),
    ]


def test_views_triggers_and_generated_columns_come_back(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER AS (a * 2) STORED);"
        "CREATE VIEW v AS SELECT a FROM t;"
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN UPDATE t SET a = a + 1 WHERE id = new.id; END;"
        "INSERT INTO t (a) VALUES (1), (2)"
    )
    run = ferry("copy", path, database.dsn)
    assert run.code == 0, run
    assert "trigger" in {item["what"] for item in run.report["not_carried"]}
    assert ferry("reverse", database.dsn, tmp_path / "back.db").code == 0
    assert dump(tmp_path / "back.db") == dump(path)


def test_what_postgresql_got_since_then_is_added_and_said(ferry, copied, tmp_path):
    with copied.connect() as connection:
        connection.execute(
            "CREATE TABLE news (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
            "at timestamptz NOT NULL, tags text[], ok boolean)"
        )
        connection.execute(
            "INSERT INTO news (at, tags, ok) VALUES ('2025-01-01 12:00+02', '{a,b}', true)"
        )
        connection.execute("ALTER TABLE rounds ADD COLUMN server text DEFAULT 'one'")
    run = ferry("reverse", copied.dsn, tmp_path / "back.db")
    assert run.code == 0, run
    warnings = [m["text"] for m in run.report["messages"] if m["level"] == "warning"]
    assert any("table news is new" in text for text in warnings)
    assert any("column rounds.server is new" in text for text in warnings)
    connection = sqlite3.connect(tmp_path / "back.db")
    assert connection.execute("SELECT * FROM news").fetchall() == [
        (1, "2025-01-01 10:00:00", "{a,b}", 1)
    ]
    assert connection.execute("SELECT DISTINCT server FROM rounds").fetchall() == [("one",)]


def test_a_name_that_is_taken_is_refused(ferry, copied, own_bot_database):
    before = own_bot_database.read_bytes()
    run = ferry("reverse", copied.dsn, own_bot_database)
    assert run.code == 3
    assert "exists already" in run.err
    assert own_bot_database.read_bytes() == before


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
def test_what_lies_beside_a_former_file_of_that_name_is_refused(ferry, copied, tmp_path, suffix):
    """SQLite would roll a journal back into the new file, and destroy it."""
    beside = tmp_path / f"back.db{suffix}"
    beside.write_bytes(b"of the former file")
    run = ferry("reverse", copied.dsn, tmp_path / "back.db")
    assert run.code == 3
    assert f"{beside} belongs to a former" in run.err
    assert [path.name for path in tmp_path.glob("*back*")] == [beside.name]


def test_what_sqlite_cannot_hold_is_a_difference_and_no_file_remains(
    ferry, make_sqlite, database, tmp_path
):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n NUMERIC); INSERT INTO t VALUES (1, 1.5)"
    )
    assert ferry("copy", path, database.dsn).code == 0
    with database.connect() as connection:
        connection.execute("INSERT INTO t VALUES (2, 0.1234567890123456789012345)")
    run = ferry("reverse", database.dsn, tmp_path / "back.db")
    assert run.code == 4, run
    assert sorted(p.name for p in tmp_path.glob("*back*")) == []
    assert sorted(p.name for p in tmp_path.glob(".*back*")) == []


def without_rows(cutover):
    """Leave out of a report what it does not hold above 500,000 rows; return which tables."""
    report = json.loads(cutover.read_text())
    found = [table["name"] for table in report["tables"] if table.pop("row_memory", None)]
    cutover.write_text(json.dumps(report))
    return found


def test_report_and_file_count_the_same(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE loose (a INTEGER, b TEXT);"
        "INSERT INTO loose VALUES (1, 'x'), (1, 'x'), (2, NULL), (3, 'z');"
        "CREATE TABLE named (name TEXT COLLATE NOCASE, part INTEGER, at TIMESTAMP, ok BOOLEAN, "
        "amount NUMERIC, PRIMARY KEY (name, part)) WITHOUT ROWID;"
        "INSERT INTO named VALUES ('a', 1, '2024-01-01T10:00:00', 'true', 1.50),"
        "('b', 1, '2024-01-01 10:00:00', 0, 2), ('b', 2, NULL, NULL, NULL)"
    )
    cutover = tmp_path / "cutover.json"
    assert ferry("copy", path, database.dsn, "--report", cutover).code == 0
    with database.connect() as connection:
        connection.execute(
            "DELETE FROM loose WHERE ctid IN (SELECT ctid FROM loose WHERE a = 1 LIMIT 1);"
            "UPDATE loose SET b = 'new' WHERE a = 3;"
            "INSERT INTO named VALUES ('c', 1, now(), true, 0);"
            "UPDATE named SET amount = 2.0 WHERE name = 'b' AND part = 1;"  # the same number
            "UPDATE named SET ok = true WHERE name = 'b' AND part = 2;"
            "DELETE FROM named WHERE name = 'a'"
        )
    counted = []
    for options in ([], ["--base", path]):
        back = tmp_path / "back.db"
        run = ferry("reverse", database.dsn, back, "--baseline", cutover, *options)
        assert run.code == 0, run
        counted.append({table["name"]: table["since_baseline"] for table in run.report["tables"]})
        without_rows(cutover)
        back.unlink()
    assert counted[0]["named"]["new"] == counted[0]["named"]["changed"] == 1
    assert counted[0]["named"]["deleted"] == 1
    for entry in (counted[0]["loose"], counted[1]["loose"]):
        del entry["first_new"]  # nothing to name a row by
        assert (entry["new"], entry["deleted"]) == (1, 2)
    assert counted[0] == counted[1]


def test_it_says_that_nothing_was_counted(ferry, copied, cutover, tmp_path):
    assert without_rows(cutover)
    run = ferry("reverse", copied.dsn, tmp_path / "back.db", "--baseline", cutover)
    assert run.code == 0, run
    assert "is not counted" in run.err
    assert "--base FILE counts them" in run.err


def test_an_empty_database_is_refused(ferry, database, tmp_path):
    run = ferry("reverse", database.dsn, tmp_path / "back.db")
    assert run.code == 3
    assert "has no tables" in run.err
    assert not (tmp_path / "back.db").exists()


def test_a_baseline_that_is_none_is_a_usage_error(ferry, copied, tmp_path):
    (tmp_path / "bad.json").write_text("[]")
    for name in ("bad.json", "missing.json"):
        run = ferry("reverse", copied.dsn, tmp_path / "back.db", "--baseline", tmp_path / name)
        assert run.code == 2, run
        assert not (tmp_path / "back.db").exists()


def test_spellings_that_cannot_be_kept_are_counted(ferry, make_sqlite, database):
    path = make_sqlite(
        "CREATE TABLE t (k REAL PRIMARY KEY, at TIMESTAMP);"
        "INSERT INTO t VALUES (0.5, '2024-01-01 10:00:00'), (1.5, '2024-01-02 10:00:00'), "
        "(2.5, '2024-01-03T10:00:00')"
    )
    run = ferry("copy", path, database.dsn)
    assert run.code == 0, run
    assert "1 of them would come back from `reverse` in the usual one" in str(run.report)


def test_as_a_difference_to_the_moved_file(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE n (id INTEGER PRIMARY KEY AUTOINCREMENT, at TIMESTAMP, a TEXT UNIQUE);"
        "CREATE TABLE k (name TEXT COLLATE NOCASE, part INTEGER, v REAL, PRIMARY KEY (name, part));"
        "CREATE TABLE quiet (x INTEGER); CREATE TABLE log (x INTEGER PRIMARY KEY);"
        "CREATE INDEX i ON n (at); CREATE VIRTUAL TABLE d USING fts5(t);"
        "CREATE VIRTUAL TABLE f USING fts5(a, content='n', content_rowid='id');"
        "INSERT INTO n (at, a) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c "
        "LIMIT 5000) SELECT iif(i % 2, '2024-01-01T10:00:00', '2024-01-01 10:00'), 'a' || i FROM c;"
        "INSERT INTO k VALUES ('a', 1, 0.1), ('B', 1, 1.0 / 3), ('c', 2, NULL);"
        "INSERT INTO quiet VALUES (1), (1); INSERT INTO d VALUES ('one'), ('two');"
        "INSERT INTO f(f) VALUES ('rebuild'); PRAGMA user_version = 9;"
        "CREATE TRIGGER tr AFTER INSERT ON n BEGIN INSERT INTO log (x) VALUES (new.id); END"
    )
    assert ferry("copy", path, database.dsn).code == 0
    with database.connect() as connection:
        connection.execute(
            "DELETE FROM n WHERE id IN (1, 2047, 2048, 5000);"
            "UPDATE n SET a = 'changed' WHERE id = 3000;"
            "UPDATE n SET a = 'swap' WHERE id = 10; UPDATE n SET a = 'a10' WHERE id = 11;"
            "INSERT INTO n (at, a) VALUES ('2025-01-01 00:00:00', 'new'), (NULL, 'a5000');"
            "UPDATE k SET v = v * 3 WHERE name = 'B'; UPDATE k SET part = 7 WHERE name = 'a';"
            "INSERT INTO k VALUES ('b', 2, 0.5); DELETE FROM k WHERE name = 'c';"
            "UPDATE d SET t = 'three' WHERE rowid = 2"
        )
    files = {}
    for name, options in (("whole", []), ("difference", ["--base", path])):
        files[name] = tmp_path / f"{name}.db"
        run = ferry("reverse", database.dsn, files[name], *options)
        assert run.code == 0, run
    assert "written anew" not in run.out
    assert run.report["base"]["path"] == str(path)
    assert run.report["timings"].keys() >= {"compare", "write", "try"}
    changes = {table["name"]: table["since_baseline"] for table in run.report["tables"]}
    counts = {n: (c["new"], c["changed"], c["deleted"]) for n, c in changes.items()}
    assert counts == {"n": (2, 3, 4), "k": (2, 1, 2), "quiet": (0, 0, 0), "log": (0, 0, 0),
                      "d": (0, 1, 0)}  # fmt: skip
    assert any("nobody has written to" in line for line in run.report["not_compared"])

    def contents(name):
        connection = sqlite3.connect(files[name])
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA user_version").fetchone() == (9,)
        found = connection.execute("SELECT rowid FROM f WHERE f MATCH 'changed OR new OR a5000'")
        rows = [sorted(found.fetchall())]
        for table in ("n", "k", "quiet", "log", "d", "sqlite_sequence"):
            read = connection.execute(f"SELECT * FROM {table}").fetchall()
            rows.append(sorted(map(repr, read)))
        return rows

    assert contents("difference") == contents("whole")
    # Rows that nobody has changed are as they were, also where two spellings were forgotten.
    assert ferry("verify", files["difference"], database.dsn).code == 0


@pytest.mark.parametrize("what", ["another file", "columns", "tables", "versions", "no key"])
def test_where_a_difference_does_not_tell_everything_is_written(
    ferry, make_sqlite, database, tmp_path, what
):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); CREATE TABLE loose (a INTEGER);"
        "INSERT INTO t VALUES (1, 'x'), (2, 'y'); INSERT INTO loose VALUES (1)"
    )
    assert ferry("copy", path, database.dsn).code == 0
    statement = {
        "another file": "UPDATE t SET a = 'z' WHERE id = 1",
        "columns": "ALTER TABLE t ADD COLUMN b text",
        "tables": "CREATE TABLE more (id bigint PRIMARY KEY)",
        "versions": "CREATE TABLE o AS TABLE t; DROP TABLE t; ALTER TABLE o RENAME TO t",
        "no key": "INSERT INTO loose VALUES (2)",
    }[what]
    with database.connect() as connection:
        connection.execute(statement)
    if what == "another file":
        sqlite3.connect(path, isolation_level=None).execute("UPDATE t SET a = 'q' WHERE id = 2")
    back = tmp_path / "back.db"
    run = ferry("reverse", database.dsn, back, "--base", path)
    assert run.code == 0, run
    assert "everything is written anew" in run.out
    rows = sqlite3.connect(back).execute("SELECT id, a FROM t ORDER BY 1").fetchall()
    assert rows == [(1, "z" if what == "another file" else "x"), (2, "y")]


def test_a_difference_that_sqlite_cannot_hold_is_found(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n NUMERIC); INSERT INTO t VALUES (1, 1.5)"
    )
    assert ferry("copy", path, database.dsn).code == 0
    with database.connect() as connection:
        connection.execute("INSERT INTO t VALUES (2, 0.1234567890123456789012345)")
    run = ferry("reverse", database.dsn, tmp_path / "back.db", "--base", path)
    assert run.code == 4, run
    assert "id 2" in run.err
    assert not (tmp_path / "back.db").exists()


@pytest.mark.parametrize("where", ["find", "judge"])
def test_a_difference_that_fails_leaves_everything_to_be_written(
    ferry, make_sqlite, database, tmp_path, monkeypatch, where
):
    path = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
    assert ferry("copy", path, database.dsn).code == 0
    with database.connect() as connection:
        connection.execute("INSERT INTO t VALUES (7)")
    # A statement that PostgreSQL refuses, before and after the copy of the file was changed.
    monkeypatch.setattr(
        difference,
        where,
        lambda *given: next(g for g in given if isinstance(g, psycopg.Connection)).execute("wrong"),
    )
    run = ferry("reverse", database.dsn, tmp_path / "back.db", "--base", path)
    assert run.code == 0, run
    assert "everything is written anew" in run.out
    rows = sqlite3.connect(tmp_path / "back.db").execute("SELECT id FROM t ORDER BY 1")
    assert rows.fetchall() == [(1,), (2,), (7,)]
