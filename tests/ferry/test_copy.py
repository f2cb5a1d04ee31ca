"""copy: everything arrives, in one piece, or nothing does."""

import sqlite3
import subprocess
import sys

import psycopg
import pytest


def rows(database, query):
    with database.connect() as connection:
        return connection.execute(query).fetchall()


def column_types(database, table):
    return dict(
        rows(
            database,
            "SELECT column_name, data_type FROM information_schema.columns "
            f"WHERE table_name = '{table}'",
        )
    )


def test_the_bots_database_arrives_whole(ferry, bot_database, database, contents_of):
    before = contents_of(bot_database.parent)
    run = ferry("copy", bot_database, database.dsn)
    assert run.code == 0, run
    assert contents_of(bot_database.parent) == before

    report = run.report
    assert (report["command"], report["exit_code"], report["outcome"]) == ("copy", 0, "copied")
    assert report["source"]["sha256"] == before["bot.db"]
    assert report["started"] < report["finished"]
    assert report["started"].endswith("Z")
    assert len(report["tables"]) == 7
    for table in report["tables"]:
        assert table["equal"] is True
        assert table["rows_sqlite"] == table["rows_postgres"]
        assert table["checksum_sqlite"] == table["checksum_postgres"]
        assert len(table["checksum_sqlite"]) == 32
    assert "copied and proven" in run.out

    source = sqlite3.connect(f"file:{bot_database}?mode=ro", uri=True)
    for table in ("rounds", "weapon_comprehensive_stats"):
        ours = source.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()
        theirs = rows(database, f"SELECT * FROM {table} ORDER BY id")
        assert len(ours) == len(theirs) > 0
        assert [row[:9] for row in ours] == [row[:9] for row in theirs]
        if table.startswith("weapon"):
            assert ours == theirs, "doubles are exact"
    assert column_types(database, "rounds") == {
        "id": "bigint",
        "round_date": "text",
        "round_time": "text",
        "match_id": "text",
        "map_name": "text",
        "round_number": "integer",
        "time_limit": "text",
        "actual_time": "text",
        "winner_team": "integer",
        "defender_team": "integer",
        "is_tied": "boolean",
        "round_outcome": "text",
        "gaming_session_id": "integer",
        "created_at": "timestamp without time zone",
    }
    assert column_types(database, "weapon_comprehensive_stats")["round_id"] == "bigint"
    assert column_types(database, "weapon_comprehensive_stats")["accuracy"] == "double precision"
    assert column_types(database, "player_links")["discord_id"] == "bigint"


def test_ids_go_on_above_what_sqlite_gave_away(ferry, bot_database, database):
    assert ferry("copy", bot_database, database.dsn).code == 0
    source = sqlite3.connect(f"file:{bot_database}?mode=ro", uri=True)
    given = dict(source.execute("SELECT name, seq FROM sqlite_sequence"))
    highest = source.execute("SELECT max(id) FROM rounds").fetchone()[0]
    assert given["rounds"] > highest
    with database.connect() as connection:
        (new,) = connection.execute(
            "INSERT INTO rounds (round_date, round_time, match_id, map_name, round_number) "
            "VALUES ('2026-01-01', '000043', 'm', 'supply', 1) RETURNING id"
        ).fetchone()
    assert new == given["rounds"] + 1


def test_defaults_mean_the_same_whatever_the_time_zone(ferry, bot_database, database):
    assert ferry("copy", bot_database, database.dsn).code == 0
    with database.connect() as connection:
        connection.execute("SET TimeZone = 'America/St_Johns'")
        row = connection.execute(
            "INSERT INTO processed_files (filename) VALUES ('x') RETURNING success, "
            "abs(extract(epoch FROM processed_at - (now() AT TIME ZONE 'utc'))), "
            "extract(microseconds FROM processed_at)::int % 1000000"
        ).fetchone()
    assert row[0] is True
    assert row[1] < 5
    assert row[2] == 0


