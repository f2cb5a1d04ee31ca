"""What a SQLite file holds beside rows comes back with `reverse`, or is named."""

import json
import sqlite3

import apsw
import pytest

from ferry import snapshot

SETTINGS = ("user_version", "application_id", "encoding", "auto_vacuum", "page_size")


def settings_of(path):
    connection = sqlite3.connect(path)
    return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in SETTINGS}


def declared_in(path):
    """Everything in sqlite_master that somebody has declared, and no storage of virtual tables."""
    connection = apsw.Connection(str(path))
    return sorted(
        connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT IN "
            "(SELECT name FROM pragma_table_list WHERE type = 'shadow')"
        ).fetchall()
    )


def rows_of(path, table, columns="*"):
    return (
        apsw.Connection(str(path)).execute(f"SELECT {columns} FROM {table} ORDER BY 1").fetchall()
    )


@pytest.fixture
def there_and_back(ferry, make_sqlite, database, tmp_path):
    """Copy a file made by a script, change PostgreSQL, and reverse; returns both paths and runs."""

    def run(script, *rows, sql="", rules=None):
        path = make_sqlite(script, *rows) if isinstance(script, str) else script
        options = []
        if rules is not None:
            (tmp_path / "rules.toml").write_text(rules)
            options = ["--rules", tmp_path / "rules.toml"]
        copied = ferry("copy", path, database.dsn, *options)
        assert copied.code == 0, copied
        if sql:
            with database.connect() as connection:
                connection.execute(sql)
        back = tmp_path / "back.db"
        reversed_ = ferry("reverse", database.dsn, back)
        assert reversed_.code == 0, reversed_
        assert snapshot.integrity_problems(apsw.Connection(str(back))) == []
        return path, back, copied, reversed_

    return run


def made(tmp_path, *statements):
    """Make a file with the newest SQLite."""
    path = tmp_path / "made.db"
    with apsw.Connection(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return path


def not_carried(run, what):
    return {
        item["name"]: item["reason"] for item in run.report["not_carried"] if what in item["what"]
    }


@pytest.mark.parametrize("auto_vacuum", [1, 2])
def test_settings_come_back(there_and_back, auto_vacuum):
    path, back, _, run = there_and_back(
        f"PRAGMA page_size = 1024; PRAGMA auto_vacuum = {auto_vacuum};"
        "PRAGMA encoding = 'UTF-16be';"
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, 'ä');"
        "PRAGMA user_version = 12; PRAGMA application_id = -1196437808"
    )
    assert settings_of(back) == settings_of(path)
    assert run.report["not_carried"] == []


def test_settings_follow_the_report_and_a_sync(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY); PRAGMA user_version = 1")
    cutover = tmp_path / "cutover.json"
    assert ferry("copy", path, database.dsn, "--report", cutover).code == 0
    final = tmp_path / "final.db"
    final.write_bytes(path.read_bytes())
    connection = sqlite3.connect(final)
    connection.executescript(
        "PRAGMA user_version = 2; INSERT INTO t VALUES (1); CREATE VIEW v AS SELECT 1"
    )
    assert ferry("sync", final, database.dsn, "--base", path).code == 0
    back, older = tmp_path / "back.db", tmp_path / "older.db"
    assert ferry("reverse", database.dsn, back).code == 0
    assert settings_of(back)["user_version"] == 2
    assert declared_in(back) == declared_in(final)
    with database.connect() as connection:
        connection.execute("COMMENT ON TABLE t IS NULL")
    assert ferry("reverse", database.dsn, older, "--baseline", cutover).code == 0
    assert settings_of(older)["user_version"] == 1


def test_what_is_not_known_is_said_and_read_from_the_moved_file(
    ferry, make_sqlite, database, tmp_path
):
    path = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY); PRAGMA user_version = 5")
    assert ferry("copy", path, database.dsn).code == 0
    with database.connect() as connection:
        connection.execute("COMMENT ON TABLE t IS NULL")
    run = ferry("reverse", database.dsn, tmp_path / "bare.db")
    assert run.code == 0, run
    assert "user_version" in run.err
    run = ferry("reverse", database.dsn, tmp_path / "back.db", "--base", path)
    assert run.code == 0, run
    assert settings_of(tmp_path / "back.db") == settings_of(path)


