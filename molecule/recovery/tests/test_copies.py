"""Copies on another host: there at once, and safe from whoever has the database server."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
from pathlib import Path

import pytest
from scenario import BACKUPS, COPIES, KEEPER, SECRETS, Machine, play
from support.ansible import words

pytestmark = pytest.mark.order("first")  # before test_watch breaks copies on purpose

SSH = (
    "-F none -o BatchMode=yes -o UserKnownHostsFile=/etc/postgres-backup.d/known_hosts"
    " -i /etc/postgres-backup.d/id_ed25519"
)
SIGN = (
    "runuser -u postgres_backup -- ssh-keygen -q -Y sign"
    " -f /etc/postgres-backup.d/signing_ed25519 -n postgres-backup"
)
CHECK = "postgres-backup-check.service"
COPY = "postgres-backup-copy.service"


def asks(database: Machine, words: str, stdin: str = "", options: str = ""):
    """Use the key of the database server as somebody who has taken it over would."""
    return database.run(
        f"printf %s {shlex.quote(stdin)} | runuser -u postgres_backup -- "
        f"ssh {SSH} {options} -p 48022 backup-keeper@{KEEPER} {shlex.quote(words)}"
    )


def fingerprints(keeper: Machine) -> str:
    return keeper.ok(f"find {COPIES} -type f -exec sha256sum {{}} + | sort")


def test_the_copy_is_there_when_the_playbook_ends(keeper, manifest) -> None:
    path = f"{COPIES}/{manifest['stamp']}/dump.age"
    assert keeper.ok(f"sha256sum {path}").split()[0] == manifest["sha256"]
    assert keeper.ok(f"stat -c %U:%a {COPIES} {path}").split() == [
        "backup-keeper:700",
        "backup-keeper:600",
    ]


def test_a_remote_of_rclone_has_it_too(keeper, manifest) -> None:
    path = f"/srv/storage/backups/etlegacy_stats/{manifest['stamp']}/dump.age"
    assert keeper.ok(f"sha256sum {path}").split()[0] == manifest["sha256"]


def test_what_is_there_is_not_sent_again(database, manifest) -> None:  # noqa: ARG001
    database.works(COPY)
    said_by_it = database.ok(f"journalctl _SYSTEMD_UNIT={COPY} -n 1 -o cat")
    assert said_by_it.count("nothing new") == 2
    database.works(CHECK)


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize(
    "words",
    [
        "",
        "id",
        "cat /etc/passwd",
        f"rm -rf {COPIES}",
        "offer; id",
        "put ../../../tmp/x 5",
        "put 20261122T043000Z/../x 5",
        "show etlegacy_stats",
        "scp -t /tmp/x",
        "/usr/lib/openssh/sftp-server",
    ],
)
def test_the_key_does_nothing_else(database, keeper, words: str) -> None:
    before = fingerprints(keeper)
    result = asks(database, words)
    assert result.rc == 3
    assert "this key adds backups and does nothing else" in result.stderr
    assert result.stdout == ""
    assert fingerprints(keeper) == before


def test_the_key_forwards_nothing_and_gets_no_terminal(database) -> None:
    assert asks(database, "", options="-W 127.0.0.1:48022").rc != 0
    terminal = asks(database, "offer", "[]", options="-tt")
    assert "PTY allocation request failed" in terminal.stderr


def test_the_key_is_good_from_the_database_server_alone(database, keeper, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(database.ok("cat /etc/postgres-backup.d/id_ed25519") + "\n")
    subprocess.run(["docker", "cp", key, "recovery-keeper:/root/stolen"], check=True)
    keeper.ok("chown root: /root/stolen && chmod 600 /root/stolen")
    result = keeper.run(
        f"printf [] | ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -i /root/stolen"
        f" -p 48022 backup-keeper@{KEEPER} offer; rc=$?; rm /root/stolen; exit $rc"
    )
    assert result.rc == 255
    assert "Permission denied" in result.stderr


class TestPut:
    """What the receiving program makes of a sender that lies."""

    DUMP = "not really encrypted"

    def put(self, database: Machine, name: str, sent: str = DUMP, **manifest: object):
        text = json.dumps(
            {
                "stamp": name,
                "bytes": len(self.DUMP),
                "sha256": hashlib.sha256(self.DUMP.encode()).hexdigest(),
                "plain_bytes": 5,
                "restored_and_compared": True,
            }
            | manifest
        )
        signature = database.ok(f"printf %s {shlex.quote(text)} | {SIGN}")
        words = f"put {name} {len(text)} {len(signature)}"
        return asks(database, words, text + signature + sent)

    def refused(self, keeper: Machine, before: str, result) -> str:
        assert result.rc == 3
        assert fingerprints(keeper) == before
        assert not [name for name in keeper.names(COPIES) if name.startswith(".")]
        return result.stderr

    def test_nothing_is_replaced(self, database, keeper, manifest) -> None:
        before = fingerprints(keeper)
        result = self.put(database, manifest["stamp"])
        assert "nothing that is here is ever replaced" in self.refused(keeper, before, result)

    @pytest.mark.parametrize("sent", [DUMP[:9], DUMP + "and more", DUMP.upper(), ""])
    def test_only_what_the_manifest_describes_is_taken(
        self, database, keeper, manifest, sent: str
    ) -> None:
        del manifest
        before = fingerprints(keeper)
        result = self.put(database, "20261101T000000Z", sent)
        assert "did not arrive as its manifest" in self.refused(keeper, before, result)

    def test_ten_bytes_are_no_backup(self, database, keeper) -> None:
        """Signed by the server's own key, as whoever has taken it over can."""
        before = fingerprints(keeper)
        result = self.put(database, "20261101T000000Z", self.DUMP)
        assert "is no encrypted file of 5 bytes" in self.refused(keeper, before, result)

    def test_what_the_server_has_not_signed_is_no_backup(self, database, keeper) -> None:
        before = fingerprints(keeper)
        result = asks(database, "put 20261101T000000Z 2 9", "{}no signed" + self.DUMP)
        assert "not signed by the key of" in self.refused(keeper, before, result)

    def test_no_backup_is_from_the_future(self, database, keeper) -> None:
        before = fingerprints(keeper)
        result = self.put(database, "20990101T000000Z")
        assert "lies in the future" in self.refused(keeper, before, result)

    def test_the_manifest_is_that_of_the_backup(self, database, keeper) -> None:
        before = fingerprints(keeper)
        result = self.put(database, "20261101T000000Z", stamp="20261102T000000Z")
        assert "the manifest is that of another backup" in self.refused(keeper, before, result)

    def test_a_full_disk_is_not_filled_further(self, database, keeper) -> None:
        before = fingerprints(keeper)
        settings = "/etc/backup-keeper.json"
        keeper.ok(
            f"cp -p {settings} /root/ && sed -i '/free_mb/s/[0-9]/9/g;s/_mb.: /&999999/' {settings}"
        )
        try:
            result = self.put(database, "20261101T000000Z")
        finally:
            keeper.ok("cp -p /root/backup-keeper.json /etc/")
        assert "have to stay free. Make room here." in self.refused(keeper, before, result)


