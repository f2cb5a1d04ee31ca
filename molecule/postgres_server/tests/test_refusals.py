"""Bad input: one message that says which setting and what to do, and nothing is changed."""

from __future__ import annotations

import pytest

STATE = (
    "sha256sum /etc/postgresql/15/main/pg_hba.conf /etc/postgresql/15/main/conf.d/* "
    "/etc/postgres-backup.json; stat -c %Y /var/lib/postgresql/15/main/postmaster.pid"
)
CLIENT = {
    "name": "bot",
    "addresses": ["10.0.0.1"],
    "users": ["etlegacy_app"],
    "databases": ["etlegacy_stats"],
}
POOLED = {"name": "bot", "addresses": ["10.0.0.1"], "users": ["etlegacy_app"]}


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"postgres_server_app_pasword": "x"}, "did you mean postgres_server_app_password?"),
        (
            {
                "ansible_facts": {
                    "distribution": "Fedora",
                    "distribution_version": "44",
                    "distribution_major_version": "44",
                }
            },
            "is Fedora 44; postgres_server supports Debian 12 and 13, Ubuntu 22.04 and 24.04",
        ),
        (
            {"postgres_server_version": "16"},
            "Another major is an upgrade, which this role does not do",
        ),
        (
            {"postgres_server_app_password": ""},
            "postgres_server_app_password: empty, shorter than 16",
        ),
        (
            {"postgres_server_app_password": "only-15-letters"},
            "postgres_server_app_password: empty",
        ),
        (
            {"postgres_server_readonly_password": "change-me-please-now"},
            "postgres_server_readonly_password: empty, shorter than 16 characters or a placeholder",
        ),
        ({"postgres_server_migrator_password": "1231231231231231"}, "or a placeholder"),
        ({"postgres_server_app_role": "etlegacy_owner"}, "must differ from one another"),
        ({"postgres_server_database": "My Stats"}, "small letters, digits and underscores"),
        (
            {"postgres_server_clients": [{**CLIENT, "addresses": []}]},
            "needs at least one of addresses",
        ),
        ({"postgres_server_clients": [{**CLIENT, "addresses": ["0.0.0.0/0"]}]}, "not 0.0.0.0/0"),
        ({"postgres_server_clients": [{**CLIENT, "addresses": ["::/0"]}]}, "not 0.0.0.0/0"),
        ({"postgres_server_clients": [{**CLIENT, "users": ["all"]}]}, "not all, not postgres"),
        ({"postgres_server_max_connections": 40}, "may open 51 sessions"),
        (
            {"postgres_server_pgbouncer_clients": [{**POOLED, "users": ["postgres"]}]},
            "users are among etlegacy_app, etlegacy_readonly, etlegacy_migrator",
        ),
        (
            {"postgres_server_pgbouncer_clients": [{**POOLED, "addresses": ["0.0.0.0/0"]}]},
            "not 0.0.0.0/0",
        ),
        ({"postgres_server_pgbouncer_clients": []}, "wants at least one entry"),
        ({"postgres_server_pgbouncer_port": 5432}, "must not be postgres_server_port"),
        (
            {"postgres_server_standbys": [{"name": "db2", "address": "10.0.0.2"}]},
            "postgres_server_replication_password: empty, shorter than 16",
        ),
        (
            {
                "postgres_server_primary": "10.0.0.1",
                "postgres_server_replication_password": "Molecule-standby-4tG7uK1p",
            },
            "it is no standby and holds etlegacy_stats",
        ),
        ({"postgres_server_ca_directory": "/nowhere"}, "There is no ca.key and ca.crt in"),
        ({"postgres_server_tls_names": []}, "postgres_server_tls_names is empty"),
        ({"postgres_server_backup_recipients": []}, "must hold at least one public age key"),
        (
            {"postgres_server_backup_recipients": ["AGE-SECRET-KEY-QQQ"]},
            "never belongs on a server",
        ),
        ({"postgres_server_minimum_free_mb": 99_999_999}, "Make room first"),
        # Only PostgreSQL itself can tell these; what was written is taken back.
        ({"postgres_server_settings": {"no_such_setting": "1"}}, "no_such_setting"),
        ({"postgres_server_settings": {"work_mem": "lots"}}, "work_mem"),
        (
            {"postgres_server_clients": [{**CLIENT, "addresses": ["10.0.0.300"]}]},
            "The server goes on with its former rules",
        ),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_and_changes_nothing(converge, database, variables, message) -> None:
    before = database.ok(STATE)
    result = converge(**variables)
    assert result.returncode != 0
    assert message in " ".join(result.stdout.split())
    assert database.ok(STATE) == before
    assert database.ok("ls /etc/postgresql/15/main | grep -c pg_hba") == "1"
    if "postgres_server_backup_recipients" in variables:
        assert "AGE-SECRET-KEY" not in result.stdout.replace("(AGE-SECRET-KEY-…)", "")