@pytest.mark.parametrize("samples", [True, False])
def test_statistics_come_back(there_and_back, make_sqlite, samples):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); CREATE INDEX i ON t (a);"
        "INSERT INTO t (a) VALUES ('x'), ('x'), ('y')"
    )
    connection = apsw.Connection(str(path))
    connection.execute("ANALYZE; UPDATE sqlite_stat1 SET stat = '4711 3' WHERE idx = 'i'")
    if not samples:
        connection.execute("DROP TABLE sqlite_stat4")
    connection.close()
    path, back, *_ = there_and_back(path)
    assert declared_in(back) == declared_in(path)
    assert rows_of(back, "sqlite_stat1") == rows_of(path, "sqlite_stat1")
    if samples:
        assert rows_of(back, "sqlite_stat4") == rows_of(path, "sqlite_stat4")


def test_the_journal_mode_comes_back(there_and_back):
    _, back, *_ = there_and_back(
        "PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)"
    )
    assert sqlite3.connect(back).execute("PRAGMA journal_mode").fetchone() == ("wal",)


POSTS = (
    "CREATE TABLE posts (id INTEGER PRIMARY KEY, body TEXT);"
    "CREATE VIRTUAL TABLE posts_fts USING {};"
    "CREATE TRIGGER ai AFTER INSERT ON posts BEGIN"
    " INSERT INTO posts_fts(rowid, body) VALUES (new.id, new.body); END;"
    "CREATE TRIGGER ad BEFORE DELETE ON posts BEGIN {}; END;"
    "INSERT INTO posts (body) VALUES ('hello'), ('world'), ('three words here')"
)
COMMAND = "INSERT INTO posts_fts(posts_fts, rowid, body) VALUES ('delete', old.id, old.body)"
DELETE = "DELETE FROM posts_fts WHERE rowid = old.id"
INDEXES = {
    "fts5 of a table": ("fts5(body, content='posts', content_rowid='id')", COMMAND),
    "fts5 with settings": (
        "fts5(body, content = \"posts\", content_rowid=id, prefix='2 3')",
        COMMAND,
    ),
    "fts4 of a table": (
        'fts4(content="posts", body)',
        "DELETE FROM posts_fts WHERE docid = old.id",
    ),
    "fts5 without contents": ("fts5(body, content='')", COMMAND),
    "fts5 without contents, deleting": ("fts5(body, content='', contentless_delete=1)", DELETE),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_an_index_of_texts_is_built_again(there_and_back, tmp_path, kind):
    path, back, copied, run = there_and_back(
        made(tmp_path, POSTS.format(*INDEXES[kind])),
        sql="INSERT INTO posts (body) VALUES ('since then');DELETE FROM posts WHERE body = 'world'",
    )
    assert "posts_fts" in not_carried(copied, "virtual table")
    assert run.report["not_carried"] == []
    assert declared_in(back) == declared_in(path)
    program = apsw.Connection(str(back))
    program.execute("INSERT INTO posts (body) VALUES ('new words')")
    program.execute("DELETE FROM posts WHERE body = 'hello'")

    def found(word):
        return [
            row[0]
            for row in program.execute(
                "SELECT rowid FROM posts_fts WHERE posts_fts MATCH ? ORDER BY 1", (word,)
            )
        ]

    assert [found(word) for word in ("since", "words", "hello", "world")] == [[4], [3, 5], [], []]


def test_an_index_of_a_view_is_built_again(there_and_back):
    path, back, *_ = there_and_back(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT); CREATE TABLE b (id INTEGER, y TEXT);"
        "CREATE VIRTUAL TABLE s USING fts5(t, content='both', content_rowid='id');"
        "CREATE VIEW both AS SELECT a.id, x || ' ' || y AS t FROM a JOIN b ON a.id = b.id;"
        "INSERT INTO a VALUES (1, 'one'); INSERT INTO b VALUES (1, 'two');"
        "INSERT INTO s(s) VALUES ('rebuild'); INSERT INTO s(s, rank) VALUES ('rank', 'bm25(3.0)')"
    )
    assert declared_in(back) == declared_in(path)
    assert rows_of(back, "s('two')", "rowid") == [(1,)]
    assert rows_of(back, "s_config") == rows_of(path, "s_config")


