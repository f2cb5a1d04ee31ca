"""Backups: made, closed to whoever has no identity, restored, and loud when they fail."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pyrage
import pytest
from scenario import ROOT, SECRETS

pytestmark = pytest.mark.order("second_to_last")  # its restore in place replaces the database

DIRECTORY = "/var/backups/postgresql"
BACKUP = ROOT / "playbooks/backup.yml"
RESTORE = ROOT / "playbooks/restore.yml"
COPIES = ROOT / "artifacts/backups/database"
COUNT = "SELECT count(*) FROM rounds"
NAMES = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate"


def said(result) -> str:
    """Return a playbook's output without its line breaks."""
    return " ".join(result.stdout.split())


def stamps(database) -> list[str]:
    return database.ok(f"ls -A {DIRECTORY}").split()


@pytest.fixture(scope="module")
def manifest(play, database, rounds) -> dict:
    """A backup made by the playbook; its manifest."""
    result = play(BACKUP)
    assert result.returncode == 0, result.stdout
    shown = json.loads(database.ok("postgres-backup show"))
    assert shown["tables"]["public.rounds"]["rows"] == rounds
    assert shown["stamp"] in result.stdout
    return shown


@pytest.fixture(scope="module")
def drill(play, manifest):  # noqa: ARG001 - there has to be one
    """A drill with that backup."""
    return play(RESTORE)


def test_both_versions_make_backups_that_restore(server) -> None:
    server.ok("systemctl start postgres-backup.service")
    assert "restored and compared" in server.ok("journalctl -t postgres-backup -n 1 -o cat")


def test_backup_is_complete_and_private(database, manifest) -> None:
    path = f"{DIRECTORY}/{manifest['stamp']}"
    assert database.ok(f"stat -c %U:%a {DIRECTORY} {path} {path}/dump.age").split() == [
        "postgres_backup:700",
        "postgres_backup:700",
        "postgres_backup:600",
    ]
    assert database.ok(f"sha256sum {path}/dump.age").split()[0] == manifest["sha256"]
    assert manifest["restored_and_compared"] is True
    assert manifest["objects"]["indexes"] == 2
    assert manifest["sequences"]["public.rounds_id_seq"] > 5000


def test_backup_is_no_plaintext(database, manifest) -> None:
    path = f"{DIRECTORY}/{manifest['stamp']}/dump.age"
    assert database.ok(f"head -c 21 {path}") == "age-encryption.org/v1"
    assert database.run(f"grep -qaE 'rounds|PGDMP|goldrush' {path}").rc == 1


def test_no_private_key_is_on_the_server(database) -> None:
    assert (
        database.run("grep -rlE 'AGE-SECRET-KEY-1[A-Z0-9]{50}' /etc /root /var/backups /tmp").stdout
        == ""
    )


def test_copy_here_opens_with_the_identity_alone(drill, manifest) -> None:
    assert drill.returncode == 0, drill.stdout
    sealed = (COPIES / manifest["stamp"] / "dump.age").read_bytes()
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(sealed, [pyrage.x25519.Identity.generate()])
    key = (SECRETS / "backup_identity.txt").read_text().split()[-1]
    assert pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(key)]).startswith(b"PGDMP")


def test_drill_restores_compares_and_leaves_nothing(drill, database) -> None:
    assert "1 tables with 5000 rows are equal" in said(drill)
    assert database.sql(NAMES) == "etlegacy_stats postgres"


def test_a_difference_is_found(database, manifest) -> None:
    database.sql("UPDATE rounds SET dpm = dpm + 1e-12 WHERE id = 7", "etlegacy_stats")
    result = database.run(
        "runuser -u postgres -- postgres-backup verify etlegacy_stats < "
        f"{DIRECTORY}/{manifest['stamp']}/manifest.json"
    )
    assert result.rc == 4
    assert "table public.rounds: 5000 rows, checksum" in result.stderr


@pytest.mark.usefixtures("manifest")
def test_in_place_wants_the_name(play, database) -> None:
    result = play(RESTORE, restore_mode="in_place", restore_confirm="yes")
    assert result.returncode != 0
    assert "-e restore_confirm=etlegacy_stats. Nothing was changed." in said(result)
    assert database.sql(NAMES) == "etlegacy_stats postgres"


