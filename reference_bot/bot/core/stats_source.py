"""The game server's stats directory, over SFTP with a pinned host key."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import asyncssh

from bot.core.settings import SshSettings
from bot.core.stats_parser import MOST_BYTES, StatsFileName

log = logging.getLogger("stats")

CONNECT_TIMEOUT = 15.0  # seconds
ANSWER_TIMEOUT = 30.0  # seconds for one request
CLOSE_TIMEOUT = 2.0  # seconds for the end of one that was given up
MOST_FILES = 100_000  # in the game server's directory; ten years have fewer

Answer = TypeVar("Answer")


class SourceError(Exception):
    """The game server cannot be reached or does not give the files; worth another try later."""


@dataclass(frozen=True)
class RemoteFile:
    """A round's file on the game server."""

    name: StatsFileName
    size: int  # bytes
    modified: int  # seconds since 1970 by the game server's clock; only compared with itself


class StatsSource:
    """One SFTP connection, opened when it is needed and again after it was lost."""

    def __init__(self, settings: SshSettings) -> None:
        self._settings = settings
        self._connection: asyncssh.SSHClientConnection | None = None
        self._sftp: asyncssh.SFTPClient | None = None
        self._connecting = asyncio.Lock()
        self._too_long: set[str] = set()

    async def files(self) -> dict[str, RemoteFile]:
        """List the round files by name.

        Raises:
            SourceError: the server cannot be reached, refused us, or has no such directory.

        """
        with self._errors(self._settings.directory):
            sftp = await self._client()
            # As bytes: one name that is no UTF-8 would make the whole list fail.
            entries = await self._within(ANSWER_TIMEOUT, _list(sftp, self._settings.directory))
        found = {}
        for entry in entries:
            name = StatsFileName.parse(os.fsdecode(entry.filename))
            if name is not None and (entry.attrs.size or 0) > MOST_BYTES:
                if name.text not in self._too_long:  # once, not every look
                    log.warning("%s on the game server is too long for a round", name.text)
                self._too_long.add(name.text)
            elif name is not None:
                found[name.text] = RemoteFile(name, entry.attrs.size, entry.attrs.mtime or 0)
        return found

    async def fetch(self, file: RemoteFile, target: Path) -> bool:
        """Copy a file into the directory ``target``; it appears there whole or not at all.

        Args:
            file: what to fetch, as it was listed.
            target: directory that the file goes to.

        Returns:
            False when the file has changed since it was listed (then nothing is kept).

        Raises:
            SourceError: the file cannot be fetched.
            OSError: it cannot be written.

        """
        content = await self.read(file)
        if content is None:
            return False
        keep(content, file, target)
        return True

    async def read(self, file: RemoteFile) -> bytes | None:
        """Return a file's contents, or None when it has changed since it was listed.

        Raises:
            SourceError: the file cannot be fetched.

        """
        remote = f"{self._settings.directory.rstrip('/')}/{file.name.text}"
        with self._errors(remote):
            sftp = await self._client()
            content, now = await self._within(ANSWER_TIMEOUT, _read(sftp, remote))
        unchanged = (now.size, now.mtime or 0) == (file.size, file.modified)
        return content if unchanged and len(content) == file.size else None

    async def close(self) -> None:
        """Close the connection; it is opened again when needed."""
        connection, self._connection, self._sftp = self._connection, None, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(asyncssh.Error, OSError):
                async with asyncio.timeout(2):
                    await connection.wait_closed()

    async def _client(self) -> asyncssh.SFTPClient:
        async with self._connecting:
            if self._sftp is None or self._connection.is_closed():
                await self.close()
                settings = self._settings
                self._connection = await asyncssh.connect(
                    settings.host,
                    settings.port,
                    username=settings.user,
                    client_keys=[str(settings.key)],
                    known_hosts=str(settings.known_hosts),
                    # What counts stands in the settings, not in ~/.ssh/config or an agent.
                    config=None,
                    agent_path=None,
                    connect_timeout=CONNECT_TIMEOUT,
                    login_timeout=CONNECT_TIMEOUT,
                    keepalive_interval=15,
                )
                begun = self._connection.start_sftp_client()
                self._sftp = await self._within(CONNECT_TIMEOUT, begun)
            return self._sftp

    async def _within(self, seconds: float, work: Coroutine[None, None, Answer]) -> Answer:
        """Return what the server answers, or raise TimeoutError.

        Cancelled, asyncssh first asks the server to close the file, and waits for its answer. One
        that says nothing would hold us for ever, so after a moment the connection is cut.
        """
        connection = self._connection
        task = asyncio.ensure_future(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
            if done:
                return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)
            if not task.done() and connection is not None:
                connection.abort()
                await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)
            if task.done() and not task.cancelled():
                task.exception()  # told below, or not wanted any more
        raise TimeoutError

    @contextlib.contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        where = f"{self._settings.user}@{self._settings.host}:{self._settings.port}"
        try:
            yield
        except asyncssh.HostKeyNotVerifiable as error:
            raise SourceError(
                f"{where}: the host key is not the one in {self._settings.known_hosts} "
                f"(SSH_KNOWN_HOSTS): {error.reason}"
            ) from error
        except asyncssh.PermissionDenied as error:
            raise SourceError(
                f"{where}: the key {self._settings.key} (SSH_KEY_PATH) was refused"
            ) from error
        except asyncssh.KeyImportError as error:
            raise SourceError(f"{self._settings.key} (SSH_KEY_PATH): {error}") from error
        except asyncssh.SFTPError as error:
            raise SourceError(f"{where}: {path} (REMOTE_STATS_PATH): {error.reason}") from error
        except asyncssh.Error as error:
            raise SourceError(f"{where}: {error.reason}") from error
        except TimeoutError as error:
            raise SourceError(f"{where}: no answer in time") from error
        except OSError as error:
            raise SourceError(f"{where}: {error}") from error


async def _read(sftp: asyncssh.SFTPClient, path: str) -> tuple[bytes, asyncssh.SFTPAttrs]:
    """Return what a file holds, but no more than a round can, and what it is afterwards."""
    async with sftp.open(path, "rb") as source:
        content = await source.read(MOST_BYTES + 1)  # whatever its list has said
    return content, await sftp.stat(path)


async def _list(sftp: asyncssh.SFTPClient, directory: str) -> list[asyncssh.SFTPName]:
    """Return what a directory holds; a list that does not end would fill the memory."""
    entries = []
    async with contextlib.aclosing(sftp.scandir(os.fsencode(directory))) as listing:
        async for entry in listing:
            entries.append(entry)
            if len(entries) > MOST_FILES:
                raise SourceError(
                    f"{directory} (REMOTE_STATS_PATH) has more than {MOST_FILES} files"
                )
    return entries


def keep(content: bytes, file: RemoteFile, target: Path) -> None:
    """Write a fetched file into the directory ``target``: whole or not at all.

    It gets the date that it has on the game server, so that a newer one there is noticed.

    Raises:
        OSError: it cannot be written.

    """
    partial = target / f".{file.name.text}.part"  # a name that is no round's
    with partial.open("wb") as copy:
        copy.write(content)
        copy.flush()
        os.fsync(copy.fileno())  # a row in the database must not outlive its file
    os.utime(partial, (file.modified, file.modified))
    partial.replace(target / file.name.text)
