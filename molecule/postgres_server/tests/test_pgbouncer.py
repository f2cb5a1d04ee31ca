"""The pool on the server: who gets through it, what it may know, and asyncpg in both modes."""

from __future__ import annotations

import json

import pytest
from scenario import ADDRESS, PASSWORD, SCENARIO, VERIFIED

APP = f"port=6432 dbname=etlegacy_stats user=etlegacy_app host={ADDRESS['database']}"
APP_PASSWORD = PASSWORD["etlegacy_app"]
USERLIST = "/etc/pgbouncer/postgres_server/userlist.txt"

# Two programs with two connections each, all at work at the same time on the same statements.
ASYNCPG = """
import asyncio, json, ssl, sys
import asyncpg
given = json.loads(sys.argv[1])
given["ssl"] = ssl.create_default_context(cafile="/root/ca.crt")
async def work(connection):
    total = 0
    for number in range(20):
        async with connection.transaction():
            total += await connection.fetchval("SELECT $1::int + 1", number)
    return total
async def main():
    connections = [await asyncpg.connect(**given) for _ in range(2)]
    print(await asyncio.gather(*map(work, connections)))
asyncio.run(main())
"""


def asyncpg(client, server: str = "database", **settings: object):
    """Run the program above twice at once on the client."""
    given = {
        "host": ADDRESS[server],
        "port": 6432,
        "user": "etlegacy_app",
        "database": "etlegacy_stats",
        "password": APP_PASSWORD,
    } | settings
    return client.run(
        "python3 -c %s %s & python3 -c %s %s && wait $!",
        *(ASYNCPG, json.dumps(given)) * 2,
    )


def test_the_bot_s_address_gets_in_with_tls_on_both_sides(server, client) -> None:
    result = client.through_pgbouncer(
        "etlegacy_app",
        "SELECT version, client_addr, application_name"
        " FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE pid = pg_backend_pid()",
        server.name,
    )
    version, address, name = result.stdout.strip().split("|")
    assert (version, address) == ("TLSv1.3", "127.0.0.1"), result.stderr
    assert f" - {ADDRESS['client']}:" in name  # whose session it is can still be seen
    side = client.ok(
        "openssl s_client -starttls postgres -connect %s:6432 -CAfile /root/ca.crt"
        " -verify_return_error -verify_ip %s </dev/null",
        ADDRESS[server.name],
        ADDRESS[server.name],
    )
    assert "TLSv1.3" in side


@pytest.mark.parametrize(
    ("dsn", "password", "message"),
    [
        pytest.param(f"{APP} sslmode=disable", APP_PASSWORD, "SSL required", id="without TLS"),
        pytest.param(
            f"{APP} sslmode=verify-full sslrootcert=/root/other-ca.crt",
            APP_PASSWORD,
            "certificate verify failed",
            id="trusting another authority",
        ),
        pytest.param(f"{APP} {VERIFIED}", "wrong", "SASL authentication failed", id="password"),
        pytest.param(
            f"{APP} {VERIFIED} user=etlegacy_migrator",
            PASSWORD["etlegacy_migrator"],
            "no such user",
            id="a role that may not come through",
        ),
        pytest.param(
            f"{APP} {VERIFIED} user=postgres_pooler", "x", "login rejected", id="its own login"
        ),
        pytest.param(f"{APP} {VERIFIED} user=postgres", "x", "no such user", id="superuser"),
        pytest.param(f"{APP} {VERIFIED} dbname=postgres", APP_PASSWORD, "rejected", id="database"),
        pytest.param(f"{APP} {VERIFIED} dbname=pgbouncer", "x", "rejected", id="its console"),
    ],
)
def test_the_client_is_refused(client, dsn, password, message) -> None:
    result = client.psql(dsn, "SELECT 1", password)
    assert result.rc == 2
    assert message in result.stderr


