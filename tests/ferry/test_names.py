"""Names that PostgreSQL does not take: refused with a list, and carried through by renames."""

import json
import sqlite3
import tomllib

import psycopg
import pytest

LONG = "player_" + "x" * 60
WIDE = "ä" * 40

SCRIPT = f"""
CREATE TABLE "{LONG}" (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    "xmin" INTEGER NOT NULL DEFAULT 3 CHECK (xmin >= 0 AND "XMIN" < 1000),
    "{WIDE}" TEXT COLLATE NOCASE,
    doubled INTEGER AS (xmin * 2) STORED,
    at TIMESTAMP,
    up INTEGER REFERENCES "{LONG}",
    UNIQUE ("{WIDE}")
);
CREATE INDEX "{LONG}_index" ON "{LONG}" (xmin DESC, lower("{WIDE}")) WHERE xmin > 1;
CREATE TABLE child (
    p INTEGER, ctid TEXT, PRIMARY KEY (ctid),
    FOREIGN KEY (p) REFERENCES "{LONG.upper()}" (ID) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE plain (xmax_ INTEGER, note TEXT);
CREATE VIEW "{LONG}_view" AS SELECT l.xmin, child.ctid, "{WIDE}" FROM "{LONG}" AS l
    JOIN child ON child.p = L.id WHERE l.xmin > 0;
CREATE VIEW over AS SELECT count(*) AS n, max(XMIN) AS ctid FROM "{LONG}_view";
INSERT INTO "{LONG}" (xmin, "{WIDE}", at, up) VALUES
    (5, 'Ä', '2024-01-01T00:00:00', NULL), (7, 'b', '2024-01-01 00:00:00', 1), (8, 'c', NULL, 2);
DELETE FROM "{LONG}" WHERE id = 3;
INSERT INTO child VALUES (1, 'one'), (2, 'two');
INSERT INTO plain VALUES (1, 'n');
"""
RULES = f"""
[[rename]]
table = "{LONG.upper()}"
to = "players"

[[rename]]
table = "{LONG}"
column = "xmin"
to = "least"

[[rename]]
table = "{LONG}"
column = "{WIDE}"
to = "Name"

[[rename]]
table = "child"
column = "ctid"
to = "client id"

[[rename]]
index = "{LONG}_index"
to = "by_least"

[[rename]]
view = "{LONG}_view"
to = "joined"
"""


@pytest.fixture
def source(make_sqlite):
    return make_sqlite(SCRIPT)


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


def ask(database, statement):
    with database.connect() as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


def contents(path):
    connection = sqlite3.connect(path)
    lines = list(connection.iterdump())
    connection.close()
    return lines


