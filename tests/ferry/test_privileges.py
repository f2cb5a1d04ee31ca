"""Which rights each command needs: exactly these are enough, and a missing one is named."""

import re

import pytest


@pytest.fixture
def role(copied, postgres_cluster):
    """A login role without rights, in the bot's database; returns it and a way to run SQL."""
    name = f"somebody_{copied.name}"
    with copied.connect() as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN")
        admin.execute(f"REVOKE ALL ON DATABASE {copied.name} FROM PUBLIC")
        admin.execute(f"GRANT CONNECT ON DATABASE {copied.name} TO {name}")
        admin.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        yield postgres_cluster.database(copied.name, user=name), admin.execute
        admin.execute(f"DROP OWNED BY {name}")
        admin.execute(f"DROP ROLE {name}")


def grants(run):
    return re.findall(r"GRANT [^;]*", run.err.replace("\n", " ").strip())


@pytest.mark.parametrize("command", ["verify", "reverse"])
def test_reading_needs_three_grants_and_names_them(ferry, bot_database, role, tmp_path, command):
    reader, execute = role

    def run():
        if command == "verify":
            return ferry("verify", bot_database, reader.dsn)
        return ferry("reverse", reader.dsn, tmp_path / "back.db")

    refused = run()
    assert refused.code == 3, refused
    named = grants(refused)
    assert named == [
        f'GRANT USAGE ON SCHEMA "public" TO "{reader.user}"',
        f'GRANT SELECT ON ALL TABLES IN SCHEMA "public" TO "{reader.user}"',
        f'GRANT SELECT ON ALL SEQUENCES IN SCHEMA "public" TO "{reader.user}"',
    ]
    for number, grant in enumerate(named):
        assert grants(run()) == named[number:]
        execute(grant)
    done = run()
    assert done.code == 0, done


def test_verify_reads_no_tables_of_others(ferry, bot_database, role):
    reader, execute = role
    execute(f"GRANT USAGE ON SCHEMA public TO {reader.user}")
    execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader.user}")
    execute(f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO {reader.user}")
    execute("CREATE TABLE secrets (id bigint GENERATED ALWAYS AS IDENTITY)")
    assert ferry("verify", bot_database, reader.dsn).code == 0


def test_sync_needs_the_owners_role(ferry, bot_database, role):
    mover, execute = role
    execute(f"CREATE ROLE owner_{mover.name} NOLOGIN")
    try:
        execute(f"GRANT ALL ON SCHEMA public TO {mover.user}, owner_{mover.name}")
        execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {mover.user}")
        execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {mover.user}")
        for table in ("rounds", "player_links", "processed_files", "session_teams",
                      "player_aliases", "player_comprehensive_stats",
                      "weapon_comprehensive_stats"):  # fmt: skip
            execute(f"ALTER TABLE {table} OWNER TO owner_{mover.name}")
        for command in (
            ("sync", bot_database, mover.dsn),
            ("copy", bot_database, mover.dsn, "--into-existing"),
        ):
            refused = ferry(*command)
            assert refused.code == 3, refused
            assert grants(refused) == [f'GRANT "owner_{mover.name}" TO "{mover.user}"']
        execute(f"GRANT owner_{mover.name} TO {mover.user}")
        execute("UPDATE rounds SET winner_team = 9 WHERE id = 4")
        run = ferry("sync", bot_database, mover.dsn)
        assert run.code == 0, run
        assert run.report["outcome"] == "carried"
    finally:
        execute(f"DROP OWNED BY owner_{mover.name} CASCADE")
        execute(f"DROP ROLE owner_{mover.name}")


def test_connecting_needs_a_grant_too(ferry, bot_database, role):
    somebody, execute = role
    execute(f"REVOKE CONNECT ON DATABASE {somebody.name} FROM {somebody.user}")
    run = ferry("verify", bot_database, somebody.dsn)
    assert run.code == 5
    assert "GRANT CONNECT ON DATABASE" in run.err


def test_audit_needs_the_schema_only(ferry, role, tmp_path):
    reader, execute = role
    (tmp_path / "bot.py").write_text("db.execute('SELECT id FROM rounds')")
    run = ferry("audit-sql", tmp_path / "bot.py", reader.dsn)
    assert run.code == 3
    (grant,) = grants(run)
    assert grant == f'GRANT USAGE ON SCHEMA public TO "{reader.user}"'
    execute(grant)
    run = ferry("audit-sql", tmp_path / "bot.py", reader.dsn)
    assert run.code == 0, run


@pytest.mark.parametrize("script", ["CREATE TABLE t (a)", "CREATE TABLE u (a)"])
def test_tables_of_others_make_a_target_that_is_not_empty(
    ferry, make_sqlite, database, postgres_cluster, script
):
    role = f"mover_{database.name}"
    with database.connect() as admin:
        admin.execute("CREATE TABLE t (a text); INSERT INTO t VALUES ('theirs')")
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        admin.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {role}")
    mover = postgres_cluster.database(database.name, user=role)
    run = ferry("copy", make_sqlite(f"{script}; INSERT INTO {script[13]} VALUES ('x')"), mover.dsn)
    assert run.code == 3, run
    assert "the target is not empty: the schema public of the database" in run.err
    assert "already has t" in run.err
