"""audit-sql: a program's SQL is found in its sources and judged by PostgreSQL."""

import textwrap

import pytest
from ferry.audit import with_parameters


@pytest.fixture
def judge(ferry, copied, tmp_path):
    """Judge a Python source on the bot's database; returns the run and its statements."""

    def run(source, name="bot.py"):
        directory = tmp_path / "program"
        directory.mkdir(exist_ok=True)
        (directory / name).write_text(textwrap.dedent(source))
        result = ferry("audit-sql", directory, copied.dsn)
        return result, result.report["statements"]

    return run


IDIOMS = [
    ("SELECT player_guid, SUM(kills) AS k FROM weapon_comprehensive_stats GROUP BY player_guid "
     "HAVING k > 5", "repeat it"),
    ("SELECT SUM(kills) AS k, SUM(deaths) AS d FROM weapon_comprehensive_stats "
     "ORDER BY k * 1.0 / d", "repeat it"),
    ("SELECT id FROM processed_files WHERE success = 1", "a boolean is no number"),
    ("UPDATE processed_files SET success = 1 WHERE id = ?", "TRUE or FALSE"),
    ("PRAGMA table_info(rounds)", "information_schema"),
    ("SELECT name FROM sqlite_master WHERE type = 'table'", "information_schema.tables"),
    ("SELECT player_guid, player_name FROM weapon_comprehensive_stats GROUP BY player_guid",
     "GROUP BY"),
    ("INSERT OR REPLACE INTO player_links (discord_id) VALUES (?)", "DO UPDATE SET"),
    ("INSERT OR IGNORE INTO player_links (discord_id) VALUES (?)", "DO NOTHING"),
    ("SELECT DISTINCT map_name FROM rounds ORDER BY id", "select the expression"),
    ("SELECT ROUND(AVG(accuracy), 2) FROM weapon_comprehensive_stats", "numeric"),
    ("SELECT strftime('%Y', round_date) FROM rounds", "to_char"),
    ("CREATE TABLE x (id INTEGER PRIMARY KEY AUTOINCREMENT)", "IDENTITY"),
]  # fmt: skip


def test_the_known_idioms_fail_with_what_to_write_instead(judge, postgres_cluster):
    idioms = [*IDIOMS]
    if postgres_cluster.major < 16:  # later versions take it as it is
        idioms.append(("SELECT COUNT(*) FROM (SELECT id FROM rounds)", "name it"))
    calls = "\n".join(f"    await db.execute({sql!r})" for sql, _ in idioms)
    run, statements = judge(f"async def f(db):\n{calls}\n")
    assert run.code == 3
    assert run.report["counts"] == {"ok": 0, "fails": len(idioms), "unjudged": 0}
    for number, ((sql, advice), found) in enumerate(zip(idioms, statements, strict=True)):
        assert found["sql"] == sql
        assert found["line"] == number + 2
        assert found["message"]
        assert advice in found["instead"], found
    assert "bot.py:2: fails:" in run.out
    assert f"{len(idioms)} statements: 0 accepted, {len(idioms)} fail" in run.out


def test_statements_are_found_however_they_are_written(judge):
    run, statements = judge(
        '''
        """SELECT nothing FROM docstring"""
        TABLE = "rounds"
        QUERY = """
            SELECT id
            FROM rounds  -- ? and :name in a comment
            WHERE map_name = :map AND round_outcome <> '?' AND id::text = :map
        """

        class C:
            "DELETE FROM documentation"

            def f(self, db, ids, column):
                "UPDATE words SET prose"
                print("Select a map from the list")
                print("select nothing")
                db.execute("SELECT id " "FROM rounds")
                db.execute("SELECT id FROM rounds " + "WHERE id = ?", (1,))
                db.execute(f"SELECT id FROM {TABLE} WHERE id = ?1 OR id = ?1")
                db.execute(f"SELECT id FROM rounds WHERE id IN ({','.join('?' * len(ids))})")
                db.execute(f"SELECT {column} FROM rounds")
                db.execute("SELECT id FROM rounds WHERE map_name LIKE '%%%s%%'" % column)
                db.execute("SELECT id FROM rounds WHERE id = {}".format(ids))
                db.execute("SELECT id FROM rounds WHERE id = $1 AND map_name = $2")
                db.execute("INSERT INTO rounds (map_name) VALUES (%(map)s)", {"map": 1})
                db.execute(f"SELECT id FROM {column}")
                cursor.lastrowid
        '''
    )
    assert run.code == 0, run
    verdicts = [item["verdict"] for item in statements]
    assert verdicts == ["ok"] * 10 + ["unjudged"]
    assert statements[0]["line"] == 5
    assert statements[-1]["sql"] == "SELECT id FROM {…}"
    warnings = [m["text"] for m in run.report["messages"] if m["level"] == "warning"]
    assert any("lastrowid" in text for text in warnings)


