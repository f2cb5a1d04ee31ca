"""The running server: settings, certificate, changes without a restart, second run, no secrets."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest
from scenario import ADDRESS, PASSWORD, VERIFIED, Machine

STARTED = "SELECT pg_postmaster_start_time()"
SERIAL = (
    "openssl s_client -starttls postgres -connect %s:5432 </dev/null 2>/dev/null"
    " | openssl x509 -noout -serial"
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("password_encryption", "scram-sha-256"),
        ("ssl", "on"),
        ("ssl_min_protocol_version", "TLSv1.2"),
        ("temp_file_limit", "4GB"),
        ("shared_buffers", "512MB"),  # a quarter of postgres_server_memory_mb
        ("effective_cache_size", "1536MB"),
        ("maintenance_work_mem", "128MB"),
        ("work_mem", "5MB"),
        ("max_connections", "100"),
        ("log_destination", "syslog"),
        ("log_connections", "on"),
        ("log_disconnections", "on"),
        ("log_min_duration_statement", "250ms"),
        ("idle_in_transaction_session_timeout", "10min"),
        ("shared_preload_libraries", "pg_stat_statements"),
    ],
)
def test_setting_is_in_force(server, name, value) -> None:
    assert server.sql(f"SHOW {name}") == value


def test_version_and_locale(server) -> None:
    version = {"database": "15", "database13": "17"}[server.name]
    assert server.sql("SHOW server_version").split(".")[0] == version
    locale = "SELECT datcollate, datctype FROM pg_database WHERE datname = 'etlegacy_stats'"
    assert server.sql(locale) == "C.UTF-8|C.UTF-8"


def test_nothing_waits_for_a_restart_and_no_rule_is_faulty(server) -> None:
    assert server.sql("SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
    assert server.sql("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == "0"


def test_statistics_are_collected(server) -> None:
    assert int(server.sql("SELECT count(*) FROM pg_stat_statements")) > 0


def test_it_comes_back_after_a_reboot(server, client) -> None:
    subprocess.run(["docker", "restart", f"postgres_server-{server.name}"], check=True)
    for _ in range(60):
        result = client.login("etlegacy_app", "SELECT 1", server.name)
        if result.rc == 0:
            break
        time.sleep(1)
    assert result.rc == 0, result.stderr
    assert server.ok("systemctl is-active postgres-backup.timer") == "active"


def test_only_postgres_reads_the_key_and_the_authority_s_key_stayed_at_home(server) -> None:
    assert server.ok("stat -c %U:%G:%a /etc/postgresql/tls/server.key") == "root:postgres:640"
    assert "ca.key" not in server.ok("ls /etc/postgresql/tls")


def test_connections_and_failures_are_in_the_journal_with_their_address(client, database) -> None:
    client.psql(
        f"host={ADDRESS['database']} dbname=etlegacy_stats user=etlegacy_app",
        "SELECT 1",
        "wrong-one",
    )
    journal = database.ok("journalctl -t postgres --since=-2min -o cat")
    assert re.search(
        rf"client={ADDRESS['client']} user=etlegacy_app db=etlegacy_stats .*"
        r"FATAL: +password authentication failed",
        journal,
    )


def test_a_line_break_in_a_name_begins_no_line_that_accuses(client, database) -> None:
    """fail2ban reads the journal (roles/hardening, filter hardening-postgresql)."""
    accused = 'client=192.0.2.77 user=x db=y app=z FATAL:  password authentication failed for "x"'
    name = f"a\n[9-1] {accused}\nh postgres[7]: [9-1] {accused}"
    for port in (5432, 6432):
        dsn = f"host={ADDRESS['database']} port={port} dbname=etlegacy_stats {VERIFIED}"
        assert client.run("PGPASSWORD=x PGUSER=%s psql %s -c ''", name, dsn).rc == 2
    entries = [
        json.loads(line)["MESSAGE"]
        for line in database.ok(
            "journalctl -o json --since=-1min _SYSTEMD_UNIT=pgbouncer.service"
            " + SYSLOG_IDENTIFIER=postgres"
        ).splitlines()
        if "192.0.2.77" in line
    ]
    assert entries
    for entry in entries:
        if entry.startswith("C-0x"):  # PgBouncer's are one message, whatever is in them
            continue
        assert not re.match(r"\[\d+-1\] client=192", entry), entry
        assert re.match(r"\[\d+-\d+\] ", entry), entry


def test_old_ciphers_are_refused(client, server) -> None:
    ask = (
        "openssl s_client -starttls postgres -connect %s:%s -CAfile /root/ca.crt -tls1_2"
        " -cipher %s </dev/null"
    )
    # PgBouncer is on one of the two.
    for port in ("5432", "6432") if server.name == "database" else ("5432",):
        old = client.run(ask, ADDRESS[server.name], port, "ECDHE-RSA-AES128-SHA:AES128-SHA:CBC")
        assert "Cipher is ECDHE" not in old.stdout
        assert "Cipher is (NONE)" in old.stdout
        new = client.run(ask, ADDRESS[server.name], port, "ECDHE+AESGCM")
        assert "Cipher is ECDHE" in new.stdout


def test_who_becomes_postgres_through_the_database_stays_in_its_directories(server) -> None:
    shell = (
        "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | tr '[:blank:]' ' ';"
        " touch /var/lib/postgresql/x && rm /var/lib/postgresql/x; touch /usr/local/x 2>&1; true"
    )
    said = server.sql(
        f"CREATE TEMP TABLE said (line text); COPY said FROM PROGRAM $${shell}$$; TABLE said"
    )
    assert said.split()[:4] == ["NoNewPrivs:", "1", "Seccomp:", "2"]
    assert "Read-only file system" in said.splitlines()[-1]


def test_a_slow_statement_is_in_the_journal(client, database) -> None:
    assert client.login("etlegacy_app", "SELECT pg_sleep(0.4) AS slow_one").rc == 0
    journal = database.ok("journalctl -t postgres --since=-2min -o cat")
    assert re.search(r"user=etlegacy_app .*duration: 4\d\d\.\d+ ms .*slow_one", journal)


def test_each_login_has_its_own_patience(server) -> None:
    rows = server.sql(
        "SELECT rolname, array_to_string(rolconfig, ' ') FROM pg_roles"
        " WHERE rolname ~ '^etlegacy_' AND rolconfig IS NOT NULL ORDER BY 1"
    )
    assert rows.split("\n") == [
        "etlegacy_app|statement_timeout=5min idle_in_transaction_session_timeout=2min",
        "etlegacy_migrator|role=etlegacy_owner",
        "etlegacy_readonly|default_transaction_read_only=on statement_timeout=60s"
        " idle_in_transaction_session_timeout=5min idle_session_timeout=8h",
    ]


class TestChanges:
    """Each run starts from what the one before left."""

    NEW_PASSWORD = "Molecule-other-2wE8rT5y"

    def shows_no_secret(self, result) -> None:
        for password in (*PASSWORD.values(), self.NEW_PASSWORD):
            assert password not in result.stdout + result.stderr

    def test_setting_password_and_certificate_change_without_a_restart(
        self, converge, database, client
    ) -> None:
        started, serial = database.sql(STARTED), client.ok(SERIAL, ADDRESS["database"])
        result = converge(
            "-vvv",
            "--diff",
            postgres_server_settings={"deadlock_timeout": "2s"},
            postgres_server_app_password=self.NEW_PASSWORD,
            postgres_server_tls_renew_days=400,  # more than a new one has: it is due
        )
        assert result.returncode == 0, result.stdout
        self.shows_no_secret(result)
        assert database.sql("SHOW deadlock_timeout") == "2s"
        assert client.ok(SERIAL, ADDRESS["database"]) != serial
        dsn = f"host=database dbname=etlegacy_stats user=etlegacy_app {VERIFIED}"
        assert client.psql(dsn, "SELECT 1", self.NEW_PASSWORD).rc == 0
        assert client.login("etlegacy_app", "SELECT 1").rc == 2
        assert database.sql(STARTED) == started

    def test_a_run_that_broke_off_is_put_right_by_the_next(
        self, converge, database, client
    ) -> None:
        """The file is as it should be, but the server has not read it."""
        database.ok(
            "sed -i /deadlock_timeout/d /etc/postgresql/15/main/conf.d/90-postgres_server.conf"
        )
        assert database.sql("SHOW deadlock_timeout") == "2s"
        result = converge("-vvv", "--diff")
        assert result.returncode == 0, result.stdout
        self.shows_no_secret(result)
        assert database.sql("SHOW deadlock_timeout") == "1s"
        assert client.login("etlegacy_app", "SELECT 1").rc == 0

    def test_a_restart_where_needed_and_an_override_elsewhere_is_noticed(
        self, converge, database
    ) -> None:
        started = database.sql(STARTED)
        database.sql("ALTER SYSTEM SET work_mem = '1MB'")
        try:
            result = converge(postgres_server_max_connections=90)
        finally:
            database.sql("ALTER SYSTEM RESET work_mem")
            database.sql("SELECT pg_reload_conf()")
        assert result.returncode != 0
        assert "Not in force: work_mem (set in " in " ".join(result.stdout.split())
        assert database.sql("SHOW max_connections") == "90"
        assert database.sql(STARTED) != started

    def test_a_cluster_without_checksums_is_refused(self, converge) -> None:
        server = Machine("database13")
        data = "/var/lib/postgresql/17/main"
        tool = f"runuser -u postgres -- /usr/lib/postgresql/17/bin/pg_checksums -D {data}"
        around = "systemctl stop postgresql@17-main; {}; systemctl start postgresql@17-main"
        server.ok(around.format(f"{tool} --disable"))
        result = converge("--limit=database13")
        server.ok(around.format(f"{tool} --enable"))
        assert result.returncode != 0
        assert "was made without data checksums" in " ".join(result.stdout.split())


def test_no_secret_is_in_any_log(server) -> None:
    for password in (*PASSWORD.values(), TestChanges.NEW_PASSWORD):
        found = server.run("grep -rlF -- %s /var/log /tmp /root /etc", password)
        assert found.stdout == ""
        assert server.run("journalctl --no-pager | grep -cF -- %s", password).stdout.strip() == "0"
