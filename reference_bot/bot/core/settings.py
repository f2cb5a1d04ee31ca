"""The bot's settings, read from the environment and from ``.env`` in the checkout's root.

``.env.example`` lists every name with its meaning.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import load_dotenv

CHECKOUT = Path(__file__).resolve().parent.parent.parent


class SettingsError(Exception):
    """A setting is missing or malformed; the message names it."""


@dataclass(frozen=True)
class SshSettings:
    """How to reach the stats files on the game server."""

    host: str
    port: int
    user: str
    key: Path
    known_hosts: Path
    directory: str


@dataclass(frozen=True)
class BotSettings:
    """Everything but the database. Times are in seconds."""

    state: Path  # holds local_stats/
    ssh: SshSettings | None  # None: only local_stats/ is watched
    poll_interval: float = 30.0
    settle_time: float = 2.0  # a file must stay unchanged this long before it is fetched
    database_wait: float = 60.0  # patience with an unreachable database at the start
    discord_token: str | None = field(default=None, repr=False)
    stats_channel: int | None = None  # where each new round is told; None: nowhere
    log_level: str = "INFO"

    @property
    def local_stats(self) -> Path:
        """Every stats file that was ever fetched."""
        return self.state / "local_stats"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> BotSettings:
        """Read the settings.

        Raises:
            SettingsError: a setting is missing or malformed.

        """
        values = {key: value.strip() for key, value in environment.items() if value.strip()}
        level = values.get("LOG_LEVEL", "INFO").upper()
        if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise SettingsError(f"LOG_LEVEL={level}: must be DEBUG, INFO, WARNING or ERROR")
        return cls(
            state=Path(values.get("BOT_STATE_DIR", ".")).absolute(),
            ssh=_ssh(values),
            poll_interval=_seconds(values, "STATS_POLL_SECONDS", 30.0),
            settle_time=_seconds(values, "STATS_SETTLE_SECONDS", 2.0),
            database_wait=_seconds(values, "DATABASE_START_WAIT_SECONDS", 60.0),
            discord_token=values.get("DISCORD_BOT_TOKEN"),
            stats_channel=_channel(values.get("STATS_CHANNEL_ID")),
            log_level=level,
        )


def load_environment() -> None:
    """Add what ``.env`` in the checkout's root says; the real environment wins."""
    load_dotenv(CHECKOUT / ".env")


def _ssh(values: Mapping[str, str]) -> SshSettings | None:
    enabled = values.get("SSH_ENABLED", "false").lower()
    if enabled in ("false", "no", "0", "off"):
        return None
    if enabled not in ("true", "yes", "1", "on"):
        raise SettingsError(f"SSH_ENABLED={enabled}: must be true or false")
    names = ("SSH_HOST", "SSH_USER", "SSH_KEY_PATH", "SSH_KNOWN_HOSTS", "REMOTE_STATS_PATH")
    missing = [name for name in names if name not in values]
    if missing:
        raise SettingsError(f"SSH_ENABLED=true needs {', '.join(missing)} to be set")
    files = {name: Path(values[name]).expanduser() for name in ("SSH_KEY_PATH", "SSH_KNOWN_HOSTS")}
    for name, path in files.items():
        if not os.access(path, os.R_OK) or not path.is_file():
            raise SettingsError(f"{name}: there is no readable file {path}")
    port = values.get("SSH_PORT", "22")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise SettingsError(f"SSH_PORT={port} is not a port number")
    return SshSettings(
        host=values["SSH_HOST"],
        port=int(port),
        user=values["SSH_USER"],
        key=files["SSH_KEY_PATH"],
        known_hosts=files["SSH_KNOWN_HOSTS"],
        directory=values["REMOTE_STATS_PATH"],
    )


def _channel(text: str | None) -> int | None:
    if text is not None and not (text.isascii() and text.isdigit()):
        raise SettingsError(
            f"STATS_CHANNEL_ID={text}: must be a channel's id, a number of some 18 digits "
            "(Discord: switch on developer mode, right-click the channel, copy id)"
        )
    return int(text) if text else None


def _seconds(values: Mapping[str, str], name: str, default: float) -> float:
    try:
        number = float(values.get(name, default))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise SettingsError(f"{name}={values[name]} is not a number of seconds")
    return number