def test_constraints_and_indexes_arrive(ferry, bot_database, database):
    assert ferry("copy", bot_database, database.dsn).code == 0
    names = {name for (name,) in rows(database, "SELECT indexname FROM pg_indexes")}
    assert {
        "idx_rounds_date_map",
        "idx_rounds_match",
        "idx_player_round",
        "idx_player_guid",
        "idx_player_date_map",
        "idx_weapon_round",
        "idx_weapon_guid",
    } <= names
    with database.connect() as connection:
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(
                "INSERT INTO rounds SELECT 999999, round_date, round_time, match_id, map_name, "
                "round_number FROM rounds LIMIT 1"
            )
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute(
                "INSERT INTO weapon_comprehensive_stats (round_id, player_guid, player_name, "
                "weapon_name) VALUES (-1, 'a', 'b', 'c')"
            )
        with pytest.raises(psycopg.errors.NotNullViolation):
            connection.execute("INSERT INTO processed_files (file_hash) VALUES ('x')")


def test_a_second_run_does_nothing_and_says_so(ferry, bot_database, database):
    assert ferry("copy", bot_database, database.dsn).code == 0
    before = rows(database, "SELECT xmin::text, ctid::text FROM rounds")
    run = ferry("copy", bot_database, database.dsn)
    assert run.code == 0
    assert run.report["outcome"] == "nothing to do"
    assert "nothing to do" in run.out
    assert all(table["equal"] for table in run.report["tables"])
    assert rows(database, "SELECT xmin::text, ctid::text FROM rounds") == before


def test_a_target_that_went_on_is_refused_and_left_alone(ferry, bot_database, database):
    assert ferry("copy", bot_database, database.dsn).code == 0
    with database.connect() as connection:
        connection.execute("INSERT INTO processed_files (filename) VALUES ('written since')")
    run = ferry("copy", bot_database, database.dsn)
    assert run.code == 3
    assert "not empty" in run.err
    assert "--schema" in run.err
    (found,) = rows(database, "SELECT count(*) FROM processed_files WHERE filename LIKE 'written%'")
    assert found == (1,)


@pytest.mark.parametrize(
    "script",
    ["CREATE TABLE other (a int)", "CREATE VIEW v AS SELECT 1", "CREATE TABLE rounds (id int)"],
)
def test_any_table_of_somebody_else_is_refused(ferry, bot_database, database, script):
    with database.connect() as connection:
        connection.execute(script)
    run = ferry("copy", bot_database, database.dsn)
    assert run.code == 3
    assert "not empty" in run.err
    assert (
        len(
            rows(
                database, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            )
        )
        == 1
    )


def test_tables_of_an_extension_do_not_count(ferry, bot_database, database):
    with database.connect() as connection:
        try:
            connection.execute("CREATE EXTENSION pg_buffercache")
        except psycopg.errors.FeatureNotSupported:
            pytest.fail("the server package has no contrib extensions")
    assert ferry("copy", bot_database, database.dsn).code == 0


