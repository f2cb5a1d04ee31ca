"""What SQLite can declare arrives in PostgreSQL, or is named as not carried."""

import psycopg
import pytest


@pytest.fixture
def copied(ferry, make_sqlite, database):
    """Copy a script's database; returns the run and a function that asks PostgreSQL."""

    def copy(script):
        path = make_sqlite(script)
        run = ferry("copy", path, database.dsn)
        assert run.code == 0, run
        assert ferry("verify", path, database.dsn).code == 0

        def ask(statement):
            with database.connect() as connection:
                cursor = connection.execute(statement)
                return cursor.fetchall() if cursor.description else None

        return run, ask

    return copy


def not_carried(run):
    return [(item["what"], item["name"]) for item in run.report["not_carried"]]


def test_plain_integer_primary_keys_count_by_themselves(copied):
    _, ask = copied(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (41, 'x')"
    )
    assert ask("INSERT INTO t (a) VALUES ('y') RETURNING id") == [(42,)]
    assert ask("INSERT INTO t VALUES (7, 'own') RETURNING id") == [(7,)]


def test_a_sequence_stands_above_what_was_given_even_if_the_table_is_empty(copied):
    _, ask = copied(
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT);"
        "INSERT INTO t VALUES (1000, 'x'); DELETE FROM t"
    )
    assert ask("INSERT INTO t (a) VALUES ('y') RETURNING id") == [(1001,)]


def test_negative_and_zero_ids(copied):
    _, ask = copied("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (-5), (0)")
    assert ask("INSERT INTO t DEFAULT VALUES RETURNING id") == [(1,)]


def test_composite_keys_keep_their_order(copied):
    _, ask = copied("CREATE TABLE t (a TEXT, b INTEGER, c TEXT, PRIMARY KEY (c, a)) WITHOUT ROWID")
    (definition,) = ask("SELECT indexdef FROM pg_indexes WHERE tablename = 't'")[0]
    assert definition.endswith("(c, a)")


def test_foreign_keys_keep_actions_and_deferrability(copied):
    run, ask = copied(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b (id) DEFERRABLE "
        "INITIALLY DEFERRED, self INTEGER REFERENCES a);"
        "CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES A ON DELETE CASCADE "
        "ON UPDATE SET NULL, x INT, y INT, UNIQUE (y, x));"
        "CREATE TABLE c (p INT, q INT, FOREIGN KEY (p, q) REFERENCES b (x, y) ON DELETE RESTRICT);"
        "INSERT INTO a VALUES (1, 1, 1); INSERT INTO b VALUES (1, 1, 10, 20);"
        "INSERT INTO c VALUES (10, 20)"
    )
    assert not_carried(run) == []
    found = {
        (table, columns): (definition, deferrable, deferred)
        for table, columns, definition, deferrable, deferred in ask(
            "SELECT conrelid::regclass::text, array_to_string(conkey, ','), "
            "pg_get_constraintdef(oid), condeferrable, condeferred FROM pg_constraint "
            "WHERE contype = 'f'"
        )
    }
    assert found["a", "2"] == (
        "FOREIGN KEY (b) REFERENCES b(id) DEFERRABLE INITIALLY DEFERRED",
        True,
        True,
    )
    assert found["a", "3"][0] == "FOREIGN KEY (self) REFERENCES a(id)"
    assert found["b", "2"][0] == (
        "FOREIGN KEY (a) REFERENCES a(id) ON UPDATE SET NULL ON DELETE CASCADE"
    )
    assert found["c", "1,2"][0] == "FOREIGN KEY (p, q) REFERENCES b(x, y) ON DELETE RESTRICT"


def test_foreign_keys_that_sqlite_cannot_enforce_are_named(copied):
    run, _ = copied(
        "CREATE TABLE p (id INTEGER PRIMARY KEY, name TEXT);"
        "CREATE TABLE c (a TEXT REFERENCES p (name), b INTEGER REFERENCES gone (id))"
    )
    assert not_carried(run) == [("foreign key", "c"), ("foreign key", "c")]
    assert "not carried: foreign key c" in run.out


