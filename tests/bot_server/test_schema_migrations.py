"""playbooks/files/schema_migrations.py against a PostgreSQL of the tests' own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.postgres import Database

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "playbooks/files/schema_migrations.py"
FIRST = "CREATE TABLE IF NOT EXISTS rounds (id bigint PRIMARY KEY, map_name text NOT NULL);\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "0001_tables.sql").write_text(FIRST)
    return tmp_path


@pytest.fixture
def migrate(directory: Path, database: Database) -> Any:
    """Run the script; returns its answer, or exit code and complaint."""

    def run(command: str, where: Path | str = directory, *more: Path | str) -> Any:
        done = subprocess.run(
            [sys.executable, SCRIPT, command, where, *more],
            env=os.environ | database.environment | {"PYTHONPATH": str(ROOT / "ferry/src")},
            capture_output=True,
            text=True,
            check=False,
        )
        return json.loads(done.stdout) if done.returncode == 0 else (done.returncode, done.stderr)

    return run


@pytest.fixture
def sql(dsn: str) -> Any:
    def ask(statement: str) -> Any:
        with psycopg.connect(dsn, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None

    return ask


def test_an_empty_database_gets_all_files_in_order_and_once(
    directory: Path, migrate: Any, sql: Any
) -> None:
    (directory / "0002_season.sql").write_text("ALTER TABLE rounds ADD season integer;\n")
    (directory / "0010_index.sql").write_text("CREATE INDEX rounds_season ON rounds (season);\n")
    (directory / "README.md").write_text("not one of them\n")
    names = ["0001_tables.sql", "0002_season.sql", "0010_index.sql"]
    looked = migrate("plan")
    assert (looked["due"], looked["tables"]) == (names, 0)
    assert sql("SELECT to_regclass('public.rounds')") == [(None,)], "a look changes nothing"
    assert migrate("apply")["applied"] == names
    assert migrate("apply")["applied"] == []
    assert migrate("plan")["applied"] == names


def test_a_file_that_fails_leaves_nothing_and_stops_the_rest(
    directory: Path, migrate: Any, sql: Any
) -> None:
    (directory / "0002_two.sql").write_text("CREATE TABLE half ();\nSELECT 1 / 0;\n")
    (directory / "0003_three.sql").write_text("CREATE TABLE later ();\n")
    code, said = migrate("apply")
    assert code == 3
    assert "0002_two.sql failed and left nothing behind: division by zero" in said
    assert "Applied before it: 0001_tables.sql" in said
    assert sql("SELECT to_regclass('half'), to_regclass('later')") == [(None, None)]
    (directory / "0002_two.sql").write_text("CREATE TABLE whole ();\n")
    assert migrate("apply")["applied"] == ["0002_two.sql", "0003_three.sql"]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("2_short.sql", "SELECT 1", "2_short.sql is not called NUMBER_words.sql"),
        ("0001_other.sql", "SELECT 1", "have the same number"),
        ("0002_x.sql", "SELECT 1;\n\n  commit;\n", "0002_x.sql, line 3: commit would end"),
    ],
)
def test_what_is_no_migration_is_refused(
    directory: Path, migrate: Any, name: str, text: str, complaint: str
) -> None:
    (directory / name).write_text(text)
    code, said = migrate("plan")
    assert code == 3
    assert complaint in said


def test_a_changed_and_a_late_file_are_refused(directory: Path, migrate: Any) -> None:
    (directory / "0003_three.sql").write_text("CREATE TABLE three ();\n")
    migrate("apply")
    (directory / "0002_late.sql").write_text("CREATE TABLE two ();\n")
    assert "0002_late.sql comes before 0003" in migrate("plan")[1]
    (directory / "0002_late.sql").unlink()
    (directory / "0003_three.sql").write_text("CREATE TABLE three (id integer);\n")
    assert "0003_three.sql was changed after it was applied" in migrate("apply")[1]


def test_what_a_newer_release_has_applied_is_left_alone(directory: Path, migrate: Any) -> None:
    newer = directory / "0002_newer.sql"
    newer.write_text("CREATE TABLE newer ();\n")
    migrate("apply")
    newer.unlink()
    looked = migrate("plan")
    assert (looked["due"], looked["unknown"]) == ([], ["0002_newer.sql"])


def test_settings_of_one_file_do_not_reach_the_next(
    directory: Path, migrate: Any, sql: Any
) -> None:
    (directory / "0002_aside.sql").write_text("CREATE SCHEMA aside; SET search_path = aside;\n")
    (directory / "0003_table.sql").write_text("CREATE TABLE three ();\n")
    migrate("apply")
    assert sql("SELECT to_regclass('public.three') IS NOT NULL") == [(True,)]


def test_tables_that_were_there_are_recognised(migrate: Any, sql: Any) -> None:
    sql("CREATE TABLE rounds (id integer PRIMARY KEY, map_name text NOT NULL, more text)")
    sql("INSERT INTO rounds VALUES (7, 'supply', 'x')")
    assert migrate("plan")["due"] == ["0001_tables.sql"]
    answer = migrate("apply")
    assert answer["applied"] == ["0001_tables.sql"]
    assert answer["remarks"] == ["rounds.id is integer, in 0001_tables.sql bigint"]
    assert sql("SELECT * FROM rounds") == [(7, "supply", "x")]
    assert sql("SELECT to_regnamespace('schema_migrations_look')") == [(None,)]


def test_tables_that_are_not_the_first_files_are_refused(migrate: Any, sql: Any) -> None:
    sql("CREATE TABLE rounds (id bigint PRIMARY KEY)")
    for command in ("plan", "apply"):
        code, said = migrate(command)
        assert code == 3
        assert "these columns are missing: rounds.map_name" in said
    assert sql("SELECT to_regclass('public.schema_migrations')") == [(None,)]


def test_reference_bots_migrations_make_the_tables_of_its_schema(migrate: Any, sql: Any) -> None:
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable, column_default"
        " FROM information_schema.columns WHERE table_schema = 'public'"
        " AND table_name <> 'schema_migrations' ORDER BY 1, 2"
    )
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
    bot = ROOT / "reference_bot"
    sql((bot / "bot/schema.sql").read_text())
    by_schema = sql(columns), sql(indexes)
    answer = migrate("apply", bot / "migrations")
    assert answer["remarks"] == [], "its own tables are at that state"
    sql("DROP SCHEMA public CASCADE")
    sql("CREATE SCHEMA public")
    migrate("apply", bot / "migrations")
    indexes = indexes.replace("WHERE", "WHERE tablename <> 'schema_migrations' AND")
    assert (sql(columns), sql(indexes)) == by_schema


def test_a_database_filled_by_ferry_is_recognised(
    migrate: Any, database: Database, tmp_path: Path
) -> None:
    """What migrate.yml leaves behind is at the state of the first file, types and all."""
    old = tmp_path / "old.db"
    script = (ROOT / "reference_bot/bot/schema_sqlite.sql").read_text()
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(sys.argv[2])"
    subprocess.run([sys.executable, "-c", program, old, script], check=True)
    subprocess.run(
        [sys.executable, "-m", "ferry", "copy", old, ""],
        env=os.environ | database.environment | {"PYTHONPATH": str(ROOT / "ferry/src")},
        check=True,
        capture_output=True,
    )
    assert migrate("try", ROOT / "reference_bot/migrations") == {"tried": ["0001_tables.sql"]}
    answer = migrate("apply", ROOT / "reference_bot/migrations")
    assert answer == {"applied": ["0001_tables.sql"], "remarks": []}


# -- try: tables of an old bot, in a schema that no bot sees


@pytest.fixture
def staged(sql: Any, directory: Path, database: Database) -> Any:
    """Fill a schema as ferry does; the function returned tries the files on it."""
    sql("CREATE SCHEMA staging")
    sql("CREATE TABLE staging.rounds (id bigint PRIMARY KEY, map_name text NOT NULL)")
    sql("INSERT INTO staging.rounds VALUES (1, 'supply')")

    def attempt() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, SCRIPT, "try", directory],
            env=os.environ | database.environment | {"PGOPTIONS": "-c search_path=staging"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return attempt


def test_files_that_change_no_column_fit_and_leave_nothing(
    staged: Any, directory: Path, sql: Any
) -> None:
    (directory / "0002_index.sql").write_text(
        "CREATE INDEX rounds_map ON rounds (map_name); UPDATE rounds SET map_name = 'goldrush';"
    )
    assert staged() == (0, '{"tried": ["0001_tables.sql", "0002_index.sql"]}\n')
    assert sql("SELECT map_name FROM staging.rounds") == [("supply",)]
    assert sql("SELECT count(*) FROM pg_indexes WHERE schemaname = 'staging'") == [(1,)]
    assert sql("SELECT to_regclass('public.rounds')") == [(None,)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ALTER TABLE rounds ADD season integer", "0002_more.sql adds or changes rounds.season"),
        ("ALTER TABLE rounds DROP map_name", "0002_more.sql adds or changes rounds.map_name"),
        ("ALTER TABLE rounds ALTER id TYPE integer", "0002_more.sql adds or changes rounds.id"),
        ("CREATE TABLE seasons (id integer)", "0002_more.sql adds or changes seasons.id"),
        ("UPDATE rounds SET season = 1", '0002_more.sql fails on them: column "season" of'),
    ],
)
def test_files_that_the_tables_of_the_old_bot_lack_are_refused(
    staged: Any, directory: Path, sql: Any, text: str, complaint: str
) -> None:
    (directory / "0002_more.sql").write_text(text)
    code, said = staged()
    assert code == 3
    assert complaint in said
    assert sql("SELECT * FROM staging.rounds") == [(1, "supply")]


def test_what_the_tables_of_the_old_bot_have_already_is_no_difference(
    staged: Any, directory: Path
) -> None:
    (directory / "0002_name.sql").write_text("ALTER TABLE rounds ADD IF NOT EXISTS map_name text")
    assert staged()[0] == 0


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of which PostgreSQL refuses a statement, and another one without the column."""
    path = tmp_path_factory.mktemp("source")
    (path / "new.py").write_text('NOTE = "SELECT note FROM rounds"\n')
    (path / "wrong.py").write_text('\nWRONG = "SELECT * FROM nowhere"\n')
    return path


