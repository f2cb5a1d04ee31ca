"""A real PostgreSQL server for tests: own cluster, own user, own port, gone afterwards.

The server's binaries come from ``/usr/lib/postgresql/<major>/bin`` (the distribution's) or
``/usr/local/lib/postgresql/<major>/bin`` (see ``scripts/ensure_postgres.sh``). The cluster lives in
a temporary directory, listens on a unix socket (no password) and on 127.0.0.1 (scram-sha-256,
password ``PASSWORD``), and writes without fsync because nothing in it is worth keeping.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPERUSER = "postgres"
PASSWORD = "test-cluster-password"
DIRECTORIES = (Path("/usr/local/lib/postgresql"), Path("/usr/lib/postgresql"))  # the last one wins
START_TIMEOUT = 60.0  # seconds
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "2GB",
    "max_connections": "60",
    "autovacuum": "off",
    # Far from UTC on purpose: code that leans on the server's time zone is found out.
    "timezone": "Pacific/Auckland",
    "log_min_messages": "warning",
}


class NoServerBinariesError(RuntimeError):
    """No PostgreSQL server is installed on this machine."""


def installed_versions() -> dict[int, Path]:
    """Return ``{major: bin directory}`` of every installed server, ascending."""
    found = {
        int(path.parent.parent.name): path.parent
        for directory in DIRECTORIES
        for path in directory.glob("*/bin/postgres")
        if path.parent.parent.name.isdigit()
    }
    return dict(sorted(found.items()))


def chosen_versions() -> list[int]:
    """Return the majors to test on, ascending: all that are installed, or ``TEST_PG_MAJOR``."""
    chosen = os.environ.get("TEST_PG_MAJOR")
    return [int(chosen)] if chosen else list(installed_versions())


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Return the account that the server runs as when we are root, else None (run as we are)."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("running as root, and there is neither a user 'postgres' nor 'nobody'")


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Database:
    """One database of a cluster, and every way to name it."""

    name: str
    host: str
    port: int
    socket_dir: str
    user: str = SUPERUSER
    password: str = PASSWORD

    @property
    def dsn(self) -> str:
        """URI over the unix socket; no password in it and none needed."""
        return f"postgresql:///{self.name}?host={quote(self.socket_dir)}&port={self.port}&user={self.user}"

    @property
    def tcp_dsn(self) -> str:
        """URI over TCP with the password, for clients that want host and port."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.name}"

    @property
    def environment(self) -> dict[str, str]:
        """The libpq variables for this database over TCP."""
        return {
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGDATABASE": self.name,
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
        }

    def connect(self, **kwargs: object) -> psycopg.Connection:
        """Open a connection that commits each statement (``autocommit``) unless told otherwise."""
        kwargs.setdefault("autocommit", True)
        return psycopg.connect(self.dsn, **kwargs)


@dataclass
class Cluster:
    """A running PostgreSQL server; use it as a context manager."""

    major: int
    bindir: Path
    settings: dict[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 0
    _directory: Path | None = None
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def of_major(cls, major: int | None = None, **settings: str) -> Cluster:
        """Prepare a cluster of that major version (default: ``TEST_PG_MAJOR`` or the lowest)."""
        versions = installed_versions()
        if not versions:
            raise NoServerBinariesError(
                "no PostgreSQL server is installed; run scripts/ensure_postgres.sh"
            )
        if major is None:
            major = chosen_versions()[0]
        return cls(major=major, bindir=versions[major], settings=settings)

    @property
    def directory(self) -> Path:
        """The temporary directory that holds data, socket and log."""
        if self._directory is None:
            raise RuntimeError("the cluster is not running")
        return self._directory

    @property
    def log(self) -> str:
        """What the server has written to its log so far."""
        return (self.directory / "log").read_text(errors="replace")

    def __enter__(self) -> Cluster:
        # Short path: a unix socket's name may not be longer than 107 bytes.
        self._directory = Path(tempfile.mkdtemp(prefix="testpg-", dir="/tmp"))
        user = _unprivileged_user()
        if user is not None:
            os.chown(self._directory, user.pw_uid, user.pw_gid)
        self._directory.chmod(0o755)
        try:
            self._init()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory)
            self._directory = None

    def _identity(self) -> dict[str, object]:
        user = _unprivileged_user()
        if user is None:
            return {}
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def _init(self) -> None:
        password_file = self.directory / "password"
        password_file.write_text(PASSWORD)
        user = _unprivileged_user()
        if user is not None:
            os.chown(password_file, user.pw_uid, user.pw_gid)
        result = subprocess.run(
            [
                self.bindir / "initdb",
                f"--pgdata={self.directory / 'data'}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file}",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            cwd=self.directory,
            **self._identity(),
        )
        if result.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{result.stdout}{result.stderr}")

    def start(self) -> None:
        """Start the server and wait until it answers; the port stays the same over restarts."""
        if not self.port:
            self.port = free_port()
        settings = {
            **SETTINGS,
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            **self.settings,
        }
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.bindir / "postgres", "-D", self.directory / "data", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                # Ctrl-C in the terminal is for pytest, which then stops the server in order.
                start_new_session=True,
                **self._identity(),
            )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                psycopg.connect(self.database(SUPERUSER).dsn).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start:\n{self.log}") from None
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT closes sessions and stops in order, SIGQUIT crashes it."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None

    def database(self, name: str, user: str = SUPERUSER, password: str = PASSWORD) -> Database:
        """Name a database of this cluster (it is not created)."""
        return Database(
            name=name,
            host=self.host,
            port=self.port,
            socket_dir=str(self.directory),
            user=user,
            password=password,
        )

    @contextlib.contextmanager
    def fresh_database(
        self, prefix: str = "test", template: str = "template0"
    ) -> Iterator[Database]:
        """Create a database with a name of its own, drop it afterwards.

        It is empty, or a copy of the database ``template`` (to which nobody may be connected).
        """
        database = self.database(f"{prefix}_{uuid.uuid4().hex[:12]}")
        name = sql.Identifier(database.name)
        with self.database(SUPERUSER).connect() as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(name, sql.Identifier(template))
            )
        try:
            yield database
        finally:
            with self.database(SUPERUSER).connect() as admin:
                admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
