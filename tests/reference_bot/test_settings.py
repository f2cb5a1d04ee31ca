"""The settings that are not the database's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bot.core import settings as module
from bot.core.settings import BotSettings, SettingsError, load_environment

EXAMPLE = Path(__file__).resolve().parents[2] / "reference_bot" / ".env.example"
SSH = {
    "SSH_ENABLED": "true",
    "SSH_HOST": "game.example.org",
    "SSH_USER": "etstats",
    "SSH_KEY_PATH": __file__,
    "SSH_KNOWN_HOSTS": __file__,
    "REMOTE_STATS_PATH": "/stats",
}


def test_nothing_is_compulsory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = BotSettings.from_environment({})
    assert settings.local_stats == tmp_path / "local_stats"
    assert (settings.ssh, settings.discord_token, settings.poll_interval) == (None, None, 30.0)


def test_the_state_may_live_outside_of_the_checkout():
    settings = BotSettings.from_environment({"BOT_STATE_DIR": "/var/lib/etlegacy-bot"})
    assert settings.local_stats == Path("/var/lib/etlegacy-bot/local_stats")


def test_the_game_server():
    ssh = BotSettings.from_environment(SSH | {"SSH_PORT": "48101"}).ssh
    assert (ssh.host, ssh.port, ssh.user) == ("game.example.org", 48101, "etstats")
    assert (ssh.key, ssh.directory) == (Path(__file__), "/stats")


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"SSH_ENABLED": "true"}, "SSH_ENABLED=true needs SSH_HOST, SSH_USER, SSH_KEY_PATH"),
        ({"SSH_ENABLED": "maybe"}, "SSH_ENABLED=maybe: must be true or false"),
        (SSH | {"SSH_PORT": "70000"}, "SSH_PORT=70000 is not a port number"),
        (SSH | {"SSH_KEY_PATH": "/nowhere"}, "SSH_KEY_PATH: there is no readable file /nowhere"),
        (SSH | {"SSH_KNOWN_HOSTS": "/nowhere"}, "SSH_KNOWN_HOSTS: there is no readable file"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL=LOUD: must be"),
        ({"STATS_POLL_SECONDS": "soon"}, "STATS_POLL_SECONDS=soon is not a number"),
        ({"STATS_SETTLE_SECONDS": "-1"}, "STATS_SETTLE_SECONDS=-1 is not a number"),
    ],
)
def test_wrong_settings_are_named(environment, says):
    with pytest.raises(SettingsError, match=says):
        BotSettings.from_environment(environment)


def test_the_environment_wins_over_the_env_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("LOG_LEVEL=DEBUG\nSTATS_POLL_SECONDS=7\n")
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    monkeypatch.delenv("STATS_POLL_SECONDS", raising=False)
    load_environment()
    settings = BotSettings.from_environment()
    assert (settings.log_level, settings.poll_interval) == ("ERROR", 7.0)
    monkeypatch.delenv("STATS_POLL_SECONDS")


def test_the_example_names_every_setting_that_the_code_reads():
    sources = [*EXAMPLE.parent.glob("bot/core/*.py")]
    read = {
        name
        for source in sources
        for name in re.findall(
            r'"((?:DATABASE|SSH|STATS|BOT|LOG|DISCORD|REMOTE)_[A-Z_]+)"', source.read_text()
        )
    }
    explained = {
        line.lstrip("# ").partition("=")[0]
        for line in EXAMPLE.read_text().splitlines()
        if "=" in line
    }
    assert read - explained == set()
    assert "DATABASE_SSL_MODE" in read
