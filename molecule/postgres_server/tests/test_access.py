"""Who gets in, tried from where they would come from."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from scenario import ADDRESS, PASSWORD, SECRETS, VERIFIED

APP = f"dbname=etlegacy_stats user=etlegacy_app host={ADDRESS['database']}"
APP_PASSWORD = PASSWORD["etlegacy_app"]
NO_ENTRY = "no pg_hba.conf entry for host"


@pytest.mark.parametrize("name", ["database", "database13"])
def test_the_client_gets_in_and_knows_whom_it_talks_to(client, name) -> None:
    for host in (ADDRESS[name], name):
        dsn = f"dbname=etlegacy_stats user=etlegacy_app host={host} {VERIFIED}"
        result = client.psql(
            dsn,
            "SELECT version, bits >= 128 FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            APP_PASSWORD,
        )
        assert result.stdout.strip() == "TLSv1.3|t", result.stderr


@pytest.mark.parametrize(
    ("dsn", "password", "message"),
    [
        pytest.param(f"{APP} sslmode=disable", APP_PASSWORD, "no encryption", id="without TLS"),
        pytest.param(
            f"{APP} sslmode=verify-full sslrootcert=/root/other-ca.crt",
            APP_PASSWORD,
            "certificate verify failed",
            id="trusting another authority",
        ),
        pytest.param(
            f"dbname=etlegacy_stats user=etlegacy_app host=not-the-server "
            f"hostaddr={ADDRESS['database']} {VERIFIED}",
            APP_PASSWORD,
            'does not match host name "not-the-server"',
            id="under another name",
        ),
        pytest.param(
            f"{APP} {VERIFIED}", "wrong", "password authentication failed", id="wrong password"
        ),
        pytest.param(f"{APP} {VERIFIED}", "", "no password supplied", id="no password"),
        pytest.param(
            f"dbname=etlegacy_stats user=etlegacy_readonly host={ADDRESS['database']} {VERIFIED}",
            PASSWORD["etlegacy_readonly"],
            NO_ENTRY,
            id="a role that may not come from there",
        ),
        pytest.param(
            f"dbname=postgres user=etlegacy_app host={ADDRESS['database']} {VERIFIED}",
            APP_PASSWORD,
            NO_ENTRY,
            id="another database",
        ),
        pytest.param(
            f"dbname=postgres user=postgres host={ADDRESS['database']} {VERIFIED}",
            "x",
            NO_ENTRY,
            id="the superuser",
        ),
        pytest.param(
            f"dbname=etlegacy_stats user=etlegacy_owner host={ADDRESS['database']} {VERIFIED}",
            "x",
            NO_ENTRY,
            id="the owner",
        ),
        pytest.param(
            f"dbname=etlegacy_stats user=postgres_backup host={ADDRESS['database']} {VERIFIED}",
            "x",
            NO_ENTRY,
            id="the backup role",
        ),
    ],
)
def test_the_client_is_refused(client, dsn, password, message) -> None:
    result = client.psql(dsn, "SELECT 1", password)
    assert result.rc == 2
    assert message in result.stderr


@pytest.mark.parametrize("role", ["etlegacy_app", "etlegacy_migrator", "etlegacy_readonly"])
def test_the_right_login_is_refused_from_another_address(outsider, role) -> None:
    result = outsider.login(role, "SELECT 1")
    assert result.rc == 2
    assert f'{NO_ENTRY} "{ADDRESS["outsider"]}"' in result.stderr


@pytest.fixture
def expired_certificate(database) -> str:
    """The server's certificate as it would be a year after nobody renewed it, by our authority."""
    present = x509.load_pem_x509_certificate(
        database.ok("cat /etc/postgresql/tls/server.crt").encode()
    )
    authority = x509.load_pem_x509_certificate((SECRETS / "ca/ca.crt").read_bytes())
    key = serialization.load_pem_private_key((SECRETS / "ca/ca.key").read_bytes(), None)
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    builder = (
        x509.CertificateBuilder(extensions=list(present.extensions))
        .subject_name(present.subject)
        .issuer_name(authority.subject)
        .public_key(present.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(yesterday - datetime.timedelta(days=365))
        .not_valid_after(yesterday)
    )
    signed = builder.sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def test_an_expired_certificate_is_refused_and_renewed_by_the_next_run(
    database, client, converge, expired_certificate
) -> None:
    database.ok("echo %s > /etc/postgresql/tls/server.crt", expired_certificate)
    database.sql("SELECT pg_reload_conf()")
    refused = client.login("etlegacy_app", "SELECT 1")
    reason = client.run(
        "openssl s_client -starttls postgres -connect database:5432 -CAfile /root/ca.crt </dev/null"
    )
    renewed = converge()
    assert refused.rc == 2
    assert "certificate verify failed" in refused.stderr  # libpq 15 says no more than that
    assert "certificate has expired" in reason.stderr + reason.stdout
    assert renewed.returncode == 0, renewed.stdout
    assert client.login("etlegacy_app", "SELECT 1").rc == 0


def test_developers_get_in_through_a_tunnel_only(database) -> None:
    """An SSH tunnel ends on the server itself."""
    dsn = (
        "host=localhost dbname=etlegacy_stats user=etlegacy_readonly "
        "sslmode=verify-full sslrootcert=/etc/postgresql/tls/ca.crt"
    )
    assert database.psql(dsn, "SELECT 1", PASSWORD["etlegacy_readonly"]).rc == 0


def test_local_roles_are_bound_to_their_system_users(server) -> None:
    ask = "psql -XAtq -d etlegacy_stats -U %s -c 'SELECT count(*) > 0 FROM pg_stat_activity'"
    assert server.ok(ask, "postgres_monitor") == "t"
    for role in ("postgres", "postgres_backup"):
        refused = server.run(ask, role)
        assert refused.rc == 2
        assert "Peer authentication failed" in refused.stderr


def test_nothing_else_listens(server) -> None:
    listening = server.ok("ss -Htln 'sport = :5432'").split("\n")
    local = {line.split()[3] for line in listening}
    assert local == {"127.0.0.1:5432", "[::1]:5432", f"{ADDRESS[server.name]}:5432"} or local == {
        "127.0.0.1:5432",
        f"{ADDRESS[server.name]}:5432",
    }
