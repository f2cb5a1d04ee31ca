"""The rules file: hazards that somebody has decided about are carried as decided."""

import json
import sqlite3
import time
import tomllib

import pytest
from ferry.rules import ACTIONS
from ferry.types import HAZARDS


def one_rule(table, column, hazard, action):
    return (
        f'[[rule]]\ntable = "{table}"\ncolumn = "{column}"\n'
        f'hazard = "{hazard}"\naction = "{action}"\n'
    )


@pytest.fixture
def decide(ferry, make_sqlite, database, tmp_path):
    """Copy one column's values by one rule; returns the run and what PostgreSQL then holds."""

    def run(declared, values, hazard, action, value=None):
        rows = ", ".join(f"({number}, {item})" for number, item in enumerate(values, start=1))
        path = make_sqlite(
            f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declared}); INSERT INTO t VALUES {rows}"
        )
        before = path.read_bytes()
        rules = tmp_path / "rules.toml"
        rules.write_text(
            f'[[rule]]\ntable = "t"\ncolumn = "*"\nhazard = "{hazard}"\naction = "{action}"\n'
            + (f"value = {value}\n" if value is not None else "")
        )
        result = ferry("copy", path, database.dsn, "--rules", rules)
        assert path.read_bytes() == before
        if result.code != 0:
            return result, None
        assert ferry("verify", path, database.dsn, "--rules", rules).code == 0
        assert ferry("verify", path, database.dsn).code in (0, 1, 4)
        with database.connect() as connection:
            found = connection.execute("SELECT v::text FROM t ORDER BY id").fetchall()
        return result, [item for (item,) in found]

    return run


