"""The continuous archive: any moment, encrypted, and heard of when it stops."""

from __future__ import annotations

import pytest
from scenario import COUNT, NAMES, Machine, play
from support.ansible import words

pytestmark = pytest.mark.order("third")  # its restore in place replaces the database

CHECK = "postgres-backup-check.service"
SECRET = "molecule-recovery-archive-Qs8k4Nf6dX"


def assert_no_second_server(database: Machine) -> None:
    assert not [name for name in database.names("/var/lib/postgresql") if "recover" in name]
    assert database.run("pgrep -f [r]ecover-").rc == 1


def test_the_archive_has_a_base_backup(database) -> None:
    assert "full backup:" in database.ok("runuser -u postgres -- pgbackrest info")
    database.works(CHECK)


def test_its_password_is_closed_to_others(database) -> None:
    assert database.ok("stat -c %U:%G:%a /etc/pgbackrest.conf") == "root:postgres:640"
    assert SECRET in database.ok("cat /etc/pgbackrest.conf")
    assert SECRET not in database.ok("journalctl --no-pager -o cat")
    assert SECRET not in database.ok("cat /proc/*/cmdline | tr '\\0' ' '")


@pytest.mark.usefixtures("rounds")
def test_the_archive_is_no_plaintext(database) -> None:
    # It waits until its last piece has arrived: a file renamed meanwhile would vanish under grep.
    database.ok("runuser -u postgres -- pgbackrest --stanza=main check")
    assert database.run("grep -rqa -e goldrush -e postgres_backup /var/lib/pgbackrest").rc == 1


@pytest.mark.usefixtures("rounds")
def test_rows_written_after_the_base_backup_come_back(database) -> None:
    """A hundred more rows; then somebody deletes all of them but three."""
    database.ok("systemctl start postgres-archive@full")
    database.sql("INSERT INTO rounds (map_name) SELECT 'radar' FROM generate_series(1, 100)")
    database.ok("sleep 1")
    moment = database.sql("SELECT now()")
    database.ok("sleep 1")
    database.sql("DELETE FROM rounds WHERE id > 3")

    drill = play("playbooks/restore.yml", restore_time=moment)
    assert drill.returncode == 0, drill.stdout
    assert "1 tables with 5100 rows are equal" in words(drill)
    assert database.sql(NAMES) == "etlegacy_stats postgres"

    unconfirmed = play("playbooks/restore.yml", restore_time=moment, restore_mode="in_place")
    assert unconfirmed.returncode != 0
    assert "-e restore_confirm=etlegacy_stats. Nothing was changed." in words(unconfirmed)
    assert database.sql(COUNT) == "3"

    result = play(
        "playbooks/restore.yml",
        restore_time=moment,
        restore_mode="in_place",
        restore_confirm="etlegacy_stats",
    )
    assert result.returncode == 0, result.stdout
    assert database.sql(COUNT) == "5100"
    (former,) = [name for name in database.sql(NAMES).split() if "_before_" in name]
    assert f"the former one is called {former}" in words(result)
    assert database.sql(COUNT, former) == "3"
    assert "etlegacy_app=arwd" in database.sql("\\dp rounds")
    assert_no_second_server(database)
    database.sql(f"DROP DATABASE {former}", "postgres")


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("2026-11-22 14:32:00", "says no UTC offset"),
        ("the day before", "is no time"),
        ("2199-01-01 00:00:00+00", "lies in the future"),
        ("2020-01-01 00:00:00+00", "the archive has no base backup from before"),
    ],
)
def test_a_moment_that_cannot_be_had_is_refused(database, time: str, message: str) -> None:
    result = database.run("runuser -u postgres -- postgres-recover %s postgres", time)
    assert result.rc == 3
    assert message in result.stderr
    assert_no_second_server(database)


def test_an_archive_that_takes_nothing_any_more_is_heard_of(database) -> None:
    failing = "SELECT last_failed_time > last_archived_time FROM pg_stat_archiver"
    wait = (
        "for i in $(seq 100); do test $(runuser -u postgres -- psql -XAtqc %s) = {} && exit 0;"
        " sleep 0.2; done; exit 1"
    )
    database.ok("chmod 0 /var/lib/pgbackrest/archive/main")
    try:
        database.sql("CREATE TABLE x (); DROP TABLE x; SELECT pg_switch_wal()")
        database.ok(wait.format("t"), failing)
        heard = database.fails(CHECK)
    finally:
        database.ok("chmod 750 /var/lib/pgbackrest/archive/main")
    assert "could not be archived since" in heard
    database.sql("CREATE TABLE x (); DROP TABLE x; SELECT pg_switch_wal()")
    database.ok(wait.format("f"), failing)
    database.works(CHECK)


def test_an_archive_without_a_password_is_refused() -> None:
    result = play("site.yml", "--tags=validate", vault_postgres_archive_password="short")
    assert result.returncode != 0
    assert "postgres_server_archive_password is empty, shorter than 16" in words(result)
