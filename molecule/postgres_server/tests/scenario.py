"""The machines of this scenario and what its inventory says of them."""

from __future__ import annotations

from pathlib import Path

import testinfra
import yaml

ROOT = Path(__file__).parents[3]
SCENARIO = Path(__file__).parents[1]
SETTINGS = yaml.safe_load((SCENARIO / "inventory/group_vars/all.yml").read_text())
ADDRESS = {
    name: host["ansible_host"]
    for name, host in yaml.safe_load((SCENARIO / "inventory/hosts.yml").read_text())["all"][
        "hosts"
    ].items()
}
PASSWORD = {
    "etlegacy_app": SETTINGS["postgres_server_app_password"],
    "etlegacy_readonly": SETTINGS["postgres_server_readonly_password"],
    "etlegacy_migrator": SETTINGS["postgres_server_migrator_password"],
}
SECRETS = ROOT / ".cache/molecule_postgres_server/secrets"
VERIFIED = "sslmode=verify-full sslrootcert=/root/ca.crt"


class Machine:
    """A machine of the scenario; commands run inside it, so connections come from its address."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.host = testinfra.get_host(f"docker://postgres_server-{name}")

    def run(self, command: str, *arguments: str):
        return self.host.run(command, *arguments)

    def ok(self, command: str, *arguments: str) -> str:
        """Run a command that must succeed and return what it printed."""
        result = self.host.run(command, *arguments)
        assert result.rc == 0, result.stderr
        return result.stdout.strip()

    def psql(self, dsn: str, sql: str, password: str = ""):
        """Run SQL through a connection string."""
        return self.host.run(
            "PGPASSWORD=%s PGCONNECT_TIMEOUT=5 psql -XAtq -v ON_ERROR_STOP=1 %s -c %s",
            password,
            dsn,
            sql,
        )

    def login(self, role: str, sql: str, server: str = "database", options: str = VERIFIED):
        """Run SQL as a role with its right password over the network."""
        dsn = f"host={ADDRESS[server]} dbname=etlegacy_stats user={role} {options}"
        return self.psql(dsn, sql, PASSWORD[role])

    def through_pgbouncer(self, role: str, sql: str, server: str = "database"):
        """The same through the pool."""
        return self.login(role, sql, server, f"port=6432 {VERIFIED}")

    def sql(self, sql: str, database: str = "postgres") -> str:
        """Ask the machine's own server as its superuser.

        The statement may hold a password, and the journal keeps the command line of runuser.
        """
        psql = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d %s"
        return self.ok(f"printf %%s %s | {psql}", sql, database)
