"""The bot's two databases, a game server to fetch from, and the bot as a real process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh
import pytest
from bot.core.database import Database, DatabaseSettings
from bot.core.round_import import files_in, import_file
from bot.core.schema import create_schema
from bot.core.stats_parser import StatsFileError
from support.postgres import Cluster
from support.postgres import Database as PostgresDatabase

CHECKOUT = Path(__file__).resolve().parents[2] / "reference_bot"
PATIENCE = 60.0  # seconds, for a busy machine; nothing here takes a tenth of it


@pytest.fixture(scope="session")
def one_database(postgres_cluster: Cluster) -> Iterator[PostgresDatabase]:
    """The database that all tests of this directory use, one after the other."""
    with postgres_cluster.fresh_database() as database:
        yield database


@pytest.fixture
def database(one_database: PostgresDatabase) -> Iterator[PostgresDatabase]:
    """An empty database. To empty one takes a tenth of the time that making one takes."""
    yield one_database
    with one_database.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public AUTHORIZATION pg_database_owner")
        connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_environment(request, tmp_path) -> dict[str, str]:
    """The bot's settings for an empty database; every test that asks runs on both backends."""
    if request.param == "sqlite":
        return {"DATABASE_TYPE": "sqlite", "DATABASE_PATH": str(tmp_path / "stats.db")}
    database = request.getfixturevalue("database")
    return {
        "DATABASE_TYPE": "postgresql",
        "DATABASE_HOST": database.host,
        "DATABASE_PORT": str(database.port),
        "DATABASE_NAME": database.name,
        "DATABASE_USER": database.user,
        "DATABASE_PASSWORD": database.password,
        "DATABASE_POOL_MIN": "1",
        "DATABASE_POOL_MAX": "4",
    }


@pytest.fixture
async def db(database_environment) -> AsyncIterator[Database]:
    """An open database with the bot's schema."""
    database = Database(DatabaseSettings.from_environment(database_environment))
    await database.open(create=True)
    await create_schema(database)
    yield database
    await database.close()


@pytest.fixture
def import_all(db):
    """A function that imports a directory oldest first; returns what came of each file."""

    async def run(directory: Path) -> dict[str, bool | str]:
        here = files_in(directory)
        outcome = {}
        async with db.session() as session:
            for name in sorted(here.values()):
                partner = name.first_round(here.values()) if name.round_number == 2 else None
                try:
                    outcome[name.text] = await import_file(session, directory, name, partner)
                except StatsFileError as error:
                    outcome[name.text] = str(error)
        return outcome

    return run


@dataclass
class GameServer:
    """An SFTP server with a stats directory."""

    stats: Path
    environment: dict[str, str]  # the bot's SSH_* settings for it
    _options: dict[str, object]
    _port: int = 0
    _server: asyncssh.SSHAcceptor | None = field(default=None, repr=False)

    async def start(self) -> None:
        """Listen; a restart keeps the port."""
        self._server = await asyncssh.listen("127.0.0.1", self._port, **self._options)
        self._port = self._server.get_port()
        self.environment["SSH_PORT"] = str(self._port)
        known_hosts = Path(self.environment["SSH_KNOWN_HOSTS"])
        if not known_hosts.exists():
            key = self._options["server_host_keys"][0].export_public_key().decode()
            known_hosts.write_text(f"[127.0.0.1]:{self._port} {key}")

    async def stop(self) -> None:
        """Hang up on everybody."""
        self._server.close()
        await self._server.wait_closed()


@pytest.fixture
async def game_server(tmp_path) -> AsyncIterator[GameServer]:
    """A running game server, empty, that accepts the bot's key and only that."""
    stats = tmp_path / "game" / "stats"
    stats.mkdir(parents=True)
    client_key, host_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    key_file = tmp_path / "id_ed25519"
    client_key.write_private_key(key_file)
    authorized = tmp_path / "authorized_keys"
    client_key.write_public_key(authorized)

    def chroot(channel: asyncssh.SSHServerChannel) -> asyncssh.SFTPServer:
        return asyncssh.SFTPServer(channel, chroot=str(stats.parent))

    server = GameServer(
        stats,
        {
            "SSH_ENABLED": "true",
            "SSH_HOST": "127.0.0.1",
            "SSH_USER": "etstats",
            "SSH_KEY_PATH": str(key_file),
            "SSH_KNOWN_HOSTS": str(tmp_path / "known_hosts"),
            "REMOTE_STATS_PATH": "/stats",
        },
        {
            "server_host_keys": [host_key],
            "authorized_client_keys": str(authorized),
            "sftp_factory": chroot,
            "allow_scp": False,
        },
    )
    await server.start()
    yield server
    await server.stop()


@dataclass
class BotProcess:
    """``python bot/ultimate_bot.py``, listened to as systemd does."""

    process: asyncio.subprocess.Process
    notices: socket.socket
    heard: list[str] = field(default_factory=list)
    output: str = ""

    def listen(self) -> None:
        """Take in messages as they come, as systemd does: the queue is short."""
        asyncio.get_running_loop().add_reader(
            self.notices, lambda: self.heard.append(self.notices.recv(4096).decode())
        )

    async def wait_for_notice(self, text: str) -> None:
        """Wait for a message to systemd that contains ``text``."""
        async with asyncio.timeout(PATIENCE):
            while not any(text in message for message in self.heard):
                await asyncio.sleep(0.01)

    async def wait_for_line(self, text: str) -> str:
        """Wait for a line in the log that contains ``text``; return it."""
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stdout.readline()).decode():
                self.output += line
                if text in line:
                    return line
        raise AssertionError(f"the bot ended without saying {text!r}:\n{self.output}")

    async def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        return await self.wait()

    async def wait(self) -> int:
        """Wait for the end; return the exit code. The rest of the log goes to ``output``."""
        async with asyncio.timeout(PATIENCE):
            self.output += (await self.process.stdout.read()).decode()
            return await self.process.wait()


@pytest.fixture
async def start_bot(tmp_path):
    """A function that starts the bot with the settings it is given; all are stopped at the end."""
    with contextlib.ExitStack() as stack:
        started = []

        async def start(*environments: dict[str, str]) -> BotProcess:
            address = tmp_path / f"notify{len(started)}"
            notices = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            notices.bind(str(address))
            notices.setblocking(False)
            settings = {
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "NOTIFY_SOCKET": str(address),
                "BOT_STATE_DIR": str(tmp_path / "state"),
                "STATS_POLL_SECONDS": "0.2",
                "STATS_SETTLE_SECONDS": "0.1",
            }
            for environment in environments:
                settings |= environment
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "bot/ultimate_bot.py",
                cwd=CHECKOUT,
                env=settings,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            started.append(BotProcess(process, notices))
            started[-1].listen()
            return started[-1]

        yield start
        for bot in started:
            if bot.process.returncode is None:
                bot.process.kill()
                await bot.process.wait()
            asyncio.get_running_loop().remove_reader(bot.notices)