def test_indexes_unique_partial_descending_and_over_expressions(copied):
    run, ask = copied(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, n INTEGER, ok BOOLEAN);"
        "CREATE UNIQUE INDEX u ON t (name, n DESC);"
        "CREATE INDEX part ON t (n) WHERE ok = 1 AND name IS NOT NULL;"
        'CREATE INDEX expr ON t (lower("name"), n + 1);'
        "CREATE UNIQUE INDEX folded ON t (name COLLATE NOCASE) WHERE n > 0;"
        "INSERT INTO t VALUES (1, 'Ä', 1, 1), (2, 'ä', 2, 0), (3, 'b', 3, 1)"
    )
    assert not_carried(run) == []
    indexes = dict(ask("SELECT indexname, indexdef FROM pg_indexes"))
    assert "UNIQUE INDEX u" in indexes["u"]
    assert indexes["u"].endswith("(name, n DESC)")
    assert "WHERE" in indexes["part"]
    assert "lower(name), ((n + 1))" in indexes["expr"]
    with pytest.raises(psycopg.errors.UniqueViolation):
        ask("INSERT INTO t VALUES (4, 'B', 4, true)")
    ask("INSERT INTO t VALUES (5, 'B', 0, true)")


def test_nocase_uniqueness_is_kept_for_ascii(copied):
    _, ask = copied(
        "CREATE TABLE t (name TEXT COLLATE NOCASE UNIQUE, other TEXT COLLATE NOCASE PRIMARY KEY);"
        "INSERT INTO t VALUES ('Anna', 'x'), ('É', 'É'), ('é', 'é')"
    )
    for row in ("('ANNA', 'z')", "('q', 'X')"):
        with pytest.raises(psycopg.errors.UniqueViolation):
            ask(f"INSERT INTO t VALUES {row}")


def test_checks_are_translated_and_enforced(copied):
    run, ask = copied(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER CHECK (n BETWEEN 0 AND 9), "
        "ok BOOLEAN CHECK (ok IN (0, 1)), state TEXT CHECK (state IN ('a', \"b\")), "
        "CONSTRAINT both CHECK (n > 0 OR ok = 0), CHECK (typeof(n) = 'integer'));"
        "INSERT INTO t VALUES (1, 1, 1, 'b')"
    )
    assert not_carried(run) == [("check", "t")]
    assert "typeof" in run.report["not_carried"][0]["sql"]
    for row in ("(2, 10, true, 'a')", "(2, 0, true, 'a')", "(2, 1, true, 'c')"):
        with pytest.raises(psycopg.errors.CheckViolation):
            ask(f"INSERT INTO t VALUES {row}")
    ask("INSERT INTO t VALUES (2, 0, false, 'a')")
    assert ask("SELECT count(*) FROM pg_constraint WHERE conname = 'both'") == [(1,)]


@pytest.mark.parametrize(
    ("declaration", "expected"),
    [
        ("TEXT DEFAULT 'it''s'", "it's"),
        ('TEXT DEFAULT "double"', "double"),
        ("TEXT DEFAULT 5", "5"),
        ("INTEGER DEFAULT -7", -7),
        ("INTEGER DEFAULT (-7)", -7),
        ("INTEGER DEFAULT '12'", 12),
        ("REAL DEFAULT 1", 1.0),
        ("REAL DEFAULT 2.5e-3", 0.0025),
        ("BOOLEAN DEFAULT 1", True),
        ("BOOLEAN DEFAULT FALSE", False),
        ("BOOLEAN DEFAULT 'false'", False),
        ("BLOB DEFAULT x'00ff'", b"\x00\xff"),
        ("INTEGER DEFAULT NULL", None),
        ("INTEGER DEFAULT (1 + 2)", 3),
        ("TEXT DEFAULT ('a' || 'b')", "ab"),
        ("DECIMAL(5,2) DEFAULT 1.25", 1.25),
    ],
)
def test_defaults_keep_their_meaning(copied, declaration, expected):
    run, ask = copied(f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declaration})")
    assert not_carried(run) == []
    ((value,),) = ask("INSERT INTO t DEFAULT VALUES RETURNING v")
    assert value == expected


@pytest.mark.parametrize(
    "declaration",
    [
        "TIMESTAMP DEFAULT CURRENT_TIMESTAMP",
        "TIMESTAMP DEFAULT (datetime('now'))",
        "TEXT DEFAULT CURRENT_TIMESTAMP",
        "TEXT DEFAULT (datetime('now'))",
    ],
)
def test_moments_are_utc_and_have_whole_seconds(copied, declaration):
    _, ask = copied(f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declaration})")
    # The test server's time zone is Pacific/Auckland.
    ((value, off),) = ask(
        "INSERT INTO t DEFAULT VALUES RETURNING v::text, "
        "abs(extract(epoch FROM v::timestamp - (now() AT TIME ZONE 'utc')))"
    )
    assert off < 5
    assert len(value) == 19