@pytest.mark.parametrize(
    ("declared", "values", "hazard", "action", "value", "expected"),
    [
        ("INTEGER", ["''", "5"], "empty-text", "null", None, [None, "5"]),
        ("INTEGER", ["''", "5"], "empty-text", "set", 0, ["0", "5"]),
        ("INTEGER", ["'x'", "5"], "text-in-number", "text", None, ["x", "5"]),
        ("INTEGER", ["1.5", "5"], "fraction-in-integer", "double", None, ["1.5", "5"]),
        ("INTEGER", ["2.5", "-2.5"], "fraction-in-integer", "round", None, ["3", "-3"]),
        ("INTEGER", ["2.9", "-2.9"], "fraction-in-integer", "truncate", None, ["2", "-2"]),
        ("INTEGER", ["9e18 * 2"], "beyond-64-bit", "double", None, ["1.8e+19"]),
        ("REAL", ["'n/a'", "1.5"], "text-in-number", "null", None, [None, "1.5"]),
        ("REAL", ["'n/a'", "0.1"], "text-in-number", "text", None, ["n/a", "0.1"]),
        ("DECIMAL(5,2)", ["1.005", "2.5"], "beyond-declared-decimal", "round", None,
         ["1.00", "2.50"]),
        ("DECIMAL(5,2)", ["1.005", "2000"], "beyond-declared-decimal", "numeric", None,
         ["1.005", "2000"]),
        ("BOOLEAN", ["2", "0", "-1"], "number-in-boolean", "nonzero", None,
         ["true", "false", "true"]),
        ("BOOLEAN", ["2", "0"], "number-in-boolean", "integer", None, ["2", "0"]),
        ("BOOLEAN", ["'maybe'", "1"], "text-in-boolean", "null", None, [None, "true"]),
        ("TIMESTAMP", ["1700000000"], "epoch-in-timestamp", "seconds", None,
         ["2023-11-14 22:13:20"]),
        ("TIMESTAMP", ["1700000000123"], "epoch-in-timestamp", "milliseconds", None,
         ["2023-11-14 22:13:20.123"]),
        ("TIMESTAMP", ["1700000000"], "epoch-in-timestamp", "integer", None, ["1700000000"]),
        ("TIMESTAMP", ["2460000.5"], "julian-day-in-timestamp", "julian", None,
         ["2023-02-25 00:00:00"]),
        ("TIMESTAMP", ["'2024-01-01T00:30:00+02:00'", "'2024-01-01 00:00:00'"],
         "time-zone-in-timestamp", "utc", None, ["2023-12-31 22:30:00", "2024-01-01 00:00:00"]),
        ("TIMESTAMP", ["'2024-01-01T00:30:00.123456Z'"], "time-zone-in-timestamp", "drop-zone",
         None, ["2024-01-01 00:30:00.123456"]),
        ("TIMESTAMP", ["'2023-05-06 07:08:09.123 +00:00'", "'2023-05-06 07:08:09.000 +02:00'"],
         "time-zone-in-timestamp", "utc", None,
         ["2023-05-06 07:08:09.123", "2023-05-06 05:08:09"]),
        ("TIMESTAMP", ["'2023-05-06 07:08:09.5 +0000 UTC'",
                       "'2023-05-06 07:08:09.1234567 +0200 CEST m=+0.01'",
                       "'2023-05-06 07:08:09 CEST'", "'2023-05-06 07:08 UTC'",
                       "'2023-05-06T07:08:09+02:00[Europe/Berlin]'",
                       "'2023-01-06 07:08:09 America/New_York'"],
         "time-zone-in-timestamp", "utc", None,
         ["2023-05-06 07:08:09.5", "2023-05-06 05:08:09.123456", "2023-05-06 05:08:09",
          "2023-05-06 07:08:00", "2023-05-06 05:08:09", "2023-01-06 12:08:09"]),
        ("TIMESTAMP", ["'2023-05-06 07:08:09.25 CST'", "'2023-05-06 07:08:09-0330'"],
         "time-zone-in-timestamp", "drop-zone", None,
         ["2023-05-06 07:08:09.25", "2023-05-06 07:08:09"]),
        ("DATE", ["'2023-05-06T00:00:00Z'", "'2023-05-06 00:30:00+02:00'"],
         "time-zone-in-timestamp", "utc", None, ["2023-05-06", "2023-05-05"]),
        ("TIME", ["'10:00:00.5+02:00'"], "time-zone-in-timestamp", "drop-zone", None,
         ["10:00:00.5"]),
        ("TIMESTAMP", ["'2023-05-06 07:08:09.1234567'", "'2023-05-06T07:08:09.123456000'"],
         "fine-fraction-in-timestamp", "microseconds", None,
         ["2023-05-06 07:08:09.123456", "2023-05-06 07:08:09.123456"]),
        ("TIME", ["'07:08:09.123456789'"], "fine-fraction-in-timestamp", "microseconds", None,
         ["07:08:09.123456"]),
        ("DATE", ["'2023-05-06 00:00:00'", "'2023-05-06T07:00'"], "time-in-date", "date", None,
         ["2023-05-06", "2023-05-06"]),
        ("DATE", ["'2023-05-06 07:00:00.5'", "'2023-05-06'"], "time-in-date", "timestamp", None,
         ["2023-05-06 07:00:00.5", "2023-05-06 00:00:00"]),
        ("TIMESTAMP", ["'now'"], "word-in-timestamp", "text", None, ["now"]),
        ("TIMESTAMP", ["'soon'"], "not-a-timestamp", "set", "'2024-01-01 00:00:00'",
         ["2024-01-01 00:00:00"]),
        ("TEXT", ["x'41e9'"], "blob-in-text", "decode", None, ["A\ufffd"]),
        ("BLOB", ["'text'"], "text-in-blob", "encode", None, ["\\x74657874"]),
        ("", ["1", "1.5", "'x'", "x'ff'", "NULL"], "mixed-types", "text", None,
         ["1", "1.5", "x", "ff", None]),
        ("TEXT", ["'a' || char(0) || 'b'", "'c'"], "nul-in-text", "strip", None, ["ab", "c"]),
        ("TEXT", ["CAST(x'41ff' AS TEXT)", "'c'"], "invalid-utf-8", "replace", None,
         ["A\ufffd", "c"]),
        ("INTEGER", ["x'00'", "1"], "blob", "quarantine", None, ["1"]),
    ],
)  # fmt: skip
def test_each_action_does_what_it_says(decide, declared, values, hazard, action, value, expected):
    run, found = decide(declared, values, hazard, action, value)
    assert run.code == 0, run
    assert found == expected
    (applied,) = run.report["rules"]
    assert (applied["hazard"], applied["action"]) == (hazard, action)
    assert applied["count"] > 0
    assert applied["samples"][0]["row"] == "id 1"
    assert f"{hazard} → {action}" in run.out