def test_all_of_them_are_listed_at_once_with_what_to_do(ferry, source, database):
    for arguments in (("inspect", source), ("schema", source), ("copy", source, database.dsn)):
        run = ferry(*arguments)
        assert run.code == 3, run
        names = {(h["code"], h["table"], h["column"]) for h in run.report["hazards"]}
        assert names == {
            ("name-too-long", LONG, ""),
            ("system-column-name", LONG, "xmin"),
            ("name-too-long", LONG, WIDE),
            ("name-too-long", f"{LONG}_index", ""),
            ("name-too-long", f"{LONG}_view", ""),
            ("system-column-name", "child", "ctid"),
        }
        assert "[[rename]]" in run.err
    assert ask(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_the_draft_proposes_names_that_will_do(ferry, source, database, tmp_path):
    draft = tmp_path / "draft.toml"
    assert ferry("inspect", source, "--rules", draft).code == 3
    text = draft.read_text()
    assert tomllib.loads(text) == {}, "everything is commented out"
    kept = ("# [[rename]]", "# table", "# column", "# index", "# view", "# to")
    draft.write_text("\n".join(line[2:] for line in text.splitlines() if line.startswith(kept)))
    assert len(tomllib.loads(draft.read_text())["rename"]) == 6
    run = ferry("copy", source, database.dsn, "--rules", draft)
    assert run.code == 0, run
    (columns,) = ask(
        database,
        "SELECT array_agg(column_name::text ORDER BY ordinal_position) "
        "FROM information_schema.columns WHERE table_name = 'child'",
    )
    assert columns == (["p", "ctid_"],)


def test_everything_that_mentions_a_name_follows(ferry, source, rules, database):
    before = source.read_bytes()
    run = ferry("copy", source, database.dsn, "--rules", rules)
    assert run.code == 0, run
    assert [item["what"] for item in run.report["not_carried"]] == ["collation"]
    assert source.read_bytes() == before
    assert "rename 2: column player_" in run.out
    entry = next(table for table in run.report["tables"] if table["name"] == "players")
    assert entry["renamed"] == {"table": LONG, "columns": {"xmin": "least", WIDE: "Name"}}

    assert ask(database, 'SELECT id, least, "Name", doubled FROM players ORDER BY 1') == [
        (1, 5, "Ä", 10), (2, 7, "b", 14)]  # fmt: skip
    assert ask(database, "INSERT INTO players DEFAULT VALUES RETURNING id, least, doubled") == [
        (4, 3, 6)]  # fmt: skip
    definitions = {
        definition
        for (definition,) in ask(database, "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
                                           "WHERE contype IN ('f', 'c') AND conrelid <> 0")
    }  # fmt: skip
    assert definitions == {
        'CHECK ((("least" >= 0) AND ("least" < 1000)))',
        "FOREIGN KEY (up) REFERENCES players(id)",
        "FOREIGN KEY (p) REFERENCES players(id) ON DELETE CASCADE",
    }
    indexes = dict(ask(database, "SELECT indexname, indexdef FROM pg_indexes"))
    assert indexes["by_least"].endswith('("least" DESC, lower("Name")) WHERE ("least" > 1)')
    assert indexes["child_pkey"].endswith('("client id")')
    assert ask(database, 'SELECT least, "client id", "Name" FROM joined ORDER BY 1') == [
        (5, "one", "Ä"), (7, "two", "b")]  # fmt: skip
    assert ask(database, 'SELECT n, "client id" FROM over') == [(2, 7)]


def test_all_commands_know_the_names(
    ferry, source, rules, database, postgres_cluster, make_sqlite, tmp_path
):
    printed = ferry("schema", source, "--rules", rules)
    assert printed.code == 0
    assert 'CREATE TABLE "public"."players"' in printed.out
    with postgres_cluster.fresh_database() as other, other.connect() as connection:
        connection.execute(printed.out)
    assert ferry("inspect", source, "--rules", rules).code == 0
    cutover = tmp_path / "cutover.json"
    run = ferry("copy", source, database.dsn, "--rules", rules, "--report", cutover)
    assert run.code == 0, run
    assert ferry("verify", source, database.dsn, "--rules", rules).code == 0
    again = ferry("copy", source, database.dsn, "--rules", rules)
    assert (again.code, again.report["outcome"]) == (0, "nothing to do")
    without = ferry("verify", source, database.dsn)
    assert without.code == 4
    assert f"table {LONG} is missing" in without.err

    later = make_sqlite(SCRIPT, name="later.db")
    connection = sqlite3.connect(later, isolation_level=None)
    connection.execute(f'UPDATE "{LONG}" SET xmin = 9 WHERE id = 2')
    connection.execute(f'INSERT INTO "{LONG}" (xmin) VALUES (11)')
    connection.execute("DELETE FROM child WHERE ctid = 'one'")
    connection.close()
    for base in ([], ["--base", source]):
        run = ferry("sync", later, database.dsn, "--rules", rules, *base)
        assert run.code == 0, run
        deltas = {t["name"]: list(t["delta"].values()) for t in run.report["tables"]}
        assert deltas == {"players": [1, 1, 0], "child": [0, 0, 1], "plain": [0, 0, 0]}
        assert ferry("verify", later, database.dsn, "--rules", rules).code == 0
        if not base:  # and back again, for the second way
            assert ferry("sync", source, database.dsn, "--rules", rules).code == 0

    run = ferry("reverse", database.dsn, tmp_path / "from comments.db")
    assert run.code == 0, run
    assert contents(tmp_path / "from comments.db") == contents(later)
    run = ferry("reverse", database.dsn, tmp_path / "back.db", "--baseline", cutover)
    assert run.code == 0, run
    assert contents(tmp_path / "back.db") == contents(later)
    since = {t["name"]: t["since_baseline"] for t in run.report["tables"]}
    assert (since["players"]["new"], since["players"]["changed"]) == (1, 1)
    assert since["child"]["deleted"] == 1

    report = json.loads(cutover.read_text())
    for table in report["tables"]:
        del table["row_memory"]
    cutover.write_text(json.dumps(report))
    (tmp_path / "back.db").unlink()
    options = ("--baseline", cutover, "--base", source)
    run = ferry("reverse", database.dsn, tmp_path / "back.db", *options)
    assert run.code == 0, run
    assert {t["name"]: t["since_baseline"] for t in run.report["tables"]} == since


def test_the_report_alone_knows_the_names(ferry, source, rules, database, tmp_path):
    cutover = tmp_path / "cutover.json"
    assert ferry("copy", source, database.dsn, "--rules", rules, "--report", cutover).code == 0
    with database.connect() as connection:
        for table in ("players", "child", "plain"):
            connection.execute(f"COMMENT ON TABLE {table} IS NULL")
        connection.execute("ALTER TABLE players ADD COLUMN since text DEFAULT 'now'")
    run = ferry("reverse", database.dsn, tmp_path / "back.db", "--baseline", cutover)
    assert run.code == 0, run
    back = sqlite3.connect(tmp_path / "back.db")
    assert back.execute(f'SELECT xmin, "{WIDE}", since FROM "{LONG}"').fetchall() == [
        (5, "Ä", "now"), (7, "b", "now")]  # fmt: skip


def test_names_may_change_places(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE a (x INTEGER PRIMARY KEY, y INTEGER); INSERT INTO a VALUES (1, 10);"
        "CREATE TABLE b (x INTEGER PRIMARY KEY, a INTEGER REFERENCES a);"
        "INSERT INTO b VALUES (2, 1)"
    )
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rename]]\ntable = "a"\nto = "b"\n[[rename]]\ntable = "b"\nto = "a"\n'
        '[[rename]]\ntable = "a"\ncolumn = "x"\nto = "y"\n'
        '[[rename]]\ntable = "a"\ncolumn = "y"\nto = "x"\n'
        '[[rename]]\ntable = "b"\ncolumn = "a"\nto = "rowid"\n'
    )
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    assert ask(database, "SELECT y, x FROM b") == [(1, 10)]
    assert ask(database, "SELECT x, rowid FROM a") == [(2, 1)]
    assert ferry("sync", path, database.dsn, "--rules", rules, "--base", path).code == 0
    assert ferry("reverse", database.dsn, tmp_path / "back.db").code == 0
    assert contents(tmp_path / "back.db") == contents(path)


