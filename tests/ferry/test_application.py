"""What only the application defines: collations, functions, tokenizers. Named, never a bug."""

from __future__ import annotations

import contextlib
import sqlite3
import tomllib
from typing import TYPE_CHECKING

import pytest

from ferry import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fold(left: str, right: str) -> int:
    return (left.lower() > right.lower()) - (left.lower() < right.lower())


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Path]:
    """Make a SQLite file as a program does that has a collation and functions of its own."""

    def run(script: str) -> Path:
        path = tmp_path / "source.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.create_collation("casing", fold)
            connection.create_function("twisted", 1, lambda n: f"{n}!", deterministic=True)
            connection.create_function("regexp", 2, lambda *_: True, deterministic=True)
            connection.create_function("fresh", 0, lambda: "n")
            connection.executescript(script)
        return path

    return run


ITEMS = {
    "a collation of a column and of its unique index": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT NOT NULL COLLATE casing, o TEXT);"
        "CREATE UNIQUE INDEX tn ON t (n); INSERT INTO t VALUES (1, 'Äa', 'x'), (2, 'b', 'y')",
        {("collation", "t.n"), ("collation of an index", "tn")},
    ),
    "a collation of an index alone": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT); CREATE INDEX tn ON t (n COLLATE casing);"
        "INSERT INTO t VALUES (1, 'Äa'), (2, 'b')",
        {("collation of an index", "tn")},
    ),
    "a collation of a unique constraint over other kinds": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, d DATETIME COLLATE casing UNIQUE, "
        "b BOOLEAN COLLATE casing);"
        "INSERT INTO t VALUES (1, '2024-01-01 00:00:00', 1), (2, '2024-01-01T00:00:00.5', 'no')",
        {("collation", "t.d"), ("collation", "t.b")},
    ),
    "a collation of a primary key, without rowid": (
        "CREATE TABLE t (n TEXT COLLATE casing PRIMARY KEY, v INTEGER) WITHOUT ROWID;"
        "INSERT INTO t VALUES ('Aa', 1), ('b', 2), ('C', 3)",
        {("collation", "t.n")},
    ),
    "a foreign key to such a key": (
        "CREATE TABLE t (n TEXT COLLATE casing PRIMARY KEY);"
        "CREATE TABLE c (id INTEGER PRIMARY KEY, n TEXT REFERENCES t (n));"
        "INSERT INTO t VALUES ('Aa'); INSERT INTO c VALUES (1, 'aA')",
        {("collation", "t.n"), ("foreign key", "c")},
    ),
    "functions in CHECKs": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT CHECK (twisted(n) IS NOT NULL), "
        "m TEXT CHECK (m REGEXP '^a')); INSERT INTO t VALUES (1, 'a', 'b')",
        {("check", "t")},
    ),
    "a function in an index": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT);"
        "CREATE UNIQUE INDEX tn ON t (twisted(n)); INSERT INTO t VALUES (1, 'a')",
        {("index", "tn")},
    ),
    "a function in a partial index": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT);"
        "CREATE INDEX tn ON t (n) WHERE twisted(n) > 'a'; INSERT INTO t VALUES (1, 'a')",
        {("index", "tn")},
    ),
    "a function in a generated column, and a key and an index over it": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT, g TEXT AS (twisted(n)) UNIQUE, "
        "h INTEGER AS (id * 2)); CREATE INDEX tg ON t (g, n); INSERT INTO t (n) VALUES ('a')",
        {("generated column", "t.g"), ("unique constraint", "t (g)"), ("index", "tg")},
    ),
    "a collation in a generated column": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT, g INTEGER AS (n COLLATE casing = 'a'));"
        "INSERT INTO t (n) VALUES ('A')",
        {("generated column", "t.g")},
    ),
    "a function in a stored generated column": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT, g TEXT AS (twisted(n)) STORED);"
        "INSERT INTO t (n) VALUES ('a')",
        {("generated column", "t.g")},
    ),
    "a function in a default, a view and a trigger": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT DEFAULT (fresh()));"
        "CREATE VIEW v AS SELECT twisted(n) AS x FROM t ORDER BY n COLLATE casing;"
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET n = twisted(n); END;"
        "INSERT INTO t VALUES (1, 'a')",
        {("default", "t.n"), ("view", "v"), ("trigger", "r")},
    ),
}