def test_the_right_login_is_refused_from_another_address(outsider) -> None:
    result = outsider.through_pgbouncer("etlegacy_app", "SELECT 1")
    assert result.rc == 2
    assert "login rejected" in result.stderr


class TestLogin:
    """What the login by which PgBouncer asks for passwords may know, and who else."""

    def ask(self, server, sql):
        password = server.ok(f"cat {USERLIST}").split('"')[3]
        dsn = (
            "host=localhost dbname=etlegacy_stats user=postgres_pooler "
            "sslmode=verify-full sslrootcert=/etc/postgresql/tls/ca.crt"
        )
        return server.psql(dsn, sql, password)

    def test_it_learns_the_secret_of_who_may_come_and_of_nobody_else(self, server) -> None:
        secret = "SELECT count(*), min(left(secret, 14)) FROM postgres_pooler.login('%s')"
        assert self.ask(server, secret % "etlegacy_app").stdout.strip() == "1|SCRAM-SHA-256$"
        for role in ("postgres", "etlegacy_migrator", "postgres_pooler"):
            assert self.ask(server, secret % role).stdout.strip() == "0|"

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT rolpassword FROM pg_authid",
            "SELECT passwd FROM pg_shadow",
            "SELECT * FROM postgres_pooler.logins",
            "SELECT * FROM public.rounds",
            "CREATE TABLE postgres_pooler.mine (id int)",
            "ALTER FUNCTION postgres_pooler.login SECURITY INVOKER",
            "SET ROLE postgres_pooler_lookup",
        ],
    )
    @pytest.mark.usefixtures("rounds")
    def test_it_may_do_nothing_else(self, database, sql) -> None:
        result = self.ask(database, sql)
        assert result.rc == 1
        assert "permission denied" in result.stderr or "must be owner" in result.stderr

    def test_nobody_else_may_ask(self, client) -> None:
        result = client.login("etlegacy_app", "SELECT postgres_pooler.login('etlegacy_app')")
        assert "permission denied for schema postgres_pooler" in result.stderr

    def test_the_function_s_owner_has_that_and_nothing_else(self, database) -> None:
        owned = database.sql(
            "SELECT string_agg(DISTINCT classid::regclass::text, ' ') FROM pg_shdepend"
            " WHERE refobjid = 'postgres_pooler_lookup'::regrole",
            "etlegacy_stats",
        )
        assert owned == "pg_class pg_namespace pg_proc"  # a view, its schema, the function
        members = "SELECT count(*) FROM pg_auth_members WHERE %s"
        assert database.sql(members % "member = 'postgres_pooler_lookup'::regrole") == "0"
        assert database.sql(members % "roleid = 'postgres_pooler_lookup'::regrole") == "0"

    def test_its_password_is_here_and_nowhere_else(self, server) -> None:
        password = server.ok(f"cat {USERLIST}").split('"')[3]
        assert len(password) == 40
        assert server.ok(f"stat -c %U:%G:%a {USERLIST}") == "root:pgbouncer:640"
        assert server.run("journalctl --no-pager | grep -cF -- %s", password).stdout.strip() == "0"
        found = server.run("grep -rlF -- %s /var/log /tmp /root /etc", password)
        assert found.stdout.split() == [USERLIST]


def test_a_changed_and_an_expired_password_are_noticed_at_once(database, client) -> None:
    # On a slow machine the log of slow statements would have the password.
    quietly = "SET log_min_duration_statement = -1; "
    try:
        database.sql(f"{quietly}ALTER ROLE etlegacy_app PASSWORD 'Molecule-pool-6yH3nJ9m'")
        assert client.through_pgbouncer("etlegacy_app", "SELECT 1").rc == 2
        result = client.psql(f"{APP} {VERIFIED}", "SELECT 1", "Molecule-pool-6yH3nJ9m")
        assert result.rc == 0, result.stderr
        database.sql(f"{quietly}ALTER ROLE etlegacy_app PASSWORD '{APP_PASSWORD}'")
        assert client.through_pgbouncer("etlegacy_app", "SELECT 1").rc == 0
        database.sql("ALTER ROLE etlegacy_app VALID UNTIL 'yesterday'")
        assert client.through_pgbouncer("etlegacy_app", "SELECT 1").rc == 2
    finally:
        database.sql(
            f"{quietly}ALTER ROLE etlegacy_app PASSWORD '{APP_PASSWORD}' VALID UNTIL 'infinity'"
        )
    assert client.through_pgbouncer("etlegacy_app", "SELECT 1").rc == 0