def test_sql_files_are_split_at_their_statements(judge):
    run, statements = judge(
        """
        -- a comment; with a semicolon
        CREATE TABLE a (t TEXT DEFAULT ';');

        SELECT id
        FROM rounds;
        DO $$ BEGIN PERFORM 1; END $$;
        SELECT wrong FROM rounds
        """,
        name="schema.sql",
    )
    assert run.code == 3
    assert [item["verdict"] for item in statements] == ["ok", "ok", "ok", "fails"]
    assert [item["line"] for item in statements] == [3, 5, 7, 8]


def test_nothing_is_run(judge, copied):
    judge("db.execute('DELETE FROM rounds')\ndb.execute('DROP TABLE rounds CASCADE')\n")
    with copied.connect() as connection:
        assert connection.execute("SELECT count(*) > 0 FROM rounds").fetchone() == (True,)


def test_what_is_no_python_is_said(judge):
    run, statements = judge("print 'old'\n")
    assert run.code == 0
    assert statements == []
    assert any("no Python 3" in m["text"] for m in run.report["messages"])


def test_three_hundred_statements_take_seconds(judge):
    lines = [
        f"db.execute('SELECT id, map_name FROM rounds WHERE id = ? AND round_number > {n}')"
        for n in range(300)
    ]
    run, statements = judge("\n".join(lines))
    assert run.code == 0
    assert len(statements) == 300
    assert run.report["seconds"] < 5


def test_a_path_that_is_missing_and_a_forgotten_dsn_are_usage_errors(ferry, database, tmp_path):
    assert ferry("audit-sql", tmp_path / "nowhere", database.dsn).code == 2
    assert ferry("audit-sql", database.dsn).code == 2


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("a = ? AND b = ?", "a = $1 AND b = $2"),
        ("a = :x AND b = :x AND c = @y", "a = $1 AND b = $1 AND c = $2"),
        ("a = '?' AND \"b?\" = ? -- ?", "a = '?' AND \"b?\" = $1 -- ?"),
        ("a::text = :a", "a::text = $1"),
        ("a = $2 AND b = ?", "a = $2 AND b = $3"),
        ("'it''s ?' = ?", "'it''s ?' = $1"),
        ("x = '10:30' AND y = /* :no */ :yes", "x = '10:30' AND y = /* :no */ $1"),
    ],
)
def test_placeholders_become_parameters(sql, expected):
    assert with_parameters(sql) == (expected, 0)


def test_texts_that_wait_for_their_format_and_holes_beside_words(judge):
    run, statements = judge(
        """
        QUERY = "SELECT id, {value} AS v FROM rounds WHERE map_name = '{literal}' AND id > ?"
        NUMBERS = f"SELECT {{value}} AS v FROM rounds WHERE id IN ({', '.join(NUMBERS_OF_ROUNDS)})"
        def f(db, chosen):
            db.execute(f"SELECT id FROM rounds {chosen}GROUP BY id")
            db.execute(f"SELECT id FROM rounds_{chosen}")
        """
    )
    assert [item["verdict"] for item in statements] == ["ok", "ok", "unjudged", "unjudged"], run