CONTENTS = {
    "fts3": "CREATE VIRTUAL TABLE d USING fts3(a, b, tokenize=porter);"
    "INSERT INTO d(docid, a, b) VALUES",
    "fts4": 'CREATE VIRTUAL TABLE d USING fts4(a, b, languageid="lid", notindexed=b);'
    "INSERT INTO d(docid, a, b) VALUES",
    "fts5": "CREATE VIRTUAL TABLE d USING fts5(a, b UNINDEXED); INSERT INTO d(rowid, a, b) VALUES",
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_texts_that_only_the_index_has_are_data(there_and_back, ferry, database, kind):
    path, back, copied, run = there_and_back(
        CONTENTS[kind] + "(7, 'running words', 3), (-2, 'other', NULL)",
        sql="INSERT INTO d (a, b) VALUES ('since', 4); DELETE FROM d WHERE rowid = -2",
    )
    assert "d" in {table["name"] for table in copied.report["tables"]}
    assert run.report["not_carried"] == []
    assert declared_in(back) == declared_in(path)
    assert rows_of(back, "d", "rowid, a, b, typeof(b)") == [
        (7, "running words", 3, "integer"),
        (8, "since", 4, "integer"),
    ]
    assert rows_of(back, "d WHERE d MATCH 'words'", "rowid") == [(7,)]
    assert ferry("verify", back, database.dsn).code == 0


@pytest.mark.parametrize("kind", ["rtree", "rtree_i32", "geopoly"])
def test_trees_are_data(there_and_back, tmp_path, kind):
    if kind == "geopoly":
        script = "CREATE VIRTUAL TABLE r USING geopoly(label)"
        rows = [
            "INSERT INTO r(rowid, _shape, label) VALUES (5, '[[0,0],[1.5,0],[0,1.25],[0,0]]', 'x')"
        ]
    else:
        script = f"CREATE VIRTUAL TABLE r USING {kind}(id, x0, x1, y0, y1, +label TEXT)"
        rows = [f"INSERT INTO r VALUES ({n}, {n}, {n + 0.1}, -1, 3, 'l{n}')" for n in range(1, 400)]
    path, back, _, run = there_and_back(made(tmp_path, script, *rows))
    assert run.report["not_carried"] == []
    assert declared_in(back) == declared_in(path)
    assert rows_of(back, "r", "rowid, *") == rows_of(path, "r", "rowid, *")


def test_columns_of_a_tree_can_be_renamed(there_and_back, tmp_path):
    path, back, *_ = there_and_back(
        made(
            tmp_path,
            "CREATE VIRTUAL TABLE idx USING rtree(pkid, xmin, xmax, ymin, ymax);"
            "INSERT INTO idx VALUES (1, 0.1, 0.2, 0.3, 0.4), (2, -1, 1, -2, 2)",
        ),
        rules='[[rename]]\ntable = "idx"\ncolumn = "xmin"\nto = "x_min"\n'
        '[[rename]]\ntable = "idx"\ncolumn = "xmax"\nto = "x_max"\n'
        '[[rename]]\ntable = "idx"\nto = "places"\n',
        sql="INSERT INTO places VALUES (7, 1, 1, 1, 1)",
    )
    assert declared_in(back) == declared_in(path)
    assert rows_of(back, "idx") == [*rows_of(path, "idx"), (7, 1.0, 1.0, 1.0, 1.0)]


def test_changed_texts_are_synced(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE VIRTUAL TABLE d USING fts5(a); INSERT INTO d(rowid, a) VALUES (5, 'x'), (9, 'y')"
    )
    assert ferry("copy", path, database.dsn).code == 0
    final = tmp_path / "final.db"
    final.write_bytes(path.read_bytes())
    sqlite3.connect(final, isolation_level=None).executescript(
        "DELETE FROM d WHERE rowid = 5; UPDATE d SET a = 'z' WHERE rowid = 9;"
        "INSERT INTO d(rowid, a) VALUES (20, 'n')"
    )
    for base in ([], ["--base", path]):
        run = ferry("sync", final, database.dsn, *base)
        assert run.code == 0, run
        with database.connect() as connection:
            found = connection.execute("SELECT rowid, a FROM d ORDER BY 1").fetchall()
        assert found == [(9, "z"), (20, "n")]
        final, path = path, final
        run = ferry("sync", final, database.dsn, "--base", path)
        assert run.code == 0, run
        final, path = path, final


def program(path):
    """Open a file as a program does that brings its own functions and modules."""
    connection = apsw.Connection(str(path))
    connection.create_scalar_function(
        "own", lambda value: value and value.upper(), 1, deterministic=True
    )
    connection.create_collation(
        "own", lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower())
    )
    connection.create_scalar_function("regexp", lambda p, v: p in (v or ""), 2, deterministic=True)
    return connection