def test_another_schema_can_be_named_and_is_made(ferry, bot_database, database):
    run = ferry("copy", bot_database, database.dsn, "--schema", "Old Bot")
    assert run.code == 0
    assert run.report["target"]["schema"] == "Old Bot"
    assert ferry("verify", bot_database, database.dsn, "--schema", "Old Bot").code == 0
    assert rows(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_nothing_remains_where_the_contents_break_a_constraint(ferry, make_sqlite, database):
    # Two spellings of one moment are two values to SQLite's UNIQUE, and one to PostgreSQL's. What
    # a partial index holds, only PostgreSQL finds out.
    path = make_sqlite(
        "CREATE TABLE a (x); INSERT INTO a VALUES (1);"
        "CREATE TABLE t (ts TIMESTAMP); CREATE UNIQUE INDEX i ON t (ts) WHERE ts IS NOT NULL;"
        "INSERT INTO t VALUES ('2024-01-01 00:00:00'), ('2024-01-01T00:00:00')"
    )
    run = ferry("copy", path, database.dsn)
    assert run.code == 3, run
    assert "the contents break the index of i" in run.err
    assert rows(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_two_ferries_at_once_are_not_allowed(ferry, bot_database, database):
    with database.connect(autocommit=False) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('ferry:public', 0))")
        run = ferry("copy", bot_database, database.dsn)
        assert run.code == 3
        assert "another ferry" in run.err
        other.rollback()
    assert ferry("copy", bot_database, database.dsn).code == 0


def test_the_least_privileges_are_enough_and_what_lacks_is_named(
    ferry, bot_database, database, postgres_cluster
):
    role = f"mover_{database.name}"
    with database.connect() as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        admin.execute(f"REVOKE ALL ON DATABASE {database.name} FROM PUBLIC")
        admin.execute(f"GRANT CONNECT ON DATABASE {database.name} TO {role}")
    mover = postgres_cluster.database(database.name, user=role)
    run = ferry("copy", bot_database, mover.dsn)
    assert run.code == 3
    assert f'GRANT USAGE, CREATE ON SCHEMA "public" TO "{role}"' in run.err
    new = ferry("copy", bot_database, mover.dsn, "--schema", "fresh")
    assert new.code == 3
    assert f'GRANT CREATE ON DATABASE "{database.name}" TO "{role}"' in new.err
    with database.connect() as admin:
        admin.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {role}")
    run = ferry("copy", bot_database, mover.dsn)
    assert run.code == 0, run
    with database.connect() as admin:
        admin.execute(f"DROP OWNED BY {role}")
        admin.execute(f"DROP ROLE {role}")


def test_what_a_switched_role_creates_belongs_to_the_owner(
    ferry, bot_database, database, postgres_cluster
):
    owner, mover = f"owner_{database.name}", f"mover_{database.name}"
    with database.connect() as admin:
        admin.execute(f"CREATE ROLE {owner} NOLOGIN")
        admin.execute(f"CREATE ROLE {mover} LOGIN IN ROLE {owner}")
        admin.execute(f"ALTER ROLE {mover} SET role = {owner}")
        admin.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {owner}")
    run = ferry("copy", bot_database, postgres_cluster.database(database.name, user=mover).dsn)
    assert run.code == 0, run
    assert run.report["target"]["role"] == owner
    owners = rows(database, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert owners == [(owner,)]
    with database.connect() as admin:
        admin.execute(f"DROP OWNED BY {owner}")
        admin.execute(f"DROP ROLE {mover}")
        admin.execute(f"DROP ROLE {owner}")


def test_wide_values_and_wide_tables(ferry, make_sqlite, database):
    columns = ", ".join(
        f"c{number} INTEGER, d{number} TEXT, e{number} REAL" for number in range(150)
    )
    path = make_sqlite(
        f"CREATE TABLE wide ({columns}); CREATE TABLE big (id INTEGER PRIMARY KEY, a TEXT, b BLOB)",
        ("INSERT INTO wide (c7, d8, e149) VALUES (?, ?, ?)", (1, "x\ty\\", 0.1)),
        ("INSERT INTO big VALUES (1, ?, ?)", ("ä" * 5_000_000, b"\x00\xff" * 5_000_000)),
        ("INSERT INTO big VALUES (2, ?, ?)", ("", b"")),
    )
    run = ferry("copy", path, database.dsn)
    assert run.code == 0, run
    assert rows(database, "SELECT length(a), length(b) FROM big ORDER BY id") == [
        (5_000_000, 10_000_000),
        (0, 0),
    ]


def test_an_empty_dsn_takes_the_environment(ferry, bot_database, database, monkeypatch):
    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)
    run = ferry("copy", bot_database, "")
    assert run.code == 0, run
    assert run.report["target"]["database"] == database.name
    assert database.password not in str(run.report) + run.text


@pytest.mark.parametrize(
    ("dsn", "code", "message"),
    [
        ("postgresql://u:secret@localhost/db", 2, "holds a password"),
        ("host=localhost password=secret", 2, "holds a password"),
        ("this is no dsn", 2, "no connection string"),
        ("host=127.0.0.1 port=1 dbname=x", 5, "is the server running"),
        ("host=/nowhere dbname=x", 5, "no connection"),
    ],
)
def test_a_bad_dsn_is_told_from_a_bad_server(ferry, bot_database, dsn, code, message):
    run = ferry("copy", bot_database, dsn)
    assert run.code == code, run
    assert message in run.err
    assert "secret" not in run.text + str(run.report)
    assert "Traceback" not in run.text
    assert run.report["exit_code"] == code


def test_a_wrong_password_is_a_server_error(ferry, bot_database, database, monkeypatch):
    for name, value in {**database.environment, "PGPASSWORD": "wrong-one"}.items():
        monkeypatch.setenv(name, value)
    run = ferry("verify", bot_database, "")
    assert run.code == 5
    assert "PGPASSWORD" in run.err
    assert "wrong-one" not in run.text


@pytest.mark.parametrize("command", ["inspect", "copy", "verify", "schema"])
def test_a_missing_file_is_refused_and_not_created(ferry, tmp_path, database, command):
    missing = tmp_path / "nowhere.db"
    run = ferry(command, missing, *([database.dsn] if command in ("copy", "verify") else []))
    assert run.code == 3
    assert "does not exist" in run.err
    assert not missing.exists()


def test_a_report_that_cannot_be_written_is_told_before_anything_else(
    ferry, bot_database, database, tmp_path
):
    run = ferry("copy", bot_database, database.dsn, "--report", tmp_path / "no" / "dir.json")
    assert run.code == 2
    assert rows(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_a_source_that_is_written_meanwhile_is_refused(
    ferry, own_bot_database, database, monkeypatch
):
    from ferry import load

    connection = sqlite3.connect(own_bot_database, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()  # WAL without companions: read as immutable
    original = load.create_collations

    def create_collations(*arguments):
        writer = sqlite3.connect(own_bot_database, isolation_level=None)
        writer.execute("DELETE FROM player_links")
        writer.close()
        return original(*arguments)

    monkeypatch.setattr(load, "create_collations", create_collations)
    run = ferry("copy", own_bot_database, database.dsn)
    assert run.code == 3, run
    assert "was written" in run.err
    assert rows(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_a_lost_connection_leaves_nothing_and_can_be_repeated(
    ferry, bot_database, database, monkeypatch
):
    from ferry import load

    original = load.copy_table

    def copy_table(source, target, table, *arguments, **options):
        if table.name == "processed_files":
            with database.connect() as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", (target.info.backend_pid,))
        original(source, target, table, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(load, "copy_table", copy_table)
        run = ferry("copy", bot_database, database.dsn)
    assert run.code == 5, run
    assert "run the same command again" in run.err
    assert rows(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    assert ferry("copy", bot_database, database.dsn).code == 0


def test_a_report_is_also_written_for_a_bug(ferry, bot_database, database, monkeypatch):
    from ferry import load

    monkeypatch.setattr(load, "set_sequences", lambda *_: 1 / 0)
    run = ferry("copy", bot_database, database.dsn)
    assert run.code == 1
    assert run.report["outcome"] == "bug"
    assert "ZeroDivisionError" in run.report["messages"][-1]["text"]
    assert rows(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_a_writer_waits_while_a_rollback_mode_file_is_read(own_bot_database):
    from ferry.source import open_sqlite

    # A process of its own, as the bot is: locks do not hold within one.
    writing = (
        "import sqlite3, sys; "
        "sqlite3.connect(sys.argv[1], timeout=0.1, isolation_level=None)"
        ".execute('DELETE FROM player_links')"
    )
    with open_sqlite(str(own_bot_database)) as source:
        writer = subprocess.run(
            [sys.executable, "-c", writing, own_bot_database], capture_output=True, text=True
        )
        assert "database is locked" in writer.stderr
        assert source.connection.execute("SELECT count(*) FROM player_links").fetchone() == (60,)


def test_text_that_holds_every_control_character(ferry, make_sqlite, database, tmp_path):
    everything = "".join(map(chr, range(1, 128)))
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB, r REAL, n NUMERIC, ok BOOLEAN)",
        ("INSERT INTO t VALUES (1, ?, x'00ff', 0.1, 1.5, 1)", (everything,)),
        ("INSERT INTO t VALUES (2, NULL, NULL, NULL, NULL, NULL)", ()),
        ("INSERT INTO t VALUES (3, ?, x'', -1e300, 2, 't')", ("\x1d",)),
    )
    run = ferry("copy", path, database.dsn)
    assert run.code == 0, run
    assert rows(database, "SELECT a FROM t ORDER BY id") == [(everything,), (None,), ("\x1d",)]
    assert ferry("reverse", database.dsn, tmp_path / "back.db").code == 0