def test_it_does_not_run_as_postgres_and_starts_at_boot(server) -> None:
    assert server.ok("ps -o user= -C pgbouncer") == "pgbouncer"
    assert server.ok("systemctl is-enabled pgbouncer") == "enabled"


def test_asyncpg_needs_nothing_special_by_default(server, client) -> None:
    result = asyncpg(client, server.name)
    assert result.rc == 0, result.stderr
    assert result.stdout.split() == ["[210,", "210]"] * 2


class TestChanges:
    """Each run starts from what the one before left."""

    def test_a_further_client_is_let_in_and_shut_out_again(self, play, client, outsider) -> None:
        """By itself, as rollback.yml -e rollback_mode=partial does it for the old PC."""
        bot, old_bot = (
            {"name": name, "addresses": [ADDRESS[place]], "users": ["etlegacy_app"]}
            for name, place in (("the bot", "client"), ("the old bot", "outsider"))
        )
        for clients, code in ([bot, old_bot], 0), ([bot], 2):
            result = play(SCENARIO / "clients.yml", postgres_server_pgbouncer_clients=clients)
            assert result.returncode == 0, result.stdout
            assert outsider.through_pgbouncer("etlegacy_app", "SELECT 1").rc == code
            assert client.through_pgbouncer("etlegacy_app", "SELECT 1").rc == 0

    def test_transaction_pooling_wants_asyncpg_without_its_cache(self, converge, client) -> None:
        """Four connections share one session of PostgreSQL."""
        result = converge(
            postgres_server_pgbouncer_pool_mode="transaction", postgres_server_pgbouncer_pool_size=1
        )
        assert result.returncode == 0, result.stdout
        with_cache = asyncpg(client)
        assert with_cache.rc != 0
        assert "prepared statement" in with_cache.stderr
        without = asyncpg(client, statement_cache_size=0)
        assert without.rc == 0, without.stderr
        assert without.stdout.split() == ["[210,", "210]"] * 2

    def test_a_line_that_pgbouncer_does_not_take_fails_every_run(self, converge) -> None:
        bad = [{"name": "bot", "addresses": ["fe80:::1"], "users": ["etlegacy_app"]}]
        for _ in range(2):
            result = converge(postgres_server_pgbouncer_clients=bad)
            assert result.returncode != 0
            assert "PgBouncer does not use all that is written" in " ".join(result.stdout.split())

    def test_switched_off_it_is_gone_with_all_it_needed(self, converge, database, client) -> None:
        result = converge(postgres_server_pgbouncer_enabled=False)
        assert result.returncode == 0, result.stdout
        assert "refused" in client.through_pgbouncer("etlegacy_app", "SELECT 1").stderr
        assert database.sql("SELECT count(*) FROM pg_roles WHERE rolname ~ 'pooler'") == "0"
        schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'postgres_pooler'"
        assert database.sql(schemas, "etlegacy_stats") == "0"
        assert database.run("ls /etc/pgbouncer/postgres_server").rc != 0
        assert "changed=0" in converge(postgres_server_pgbouncer_enabled=False).stdout

    def test_and_comes_back(self, converge, client) -> None:
        result = converge()
        assert result.returncode == 0, result.stdout
        assert client.through_pgbouncer("etlegacy_app", "SELECT 1").rc == 0