def test_rules_and_hazards_speak_of_the_names_in_sqlite(ferry, make_sqlite, database, tmp_path):
    path = make_sqlite(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY, ctid INTEGER);"
        "CREATE TABLE t (id INTEGER PRIMARY KEY, xmin INTEGER, p INTEGER REFERENCES parent);"
        "INSERT INTO parent VALUES (1, ''), (2, 7); INSERT INTO t VALUES (1, 1.5, 1), (2, 2, 2)"
    )
    rules = tmp_path / "rules.toml"
    renames = (
        '[[rename]]\ntable = "t"\ncolumn = "xmin"\nto = "least"\n'
        '[[rename]]\ntable = "t"\nto = "things"\n'
        '[[rename]]\ntable = "parent"\ncolumn = "ctid"\nto = "client"\n'
        '[[rename]]\ntable = "parent"\ncolumn = "id"\nto = "key"\n'
        '[[rename]]\ntable = "parent"\nto = "parents"\n'
    )
    rules.write_text(renames)
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 3
    assert {(h["table"], h["column"]) for h in run.report["hazards"]} == {
        ("t", "xmin"), ("parent", "ctid")}  # fmt: skip
    rules.write_text(
        renames + '[[rule]]\ntable = "t"\ncolumn = "xmin"\nhazard = "fraction-in-integer"\n'
        'action = "truncate"\n'
        '[[rule]]\ntable = "parent"\ncolumn = "ctid"\nhazard = "empty-text"\n'
        'action = "quarantine"\n'
        '[[rule]]\ntable = "t"\ncolumn = "p"\nhazard = "orphan"\naction = "null"\n'
    )
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    assert ask(database, "SELECT least, p FROM things ORDER BY id") == [(1, None), (2, 2)]
    assert (
        '{"table": "parent", "row": {"id": 1, "ctid": ""}}'
        in (tmp_path / "rules.quarantine.jsonl").read_text()
    )


def test_a_column_renamed_in_one_table_only_makes_no_view_wrong(
    ferry, make_sqlite, database, tmp_path
):
    path = make_sqlite(
        "CREATE TABLE one (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO one VALUES (1, 'a');"
        "CREATE TABLE two (id INTEGER PRIMARY KEY, note TEXT); INSERT INTO two VALUES (1, 'b');"
        "CREATE VIEW here AS SELECT note FROM one; CREATE VIEW there AS SELECT note FROM two;"
        "CREATE VIEW pairs AS SELECT one.note AS x, T.note AS y FROM one JOIN two t USING (id);"
        "CREATE VIEW above AS SELECT note FROM there"
    )
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rename]]\ntable = "one"\ncolumn = "note"\nto = "remark"\n')
    run = ferry("copy", path, database.dsn, "--rules", rules)
    assert run.code == 0, run
    assert ask(database, "SELECT remark FROM here") == [("a",)]
    assert ask(database, "SELECT note FROM there") == [("b",)]
    assert ask(database, "SELECT x, y FROM pairs") == [("a", "b")]
    (lost,) = run.report["not_carried"]
    assert (lost["name"], "different new names" in lost["reason"]) == ("above", True)