def test_functions_of_the_program_in_checks(there_and_back, tmp_path):
    path = tmp_path / "own.db"
    connection = program(path)
    connection.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT CHECK (a REGEXP 'x'),"
        "b INTEGER CHECK (b > 0), CONSTRAINT c CHECK (own(a) <> 'y'));"
        "INSERT INTO t VALUES (1, 'xa', 1);"
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN UPDATE t SET a = own(a); END"
    )
    connection.close()
    path, back, _, run = there_and_back(path)
    assert declared_in(back) == declared_in(path)
    assert rows_of(back, "t") == [(1, "xa", 1)]
    assert run.report["not_carried"] == []
    with pytest.raises(apsw.ConstraintError):
        program(back).execute("INSERT INTO t VALUES (2, 'y', 1)")


def test_triggers_on_storage_tables(there_and_back):
    path, back, *_ = there_and_back(
        "CREATE VIRTUAL TABLE d USING fts5(a); CREATE TABLE log (n INTEGER);"
        "CREATE TRIGGER tr AFTER INSERT ON d_content BEGIN INSERT INTO log VALUES (new.id); END;"
        "INSERT INTO d VALUES ('x')"
    )
    assert declared_in(back) == declared_in(path)
    assert rows_of(back, "log") == [(1,)]
    sqlite3.connect(back, isolation_level=None).execute("INSERT INTO d VALUES ('y')")
    assert rows_of(back, "log") == [(1,), (2,)]


def test_modules_and_tokenizers_of_the_program(there_and_back, make_sqlite):
    path = make_sqlite(
        "CREATE TABLE near_words (id INTEGER PRIMARY KEY, w TEXT);"
        "INSERT INTO near_words VALUES (1, 'a');"
        "CREATE VIRTUAL TABLE d USING fts5(a); INSERT INTO d VALUES ('some text');"
        "CREATE TABLE t (x);"
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO d VALUES (new.x); END;"
        "PRAGMA writable_schema = ON;"
        "INSERT INTO sqlite_master VALUES ('table', 'near', 'near', 0, "
        "'CREATE VIRTUAL TABLE near USING spell(x)');"
        "UPDATE sqlite_master SET sql = 'CREATE VIRTUAL TABLE d USING fts5(a, tokenize=own)' "
        "WHERE name = 'd';"
    )
    path, back, copied, run = there_and_back(path)
    assert set(not_carried(copied, "virtual table")) == {"near", "d"}
    assert set(not_carried(run, "index of a virtual table")) == {"d"}
    assert len(run.report["not_carried"]) == 1
    assert declared_in(back) == declared_in(path)
    assert rows_of(back, "d_data") == rows_of(path, "d_data")


def test_what_does_not_work_is_named(there_and_back):
    script = (
        "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1);"
        "CREATE VIEW broken AS SELECT missing FROM t;"
        "CREATE TRIGGER dead BEFORE DELETE ON t BEGIN DELETE FROM nowhere; END;"
    )
    *_, run = there_and_back(script)
    assert run.report["not_carried"] == []  # as broken as before


def test_what_broke_on_the_way_is_named(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (a INTEGER); CREATE TABLE u (b INTEGER); INSERT INTO t VALUES (1);"
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO u VALUES (1); END"
    )
    cutover = tmp_path / "cutover.json"
    assert ferry("copy", path, database.dsn, "--report", cutover).code == 0
    report = json.loads(cutover.read_text())
    report["tables"] = [table for table in report["tables"] if table["name"] != "u"]
    cutover.write_text(json.dumps(report))
    with database.connect() as connection:
        connection.execute("DROP TABLE u")
    run = ferry("reverse", database.dsn, tmp_path / "back.db", "--baseline", cutover)
    assert run.code == 0, run
    assert "no such table: main.u" in not_carried(run, "statement")["insert t"]
    assert "1 things named above did not come back" in run.out


TEXT_RULE = """
[[rule]]
table = "t"
column = "x"
hazard = "{}"
action = "text"
"""


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_doubles_beside_a_text_come_back_bit_by_bit(there_and_back, make_sqlite, encoding):
    values = [0.1 + 0.2, 1 / 3, "n/a", 1e15 / 3, 5e-324, -1.7976931348623157e308, 2.0**60, 7, None,
              float("inf"), "inf", "1/3", "0x10", b"\x00\xff"]  # fmt: skip
    path = make_sqlite(
        f"PRAGMA encoding = '{encoding}'; CREATE TABLE t (id INTEGER PRIMARY KEY, x REAL)",
        *(("INSERT INTO t (x) VALUES (?)", (value,)) for value in values),
    )
    path, back, *_ = there_and_back(
        path,
        rules=TEXT_RULE.format("text-in-number"),
        sql="INSERT INTO t VALUES (99, '007.50'), (100, '1e2'), (101, ' 12 ')",
    )
    assert rows_of(back, "t WHERE id < 90", "id, x, typeof(x)") == rows_of(
        path, "t", "id, x, typeof(x)"
    )
    assert rows_of(back, "t WHERE id > 90", "x") == [(7.5,), (12.0,), (100.0,)]