@pytest.mark.usefixtures("drill")
def test_a_truncated_file_changes_nothing(play, database, manifest, tmp_path: Path) -> None:
    """What else the file may be is told in tests/plugins/test_age_stream.py."""
    copy = tmp_path / "copy"
    shutil.copytree(COPIES / manifest["stamp"], copy)
    os.truncate(copy / "dump.age", manifest["bytes"] // 2)
    result = play(
        RESTORE,
        restore_from=str(copy),
        restore_mode="in_place",
        restore_confirm="etlegacy_stats",
    )
    assert result.returncode != 0
    assert "truncated or altered" in said(result)
    assert database.sql(NAMES) == "etlegacy_stats postgres"


@pytest.mark.usefixtures("drill")
def test_a_forged_copy_is_refused_before_it_is_opened(
    play, database, manifest, tmp_path: Path
) -> None:
    """age says nothing of who encrypted: whoever keeps copies can make one that opens.

    What else a manifest may be is told in tests/plugins/test_backup_manifest.py.
    """
    copy = tmp_path / "copy"
    shutil.copytree(COPIES / manifest["stamp"], copy)
    recipient = pyrage.x25519.Recipient.from_str(manifest["recipients"][0])
    plain = b"PGDMP, and COPY x TO PROGRAM 'id'"
    forged = pyrage.encrypt(plain, [recipient])
    (copy / "dump.age").write_bytes(forged)
    described = {
        "bytes": len(forged),
        "sha256": hashlib.sha256(forged).hexdigest(),
        "plain_sha256": hashlib.sha256(plain).hexdigest(),
    }
    (copy / "manifest.json").write_text(json.dumps(manifest | described))
    result = play(RESTORE, restore_from=str(copy))
    assert result.returncode != 0
    assert "was not signed by a server of etlegacy_stats" in said(result)
    assert "Nothing was decrypted" in said(result)
    assert database.sql(NAMES) == "etlegacy_stats postgres"


@pytest.mark.usefixtures("drill")
def test_in_place_from_the_copy_here_brings_everything_back(
    play, client, database, manifest
) -> None:
    database.sql("DELETE FROM rounds WHERE id > 3", "etlegacy_stats")
    database.ok(
        "systemd-run --unit=old-session"
        " runuser -u postgres -- psql etlegacy_stats -c 'SELECT pg_sleep(300)'"
    )
    result = play(
        RESTORE,
        restore_from=str(COPIES / manifest["stamp"]),
        restore_mode="in_place",
        restore_confirm="etlegacy_stats",
    )
    assert result.returncode == 0, result.stdout
    assert client.login("etlegacy_app", COUNT).stdout.strip() == "5000"
    assert client.login("etlegacy_app", "DROP TABLE rounds").rc == 1
    owners = (
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace"
    )
    assert database.sql(owners, "etlegacy_stats") == "etlegacy_owner"
    owns = "SELECT count(*) FROM pg_shdepend WHERE refobjid = 'postgres_restore'::regrole"
    assert database.sql(owns) == "0"
    new_id = client.login(
        "etlegacy_app", "INSERT INTO rounds (map_name) VALUES ('last') RETURNING id"
    )
    assert int(new_id.stdout) > 5000
    (former,) = [name for name in database.sql(NAMES).split() if "_before_" in name]
    assert former in said(result)
    assert database.sql(COUNT, former) == "3"
    database.sql(f"DROP DATABASE {former}")


@pytest.mark.usefixtures("manifest")
class TestFailures:
    @pytest.fixture(autouse=True)
    def _quiet(self, database) -> None:
        database.ok("rm -f /run/alarm; systemctl reset-failed postgres-backup.service")

    def failed(self, database) -> str:
        """Run the backup, which must fail and raise the alarm; return what it said."""
        assert database.run("systemctl start postgres-backup.service").rc != 0
        assert (
            database.run(
                "for i in $(seq 50); do test -e /run/alarm && exit 0; sleep 0.1; done; exit 1"
            ).rc
            == 0
        )
        assert database.sql(NAMES) == "etlegacy_stats postgres"
        return database.ok("journalctl -u postgres-backup -n 6 -o cat --no-pager")

    def test_encryption_fails(self, play, database) -> None:
        before = stamps(database)
        database.ok(
            "cp /etc/postgres-backup.json /root/; sed -i s/age1/age1x/ /etc/postgres-backup.json"
        )
        try:
            assert "age failed (1)" in self.failed(database)
            result = play(BACKUP)
        finally:
            database.ok("cp /root/postgres-backup.json /etc/")
        assert result.returncode != 0
        assert "age failed (1)" in said(result)
        assert stamps(database) == before

    def test_disk_is_full(self, database) -> None:
        before = stamps(database)
        database.ok(
            f"mount -t tmpfs -o size=16k,mode=700,uid=$(id -u postgres_backup) none {DIRECTORY}"
        )
        try:
            assert "Make room." in self.failed(database)
        finally:
            database.ok(f"umount {DIRECTORY}")
        assert stamps(database) == before

    def test_the_dump_shrank(self, database) -> None:
        before = stamps(database)
        database.sql("CREATE TABLE kept AS TABLE rounds; TRUNCATE rounds", "etlegacy_stats")
        database.sql("DROP TABLE kept", "etlegacy_stats")
        assert "much of the data is gone" in self.failed(database)
        assert set(before) < set(stamps(database))


@pytest.mark.usefixtures("manifest")
def test_old_backups_expire_by_day_week_and_month(database) -> None:
    """Two a day for 400 days before the newest one."""
    # Counted from the backup that is made below; no day may end before that.
    to_midnight = 86400 - time.time() % 86400
    time.sleep(to_midnight + 1 if to_midnight < 120 else 0)
    newest = datetime.datetime.now(datetime.UTC)
    database.ok(f"rm -rf {DIRECTORY}/*")
    made = [
        f"{newest - datetime.timedelta(days=day, hours=hour):%Y%m%dT%H%M%SZ}"
        for day in range(1, 401)
        for hour in (0, 12)
    ]
    document = json.dumps({"stamp": "STAMP", "started": 0, "plain_bytes": 1})
    database.ok(
        f"cd {DIRECTORY} && for s in {' '.join(made)}; do"
        f" mkdir $s; echo '{document}' | sed s/STAMP/$s/ > $s/manifest.json;"
        " touch $s/manifest.json.sig;"
        " done; chown -R postgres_backup: ."
    )
    database.ok("systemctl start postgres-backup.service")
    kept = stamps(database)
    days = {stamp[:8] for stamp in kept}
    assert len(days) == len(kept), "one a day at most"
    assert len({stamp[:6] for stamp in kept}) == 12
    week = {f"{newest - datetime.timedelta(days=day):%Y%m%d}" for day in range(7)}
    assert week <= days
    assert len(kept) <= 7 + 5 + 12