def test_every_hazard_of_a_value_has_actions():
    codes = {rule.code for rules in HAZARDS.values() for rule in rules}
    assert codes <= ACTIONS.keys()


def test_rows_set_aside_are_written_down_in_full(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE grandchild (id INTEGER PRIMARY KEY, c INTEGER REFERENCES child);"
        "CREATE TABLE child (id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent, x BLOB, y REAL);"
        "CREATE TABLE parent (id INTEGER PRIMARY KEY);"
        "INSERT INTO parent VALUES (1);"
        "INSERT INTO child VALUES (1, 1, x'00', 0.5), (2, 99, x'00ff', 0.1), (3, NULL, NULL, NULL);"
        "INSERT INTO grandchild VALUES (1, 1), (2, 2)"
    )
    rules = tmp_path / "rules.toml"
    rules.write_text(
        'quarantine = "aside.jsonl"\n'
        '[[rule]]\ntable = "*"\ncolumn = "?"\nhazard = "orphan"\naction = "quarantine"\n'
    )
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    lines = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert lines == [
        {"table": "child", "row": {"id": 2, "p": 99, "x": {"hex": "00ff"}, "y": 0.1}},
        # Its parent has been set aside, so it has none any more.
        {"table": "grandchild", "row": {"id": 2, "c": 2}},
    ]
    assert run.report["quarantine"]["rows"] == {"child": 1, "grandchild": 1}
    assert "1 rows of child were set aside" in run.err
    with database.connect() as connection:
        assert connection.execute("SELECT id FROM child ORDER BY 1").fetchall() == [(1,), (3,)]
        assert connection.execute("SELECT id FROM grandchild").fetchall() == [(1,)]


def test_orphans_may_lose_their_parent(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE node (id INTEGER PRIMARY KEY, up INTEGER REFERENCES node);"
        "INSERT INTO node VALUES (1, NULL), (2, 1), (3, 77)"
    )
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\ntable = "node"\ncolumn = "up"\nhazard = "orphan"\naction = "null"\n'
    )
    assert ferry("copy", path, database.dsn, "--rules", rules).code == 0
    with database.connect() as connection:
        assert connection.execute("SELECT up FROM node ORDER BY id").fetchall() == [
            (None,), (1,), (None,)]  # fmt: skip


def test_what_no_rule_speaks_of_is_still_refused(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (a INTEGER, b INTEGER); INSERT INTO t VALUES ('', ''), ('x', 1)"
    )
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\ntable = "t"\ncolumn = "a"\nhazard = "empty-text"\naction = "null"\n'
    )
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 3
    assert {(h["column"], h["code"]) for h in run.report["hazards"]} == {
        ("a", "text-in-number"), ("b", "empty-text")}  # fmt: skip


