"""The machines of this scenario, and what its playbooks say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import testinfra
import yaml

SCENARIO = Path(__file__).parents[1]
ROOT = SCENARIO.parents[1]
SETTINGS = yaml.safe_load((SCENARIO / "inventory/group_vars/all/main.yml").read_text())
WORLD = ROOT / ".cache/world.replica"
VERIFIED = "sslmode=verify-full sslrootcert=/root/ca.crt connect_timeout=5"


class Machine:
    """A machine of the scenario; commands run inside it, so connections come from its address."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.host = testinfra.get_host(f"docker://replica-{name}")

    def run(self, command: str, *arguments: str):
        return self.host.run(command, *arguments)

    def ok(self, command: str, *arguments: str) -> str:
        """Run a command that must succeed and return what it printed."""
        result = self.host.run(command, *arguments)
        assert result.rc == 0, result.stdout + result.stderr
        return result.stdout.strip()

    def sql(self, sql: str, database: str = "etlegacy_stats") -> str:
        """Ask the machine's own server as its superuser."""
        return self.ok(
            "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d %s -c %s", database, sql
        )

    def login(self, server: Machine, role: str, sql: str, port: int = 5432):
        """Run SQL on another machine as one of the logins that site.yml made."""
        return self.run(
            "PGPASSWORD=%s psql -XAtq -v ON_ERROR_STOP=1 %s -c %s",
            SETTINGS[f"vault_postgres_{role}_password"],
            f"host={server.address} port={port} dbname=etlegacy_stats user=etlegacy_{role} "
            + VERIFIED,
            sql,
        )


def changed(result: subprocess.CompletedProcess[str]) -> int:
    """Return how many tasks changed something, on all hosts together."""
    assert result.returncode == 0, result.stdout
    return sum(map(int, re.findall(r"changed=(\d+)", result.stdout)))
