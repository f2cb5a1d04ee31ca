"""What each role may do, tried from the client."""

from __future__ import annotations

import re

import pytest

DENIED = "permission denied|must be owner|must be superuser"


@pytest.mark.usefixtures("rounds")
class TestApplication:
    def test_reads_and_writes_what_the_migration_made(self, client) -> None:
        result = client.login(
            "etlegacy_app",
            "INSERT INTO rounds (map_name) VALUES ('radar') RETURNING id > 5000;"
            "UPDATE rounds SET dpm = 1 WHERE map_name = 'radar';"
            "DELETE FROM rounds WHERE map_name = 'radar'",
        )
        assert (result.rc, result.stdout.strip()) == (0, "t")

    @pytest.mark.parametrize(
        "sql",
        [
            "CREATE TABLE mine (id int)",
            "CREATE SCHEMA mine",
            "CREATE TEMPORARY TABLE mine (id int)",
            "DROP TABLE rounds",
            "ALTER TABLE rounds ADD extra int",
            "TRUNCATE rounds",
            "SET ROLE etlegacy_owner",
            "COPY rounds TO PROGRAM 'cat'",
            "SELECT pg_read_file('/etc/passwd')",
            "CREATE ROLE friend",
        ],
    )
    def test_may_not(self, client, sql) -> None:
        result = client.login("etlegacy_app", sql)
        assert result.rc == 1, result.stdout
        assert re.search(DENIED, result.stderr)


@pytest.mark.usefixtures("rounds")
class TestReadonly:
    """On the server itself, where a developer's tunnel ends."""

    def login(self, machine, sql):
        return machine.login("etlegacy_readonly", sql, options="hostaddr=127.0.0.1 sslmode=require")

    def test_reads_what_came_later(self, database) -> None:
        assert self.login(database, "SELECT count(*) FROM rounds").stdout.strip() == "5000"

    @pytest.mark.parametrize("sql", ["DELETE FROM rounds", "CREATE TABLE mine (id int)"])
    def test_cannot_write_even_without_the_session_default(self, database, sql) -> None:
        result = self.login(database, f"SET transaction_read_only = off; {sql}")
        assert result.rc == 1
        assert re.search(DENIED, result.stderr)

    def test_does_not_hold_up_the_bot(self, database) -> None:
        assert self.login(database, "SHOW statement_timeout").stdout.strip() == "1min"


@pytest.mark.usefixtures("rounds")
def test_what_the_migration_makes_belongs_to_the_owner(database) -> None:
    owners = database.sql(
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'", "etlegacy_stats"
    )
    assert owners == "etlegacy_owner"


def test_public_has_nothing(server) -> None:
    granted = server.sql(
        "SELECT count(*) FROM pg_database, aclexplode(datacl) AS a"
        " WHERE grantee = 0 AND datname <> 'template0'"
    )
    schemas = server.sql(
        "SELECT count(*) FROM pg_namespace, aclexplode(nspacl) AS a"
        " WHERE grantee = 0 AND nspname = 'public'",
        "etlegacy_stats",
    )
    assert (granted, schemas) == ("0", "0")


def test_roles_have_no_more_than_they_need(server) -> None:
    rows = server.sql(
        "SELECT rolname, rolcanlogin, rolcreatedb, rolbypassrls FROM pg_roles WHERE NOT rolsuper"
        " AND oid >= 16384 AND NOT rolcreaterole AND NOT rolreplication ORDER BY 1"
    ).split("\n")
    assert rows == [
        "etlegacy_app|t|f|f",
        "etlegacy_migrator|t|f|f",
        "etlegacy_owner|f|f|f",
        "etlegacy_readonly|t|f|f",
        "postgres_backup|t|t|t",
        "postgres_monitor|t|f|f",
        "postgres_pooler|t|f|f",
        "postgres_pooler_lookup|f|f|f",
        "postgres_restore|t|f|t",  # what they own alone is not hidden from them by a policy
        "postgres_restore_check|t|f|t",
    ]
    superusers = server.sql("SELECT rolname FROM pg_roles WHERE rolsuper")
    assert superusers == "postgres"