def test_names_that_postgresql_would_choose_itself_are_no_obstacle(ferry, make_sqlite, database):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT UNIQUE); INSERT INTO t VALUES (1, 'x');"
        "CREATE TABLE t_id_seq (id INTEGER PRIMARY KEY); CREATE TABLE u (id INTEGER PRIMARY KEY);"
        "CREATE INDEX u_id_seq ON t (a); CREATE VIEW t_pkey AS SELECT id FROM t;"
        "CREATE VIEW t_a_key AS SELECT a FROM t;"
        f'CREATE TABLE checked (a INTEGER, CONSTRAINT "{LONG}" CHECK (a > 0))'
    )
    run = ferry("copy", path, database.dsn)
    assert run.code == 0, run
    assert [(item["what"], item["name"]) for item in run.report["not_carried"]] == [
        ("name of a check", f"checked.{LONG}")
    ]
    assert ask(database, "INSERT INTO t (a) VALUES ('y') RETURNING id") == [(2,)]
    assert ask(database, "SELECT id FROM t_pkey") == [(1,), (2,)]
    assert ferry("verify", path, database.dsn).code == 4  # the row above
    with pytest.raises(psycopg.errors.CheckViolation):
        ask(database, "INSERT INTO checked VALUES (0)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[rename]]\ntable = 't'", "incomplete"),
        ("[[rename]]\ncolumn = 'c'\nto = 'd'", "incomplete"),
        ("[[rename]]\ntable = 't'\nview = 'v'\nto = 'd'", "incomplete"),
        ("[[rename]]\ntable = 't'\nfrom = 'v'\nto = 'd'", "from is unknown"),
        ("[[rename]]\ntable = 't'\nto = 5", "to has to be a text"),
        ("[[rename]]\ntable = 't'\nto = ''", "empty"),
        (f"[[rename]]\ntable = 't'\nto = '{LONG}'", "longer than 63 bytes"),
        ("[[rename]]\ntable = 't'\ncolumn = 'a'\nto = 'ctid'", "system column"),
        ("[[rename]]\ntable = 't'\nto = 'sqlite_x'", "SQLite's own"),
        ("[[rename]]\ntable = 't'\nto = 'Other'", "the name other to two"),
        ("[[rename]]\ntable = 't'\ncolumn = 'a'\nto = 'B'", "two of the columns of t"),
        ("rename = 1", "[[rename]]"),
    ],
)
def test_a_rename_with_a_mistake_is_a_usage_error(ferry, make_sqlite, tmp_path, text, message):
    path = make_sqlite("CREATE TABLE t (a INTEGER, b INTEGER); CREATE TABLE other (a)")
    rules = tmp_path / "rules.toml"
    rules.write_text(text)
    run = ferry("inspect", path, "--rules", rules)
    assert run.code == 2, run
    assert message in run.err


def test_a_rename_of_nothing_is_said(ferry, make_sqlite, tmp_path):
    path = make_sqlite("CREATE TABLE t (a INTEGER)")
    rules = tmp_path / "rules.toml"
    rules.write_text("[[rename]]\ntable = 't'\ncolumn = 'b'\nto = 'c'\n")
    run = ferry("inspect", path, "--rules", rules)
    assert run.code == 0
    assert "rename 1: there is no column t.b" in run.err


def test_tables_of_the_application_are_matched_by_the_new_names(
    ferry, make_sqlite, database, tmp_path
):
    path = make_sqlite(
        f"CREATE TABLE t (ctid INTEGER); CREATE INDEX {LONG} ON t (ctid); INSERT INTO t VALUES (1)"
    )
    with database.connect() as connection:
        connection.execute("CREATE TABLE t (client integer)")
    rules = tmp_path / "rules.toml"
    rules.write_text("[[rename]]\ntable = 't'\ncolumn = 'ctid'\nto = 'client'\n")
    run = ferry("copy", path, database.dsn, "--into-existing", "--rules", rules)
    assert run.code == 0, run
    assert ask(database, "SELECT client FROM t") == [(1,)]
