"""The night when the database server is gone, as docs/restore.md tells it."""

from __future__ import annotations

import subprocess
import time

import pytest
from scenario import ADDRESS, ADDRESSES, COPIES, COUNT, NAMES, Machine, play
from support.ansible import words

MEASURED = ADDRESS.with_name("recovery.measured")  # what docs/restore.md tells
pytestmark = pytest.mark.order("last")  # the database server is another machine after it
ASK = """
import os, re, psycopg

lines = open("/etc/etlegacy-bot/environment").read().splitlines()
environment = {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}
with psycopg.connect(environment["DATABASE_URL"], sslmode="verify-full",
                     sslrootcert=environment["PGSSLROOTCERT"], connect_timeout=5) as connection:
    print(connection.execute("SELECT count(*) FROM rounds").fetchone()[0], connection.info.host)
"""


@pytest.fixture(scope="module")
def gone(database, keeper, manifest) -> dict:
    """The server is destroyed, with all backups on it, and rebuilt at another address."""
    del manifest
    assert play("playbooks/backup.yml").returncode == 0
    before = {"rows": database.sql(COUNT), "copies": keeper.names(COPIES)}
    before["key"] = database.ok("cat /etc/postgres-backup.d/id_ed25519.pub")
    subprocess.run(["docker", "rm", "-f", "-v", "recovery-database-vps"], check=True)
    now = ADDRESS.read_text().strip() if ADDRESS.exists() else ADDRESSES[0]
    new = ADDRESSES[1 - ADDRESSES.index(now)]
    ADDRESS.write_text(new)
    booted = play("molecule/recovery/new_server.yml")
    assert booted.returncode == 0, booted.stdout
    started = time.monotonic()
    site = play("site.yml")
    built = time.monotonic()
    assert site.returncode == 0, site.stdout
    restore = play(
        "playbooks/restore.yml",
        restore_from="keeper",
        restore_mode="in_place",
        restore_confirm="etlegacy_stats",
    )
    done = time.monotonic()
    assert restore.returncode == 0, restore.stdout
    MEASURED.write_text(f"site.yml {built - started:.0f} s, restore.yml {done - built:.0f} s\n")
    return {**before, "address": new, "restore": words(restore)}


@pytest.fixture(scope="module")
def server(gone) -> Machine:  # noqa: ARG001 - the new one
    return Machine("database-vps")


def test_every_row_is_back(gone, server) -> None:
    assert server.sql(COUNT) == gone["rows"]
    assert "rows are equal. It is the database now" in gone["restore"]
    (former,) = [name for name in server.sql(NAMES).split() if "_before_" in name]
    server.sql(f"DROP DATABASE {former}", "postgres")


def test_the_bot_server_finds_it_with_what_it_has(gone, keeper) -> None:
    """Its own settings, the same password, the certificate checked."""
    answer = keeper.ok("/opt/ferry/current/venv/bin/python -c %s", ASK)
    assert answer.split() == [gone["rows"], gone["address"]]


def test_the_next_backup_joins_those_of_the_former_server(gone, server, keeper) -> None:
    server.works("postgres-backup.service")
    server.ok("systemctl start postgres-backup-copy")
    stamps = keeper.names(COPIES)
    assert set(gone["copies"]) < set(stamps)
    server.works("postgres-backup-check.service")
    keeper.works("backup-keeper.service")


def test_the_former_server_s_key_opens_nothing_any_more(gone, keeper) -> None:
    keys = keeper.ok("cat /var/lib/backup-keeper/.ssh/authorized_keys")
    assert gone["key"] not in keys
    assert f'from="{gone["address"]}"' in keys


def test_the_archive_begins_anew(server) -> None:
    assert "full backup:" in server.ok("runuser -u postgres -- pgbackrest info")


def test_a_second_run_changes_nothing(gone) -> None:  # noqa: ARG001
    result = play("site.yml")
    assert result.returncode == 0, result.stdout
    recap = result.stdout.split("PLAY RECAP", 1)[1]
    assert recap.count("changed=0") == 3, recap