def test_what_is_meant_for_sqlite_alone_is_counted_and_said(judge, ferry, copied, tmp_path):
    run, statements = judge(
        """
        def f(db):
            db.execute("PRAGMA foreign_keys = ON")  # ferry: sqlite
            # ferry: sqlite
            db.execute("SELECT sqlite_version()")
            db.execute(
                "SELECT count(*) "
                "FROM sqlite_master"  # ferry: sqlite
            )
            db.execute("SELECT 1 FROM rounds")
        """
    )
    assert run.code == 0, run
    assert [item["verdict"] for item in statements] == ["excluded"] * 3 + ["ok"]
    assert run.report["counts"] == {"ok": 1, "fails": 0, "unjudged": 0, "excluded": 3}
    assert "3 are not for PostgreSQL" in run.out
    script = tmp_path / "program/schema_sqlite.sql"
    script.write_text("CREATE TABLE x (id INTEGER PRIMARY KEY AUTOINCREMENT);\nSELECT 1;\n")
    assert ferry("audit-sql", tmp_path / "program", copied.dsn).code == 3
    run = ferry("audit-sql", tmp_path / "program", copied.dsn, "--exclude", "*_sqlite.sql")
    assert run.code == 0, run
    assert "schema_sqlite.sql: left out, by --exclude" in run.err
    script.write_text("-- ferry: sqlite\n" + script.read_text())
    run = ferry("audit-sql", tmp_path / "program", copied.dsn)
    assert (run.code, run.report["counts"]["excluded"]) == (0, 4)


def test_a_connection_that_a_class_keeps_is_for_sqlite_in_all_its_methods(judge):
    run, statements = judge(
        """
        import asyncpg, sqlite3
        class Lite:
            def __init__(self, path):
                self.connection = None
                self.connection = sqlite3.connect(path)
            def beat(self):
                self.connection.execute("INSERT OR IGNORE INTO rounds (id) VALUES (1)")
        class Either:
            def __init__(self, path):
                self.connection = sqlite3.connect(path) if path else None
                self.other = sqlite3.connect(path)
                if not path:
                    self.other = asyncpg.connect()
            def beat(self):
                self.connection.execute("INSERT OR IGNORE INTO rounds (id) VALUES (2)")
                self.other.execute("INSERT OR IGNORE INTO rounds (id) VALUES (3)")
        """
    )
    assert run.code == 3, run
    assert [item["verdict"] for item in statements] == ["excluded", "fails", "fails"]


def warnings_of(statements):
    return [" | ".join(item["warnings"]) for item in statements]


def test_what_is_accepted_and_means_something_else_is_warned_of(judge):
    calls = [
        ("SELECT CAST(accuracy AS INTEGER) FROM weapon_comprehensive_stats", "rounds"),
        ("SELECT CAST(kills AS INTEGER) FROM weapon_comprehensive_stats", ""),
        ("SELECT CAST(sum(kills) * 1.0 / 3 AS INT) FROM weapon_comprehensive_stats", "rounds"),
        ("SELECT CAST(map_name AS INTEGER) FROM rounds", "SQLite takes the digits"),
        ("SELECT map_name FROM rounds ORDER BY round_date LIMIT 5", "without a tie-breaker"),
        ("SELECT map_name FROM rounds ORDER BY round_date, id LIMIT 5", ""),
        ("SELECT map_name FROM rounds ORDER BY round_date", ""),
        ("SELECT r.map_name FROM rounds AS r ORDER BY r.id LIMIT 5", ""),
        ("SELECT map_name, count(*) AS n FROM rounds GROUP BY map_name ORDER BY n LIMIT 3",
         "without a tie-breaker"),
        ("SELECT map_name, count(*) AS n FROM rounds GROUP BY map_name ORDER BY n, map_name "
         "LIMIT 3", ""),
        ("SELECT id FROM rounds ORDER BY round_outcome DESC, id", "DESC NULLS LAST"),
        ("SELECT id FROM rounds ORDER BY round_outcome DESC NULLS LAST, id", ""),
        ("SELECT id FROM rounds ORDER BY id DESC", ""),
    ]  # fmt: skip
    run, statements = judge("\n".join(f"db.execute({sql!r})" for sql, _ in calls))
    assert run.code == 0, run
    for (sql, expected), found in zip(calls, warnings_of(statements), strict=True):
        assert (expected in found) if expected else found == "", (sql, found)
    assert "bot.py:1: warning: CAST" in run.out
    warned = sum(bool(expected) for _, expected in calls)
    assert run.report["counts"]["warned"] == warned
    assert f"{warned} are accepted and may mean something else" in run.out


