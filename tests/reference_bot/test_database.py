"""The one interface over both databases: settings, statements, values, transactions, outages."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import pwd
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bot.core.database import (
    Database,
    DatabaseConfigurationError,
    DatabaseError,
    DatabaseSettings,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    DatabaseValueError,
    numbered_placeholders,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.postgres import PASSWORD, Cluster

# --------------------------------------------------------------------------------------- settings

POSTGRES = {
    "DATABASE_TYPE": "postgresql",
    "DATABASE_HOST": "db.example.org",
    "DATABASE_NAME": "etlegacy_stats",
    "DATABASE_USER": "etlegacy_app",
    "DATABASE_PASSWORD": "s3cret-word",
}


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "set DATABASE_URL=postgresql://"),
        ({"DATABASE_PATH": "x.db"}, "DATABASE_TYPE=sqlite"),
        ({"DATABASE_TYPE": "  "}, "no database is configured"),
        ({"DATABASE_TYPE": "mysql"}, "must be postgresql or sqlite, not 'mysql'"),
        ({"DATABASE_URL": "mysql://u:s3cret-word@h/d"}, "must begin with postgresql://"),
        ({"DATABASE_URL": "postgresql://u:s3cret-word[@h:5432/d"}, "percent-encoded"),
        ({"DATABASE_URL": "postgresql://u:s3cret-word/@h:5432/d"}, "percent-encoded"),
        ({"DATABASE_URL": "postgresql://u:1?s3cret-word@h:5432/d"}, "percent-encoded"),
        (
            {"DATABASE_TYPE": "sqlite", "DATABASE_URL": "postgresql://u:s3cret-word@h/d"},
            "remove one of the two",
        ),
        (
            {"DATABASE_MUST_BE": "postgresql", "DATABASE_TYPE": "sqlite"},
            "the settings choose sqlite, but this must run on postgresql (DATABASE_MUST_BE)",
        ),
        ({"DATABASE_MUST_BE": "oracle", "DATABASE_TYPE": "sqlite"}, "MUST_BE must be postgresql"),
        ({"DATABASE_TYPE": "postgresql"}, "DATABASE_HOST, DATABASE_NAME, DATABASE_USER must be"),
        (POSTGRES | {"DATABASE_PORT": "x"}, "DATABASE_PORT='x' is not a number"),
        (POSTGRES | {"DATABASE_POOL_MIN": "9", "DATABASE_POOL_MAX": "3"}, "DATABASE_POOL_MIN=9"),
        (POSTGRES | {"DATABASE_SSL_MODE": "full"}, "must be one of disable, allow"),
        (POSTGRES | {"DATABASE_SSL_MODE": "verify-full"}, "set DATABASE_SSL_ROOT_CERT"),
        (POSTGRES | {"DATABASE_SSL_ROOT_CERT": "/nowhere.crt"}, "/nowhere.crt cannot be read"),
        (POSTGRES | {"PGSSLROOTCERT": "/nowhere.crt"}, "/nowhere.crt cannot be read"),
        (
            {"DATABASE_URL": "postgresql://h/d?sslmode=disable", "DATABASE_SSL_MODE": "require"},
            "says sslmode=disable",
        ),
    ],
)
def test_wrong_settings_are_refused_with_their_names_and_without_the_password(environment, says):
    with pytest.raises(DatabaseConfigurationError) as caught:
        DatabaseSettings.from_environment(environment)
    assert says in str(caught.value)
    assert "s3cret-word" not in str(caught.value)


def test_the_password_is_not_shown():
    assert "s3cret-word" not in repr(DatabaseSettings.from_environment(POSTGRES))


def test_single_settings_and_url_mean_the_same():
    single = DatabaseSettings.from_environment(POSTGRES).asyncpg_arguments()
    assert (single["host"], single["user"], single["database"], single["password"]) == (
        "db.example.org",
        "etlegacy_app",
        "etlegacy_stats",
        "s3cret-word",
    )
    url = "postgresql://etlegacy_app@db.example.org/etlegacy_stats"
    settings = DatabaseSettings.from_environment(
        {"DATABASE_URL": url, "DATABASE_PASSWORD": "s3cret-word"}
    )
    assert settings.backend == "postgresql"
    assert settings.asyncpg_arguments()["dsn"] == url
    assert settings.asyncpg_arguments()["password"] == "s3cret-word"


def test_the_pool_defaults():
    settings = DatabaseSettings.from_environment(POSTGRES)
    assert (settings.pool_min, settings.pool_max, settings.command_timeout) == (5, 20, 60.0)


@pytest.mark.parametrize(
    ("url", "path"), [("sqlite:///bot/x.db", "bot/x.db"), ("sqlite:////srv/x.db", "/srv/x.db")]
)
def test_an_sqlite_url(url, path):
    settings = DatabaseSettings.from_environment({"DATABASE_URL": url})
    assert (settings.backend, str(settings.path)) == ("sqlite", path)


# ------------------------------------------------------------------------------------- statements


@pytest.mark.parametrize(
    ("statement", "numbered"),
    [
        ("SELECT 1", "SELECT 1"),
        ("SELECT ?, ?", "SELECT $1, $2"),
        ("SELECT '?', ?", "SELECT '?', $1"),
        ("SELECT 'it''s ?', ?", "SELECT 'it''s ?', $1"),
        ('SELECT "odd?name" FROM t WHERE a = ?', 'SELECT "odd?name" FROM t WHERE a = $1'),
        ("SELECT ? -- really?\n, ?", "SELECT $1 -- really?\n, $2"),
        ("SELECT /* ? */ ?", "SELECT /* ? */ $1"),
        ("SELECT $q$ ? $q$, ?", "SELECT $q$ ? $q$, $1"),
        ("SELECT a FROM t WHERE b = $1", "SELECT a FROM t WHERE b = $1"),
    ],
)
def test_placeholders(statement, numbered):
    assert numbered_placeholders(statement) == numbered


def test_the_backend_that_is_intended_is_taken():
    assert DatabaseSettings.from_environment(POSTGRES | {"DATABASE_MUST_BE": "postgres"})


async def test_health_is_what_the_server_says(db):
    health = await db.health()
    assert health.backend == db.backend
    assert 0 < health.milliseconds < 10_000
    assert 0 <= health.idle <= health.connections <= health.limit
    says = "PostgreSQL 1" if db.backend == "postgresql" else f"file {db.settings.path}"
    assert says in str(health)
    if db.backend == "postgresql":
        assert f"database {db.settings.name} at 127.0.0.1:{db.settings.port}" in health.place
        assert health.tls is None


async def test_rows_are_read_by_name_and_by_position(db):
    row = await db.fetch_one("SELECT 7 AS number, 'seven' AS word")
    assert (row["number"], row[1]) == (7, "seven")
    assert dict(row) == {"number": 7, "word": "seven"}


async def test_no_row_is_none(db):
    assert await db.fetch_one("SELECT id FROM rounds") is None
    assert await db.fetch_value("SELECT id FROM rounds") is None
    assert await db.fetch_all("SELECT id FROM rounds") == []


async def test_values_come_back_as_they_went_in(db):
    moment = datetime(2026, 11, 20, 21, 0, 7, 123456)
    await db.execute(
        "INSERT INTO player_links (discord_id, discord_username, et_name, linked_date, verified) "
        "VALUES (?, ?, ?, ?, ?)",
        981234567890123456,
        "O'Neill; --",
        '^1Žiga \N{REPLACEMENT CHARACTER} \\ "?"',
        moment,
        True,
    )
    row = await db.fetch_one("SELECT * FROM player_links WHERE verified = TRUE")
    assert dict(row) == {
        "discord_id": 981234567890123456,
        "discord_username": "O'Neill; --",
        "et_guid": None,
        "et_name": '^1Žiga \N{REPLACEMENT CHARACTER} \\ "?"',
        "linked_date": moment,
        "verified": True,
    }
    assert row["verified"] is True


async def test_times_that_the_database_fills_in_are_utc_on_both(db):
    await db.execute("INSERT INTO processed_files (filename) VALUES (?)", "a")
    row = await db.fetch_one("SELECT success, processed_at FROM processed_files")
    assert row["success"] is True
    assert abs(row["processed_at"] - datetime.now(UTC).replace(tzinfo=None)) < timedelta(seconds=5)


async def test_execute_counts_the_rows_it_changed(db):
    for name in ("a", "b", "c"):
        assert await db.execute("INSERT INTO processed_files (filename) VALUES (?)", name) == 1
    assert await db.execute("UPDATE processed_files SET success = ? WHERE id > ?", False, 1) == 2
    assert await db.execute("DELETE FROM processed_files WHERE success = TRUE") == 1


# ----------------------------------------------------------------------------------- transactions


async def file_names(source):
    rows = await source.fetch_all("SELECT filename FROM processed_files ORDER BY filename")
    return [row["filename"] for row in rows]


INSERT = "INSERT INTO processed_files (filename) VALUES (?)"


async def test_a_transaction_is_all_or_nothing(db):
    async def fail():
        async with db.transaction() as session:
            await session.execute(INSERT, "a")
            assert await file_names(session) == ["a"]
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert await file_names(db) == []
    async with db.transaction() as session:
        await session.execute(INSERT, "b")
    assert await file_names(db) == ["b"]


async def test_an_error_in_a_nested_block_undoes_only_that_block(db):
    async def insert_twice(session):
        async with session.transaction():
            await session.execute(INSERT, "b")
            await session.execute(INSERT, "a")

    async with db.transaction() as session:
        await session.execute(INSERT, "a")
        with pytest.raises(DatabaseValueError):
            await insert_twice(session)
        async with session.transaction():
            await session.execute(INSERT, "c")
    assert await file_names(db) == ["a", "c"]


async def test_many_rows_are_all_or_nothing(db):
    async with db.session() as session:
        with pytest.raises(DatabaseValueError):
            await session.execute_many(INSERT, [("a",), ("b",), ("a",)])
        await session.execute_many(INSERT, [("x",), ("y",)])
    assert await file_names(db) == ["x", "y"]


async def test_a_cancelled_transaction_leaves_nothing_and_the_database_usable(db):
    begun = asyncio.Event()

    async def work():
        async with db.transaction() as session:
            await session.execute(INSERT, "a")
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await db.execute(INSERT, "b")
    assert await file_names(db) == ["b"]


async def test_writers_queue(db):
    async def write(name):
        async with db.transaction() as session:
            await session.fetch_value("SELECT COUNT(*) FROM processed_files")
            await session.execute(INSERT, name)

    await asyncio.gather(*(write(f"{number:02}") for number in range(12)))
    assert len(await file_names(db)) == 12


async def test_kinds_of_errors(db):
    await db.execute(INSERT, "a")
    with pytest.raises(DatabaseValueError):
        await db.execute(INSERT, "a")
    with pytest.raises(DatabaseValueError):
        await db.execute(
            "INSERT INTO session_teams (session_start_date, map_name, team_name, player_guids, "
            "player_names) VALUES (?, ?, ?, ?, ?)",
            *("2026-11-20", "supply", "Team A", "[]", None),
        )
    with pytest.raises(DatabaseValueError):  # no such round
        await db.execute(
            "INSERT INTO weapon_comprehensive_stats (round_id, player_guid, player_name, "
            "weapon_name) VALUES (?, ?, ?, ?)",
            *(999, "A", "a", "WS_MP40"),
        )
    with pytest.raises(DatabaseError, match="no_such_table") as caught:
        await db.fetch_all("SELECT * FROM no_such_table")
    assert type(caught.value) is DatabaseError


# ----------------------------------------------------------------------------------------- SQLite


async def test_a_missing_sqlite_file_is_refused_and_not_made(tmp_path):
    path = tmp_path / "gone.db"
    with pytest.raises(DatabaseConfigurationError, match="correct DATABASE_PATH"):
        await Database(DatabaseSettings("sqlite", path=path)).open()
    assert not path.exists()


async def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, and long enough to look at" * 40)
    with pytest.raises(DatabaseConfigurationError, match="not a database"):
        await Database(DatabaseSettings("sqlite", path=path)).open()


async def test_a_locked_sqlite_file_is_unavailable_and_not_broken(tmp_path):
    path = tmp_path / "x.db"
    settings = DatabaseSettings("sqlite", path=path, connect_timeout=0.1)
    database = Database(settings)
    await database.open(create=True)
    await database.execute("CREATE TABLE t (a INTEGER)")
    async with database.transaction() as session:
        await session.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(DatabaseUnavailableError, match="locked"):
            await database.execute("INSERT INTO t VALUES (2)")
    assert await database.fetch_value("SELECT SUM(a) FROM t") == 1


# ------------------------------------------------------------------------------------- PostgreSQL


def settings_for(database, **changes):
    values = {
        "host": database.host,
        "port": database.port,
        "name": database.name,
        "user": database.user,
        "password": database.password,
        "pool_min": 1,
        "pool_max": 3,
    }
    return DatabaseSettings("postgresql", **(values | changes))


async def test_wrong_password_database_and_type_of_value(database):
    for change in ({"password": "wrong"}, {"user": "nobody"}, {"name": "no_such_database"}):
        with pytest.raises(DatabaseConfigurationError, match="PostgreSQL: "):
            await Database(settings_for(database, **change)).open(wait=30)
    async with Database(settings_for(database)) as db:
        with pytest.raises(DatabaseValueError, match="invalid input"):
            await db.fetch_value("SELECT ? + 1", "one")


async def test_the_pool_keeps_its_limits_and_its_name(database):
    async with Database(settings_for(database), "the-bot") as db:
        await asyncio.gather(*(db.fetch_value("SELECT pg_sleep(0.05)") for _ in range(9)))
        sessions = await db.fetch_value(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name = ?", "the-bot"
        )
    assert sessions == 3


async def test_a_full_pool_says_that_the_database_is_busy(database):
    settings = settings_for(database, pool_max=1, connect_timeout=0.2)
    async with Database(settings) as db, db.session():
        with pytest.raises(DatabaseTimeoutError):
            await db.fetch_value("SELECT 1")


async def test_a_statement_that_takes_too_long_is_given_up(database):
    async with Database(settings_for(database, command_timeout=0.2)) as db:
        begun = time.monotonic()
        with pytest.raises(DatabaseTimeoutError, match="in time"):
            await db.fetch_value("SELECT pg_sleep(5)")
        assert time.monotonic() - begun < 2  # and not asked again
        assert await db.fetch_value("SELECT 1") == 1


async def test_without_a_statement_cache_each_statement_is_pinned_to_one_server(database):
    async with Database(settings_for(database, statement_cache=0)) as db:
        first = await db.fetch_value("SELECT txid_current_if_assigned() IS NULL")
        assert first is True
        async with db.session() as session:
            # now() stands still inside a transaction only.
            statement = "SELECT pg_current_xact_id(), ?::int"
            one = await session.fetch_one(statement, 1)
            two = await session.fetch_one(statement, 2)
            assert one[0] != two[0]
            await session.execute("CREATE TEMP TABLE t (a int)")
            assert await session.execute("INSERT INTO t VALUES (?), (?)", 1, 2) == 2


async def test_a_pooler_that_loses_prepared_statements_is_told_from_other_errors(database):
    async with Database(settings_for(database)) as db:
        with pytest.raises(DatabaseConfigurationError, match="DATABASE_STATEMENT_CACHE_SIZE=0"):
            await db.execute("EXECUTE gone")


async def test_an_error_is_one_line_with_what_the_server_says_about_it(database):
    async with Database(settings_for(database)) as db:
        await db.execute("CREATE TABLE t (a int PRIMARY KEY)")
        await db.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(DatabaseValueError) as caught:
            await db.execute("INSERT INTO t VALUES (1)")
    assert "\n" not in str(caught.value)
    assert "Key (a)=(1) already exists" in str(caught.value)


async def test_the_pool_survives_a_restart_of_the_server(postgres_cluster, database):
    async with Database(settings_for(database, retry_for=0.3)) as db:
        assert await db.fetch_value("SELECT 1") == 1
        postgres_cluster.stop()
        try:
            begun = time.monotonic()
            with pytest.raises(DatabaseUnavailableError):
                await db.fetch_value("SELECT 1")
            assert 0.1 < time.monotonic() - begun < 2
        finally:
            postgres_cluster.start()
        assert await db.fetch_value("SELECT 1") == 1


async def test_what_has_not_begun_does_not_notice_a_restart(postgres_cluster, database):
    async with Database(settings_for(database, retry_for=30)) as db:
        assert await db.fetch_value("SELECT 1") == 1
        await asyncio.to_thread(postgres_cluster.stop)
        starting = asyncio.create_task(asyncio.to_thread(postgres_cluster.start))
        assert await db.fetch_value("  SELECT 2") == 2
        await starting
        await asyncio.to_thread(postgres_cluster.stop)
        starting = asyncio.create_task(asyncio.to_thread(postgres_cluster.start))
        async with db.transaction() as session:  # what has not begun can wait as well
            assert await session.fetch_value("SELECT 3") == 3
        await starting
        await asyncio.to_thread(postgres_cluster.stop)
        try:
            with pytest.raises(DatabaseUnavailableError):
                await db.health()  # but not the question how it is
        finally:
            postgres_cluster.start()


@pytest.fixture
async def cut(database):
    """A database whose connections can be cut while a statement runs."""
    async with Database(settings_for(database)) as db:
        await db.execute("CREATE TABLE t (a int)")
        cuts = []

        async def cut_off(session):
            cuts.append(await session.fetch_value("SELECT pg_backend_pid()"))
            if len(cuts) < 3:
                await db.fetch_value("SELECT pg_terminate_backend(?)", cuts[-1])
            await session.execute("INSERT INTO t VALUES (1)")
            return len(cuts)

        yield db, cut_off


async def test_a_transaction_can_be_repeated_until_its_connection_lasts(cut):
    db, work = cut
    assert await db.repeat(work) == 3
    assert await db.fetch_value("SELECT COUNT(*) FROM t") == 1


async def test_what_may_have_written_is_not_repeated_by_itself(cut):
    db, _ = cut
    insert = "INSERT INTO t SELECT 1 FROM pg_terminate_backend(pg_backend_pid()) RETURNING a"
    with pytest.raises(DatabaseUnavailableError):
        await db.fetch_value(insert)
    assert await db.fetch_value("SELECT COUNT(*) FROM t") == 0


async def test_what_the_statement_gets_wrong_is_not_repeated(cut):
    db, _ = cut
    tries = 0

    async def work(session):
        nonlocal tries
        tries += 1
        await session.execute("INSERT INTO t VALUES (?)", 2**40)

    with pytest.raises(DatabaseValueError):
        await db.repeat(work)
    assert tries == 1


async def test_a_lost_connection_in_a_transaction_is_unavailable(database):
    async def be_cut_off(db):
        async with db.transaction() as session:
            pid = await session.fetch_value("SELECT pg_backend_pid()")
            await db.fetch_value("SELECT pg_terminate_backend(?)", pid)
            await session.fetch_value("SELECT 1")

    async with Database(settings_for(database)) as db:
        with pytest.raises(DatabaseUnavailableError):
            await be_cut_off(db)
        assert await db.fetch_value("SELECT 1") == 1


async def test_waits_for_a_server_that_is_not_there_yet(database):
    settings = settings_for(database, port=1, connect_timeout=1.0)
    begun = time.monotonic()
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
        await Database(settings).open(wait=1.2)
    assert 0.4 < time.monotonic() - begun < 5


# -------------------------------------------------------------------------------------------- TLS


def certificate(directory, name, issuer=None):
    """Write ``name.key`` and ``name.crt``, signed by ``issuer`` (a pair) or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer, signed_by = issuer or (key, subject)
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signed_by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    (directory / f"{name}.crt").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (directory / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return key, subject


@pytest.fixture(scope="module")
def tls():
    """A server whose certificate for 127.0.0.1 is signed by ``ca.crt``; and another CA."""
    with tempfile.TemporaryDirectory(prefix="tls-") as name:
        yield from tls_server(Path(name))


def tls_server(directory):
    ca = certificate(directory, "ca")
    certificate(directory, "other_ca")
    certificate(directory, "server", issuer=ca)
    key = directory / "server.key"
    key.chmod(0o600)
    if os.geteuid() == 0:  # the server runs as somebody else then
        user = pwd.getpwnam("postgres")
        os.chown(key, user.pw_uid, user.pw_gid)
        directory.chmod(0o755)
    options = {"ssl": "on", "ssl_key_file": str(key), "ssl_cert_file": f"{key.with_suffix('.crt')}"}
    with Cluster.of_major(**options) as cluster:
        yield cluster.database("postgres"), directory


async def test_verified_tls_with_our_own_ca(tls):
    database, directory = tls
    settings = settings_for(database, ssl_mode="verify-full", ssl_root_cert=directory / "ca.crt")
    async with Database(settings) as db:
        assert (await db.health()).tls == "TLSv1.3"


async def test_another_ca_is_refused_at_once_with_a_clear_line(tls):
    database, directory = tls
    settings = settings_for(
        database, ssl_mode="verify-full", ssl_root_cert=directory / "other_ca.crt"
    )
    with pytest.raises(DatabaseConfigurationError, match="certificate is not accepted"):
        await Database(settings).open(wait=30)


async def test_a_certificate_for_another_name_is_refused_by_verify_full_only(tls):
    database, directory = tls
    by_name = {"host": "localhost", "ssl_root_cert": directory / "ca.crt"}
    with pytest.raises(DatabaseConfigurationError, match="DATABASE_HOST"):
        await Database(settings_for(database, ssl_mode="verify-full", **by_name)).open()
    async with Database(settings_for(database, ssl_mode="verify-ca", **by_name)) as db:
        assert (await db.health()).tls == "TLSv1.3"


async def test_libpqs_variables_count_where_ours_are_absent(tls, monkeypatch):
    database, directory = tls
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGSSLROOTCERT", str(directory / "other_ca.crt"))
    url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{database.port}/postgres"
    settings = DatabaseSettings.from_environment(dict(os.environ) | {"DATABASE_URL": url})
    with pytest.raises(DatabaseConfigurationError, match="certificate is not accepted"):
        await Database(settings).open()
    monkeypatch.setenv("PGSSLROOTCERT", str(directory / "ca.crt"))
    async with Database(settings) as db:
        assert (await db.health()).tls == "TLSv1.3"


async def test_tls_is_demanded_where_the_server_has_none(database):
    with pytest.raises(DatabaseUnavailableError, match="SSL"):
        await Database(settings_for(database, ssl_mode="require")).open()