def test_sql_is_judged_after_what_is_due_and_nothing_of_that_stays(
    directory: Path, source: Path, migrate: Any, sql: Any
) -> None:
    (directory / "0002_note.sql").write_text("ALTER TABLE rounds ADD note text;\n")
    wrong = {
        "file": str(source / "wrong.py"),
        "line": 2,
        "message": 'relation "nowhere" does not exist',
        "new": True,
    }
    judged = migrate("audit", directory, source, "")
    assert judged["tried"] == ["0001_tables.sql", "0002_note.sql"]
    assert judged["refused"] == [wrong]
    assert sql("SELECT to_regclass('rounds'), to_regclass('schema_migrations')") == [(None, None)]
    migrate("apply")
    assert migrate("audit", directory, source, "", "wrong.py") == {"tried": [], "refused": []}
    assert migrate("audit", "", source, "")["refused"] == [wrong]


def test_a_statement_that_the_running_release_has_and_fails_with_is_not_new(
    directory: Path, source: Path, migrate: Any, tmp_path: Path
) -> None:
    """Elsewhere it is the same; one that a file that is due takes the column from is new."""
    migrate("apply")
    running = tmp_path / "running"
    running.mkdir()
    (running / "bot.py").write_text(
        'A = "SELECT * FROM nowhere"\nB = "SELECT map_name FROM rounds"\n'
    )
    (source / "same.py").write_text('B = "SELECT map_name FROM rounds"\n')
    (source / "other.py").write_text('C = "SELECT * FROM elsewhere"\n')
    (directory / "0002_note.sql").write_text("ALTER TABLE rounds ADD note text;\n")

    def new() -> dict[str, bool]:
        judged = migrate("audit", directory, source, running)["refused"]
        return {Path(one["file"]).name: one["new"] for one in judged}

    assert new() == {"wrong.py": False, "other.py": True}
    (directory / "0003_less.sql").write_text("ALTER TABLE rounds DROP map_name;\n")
    assert new() == {"wrong.py": False, "other.py": True, "same.py": True}


def test_a_file_that_fails_is_found_out_before_any_is_applied(
    directory: Path, source: Path, migrate: Any, sql: Any
) -> None:
    (directory / "0002_two.sql").write_text("SELECT 1 / 0;\n")
    assert migrate("audit", directory, source, "") == (3, "0002_two.sql fails: division by zero\n")
    assert sql("SELECT to_regclass('rounds')") == [(None,)]