def test_a_rule_without_work_is_said(ferry, bot_database, database, tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\ntable = "*"\ncolumn = "*"\nhazard = "blob"\naction = "null"\n')
    run = ferry("copy", bot_database, database.dsn, "--rules", rules)
    assert run.code == 0
    assert any("found nothing to do" in m["text"] for m in run.report["messages"])


def test_inspect_writes_a_draft_that_becomes_rules(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE p (id INTEGER PRIMARY KEY);"
        "CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p, n INTEGER, ok BOOLEAN, "
        "at TIMESTAMP, txt TEXT, nn INTEGER);"
        "INSERT INTO c VALUES (1, 1, '', 2, 1700000000, 'a', 1),"
        "(2, 99, 1.5, 'maybe', '2024-01-01T00:00:00Z', CAST(x'41ff' AS TEXT), 2),"
        "(3, NULL, 'many', 1, 'now', 'x' || char(0) || char(10) || 'y', 3)"
    )
    draft = tmp_path / "draft.toml"
    run = ferry("inspect", path, "--rules", draft)
    assert run.code == 3
    text = draft.read_text()
    assert tomllib.loads(text) == {}, "everything is commented out"
    assert ferry("copy", path, database.dsn, "--rules", draft).code == 3
    chosen = [
        line.removeprefix("# ")
        for line in text.splitlines()
        if line.startswith(("# [[rule]]", "# table", "# column", "# hazard", "# action"))
    ]
    draft.write_text("\n".join(chosen))
    run = ferry("inspect", path, "--rules", draft)
    assert run.code == 0, run
    run = ferry("copy", path, database.dsn, "--rules", draft)
    assert run.code == 0, run
    assert ferry("verify", path, database.dsn, "--rules", draft).code == 0
    assert ferry("copy", path, database.dsn, "--rules", draft).report["outcome"] == "nothing to do"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rule]", "no TOML"),
        ("[[rule]]\ntable = 't'", "action is missing"),
        (
            "[[rule]]\ntable='t'\ncolumn='c'\nhazard='nonsense'\naction='null'",
            "no hazard 'nonsense'",
        ),
        ("[[rule]]\ntable='t'\ncolumn='c'\nhazard='blob'\naction='utc'", "no action 'utc'"),
        ("[[rule]]\ntable='t'\ncolumn='c'\nhazard='blob'\naction='set'", "has a value"),
        ("[[rule]]\ntable='t'\ncolum='c'\nhazard='blob'\naction='null'", "colum is unknown"),
        ("rules = 1", "unknown: rules"),
    ],
)
def test_a_rules_file_with_a_mistake_is_a_usage_error(ferry, bot_database, tmp_path, text, message):
    rules = tmp_path / "rules.toml"
    rules.write_text(text)
    run = ferry("inspect", bot_database, "--rules", rules)
    assert run.code == 2, run
    assert message in run.err


def test_the_source_stays_free_of_views(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES ('')")
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\ntable = "t"\ncolumn = "a"\nhazard = "empty-text"\naction = "null"\n'
    )
    assert ferry("copy", path, database.dsn, "--rules", rules).code == 0
    names = sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall()
    assert names == [("t",)]


def test_tables_that_point_at_each_other_and_both_have_orphans(
    ferry, make_sqlite, database, tmp_path
):
    path = make_sqlite(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b);"
        "CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a);"
        "INSERT INTO a VALUES (1, 1), (2, 77); INSERT INTO b VALUES (1, 1), (2, 88), (3, NULL)"
    )
    rules = tmp_path / "rules.toml"
    rules.write_text(one_rule("*", "?", "orphan", "quarantine"))
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    assert run.report["quarantine"]["rows"] == {"a": 1, "b": 1}


@pytest.mark.parametrize("line", ["table = 5", "column = ['a']", "hazard = 1"])
def test_a_rule_of_the_wrong_type_is_a_usage_error(ferry, bot_database, tmp_path, line):
    rules = tmp_path / "rules.toml"
    rules.write_text(f"[[rule]]\n{line}\naction = 'null'\n")
    run = ferry("inspect", bot_database, "--rules", rules)
    assert run.code == 2, run
    assert "has to be a text" in run.err


