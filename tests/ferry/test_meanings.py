"""Views, CHECKs, indexes, defaults and generated columns: the same meaning, or named."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter

import pytest

PLAYERS = (
    "CREATE TABLE p (id INTEGER PRIMARY KEY, nick TEXT COLLATE NOCASE, name TEXT, kills INTEGER, "
    "deaths INTEGER, big BIGINT, won BOOLEAN, d DATETIME, r REAL, n DECIMAL(8,2));"
    "INSERT INTO p VALUES (1, 'Abc', 'Zoë', 7, 2, 5000000000, 1, '2024-01-01 00:00:00', 1.5, 2.5),"
    "(2, 'abc', 'anna', 3, 0, 6000000000, 0, '2024-01-31T12:00:00', 2.25, 3),"
    "(3, 'x', 'Élan', NULL, 4, NULL, NULL, NULL, NULL, NULL);"
)


def not_carried(run, what):
    return {i["name"]: i["reason"] for i in run.report["not_carried"] if i["what"] == what}


def copied(ferry, path, database):
    run = ferry("copy", path, database.dsn)
    assert run.code == 0, run
    return run


CARRIED = [
    "SELECT nick FROM p WHERE nick = 'ABC'",
    "SELECT nick FROM p WHERE nick IN ('ABC', 'q')",
    "SELECT a.id AS i, b.id AS j FROM p a JOIN p b ON a.nick = b.nick",
    "SELECT count(*) AS c, won FROM p GROUP BY won",
    "SELECT name FROM p WHERE name < 'a'",
    "SELECT max(name) AS m, min(name) AS o FROM p",
    "SELECT kills / deaths AS q, kills % deaths AS m FROM p",
    "SELECT sum(kills) / count(*) AS q FROM p",
    "SELECT avg(kills) AS a, sum(won) AS w, sum(big) / 2 AS b FROM p",
    "SELECT CAST(r AS INTEGER) AS c FROM p",
    "SELECT kills || ':' || name AS k, name || NULL AS o FROM p",
    "SELECT name FROM p WHERE name LIKE 'z%'",
    "SELECT won + 1 AS w FROM p",
    "SELECT name FROM p WHERE won > 0",
    "SELECT kills * 2000000000 AS k FROM p",
    "SELECT name FROM p WHERE d >= '2024-01-01' AND d < '2024-02-01'",
    "SELECT name FROM p WHERE d = '2024-01-01 00:00:00'",
    "SELECT kills IS deaths AS x FROM p",
    "SELECT name FROM p ORDER BY kills DESC LIMIT 1",
    "SELECT name FROM p WHERE kills IS NULL OR kills > 3 ORDER BY kills LIMIT 2",
    "SELECT name AS n FROM p ORDER BY n LIMIT 1",
    "SELECT name FROM p ORDER BY 1 LIMIT 2",
    "SELECT d FROM p ORDER BY d",
]


def test_views_that_are_carried_answer_as_in_sqlite(ferry, make_sqlite, database):
    views = "".join(f"CREATE VIEW v{n} AS {query};" for n, query in enumerate(CARRIED))
    path = make_sqlite(PLAYERS + views)
    run = copied(ferry, path, database)
    assert not_carried(run, "view") == {}
    with sqlite3.connect(path) as here, database.connect() as there:
        for number in range(len(CARRIED)):
            query = f"SELECT * FROM v{number}"
            mine, theirs = (side.execute(query).fetchall() for side in (here, there))
            assert len(theirs) == len(mine)
            if not any("2024" in str(value) for row in mine for value in row):
                assert Counter(theirs) == Counter(mine), CARRIED[number]


OTHERWISE = [
    ("SELECT count(DISTINCT nick) AS n FROM p", "its own collation"),
    ("SELECT DISTINCT nick FROM p", "its own collation"),
    ("SELECT DISTINCT x.n FROM (SELECT nick AS n FROM p) x", "its own collation"),
    ("SELECT DISTINCT * FROM p", "its own collation"),
    ("SELECT nick FROM p GROUP BY 1", "its own collation"),
    ("SELECT nick AS n FROM p ORDER BY n", "its own collation"),
    ("SELECT nick FROM p UNION SELECT name FROM p", "its own collation"),
    ("SELECT nick IN (SELECT name FROM p) AS x FROM p", "its own collation"),
    ("SELECT CASE nick WHEN 'ABC' THEN 1 ELSE 0 END AS c FROM p", "its own collation"),
    ("SELECT a.id FROM p a JOIN p b USING (nick)", "collations"),
    ("SELECT n / 2 AS h FROM p", "may divide integers"),
    ("SELECT r || '' AS k FROM p", "in another way"),
    ("SELECT won || '' AS k FROM p", "in another way"),
    ("SELECT name FROM p WHERE d > '2024-01-01'", "letter by letter"),
    ("SELECT name FROM p WHERE d BETWEEN '2024-01-01' AND '2024-01-31'", "letter by letter"),
    ("SELECT coalesce(kills, 'n/a') AS k FROM p", "gives integer or text"),
    ("SELECT CASE kills WHEN 0 THEN 'none' ELSE kills END AS k FROM p", "gives integer or"),
    ("SELECT id FROM p WHERE d <> ''", "letter by letter"),
    ("SELECT id FROM p WHERE kills = 'many'", "'many' is none"),
]


def test_views_that_mean_something_else_are_named_and_stop_nothing(ferry, make_sqlite, database):
    views = "".join(f"CREATE VIEW v{n} AS {query};" for n, (query, _) in enumerate(OTHERWISE))
    path = make_sqlite(PLAYERS + views)
    run = copied(ferry, path, database)
    lost = not_carried(run, "view")
    assert not_carried(ferry("inspect", path), "view").keys() == lost.keys()  # without a server
    for number, (query, reason) in enumerate(OTHERWISE):
        assert reason in lost.get(f"v{number}", ""), query
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM pg_views WHERE schemaname = 'public'"
                                  ).fetchone() == (0,)  # fmt: skip


def test_views_are_compared_on_the_real_rows(ferry, make_sqlite, database):
    path = make_sqlite(
        "CREATE TABLE t (a TEXT, n INTEGER); INSERT INTO t VALUES ('10', 1), ('9', 2);"
        "CREATE VIEW v AS SELECT n FROM t WHERE a > 5;"
        "CREATE VIEW plain AS SELECT n FROM t;"
        "CREATE VIEW late AS SELECT n FROM t LIMIT -1;"
        "CREATE VIEW upon AS SELECT n FROM late"
    )
    run = copied(ferry, path, database)
    lost = not_carried(run, "view")
    assert "LIMIT must not be negative" in lost["late"]
    assert lost["upon"] == "it reads the view late"
    assert "plain" not in lost


def test_inspect_lists_what_copy_will_name(ferry, make_sqlite, database):
    path = make_sqlite(
        "CREATE TABLE p (id INTEGER PRIMARY KEY, kills INTEGER, s TEXT, "
        "g INTEGER AS (CAST(length(s) AS INTEGER)), h TEXT AS (printf('%d', kills)));"
        "INSERT INTO p (kills, s) VALUES (3, 'a');"
        "CREATE VIEW v AS SELECT kills AS k FROM p WHERE s > 5;"
        "CREATE INDEX i ON p (kills) WHERE s > 5"
    )
    looked = ferry("inspect", path, database.dsn)
    assert looked.code == 0, looked
    run = copied(ferry, path, database)
    names = {(item["what"], item["name"]) for item in run.report["not_carried"]}
    assert {(item["what"], item["name"]) for item in looked.report["not_carried"]} == names
    assert names == {("view", "v"), ("index", "i"), ("generated column", "p.h")}


def test_one_generated_column_does_not_take_the_others_with_it(ferry, make_sqlite, database):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, s TEXT, "
        "total INTEGER AS (a + b), twice INTEGER AS (total * 2) STORED, part INTEGER AS (a / b), "
        "line TEXT AS (a || ':' || s), big INTEGER AS (a * b), odd TEXT AS (printf('%d', a)), "
        "of_json TEXT AS (json_extract(s, '$.x')));"
        "INSERT INTO t (a, b, s) VALUES (7, 2, '{\"x\":1}'), (7, 0, '{\"x\":true}'), "
        "(2000000000, 2000000000, NULL)"
    )
    run = copied(ferry, path, database)
    assert set(not_carried(run, "generated column")) == {"t.odd"}
    with database.connect() as connection:
        connection.execute("""INSERT INTO t (a, b, s) VALUES (9, 4, '{"x": "y"}')""")
        assert connection.execute(
            "SELECT total, twice, part, line, big, odd, of_json FROM t ORDER BY id DESC LIMIT 1"
        ).fetchone() == (13, 26, 2, '9:{"x": "y"}', 36, None, "y")


def test_a_generated_column_that_computes_otherwise_arrives_with_its_values(
    ferry, make_sqlite, database
):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, n INTEGER AS (json_extract(s, '$.n')), "
        "o TEXT AS (json_extract(s, '$.o')), k INTEGER AS (id + 1));"
        'INSERT INTO t (s) VALUES (\'{"n": 1, "o": {"a":1}}\'), (\'{"n": 2.0}\')'
    )
    run = copied(ferry, path, database)
    lost = not_carried(run, "generated column")
    assert set(lost) == {"t.n", "t.o"}
    with database.connect() as connection:
        assert connection.execute("SELECT n, o, k FROM t ORDER BY id").fetchall() == [
            (1, '{"a":1}', 2),
            (2, None, 3),
        ]


def test_checks_keep_their_meaning(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER CHECK (a / 0 IS NULL), "
        "b TEXT CHECK (b < 'a'), CONSTRAINT c CHECK (a > 0), CONSTRAINT c CHECK (a < 100), "
        "CONSTRAINT t_pkey CHECK (a <> 5));"
        "PRAGMA ignore_check_constraints = ON; INSERT INTO t VALUES (1, -1, 'Z'), (2, 7, 'X')"
    )
    looked = ferry("inspect", path)
    run = copied(ferry, path, database)
    for report in (looked, run):
        assert not_carried(report, "check of rows that are there") == {
            "t": "1 rows break it in SQLite as well: it holds for what is written from now on"
        }
        assert not_carried(report, "check") == {}
        assert set(not_carried(report, "name of a check")) == {"t.c", "t.t_pkey"}
    with database.connect() as connection:
        for row in ("(3, 0, 'A')", "(3, 100, 'A')", "(3, 5, 'A')", "(3, 1, 'b')"):
            with pytest.raises(Exception, match="violates check"):
                connection.execute(f"INSERT INTO t VALUES {row}")
        connection.execute("INSERT INTO t VALUES (3, 1, 'A')")
    back = tmp_path / "back.db"
    assert ferry("reverse", database.dsn, back).code == 0
    with sqlite3.connect(back) as connection:
        rows = connection.execute("SELECT * FROM t").fetchall()
        assert rows == [(1, -1, "Z"), (2, 7, "X"), (3, 1, "A")]
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute("INSERT INTO t VALUES (4, 0, 'A')")


DEFAULTS = {
    "a INTEGER DEFAULT (strftime('%s', 'now'))": "abs(a - extract(epoch FROM now())) < 60",
    "a INTEGER DEFAULT (unixepoch())": "abs(a - extract(epoch FROM now())) < 60",
    "a INTEGER DEFAULT (strftime('%s', 'now') * 1000)": "a > 1e12",
    "a INTEGER DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))":
        "abs(a - extract(epoch FROM now()) * 1000) < 60000",
    "a TEXT DEFAULT (lower(hex(randomblob(16))))": "a ~ '^[0-9a-f]{32}$'",
    "a TEXT DEFAULT (hex(randomblob(40)))": "a ~ '^[0-9A-F]{80}$'",
    "a BLOB DEFAULT (randomblob(20))": "length(a) = 20",
    "a TEXT DEFAULT (json_array())": "a = '[]'",
    "a JSON DEFAULT (json_object())": "a = '{}'",
    "a TEXT DEFAULT (json('[1, 2]'))": "a = '[1,2]'",
    "a REAL DEFAULT (julianday('now'))": "a > 2460000",
    "a DATETIME DEFAULT (strftime('%Y-%m-%d %H:%M:%f', 'now'))":
        "abs(extract(epoch FROM a - now() AT TIME ZONE 'utc')) < 60",
    "a TEXT DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))":
        r"a ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$'",
    "a DATE DEFAULT (date('now', '+7 days'))":
        "a = (now() AT TIME ZONE 'utc' + interval '7 days')::date",
    "a TEXT DEFAULT (date('now', 'start of month'))": "a ~ '-01$'",
    "a TIME DEFAULT (time('now'))": "a IS NOT NULL",
    "a TEXT DEFAULT (lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || "
    "substr(hex(randomblob(2)), 2) || '-' || substr('89ab', abs(random()) % 4 + 1, 1) || "
    "substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))))":
        "a::uuid IS NOT NULL AND a ~ '-4...-[89ab]...-'",
    "a INTEGER DEFAULT 231165917604741121": "a = 231165917604741121",
    "a INTEGER DEFAULT '3000000000'": "a = 3000000000",
    "a INTEGER DEFAULT (1 << 40)": "a = 1099511627776",
}  # fmt: skip


def columns_of(definitions):
    """Give each column a name of its own."""
    return ", ".join(f"a{n}{text.removeprefix('a')}" for n, text in enumerate(definitions))


def test_defaults_that_can_be_said_are_said(ferry, make_sqlite, database):
    path = make_sqlite(f"CREATE TABLE t (id INTEGER PRIMARY KEY, {columns_of(DEFAULTS)})")
    run = copied(ferry, path, database)
    assert not_carried(run, "default") == {}
    with database.connect() as connection:
        connection.execute("INSERT INTO t DEFAULT VALUES")
        for number, (definition, condition) in enumerate(DEFAULTS.items()):
            own = re.sub(r"\ba\b", f"a{number}", condition)
            assert connection.execute(f"SELECT {own} FROM t").fetchone() == (True,), definition


UNSAID = [
    "a DATETIME DEFAULT '0000-00-00 00:00:00'",
    "a DATE DEFAULT '2024-02-30'",
    "a TIME DEFAULT '25:00'",
    "a DATETIME DEFAULT '2024-01-01 00:00:00+02:00'",
    "a INTEGER DEFAULT 99999999999999999999",
    "a TEXT DEFAULT (datetime('now', 'localtime'))",
    "a TEXT DEFAULT (datetime('now', '+1 month'))",
    "a TEXT DEFAULT (strftime('%W', 'now'))",
    "a INTEGER DEFAULT (julianday('now'))",
    "a TEXT DEFAULT (printf('%d', 3))",
]


def test_defaults_that_cannot_be_said_are_named_at_once(ferry, make_sqlite, database):
    path = make_sqlite(f"CREATE TABLE t (id INTEGER PRIMARY KEY, {columns_of(UNSAID)})")
    names = {f"t.a{number}" for number in range(len(UNSAID))}
    assert set(not_carried(ferry("inspect", path), "default")) == names
    assert set(not_carried(copied(ferry, path, database), "default")) == names


def test_local_time_is_that_of_the_zone_in_the_rules(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a DATETIME DEFAULT (datetime('now', 'localtime')))"
    )
    rules = tmp_path / "rules.toml"
    rules.write_text('timezone = "Asia/Tokyo"\n')
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    with database.connect() as connection:
        connection.execute("INSERT INTO t DEFAULT VALUES")
        assert connection.execute(
            "SELECT abs(extract(epoch FROM a - now() AT TIME ZONE 'Asia/Tokyo')) < 60 FROM t"
        ).fetchone() == (True,)
    rules.write_text('timezone = "Asia/Nowhere"\n')
    assert ferry("inspect", path, "--rules", rules).code == 2


def test_a_key_follows_the_default_of_what_it_points_to(ferry, make_sqlite, database):
    path = make_sqlite(
        "CREATE TABLE g (n INTEGER DEFAULT 231165917604741121 UNIQUE);"
        "CREATE TABLE c (id INTEGER PRIMARY KEY, n INTEGER REFERENCES g (n))"
    )
    copied(ferry, path, database)
    with database.connect() as connection:
        connection.execute("INSERT INTO g DEFAULT VALUES")
        connection.execute("INSERT INTO c SELECT 1, n FROM g")


def test_json_in_an_index_becomes_that_of_jsonb(ferry, make_sqlite, database):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, j TEXT);"
        "CREATE INDEX i ON t (json_extract(j, '$.user.name'));"
        "CREATE INDEX k ON t (j ->> '$.tags[0]');"
        'INSERT INTO t VALUES (1, \'{"user": {"name": "x"}}\')'
    )
    run = copied(ferry, path, database)
    assert not_carried(run, "index") == {}
    with database.connect() as connection:
        found = connection.execute("SELECT pg_get_indexdef('i'::regclass)").fetchone()[0]
    assert "((j)::jsonb #>> '{user,name}'::text[])" in found


def test_an_index_of_long_values_is_one_by_their_hashes(ferry, make_sqlite, database):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT); CREATE INDEX i ON t (s);"
        "INSERT INTO t VALUES (1, hex(randomblob(9000)))"
    )
    copied(ferry, path, database)
    assert ferry("verify", path, database.dsn).code == 0
