"""The backup program on a real PostgreSQL, with the roles and rights that the role gives."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyrage
import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from support.postgres import DIRECTORIES, SUPERUSER, Cluster, Database

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles/postgres_server"
AGE = f"""#!{sys.executable}
# What age does, for a machine that has none.
import sys, pyrage
keys = [pyrage.x25519.Recipient.from_str(key) for key in sys.argv[2::2]]
sys.stdout.buffer.write(pyrage.encrypt(sys.stdin.buffer.read(), keys))
"""


def load(path: Path) -> ModuleType:
    """Import a program of a role."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@dataclass
class World:
    """A database as site.yml leaves it, and the backup program beside it."""

    program: ModuleType
    config: Any
    cluster: Cluster
    names: dict[str, str]  # the role's inputs
    identity: pyrage.x25519.Identity

    def database(self, role: str = "", name: str = "") -> Database:
        """Return a database as somebody sees it."""
        return self.cluster.database(
            name or self.names["postgres_server_database"], self.names.get(role, role) or SUPERUSER
        )

    def sql(self, statement: str, role: str = "", name: str = "") -> list[tuple]:
        """Run SQL as a role, by the name of the input or its own."""
        with self.database(role, name).connect() as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def apply(self, template: str, **inputs: object) -> None:
        """Run one of the role's SQL templates as the role does: as the superuser, at once."""
        text = (ROLE / "templates/sql" / template).read_text()
        defaults = {
            "postgres_server_app_may_create": False,
            "postgres_server_pgbouncer_enabled": False,
            "postgres_server_standbys": [],
            "__postgres_server_readonly_settings": {"statement_timeout": "60s"},
            "__postgres_server_app_settings": {"statement_timeout": "5min"},
        }
        templar = Templar(DataLoader(), variables={**defaults, **self.names, **inputs})
        rendered = templar.template(trust_as_template(text))
        place = "postgres" if template == "roles.sql.j2" else ""
        with self.database(name=place).connect(autocommit=False) as connection:
            if template != "roles.sql.j2":
                connection.execute("SET search_path = pg_catalog")
            for statement in rendered.split("\n;;\n"):
                # Not there in the cluster of the tests; it is no part of what is tested.
                if "pg_stat_statements" not in statement or "SELECT" in statement:
                    connection.execute(statement)
            connection.commit()

    def backup(self) -> dict[str, Any]:
        """Make a backup and return its manifest."""
        return self.program.run(self.config)

    def directory(self, manifest: dict[str, Any]) -> Path:
        """Return where a backup lies."""
        return Path(self.config.directory) / manifest["stamp"]


@pytest.fixture(scope="session")
def backup_cluster():
    """A server of a version that comes with pg_dump."""
    with Cluster.of_major(15) if _client(15) else Cluster.of_major() as cluster:
        yield cluster


def _client(major: int) -> Path | None:
    found = [each / str(major) / "bin" for each in DIRECTORIES]
    return next((path for path in found if (path / "pg_dump").exists()), None)


@pytest.fixture
def world(backup_cluster, tmp_path, monkeypatch):
    """A database with a table in it, made as site.yml makes it."""
    program = load(ROLE / "files/postgres_backup.py")
    mark = f"t{uuid.uuid4().hex[:8]}"
    names = {f"postgres_server_{name}_role": f"{mark}_{name}" for name in (
        "owner", "app", "readonly", "migrator", "backup", "restore", "monitor", "pgbouncer",
        "replication",
    )}  # fmt: skip
    names |= {
        "postgres_server_database": mark,
        "__postgres_server_check_role": f"{mark}_restore_check",
        "__postgres_server_lookup_role": f"{mark}_pgbouncer_lookup",
        "__postgres_server_role_names": list(names.values()),
    }
    identity = pyrage.x25519.Identity.generate()
    config = program.Config(
        database=mark,
        scratch_database=f"{mark}_backup_check",
        port=backup_cluster.port,
        bin_directory=str(_client(backup_cluster.major)),
        data_directory=str(tmp_path),
        directory=str(tmp_path / "backups"),
        recipients=[str(identity.to_public())],
        keep_days=7,
        keep_weeks=5,
        keep_months=12,
        shrink_percent=50,
        max_age_hours=36,
        copy_to={},
        rclone_remote="",
        archive_enabled=False,
        check_role=names["__postgres_server_check_role"],
        restore_role=names["postgres_server_restore_role"],
    )
    secrets = tmp_path / "secrets"
    for directory in (secrets, tmp_path / "bin", tmp_path / "backups"):
        directory.mkdir()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", secrets / "signing_ed25519"],
        check=True,
    )
    (tmp_path / "bin/age").write_text(AGE)
    (tmp_path / "bin/age").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PGUSER", names["postgres_server_backup_role"])  # the system user's name
    monkeypatch.setattr(program, "SOCKET", str(backup_cluster.directory))
    monkeypatch.setattr(program, "SECRETS", secrets)
    monkeypatch.setattr(program, "COPIED", tmp_path / "copied.json")
    found = World(program, config, backup_cluster, names, identity)
    found.apply("roles.sql.j2")
    with found.database(name="postgres").connect() as admin:
        admin.execute(
            f"CREATE DATABASE {mark} OWNER {names['postgres_server_owner_role']} TEMPLATE template0"
        )
    found.apply("privileges.sql.j2")
    found.sql(
        """
        CREATE TABLE rounds (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, map text);
        INSERT INTO rounds (map) SELECT 'goldrush ^1' || n FROM generate_series(1, 500) AS n;
        """,
        "postgres_server_migrator_role",
    )
    yield found
    with found.database(name="postgres").connect() as admin:
        databases = admin.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s", (f"{mark}%",)
        ).fetchall()
        for (name,) in databases:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        roles = admin.execute(
            "SELECT rolname FROM pg_roles WHERE rolname LIKE %s", (f"{mark}%",)
        ).fetchall()
        for (name,) in roles:
            assert re.fullmatch(r"\w+", name)
            admin.execute(f"DROP OWNED BY {name}")
        for (name,) in roles:
            admin.execute(f"DROP ROLE {name}")
