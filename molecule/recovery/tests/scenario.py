"""The machines of this scenario, and Ansible from here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import testinfra
from support import ansible

ROOT = Path(__file__).parents[3]
SCENARIO = Path(__file__).parents[1]
CACHE = ROOT / ".cache"
SECRETS = CACHE / "world.recovery/secrets"
ADDRESS = CACHE / "recovery.address"
ADDRESSES = ("172.30.6.10", "172.30.6.13")
KEEPER = "172.30.6.20"
BACKUPS = "/var/backups/postgresql"
COPIES = "/var/backups/keeper/etlegacy_stats"
NAMES = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate"
COUNT = "SELECT count(*) FROM rounds"


AGE = """
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("*/manifest.json"):
    manifest = json.loads(path.read_text())
    manifest["started"] -= float(sys.argv[2]) * 3600
    path.write_text(json.dumps(manifest))
"""


class Machine:
    """A machine of the scenario; commands run inside it as root."""

    def __init__(self, name: str) -> None:
        self.host = testinfra.get_host(f"docker://recovery-{name}")

    def run(self, command: str, *arguments: str):
        return self.host.run(command, *arguments)

    def ok(self, command: str, *arguments: str) -> str:
        """Run a command that must succeed and return what it printed."""
        result = self.host.run(command, *arguments)
        assert result.rc == 0, result.stderr or result.stdout
        return result.stdout.strip()

    def sql(self, sql: str, database: str = "etlegacy_stats") -> str:
        """Ask the machine's own server as its superuser."""
        return self.ok(
            "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d %s -c %s", database, sql
        )

    def names(self, directory: str) -> list[str]:
        """Return what is in a directory."""
        return sorted(self.ok(f"ls -A {directory}").split())

    @contextlib.contextmanager
    def kept(self, directory: str) -> Iterator[None]:
        """Put a directory back as it was, whatever happens to it."""
        self.ok(f"cp -a {directory} /root/kept")
        try:
            yield
        finally:
            self.ok(f"rm -r {directory} && mv /root/kept {directory}")

    def age(self, hours: int) -> None:
        """Let all backups seem older."""
        self.ok("python3 -c %s %s %s", AGE, BACKUPS, str(hours))

    def fails(self, unit: str) -> str:
        """Start a unit, which must fail and be heard of; return what was heard."""
        self.ok("rm -f /root/heard; systemctl reset-failed")
        assert self.run(f"systemctl start {unit}").rc != 0
        self.ok("for i in $(seq 50); do test -s /root/heard && exit 0; sleep 0.1; done; exit 1")
        heard = self.ok("cat /root/heard")
        assert self.ok(f"cat /run/motd.d/{unit.removesuffix('.service')}") in heard
        return heard

    def works(self, unit: str) -> None:
        """Start a unit, which must succeed; nothing of its earlier alert is left at the login."""
        self.ok(f"systemctl start {unit}")
        if unit == "postgres-backup.service":
            self.ok("systemctl start postgres-backup-copy")  # has begun; this waits for its end
        assert self.run(f"test -e /run/motd.d/{unit.removesuffix('.service')}").rc != 0


def play(playbook: str | Path, *options: str, **variables: object):
    """Run a playbook with the scenario's inventory, as an operator does."""
    return ansible.play(playbook, *options, inventory=SCENARIO / "inventory", **variables)