@pytest.mark.parametrize(("script", "lost"), ITEMS.values(), ids=ITEMS.keys())
def test_everything_else_goes_over_and_each_such_thing_is_named(
    ferry, make, database, tmp_path, script, lost
):
    path = make(script)
    looked = ferry("inspect", path)
    run = ferry("copy", path, database.dsn)
    assert (looked.code, run.code) == (0, 0), (looked, run)
    for report in (looked.report, run.report):
        assert {(item["what"], item["name"]) for item in report["not_carried"]} == lost
    assert ferry("verify", path, database.dsn).code == 0
    taken = snapshot.take(str(path), str(tmp_path / "taken.db"))
    assert taken["integrity"] == "ok"
    assert ferry("sync", tmp_path / "taken.db", database.dsn, "--base", path).code == 0
    assert ferry("sync", path, database.dsn).code == 0
    assert ferry("reverse", database.dsn, tmp_path / "back.db").code == 0


def test_indexes_that_only_the_application_understands_are_said_not_to_be_checked(
    ferry, make, tmp_path
):
    path = make(ITEMS["a collation of an index alone"][0])
    assert "the indexes of t were not compared with it" in ferry("inspect", path).err
    (warning,) = snapshot.take(str(path), str(tmp_path / "taken.db"))["warnings"]
    assert "the indexes of t were not compared with it" in warning


def test_damage_beside_such_an_index_is_found(ferry, make, tmp_path):
    path = make(
        "CREATE TABLE u (a, b); CREATE INDEX i ON u (a); INSERT INTO u VALUES (1, 2), (3, 4);"
        "CREATE TABLE t (n TEXT); CREATE INDEX tn ON t (n COLLATE casing);"
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_master SET sql = 'CREATE INDEX i ON u (b)' WHERE name = 'i'"
    )
    assert "is damaged" in ferry("inspect", path).err
    with pytest.raises(snapshot.SnapshotError, match="is damaged"):
        snapshot.take(str(path), str(tmp_path / "taken.db"))


def test_a_tokenizer_of_the_applications_is_no_bug(ferry, make, database, tmp_path):
    path = make(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT); INSERT INTO t VALUES (1, 'a');"
        "CREATE VIRTUAL TABLE f USING fts5 (n, content='t', content_rowid='id');"
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = "
        "'CREATE VIRTUAL TABLE f USING fts5 (n, content=''t'', content_rowid=''id'', "
        "tokenize=''own'')' WHERE name = 'f'"
    )
    assert snapshot.take(str(path), str(tmp_path / "taken.db"))["integrity"] == "ok"
    assert ferry("inspect", path).code in (0, 3)
    assert ferry("copy", path, database.dsn).code in (0, 3)


def one_collation(meaning: str) -> str:
    return f'[[collation]]\nname = "casing"\nas = "{meaning}"\n'


@pytest.mark.parametrize(
    ("meaning", "found", "refused"),
    [("nocase", 0, True), ("binary", 0, False), ("und-u-ks-level2", 1, True)],
)
def test_a_rule_says_what_a_collation_becomes(
    ferry, make, database, tmp_path, meaning, found, refused
):
    path = make(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n TEXT COLLATE casing UNIQUE);"
        "CREATE INDEX tn ON t (n); INSERT INTO t VALUES (1, 'Aa'), (2, 'b')"
    )
    rules = tmp_path / "rules.toml"
    assert ferry("inspect", path, "--rules", rules).code == 0
    (draft,) = tomllib.loads(rules.read_text().replace("# [[", "[[").replace("# name", "name")
                             .replace("# as", "as"))["collation"]  # fmt: skip
    assert draft == {"name": "CASING", "as": "und-u-ks-level2"}
    rules.write_text(one_collation(meaning))
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    assert ferry("verify", path, database.dsn, "--rules", rules).code == 0
    with database.connect() as connection:
        (count,) = connection.execute("SELECT count(*) FROM t WHERE n = 'AA'").fetchone()
        assert count == found
        statement = "INSERT INTO t VALUES (3, 'AA')"
        if refused:
            with pytest.raises(Exception, match="unique"):
                connection.execute(statement)
        else:
            connection.execute(statement)


def test_a_locale_that_does_not_exist_is_refused_with_the_way_out(ferry, make, database, tmp_path):
    path = make("CREATE TABLE t (n TEXT COLLATE casing)")
    rules = tmp_path / "rules.toml"
    rules.write_text(one_collation("@colStrength=nonsense"))
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 3
    assert "use another locale in the rules file" in run.err
    rules.write_text('[[collation]]\nname = "casing"\n')
    assert ferry("inspect", path, "--rules", rules).code == 2