@pytest.mark.parametrize(
    "declaration", ["INTEGER DEFAULT 'many'", "TEXT DEFAULT (changes())", "INTEGER DEFAULT ''",
                    "BOOLEAN DEFAULT 7", "TEXT DEFAULT (strftime('%s', 'now', 'localtime'))"]
)  # fmt: skip
def test_defaults_without_an_equivalent_are_named(copied, declaration):
    run, _ = copied(f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declaration})")
    assert not_carried(run) == [("default", "t.v")]


def test_generated_columns_are_computed(copied):
    run, ask = copied(
        "CREATE TABLE t (a INTEGER, b TEXT, c INTEGER GENERATED ALWAYS AS (a * 2) STORED, "
        "d TEXT AS (b || '!') VIRTUAL, e INTEGER AS (unicode(b)));"
        "INSERT INTO t (a, b) VALUES (1, 'x'), (NULL, 'y')"
    )
    assert not_carried(run) == [("generated column", "t.e")]
    ask("INSERT INTO t (a, b) VALUES (3, 'z')")
    assert ask("SELECT c, d FROM t ORDER BY b") == [(2, "x!"), (None, "y!"), (6, "z!")]
    assert ask("SELECT e FROM t ORDER BY b") == [(120,), (121,), (None,)]


def test_names_arrive_exactly_as_they_are(copied):
    _, ask = copied(
        'CREATE TABLE "Select From" ("Order" INTEGER PRIMARY KEY, [a b] TEXT, `Grüße` TEXT, '
        '"quo""te" REAL, "%s" TEXT, "$1" TEXT, "a:b" TEXT, "{c}" TEXT UNIQUE);'
        'CREATE INDEX "My Index" ON "Select From" ("a b");'
        "INSERT INTO \"Select From\" VALUES (1, 'a', 'b', 1.5, 'p', 'd', 'e', 'f')"
    )
    columns = [name for (name,) in ask(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'Select From' "
        "ORDER BY ordinal_position")]  # fmt: skip
    assert columns == ["Order", "a b", "Grüße", 'quo"te', "%s", "$1", "a:b", "{c}"]
    assert ask("SELECT 1 FROM pg_indexes WHERE indexname = 'My Index'") == [(1,)]


def test_strict_tables_and_columns_without_a_type(copied):
    _, ask = copied(
        "CREATE TABLE s (i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT;"
        "INSERT INTO s VALUES (1, 2.5, 'x', x'01', 'any');"
        "CREATE TABLE free (a, b, c, d, e); INSERT INTO free VALUES (1, 1.5, 'x', x'01', NULL)"
    )
    types = dict(ask("SELECT column_name, data_type FROM information_schema.columns "
                     "WHERE table_name = 'free'"))  # fmt: skip
    assert types == {"a": "bigint", "b": "double precision", "c": "text", "d": "bytea", "e": "text"}


def test_integers_grow_only_where_values_need_it(copied):
    _, ask = copied(
        "CREATE TABLE t (a INTEGER, b INTEGER, c BIGINT, d TINYINT);"
        "INSERT INTO t VALUES (2147483647, 2147483648, 1, 1)"
    )
    columns = ask(
        "SELECT data_type FROM information_schema.columns "
        "WHERE table_name = 't' ORDER BY ordinal_position"
    )
    types = [kind for (kind,) in columns]
    assert types == ["integer", "bigint", "bigint", "integer"]


def test_what_has_no_place_in_postgresql_is_named(copied):
    run, ask = copied(
        "CREATE TABLE t (id INTEGER PRIMARY KEY ON CONFLICT REPLACE, a TEXT COLLATE RTRIM);"
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT 1; END;"
        "CREATE VIRTUAL TABLE search USING fts5(body); INSERT INTO search VALUES ('words');"
    )
    assert {what for what, _ in not_carried(run)} == {
        "conflict clause", "collation", "trigger", "virtual table"}  # fmt: skip
    assert ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(2,)]
    for item in run.report["not_carried"]:
        assert f"not carried: {item['what']} {item['name']}" in run.out
        assert item["sql"]


def test_utf16_databases(copied):
    _, ask = copied(
        "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('ž😀')"
    )
    assert ask("SELECT a FROM t") == [("ž😀",)]


def test_two_hundred_small_tables_take_seconds(ferry, make_sqlite, database):
    script = "".join(
        f"CREATE TABLE t{n} (id INTEGER PRIMARY KEY, a TEXT UNIQUE, b REAL); "
        f"INSERT INTO t{n} VALUES (1, 'x', 0.5);"
        for n in range(200)
    )
    run = ferry("copy", make_sqlite(script), database.dsn)
    assert run.code == 0, run
    assert run.report["seconds"] < 30  # three on two cores with nothing else to do


