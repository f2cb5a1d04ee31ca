"""What is wrong with the backups is heard of, and the last good one survives it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyrage
import pytest
from conftest import ROUNDS
from scenario import BACKUPS, COPIES, NAMES, SECRETS, Machine, play
from support.ansible import words

pytestmark = pytest.mark.order("second")

BACKUP = "postgres-backup.service"
CHECK = "postgres-backup-check.service"
KEEP = "backup-keeper.service"
DATABASES = "etlegacy_stats postgres"


def fingerprints(machine: Machine, directory: str) -> str:
    return machine.ok(f"find {directory} -type f -exec sha256sum {{}} + | sort")


@pytest.mark.usefixtures("manifest")
class TestDatabaseServer:
    def test_a_backup_that_is_two_days_old(self, database) -> None:
        with database.kept(BACKUPS):
            database.age(hours=48)
            heard = database.fails(CHECK)
        assert heard.startswith("ALERT from database-vps, backups:")
        assert "is 48 hours old (more than 36)" in heard
        database.works(CHECK)

    def test_a_truncated_file(self, database, manifest) -> None:
        dump = f"{BACKUPS}/{manifest['stamp']}/dump.age"
        database.ok(f"cp -p {dump} /root/dump.age && truncate -s {manifest['bytes'] // 2} {dump}")
        try:
            heard = database.fails(CHECK)
            result = play("playbooks/restore.yml", restore_backup=manifest["stamp"])
        finally:
            database.ok(f"cp -p /root/dump.age {dump}")
        assert f"{dump} is not what its manifest describes (truncated or altered)" in heard
        assert result.returncode != 0
        assert "truncated or altered" in words(result)
        assert database.sql(NAMES) == DATABASES
        database.works(CHECK)

    def test_a_wrong_identity(self, database, keeper, manifest, tmp_path: Path) -> None:
        """The secrets of another inventory."""
        before = fingerprints(keeper, COPIES)
        secrets = shutil.copytree(SECRETS, tmp_path / "secrets")
        (secrets / "backup_identity.txt").write_text(f"{pyrage.x25519.Identity.generate()}\n")
        result = play(
            "playbooks/restore.yml",
            restore_from="keeper",
            restore_backup=manifest["stamp"],
            restore_mode="in_place",
            restore_confirm="etlegacy_stats",
            secrets_directory=str(secrets),
        )
        assert result.returncode != 0
        assert "Is it the identity of that inventory?" in words(result)
        assert database.sql(NAMES) == DATABASES
        assert fingerprints(keeper, COPIES) == before

    def test_a_disk_that_fills_up_during_the_backup(self, database, manifest) -> None:
        """There is room when the backup begins; a neighbour takes it while the dump is written."""
        database.sql(
            "CREATE TABLE ballast AS"
            " SELECT n, string_agg(sha512((n * 100 + m)::text::bytea), '') AS noise"
            " FROM generate_series(1, 20000) AS n, generate_series(1, 24) AS m GROUP BY n"
        )
        database.ok(f"cp -a {BACKUPS}/{manifest['stamp']} /root/kept")
        database.ok(
            f"mount -t tmpfs -o size=160m,mode=700,uid=$(id -u postgres_backup) none {BACKUPS}"
            f" && cp -a /root/kept {BACKUPS}/{manifest['stamp']}"
        )
        before = fingerprints(database, BACKUPS)
        database.ok(
            "systemd-run --unit=neighbour --collect sh -c %s",
            f"until ls {BACKUPS}/.partial-*/dump.age; do sleep 0.01; done;"
            " dd if=/dev/zero of=/var/backups/postgresql/filler bs=1M",
        )
        try:
            heard = database.fails(BACKUP)
            database.ok(f"rm {BACKUPS}/filler")
            assert fingerprints(database, BACKUPS) == before
            assert database.names(BACKUPS) == [manifest["stamp"]]
        finally:
            database.run("systemctl stop neighbour")
            database.ok(f"umount {BACKUPS}; rm -r /root/kept")
            database.sql("DROP TABLE ballast")
        assert "no space left on device" in heard
        assert database.sql(NAMES) == DATABASES

    def test_a_dump_that_shrank_by_half(self, database, keeper) -> None:
        before = fingerprints(database, BACKUPS)
        database.sql("DELETE FROM rounds WHERE id > 9")
        try:
            heard = database.fails(BACKUP)
            database.ok("systemctl start postgres-backup-copy")
            again = database.fails(CHECK)
        finally:
            database.sql(ROUNDS)
        shrunk = database.names(BACKUPS)[-1]
        assert f"the backup {shrunk} has" in heard
        assert "much of the data is gone from the database" in heard
        assert f"the backup {shrunk} has" in again
        assert set(before.splitlines()) < set(fingerprints(database, BACKUPS).splitlines())
        assert shrunk in keeper.names(COPIES), "what it was is kept on the other host too"
        database.works(BACKUP)
        database.works(CHECK)


@pytest.mark.usefixtures("manifest")
class TestOtherHost:
    @pytest.fixture(autouse=True)
    def _copies(self, keeper) -> None:
        """They are put back as they were."""
        keeper.ok(f"cp -a {COPIES} /root/copies")
        yield
        keeper.ok(f"rm -r {COPIES} && mv /root/copies {COPIES}")
        keeper.works(KEEP)

    def fails(self, keeper: Machine) -> str:
        """Look at the copies, which must raise the alert and remove nothing."""
        before = fingerprints(keeper, COPIES)
        heard = keeper.fails(KEEP)
        assert fingerprints(keeper, COPIES) == before
        assert heard.startswith("ALERT from keeper, copies of backups:")
        return heard

    def old_copies(self, keeper: Machine, manifest: dict) -> None:
        """A hundred days before the newest, each arrived on its day."""
        keeper.ok(
            f"cd {COPIES}; for d in $(seq 1 100); do"
            ' s=$(date -u -d "$d days ago" +%Y%m%dT043000Z);'
            f" cp -a {manifest['stamp']} $s; sed -i s/{manifest['stamp']}/$s/ $s/manifest.json;"
            ' touch -d "$d days ago" $s/manifest.json; done'
        )

    def test_nothing_arrives_any_more(self, keeper, manifest) -> None:
        self.old_copies(keeper, manifest)
        keeper.ok(f"touch -d '2 days ago' {COPIES}/*/manifest.json")
        assert "nothing has arrived for 48 hours (more than 36)" in self.fails(keeper)

    def test_a_copy_was_altered(self, keeper, manifest) -> None:
        keeper.ok(f"printf x >> {COPIES}/{manifest['stamp']}/dump.age")
        assert "(truncated or altered)" in self.fails(keeper)

    def test_the_newest_shrank(self, keeper, manifest) -> None:
        newest = f"{int(manifest['stamp'][:4]) + 1}0101T000000Z"
        small = json.dumps(
            {
                "stamp": newest,
                "bytes": 5,
                "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            }
        )
        keeper.ok(
            f"cd {COPIES} && cp -a {manifest['stamp']} {newest} && cd {newest}"
            " && printf hello > dump.age && echo %s > manifest.json",
            small,
        )
        assert f"the newest backup, {newest}, has 5 bytes" in self.fails(keeper)

    def test_old_ones_expire_by_day_week_and_month(self, keeper, manifest) -> None:
        self.old_copies(keeper, manifest)
        keeper.works(KEEP)
        kept = keeper.names(COPIES)
        assert len({stamp[:6] for stamp in kept}) in (4, 5), "a hundred days touch so many months"
        assert 10 <= len({stamp[:8] for stamp in kept}) <= 7 + 5 + 5