def test_of_keys_that_become_equal_the_first_row_stays(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, ts TIMESTAMP UNIQUE);"
        "INSERT INTO t VALUES (1, '2024-01-01 00:00:00'), (2, '2024-01-01T00:00:00'), (3, NULL);"
        "CREATE TABLE w (ok BOOLEAN, v INTEGER, PRIMARY KEY (ok, v)) WITHOUT ROWID;"
        "INSERT INTO w VALUES (1, 1), ('yes', 1), (1, 2)"
    )
    rules = tmp_path / "draft.toml"
    assert ferry("inspect", path, "--rules", rules).code == 3
    wanted = ("# [[rule", "# table", "# column", "# hazard", "# action")
    lines = rules.read_text().splitlines()
    rules.write_text("\n".join(line[2:] for line in lines if line.startswith(wanted)))
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    assert run.report["quarantine"]["rows"] == {"t": 1, "w": 1}
    with database.connect() as connection:
        assert connection.execute("SELECT id FROM t ORDER BY 1").fetchall() == [(1,), (3,)]
        assert connection.execute("SELECT * FROM w ORDER BY 2").fetchall() == [(True, 1), (True, 2)]
    for base in ([], ["--base", path]):
        run = ferry("sync", path, database.dsn, "--rules", rules, *base)
        assert (run.code, run.report["outcome"]) == (0, "nothing to do"), run


def test_keys_that_a_rule_makes_equal_are_found(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (n INTEGER PRIMARY KEY ON CONFLICT FAIL, k NUMERIC, u INTEGER UNIQUE);"
        "INSERT INTO t VALUES (1, 0, 1), (2, 0, 1.5), (3, 0, 2)"
    )
    rules = tmp_path / "rules.toml"
    rules.write_text(one_rule("t", "u", "fraction-in-integer", "round"))
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 3, run
    (hazard,) = run.report["hazards"]
    assert (hazard["code"], hazard["column"], hazard["count"]) == ("equal-keys", "u", 1)


def test_what_a_rule_cuts_off_is_counted(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v DATETIME, d DATE);"
        "INSERT INTO t VALUES (1, '2023-05-06 07:08:09.1234567', '2023-05-06 00:00:00.000'), "
        "(2, '2023-05-06 07:08:09.123456000', '2023-05-06 07:00:00')"
    )
    rules = tmp_path / "rules.toml"
    rules.write_text(
        one_rule("t", "v", "fine-fraction-in-timestamp", "microseconds")
        + one_rule("t", "d", "time-in-date", "date")
    )
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    assert [(entry["count"], entry["cut"]) for entry in run.report["rules"]] == [(2, 1), (2, 1)]
    assert "2 values, 1 of them lose digits or a time of day" in run.out


def test_a_rule_that_does_not_help_says_so(ferry, make_sqlite, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v DATETIME);"
        # India, Israel, Ireland; and an afternoon is no zone.
        "INSERT INTO t VALUES (1, '2023-05-06 07:08:09 IST'), (2, '2023-05-06 07:08:09 PM')"
    )
    rules = tmp_path / "rules.toml"
    for action, rows in (("utc", 2), ("drop-zone", 1)):
        rules.write_text(one_rule("t", "v", "time-zone-in-timestamp", action))
        run = ferry("inspect", path, "--rules", rules)
        assert run.code == 3
        assert f"rule 1 ({action}) does not help with these" in run.err
        assert [item["count"] for item in run.report["hazards"]] == [rows]


def test_what_points_to_a_key_takes_its_type(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE p (code INTEGER PRIMARY KEY DESC, up INTEGER REFERENCES p (code));"
        "CREATE TABLE c (id INTEGER PRIMARY KEY, code INTEGER REFERENCES p (code));"
        "CREATE TABLE cc (code INTEGER UNIQUE REFERENCES c (code));"
        "CREATE TABLE q (a INTEGER, b INTEGER, FOREIGN KEY (a) REFERENCES p);"
        "INSERT INTO p VALUES (1, NULL), ('X1', 1);"
        "INSERT INTO c VALUES (1, 1); INSERT INTO q VALUES ('X1', 5)"
    )
    rules = tmp_path / "rules.toml"
    rules.write_text(one_rule("p", "code", "text-in-number", "text"))
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    assert "c.code: takes the type of p.code" in run.out
    lost = [item["reason"] for item in run.report["not_carried"]]
    assert lost == ["c has no such unique key, so SQLite cannot enforce it either"]
    with database.connect() as connection:
        assert connection.execute(
            "SELECT count(*) FROM pg_constraint WHERE contype = 'f'"
        ).fetchone() == (3,)
        assert connection.execute("SELECT up FROM p WHERE code = 'X1'").fetchone() == ("1",)
        assert connection.execute("SELECT a, b FROM q").fetchone() == ("X1", 5)
    assert ferry("verify", path, database.dsn, "--rules", rules).code == 0
    assert ferry("sync", path, database.dsn, "--base", path, "--rules", rules).code == 0
    assert ferry("reverse", database.dsn, tmp_path / "back.db").code == 0
    with sqlite3.connect(tmp_path / "back.db") as connection:
        assert connection.execute("SELECT code, typeof(code) FROM c").fetchall() == [(1, "integer")]