def test_the_printed_ddl_runs(ferry, bot_database, database):
    run = ferry("schema", bot_database)
    assert run.code == 0
    with database.connect() as connection:
        connection.execute(run.out)
        assert connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone() == (7,)


def test_views_are_translated_or_named(copied):
    run, ask = copied(
        "CREATE TABLE Games (Id INTEGER PRIMARY KEY, name TEXT, ok BOOLEAN, n INTEGER);"
        "INSERT INTO Games VALUES (1, 'A', 1, 5), (2, 'b', 0, 7), (3, 'a', 1, 9);"
        "CREATE VIEW good AS SELECT ID, Name FROM games WHERE OK = 1 AND name LIKE 'a';"
        "CREATE VIEW totals (letter, many) AS WITH g AS (SELECT lower(name) AS l, n FROM Games) "
        "SELECT l, sum(n) FROM g GROUP BY l HAVING count(*) >= 1;"
        "CREATE VIEW over AS SELECT t.letter FROM totals t WHERE t.many > 5;"
        "CREATE VIEW loose AS SELECT name, n FROM Games GROUP BY n;"
        "CREATE VIEW odd AS SELECT random() AS r, strftime('%Y', 'now') AS y FROM Games"
    )
    assert not_carried(run) == [("view", "odd"), ("view", "loose")]
    assert ask("SELECT * FROM good ORDER BY 1") == [(1, "A"), (3, "a")]
    assert ask("SELECT letter, many FROM totals ORDER BY 1") == [("a", 14), ("b", 7)]
    assert ask("SELECT * FROM over ORDER BY 1") == [("a",), ("b",)]


def test_what_the_same_words_mean_differently_is_translated_or_named(copied):
    run, ask = copied(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, d REAL, s TEXT,"
        " name TEXT COLLATE NOCASE, CHECK (CAST(d AS INTEGER) = 1), CHECK (s LIKE 'A\\_%'),"
        " CHECK (name IN ('Ab', 'cd')),"
        " CHECK (n % (n - 7) IS NULL OR n > 0), CHECK (substr(s, 1, 1) = 'a'),"
        " CHECK (substr(s, -1) <> 'q'), CHECK (s = lower(s)), CHECK (name < 'x'));"
        "CREATE UNIQUE INDEX u ON t (lower(s), n) WHERE name = 'AB';"
        "CREATE VIEW v AS SELECT CAST(d AS INTEGER) AS whole, CAST(n AS REAL) / 2 AS half,"
        " n / 0 AS z, n % (n - 7) AS r FROM t WHERE name = 'aB' AND s LIKE 'A\\%';"
        "CREATE VIEW w AS SELECT name, count(*) AS c FROM t GROUP BY name;"
        "CREATE VIEW x AS SELECT CAST(s AS INTEGER) AS i FROM t;"
        "INSERT INTO t VALUES (1, 7, 1.9, 'a\\_é', 'AB'), (2, 3, 1.5, 'a\\_z', 'CD')"
    )
    assert sorted(not_carried(run)) == [
        ("check", "t"),
        ("check", "t"),
        ("collation", "t.name"),
        ("view", "w"),
        ("view", "x"),
    ]
    assert ask("SELECT whole, half, z, r FROM v") == [(1, 3.5, None, None)]
    for row in ("(3, 1, 2.1, 'a\\_', 'ab')", "(3, 1, 1.1, 'ax', 'ab')", "(3, 1, 1.1, 'a\\_', 'q')"):
        with pytest.raises(psycopg.errors.CheckViolation):
            ask(f"INSERT INTO t VALUES {row}")
    ask("INSERT INTO t VALUES (3, 1, 1.1, 'a\\_', 'CD')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        ask("INSERT INTO t VALUES (4, 7, 1.1, 'a\\_é', 'aB')")


def test_foreign_keys_between_types_that_postgresql_does_not_compare_are_named(copied):
    run, ask = copied(
        "CREATE TABLE p (id TEXT PRIMARY KEY); CREATE TABLE c (p INTEGER REFERENCES p);"
        "INSERT INTO p VALUES ('1'); INSERT INTO c VALUES (1)"
    )
    assert not_carried(run) == [("foreign key", "c")]
    assert ask("SELECT p FROM c") == [(1,)]


def test_an_index_over_values_that_are_too_long_is_refused(ferry, make_sqlite, database):
    path = make_sqlite(
        "CREATE TABLE t (a TEXT, b TEXT); CREATE INDEX i ON t (a, b);"
        "INSERT INTO t VALUES (hex(randomblob(5000)), 'b')"
    )
    run = ferry("copy", path, database.dsn)
    assert run.code == 3, run
    assert "index row" in run.err