@pytest.mark.parametrize(("declared", "strict"), [("", ""), ("ANY", "STRICT")])
def test_every_class_comes_back_in_a_column_without_a_type(
    there_and_back, make_sqlite, declared, strict
):
    values = [5, "5", 5.0, "5.0", 1 / 3, repr(1 / 3), "word", b"word", b"", "", None, 2**63 - 1,
              str(2**63), -0.0, "-0", "nan", "1e5", 1e5, 1e16, "00"]  # fmt: skip
    path = make_sqlite(
        f"CREATE TABLE t (id TEXT PRIMARY KEY, x {declared}, y BLOB) {strict}",
        *(
            ("INSERT INTO t VALUES (?, ?, ?)", (f"k{number}", value, None))
            for number, value in enumerate(values)
        ),
    )
    path, back, *_ = there_and_back(path, rules=TEXT_RULE.format("mixed-types"))
    wanted = "id, typeof(x), x"
    assert list(map(repr, rows_of(back, "t", wanted))) == list(
        map(repr, rows_of(path, "t", wanted))
    )


def test_indexes_over_functions_of_the_program_are_named(there_and_back, tmp_path):
    path = tmp_path / "own.db"
    connection = program(path)
    connection.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); CREATE INDEX plain ON t (a);"
        "CREATE UNIQUE INDEX over ON t (own(a)); INSERT INTO t VALUES (1, 'x'), (2, 'y')"
    )
    connection.close()
    path, back, copied, run = there_and_back(path)
    assert "over" in not_carried(copied, "index")
    assert "no such function: own" in not_carried(run, "index")["over"]
    assert [item for item in declared_in(path) if item not in declared_in(back)] == [
        ("index", "over", "CREATE UNIQUE INDEX over ON t (own(a))")
    ]
    program(back).execute(run.report["not_carried"][0]["sql"])
    assert declared_in(back) == declared_in(path)


def test_stored_columns_of_functions_of_the_program(there_and_back, tmp_path):
    path = tmp_path / "own.db"
    connection = program(path)
    connection.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT AS (a || '!') VIRTUAL, a TEXT,"
        "b TEXT GENERATED ALWAYS AS (own(a)) STORED NOT NULL, c TEXT, d AS (length(a)) STORED,"
        "CHECK (own(c) <> '')); CREATE INDEX i ON t (b);"
        "INSERT INTO t (a, c) VALUES ('x', 'p'), ('yy', 'q')"
    )
    connection.close()
    path, back, *_ = there_and_back(path, sql="UPDATE t SET c = 'r' WHERE id = 2")
    assert declared_in(back) == declared_in(path)
    own = program(back)
    assert own.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert own.execute("SELECT * FROM t").fetchall() == [
        (1, "x!", "x", "X", "p", 1), (2, "yy!", "yy", "YY", "r", 2)
    ]  # fmt: skip


def test_collations_of_the_program(there_and_back, ferry, database, tmp_path):
    path = tmp_path / "own.db"
    connection = program(path)
    connection.execute(
        "CREATE TABLE t (a TEXT COLLATE own PRIMARY KEY, b TEXT);"
        "CREATE INDEX i ON t (b COLLATE own);"
        "CREATE TABLE w (a TEXT COLLATE own, n INTEGER, PRIMARY KEY (a, n)) WITHOUT ROWID;"
        "INSERT INTO t VALUES ('b', 'x'), ('A', 'Y'), ('C', 'z'); INSERT INTO w SELECT a, 1 FROM t"
    )
    connection.close()
    path, back, _, run = there_and_back(path, sql="INSERT INTO t VALUES ('d', 'new')")
    assert "i" in not_carried(run, "index")
    assert set(not_carried(run, "order of a key")) == {"t", "w"}
    own = program(back)
    for item in run.report["not_carried"]:
        own.execute(item["sql"])
    assert own.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert own.execute("SELECT a FROM t ORDER BY a").fetchall() == [("A",), ("b",), ("C",), ("d",)]
    assert own.execute("SELECT a FROM w WHERE a = 'B'").fetchall() == [("b",)]
    assert declared_in(back) == declared_in(path)
    # In the moved file the order is the program's: ferry must not write to it.
    run = ferry("reverse", database.dsn, tmp_path / "again.db", "--base", path)
    assert run.code == 0, run
    assert "written anew" in run.out