def test_nulls_in_a_primary_key_may_stay_as_sqlite_has_them(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE usage (auth TEXT, code INTEGER, what TEXT, PRIMARY KEY (auth, code));"
        "CREATE TABLE of (a TEXT, c INTEGER, FOREIGN KEY (a, c) REFERENCES usage);"
        "INSERT INTO usage VALUES (NULL, NULL, 'a'), (NULL, NULL, 'b'), ('E', 1, 'c');"
        "INSERT INTO of VALUES ('E', 1)"
    )
    rules = tmp_path / "rules.toml"
    assert ferry("inspect", path, "--rules", rules).code == 3
    assert 'action = "unique"' in rules.read_text()
    rules.write_text(one_rule("usage", "*", "null-in-primary-key", "unique"))
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    assert run.report["not_carried"] == []
    assert ferry("verify", path, database.dsn, "--rules", rules).code == 0
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM usage").fetchone() == (3,)
        with pytest.raises(Exception, match="unique"):
            connection.execute("INSERT INTO usage VALUES ('E', 1, 'd')")
    assert ferry("sync", path, database.dsn, "--base", path, "--rules", rules).code == 0
    assert ferry("reverse", database.dsn, tmp_path / "back.db").code == 0


def test_text_keys_do_not_make_sync_slow(ferry, make_sqlite, database, tmp_path):
    # A join that computes every key for every row of the other side takes minutes for these.
    path = make_sqlite(
        "CREATE TABLE p (code INTEGER, auth TEXT, name TEXT, PRIMARY KEY (auth, code));"
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
        "INSERT INTO p SELECT iif(i % 100, i, 'X' || i), 'A', i FROM n"
    )
    base = tmp_path / "base.db"
    base.write_bytes(path.read_bytes())
    rules = tmp_path / "rules.toml"
    rules.write_text(one_rule("p", "code", "text-in-number", "text"))
    assert ferry("copy", base, database.dsn, "--rules", rules).code == 0
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE p SET name = 'new' WHERE rowid % 1000 = 0")
        connection.execute("DELETE FROM p WHERE rowid % 1000 = 1")
    started = time.monotonic()
    run = ferry("sync", path, database.dsn, "--base", base, "--rules", rules)
    assert run.code == 0, run
    assert time.monotonic() - started < 30
    assert run.report["tables"][0]["delta"] == {"inserted": 0, "changed": 20, "deleted": 20}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("CREATE TABLE p (n TEXT COLLATE NOCASE PRIMARY KEY); CREATE TABLE c (n TEXT REFERENCES p)",
         "p (n) is unique as NOCASE says, and PostgreSQL's foreign keys compare plain text"),
        ("CREATE TABLE p (n TEXT PRIMARY KEY); CREATE TABLE c (n INTEGER REFERENCES p)",
         "c.n is integer and p.n text, which PostgreSQL does not compare"),
    ],
)  # fmt: skip
def test_why_a_foreign_key_is_not_carried_is_said(ferry, make_sqlite, database, script, reason):
    path = make_sqlite(script)
    for run in (ferry("inspect", path), ferry("copy", path, database.dsn)):
        assert run.code == 0, run
        assert reason in [item["reason"] for item in run.report["not_carried"]]