def test_texts_passed_for_numbers_and_moments_are_warned_of(judge):
    run, statements = judge(
        """
        async def f(db, player: str, number: int, when):
            await db.fetch("SELECT id FROM rounds WHERE id = $1", player)
            await db.fetch("SELECT id FROM rounds WHERE id = $1", number)
            db.execute("SELECT id FROM rounds WHERE id = ? AND map_name = ?", (str(number), player))
            db.execute("INSERT INTO processed_files (filename, processed_at) VALUES (?, ?)",
                       (player, when.isoformat()))
            db.execute("SELECT id FROM rounds WHERE id = ?", [when])
        """
    )
    assert run.code == 0, run
    found = warnings_of(statements)
    assert "parameter 1 is a bigint" in found[0]
    assert "parameter 1 is a bigint" in found[2]
    assert "parameter 2 is a timestamp" in found[3]
    assert (found[1], found[4]) == ("", "")


def test_what_is_not_for_postgresql_is_told_apart(judge):
    run, statements = judge(
        """
        import logging
        import sqlite3

        import aiosqlite
        import asyncpg

        log = logging.getLogger()

        class SqliteStore:
            def f(self, db):
                db.execute("PRAGMA foreign_keys = ON")

        def upgrade_sqlite(db):
            db.execute("SELECT sqlite_version()")

        async def f(db, kind):
            if kind == "sqlite":
                db.execute("SELECT name FROM sqlite_master")
            else:
                db.execute("SELECT 1 FROM rounds")
            if kind != "sqlite":
                db.execute("SELECT 2 FROM rounds")
            else:
                db.execute("PRAGMA user_version")
            query = "SELECT now()" if kind == "postgres" else "SELECT datetime('now')"
            log.warning("INSERT INTO words (%s) VALUES (%s) failed", kind, kind)
            raise ValueError("DELETE FROM prose is not allowed")

        async def g():
            own = sqlite3.connect("cache.db")
            own.execute("INSERT OR REPLACE INTO cache VALUES (?)", (1,))
            cursor = own.cursor()
            cursor.execute("SELECT * FROM cache")
            async with aiosqlite.connect("other.db") as other:
                await other.execute("CREATE TABLE IF NOT EXISTS c (a INTEGER PRIMARY KEY)")

        def h(own):
            own.execute("SELECT 3 FROM rounds")
        """
    )
    assert run.code == 0, run
    verdicts = {item["sql"]: (item["verdict"], item["message"]) for item in statements}
    accepted = {sql for sql, (verdict, _) in verdicts.items() if verdict == "ok"}
    assert accepted == {
        "SELECT 1 FROM rounds", "SELECT 2 FROM rounds", "SELECT now()", "SELECT 3 FROM rounds",
    }  # fmt: skip
    assert verdicts["PRAGMA foreign_keys = ON"][1] == "the class SqliteStore is for SQLite"
    assert verdicts["PRAGMA user_version"][1] == "it stands in a branch for SQLite"
    assert "the SQLite file that line 31 opens" in verdicts["SELECT * FROM cache"][1]
    assert verdicts["DELETE FROM prose is not allowed"][1] == "a text for people"
    warned = [m["text"] for m in run.report["messages"] if m["level"] == "warning"]
    opened = [text for text in warned if "opens a SQLite file itself" in text]
    assert [text.split(":")[1] for text in opened] == ["31", "35"]


def test_a_program_that_was_not_ported_yet_is_judged_as_a_whole(judge):
    run, statements = judge(
        """
        import aiosqlite

        async def f(path):
            async with aiosqlite.connect(path) as db:
                await db.execute("INSERT OR IGNORE INTO player_links (discord_id) VALUES (?)", (1,))
        """
    )
    assert run.code == 3
    assert [item["verdict"] for item in statements] == ["fails"]
    assert "opens a SQLite file itself" in run.err
