"""The standby: follows over TLS, is watched, and takes over only when the primary does not live."""

from __future__ import annotations

import re
import time

import pytest
from scenario import SETTINGS
from support.ansible import words

pytestmark = pytest.mark.order("last")  # the standby is the primary after it

COUNT = "SELECT count(*) FROM rounds"
STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"


def wait_for(ask, answer: str, seconds: int = 60) -> str:
    """Ask until the answer comes; return the last one."""
    for _ in range(seconds):
        if ask() == answer:
            break
        time.sleep(1)
    return ask()


@pytest.mark.usefixtures("rounds")
class TestFollowing:
    def test_rows_arrive_and_none_can_be_written(self, database, standby, bots_place) -> None:
        assert wait_for(lambda: standby.sql(COUNT), "1000") == "1000"
        result = bots_place.login(
            database, "app", "INSERT INTO rounds VALUES (1001, 'radar')", 6432
        )
        assert result.rc == 0, result.stderr
        assert wait_for(lambda: standby.sql(COUNT), "1001") == "1001"
        refused = bots_place.login(standby, "migrator", "DELETE FROM rounds")
        assert "cannot execute DELETE in a read-only transaction" in refused.stderr

    def test_by_slot_and_tls_as_a_role_that_may_do_nothing_else(
        self, database, standby, bots_place
    ) -> None:
        row = (
            "SELECT usename, client_addr, slot_name, ssl, version FROM pg_stat_replication"
            " JOIN pg_replication_slots ON active_pid = pid JOIN pg_stat_ssl USING (pid)"
        )
        assert database.sql(row) == (
            f"postgres_replication|{standby.address}|standby_standby_vps|t|TLSv1.3"
        )
        assert "sslmode=verify-full" in standby.sql("SHOW primary_conninfo")
        password = SETTINGS["vault_postgres_replication_password"]
        for name in ("etlegacy_stats", "postgres"):
            dsn = f"host={database.address} user=postgres_replication dbname={name} sslmode=require"
            refused = standby.run("PGPASSWORD=%s psql %s -c ''", password, dsn)
            assert "no pg_hba.conf entry" in refused.stderr
        dsn = f"host={database.address} user=postgres_replication replication=1 sslmode=require"
        refused = bots_place.run("PGPASSWORD=%s psql %s -c IDENTIFY_SYSTEM", password, dsn)
        assert "no pg_hba.conf entry for replication" in refused.stderr
        plain = dsn.replace("require", "disable")
        refused = standby.run("PGPASSWORD=%s psql %s -c IDENTIFY_SYSTEM", password, plain)
        assert "no encryption" in refused.stderr

    def test_the_password_is_in_one_file_that_postgres_alone_reads(self, standby) -> None:
        password = SETTINGS["vault_postgres_replication_password"]
        found = standby.ok("grep -rlF -- %s /etc /var/log /root /tmp || true", password)
        assert found == "/etc/postgresql/15/main/replication.pgpass"
        assert standby.ok(f"stat -c %U:%a {found}") == "postgres:600"
        data = "/var/lib/postgresql/15/main"
        assert standby.run("grep -F -- %s %s/postgresql.auto.conf", password, data).rc == 1

    def test_a_standby_that_is_away_is_noticed_and_catches_up(
        self, play, database, standby
    ) -> None:
        well = play("playbooks/replication.yml")
        assert well.returncode == 0, well.stdout
        assert re.search(r"standby_standby_vps: streaming from 172\.30\.7\.11, 0\.\d", words(well))
        standby.ok("systemctl stop postgresql")
        try:
            database.sql(
                "INSERT INTO rounds SELECT n, 'away' FROM generate_series(2000, 2999) AS n"
            )
            away = play("playbooks/replication.yml")
            assert away.returncode != 0
            assert "away from nowhere" in words(away)
        finally:
            standby.ok("systemctl start postgresql")
        wanted = database.sql(COUNT)
        assert wait_for(lambda: standby.sql(COUNT), wanted) == wanted


@pytest.mark.usefixtures("rounds")
class TestPromotion:
    """In this order; afterwards the standby is the primary."""

    def test_refused_while_the_primary_lives(self, play, standby) -> None:
        result = play("playbooks/promote.yml")
        assert result.returncode != 0
        assert "The primary database-vps lives: PostgreSQL runs on it." in words(result)
        assert standby.sql("SELECT pg_is_in_recovery()") == "t"

    def test_refused_without_a_word_when_the_primary_s_host_is_silent(
        self, play, database, standby
    ) -> None:
        """Its SSH is cut off from here and its PostgreSQL from the standby; it may well live."""
        database.ok("systemctl stop postgresql; iptables -I INPUT -p tcp --dport 48022 -j DROP")
        try:
            result = play("playbooks/promote.yml")
            assert result.returncode != 0
            assert "adding -e primary_is_gone=database-vps. Nothing was changed." in words(result)
            assert standby.sql("SELECT pg_is_in_recovery()") == "t"
        finally:
            database.ok("iptables -D INPUT -p tcp --dport 48022 -j DROP")

    def test_the_primary_stopped_it_takes_over_with_the_last_row(
        self, play, standby, bots_place
    ) -> None:
        result = play("playbooks/promote.yml")
        assert result.returncode == 0, result.stdout
        assert "standby-vps is the primary now" in words(result)
        written = bots_place.login(
            standby, "migrator", "INSERT INTO rounds VALUES (5000, 'after') RETURNING map_name"
        )
        assert written.stdout.strip() == "after", written.stderr
        assert standby.sql("SELECT count(*) FROM rounds WHERE map_name = 'away'") == "1000"

    def test_the_former_primary_does_not_start_again(self, database) -> None:
        database.run("systemctl start postgresql; systemctl start postgresql@15-main")
        assert database.run("pgrep -x postgres").rc == 1

    def test_a_run_does_not_overwrite_who_was_promoted(self, play, standby) -> None:
        result = play("site.yml", "--limit=standby-vps,localhost")
        assert result.returncode != 0
        assert "If it was promoted, it belongs into the group" in words(result)
        assert standby.sql("SELECT count(*) FROM rounds WHERE id = 5000") == "1"