@pytest.mark.usefixtures("manifest")
class TestMissingCopies:
    @pytest.fixture(autouse=True)
    def _forget(self, database) -> None:
        """Everything has to be offered again afterwards."""
        yield
        database.ok("rm -f /var/lib/postgres-backup/copied.json")
        database.works(COPY)
        database.works(CHECK)

    def test_another_host_at_that_address_gets_nothing(self, database, keeper) -> None:
        database.ok("rm -f /var/lib/postgres-backup/copied.json")
        keeper.ok("rm -f /root/other*; ssh-keygen -q -t ed25519 -N '' -f /root/other")
        other = keeper.ok("cut -d' ' -f1,2 /root/other.pub")
        database.ok("cp -p /etc/postgres-backup.d/known_hosts /root/")
        database.ok("echo %s > /etc/postgres-backup.d/known_hosts", f"[{KEEPER}]:48022 {other}")
        try:
            assert database.run(f"systemctl start {COPY}").rc != 0
        finally:
            database.ok("cp -p /root/known_hosts /etc/postgres-backup.d/")
        complaint = database.ok(f"journalctl _SYSTEMD_UNIT={COPY} -n 1 -o cat")
        assert "Host key verification failed" in complaint
        assert "the backups on this server are untouched" in complaint

    def test_a_host_that_has_lost_everything_gets_all_again(self, database, keeper) -> None:
        with keeper.kept(COPIES):
            keeper.ok(f"rm -r {COPIES}/*")
            database.works("postgres-backup.service")
            assert keeper.names(COPIES) == database.names(BACKUPS)

    def test_a_copy_that_stays_away_is_heard_of(self, database, manifest) -> None:
        with database.kept(BACKUPS):
            database.ok("rm -f /var/lib/postgres-backup/copied.json")
            database.age(hours=8)
            heard = database.fails(CHECK)
        assert f"backup-keeper@{KEEPER}:48022 lacks " in heard
        assert manifest["stamp"] in heard


def test_a_restore_takes_the_copy_of_the_other_host(manifest) -> None:
    result = play("playbooks/restore.yml", restore_from="keeper", restore_backup=manifest["stamp"])
    assert result.returncode == 0, result.stdout
    assert f"Backup {manifest['stamp']} of etlegacy_stats: 1 tables with 5000 rows" in words(result)
    assert "The drill left nothing behind." in words(result)


def test_no_key_for_backups_is_on_either_server(database, keeper) -> None:
    secret = (SECRETS / "backup_identity.txt").read_text().splitlines()[-1]
    for machine in (database, keeper):
        assert machine.run(f"grep -rlsF {secret} /etc /root /var /srv /usr/local").stdout == ""
