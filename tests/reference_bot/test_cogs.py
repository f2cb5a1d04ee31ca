"""What the commands answer. A context that only takes messages stands in for Discord's."""

from __future__ import annotations

import discord
import pytest
from bot.cogs.health_cog import HealthCog
from bot.cogs.last_session_cog import LastSessionCog, embed_of
from bot.core.database import DatabaseUnavailableError
from bot.core.session_report import PlayerTotal, SessionReport
from bot.core.settings import BotSettings, SettingsError
from bot.core.stats_watcher import StatsWatcher
from bot.ultimate_bot import UltimateBot, run_discord
from discord.ext import commands
from support import stats_files
from tools.stopwatch_scoring import MatchScore


class Context:
    """Collects what is sent."""

    command = "a_command"

    def __init__(self):
        self.sent = []

    async def send(self, content=None, *, embed=None):
        self.sent.append(embed or content)


@pytest.fixture
def watcher(db, tmp_path):
    return StatsWatcher(BotSettings.from_environment({"BOT_STATE_DIR": str(tmp_path)}), db)


async def test_last_session(db, import_all, tmp_path):
    cog, context = LastSessionCog(db), Context()
    await cog.last_session.callback(cog, context)
    assert context.sent == ["No rounds have been played yet."]

    stats_files.write_match(tmp_path / "files")
    await import_all(tmp_path / "files")
    await cog.last_session.callback(cog, context)
    embed = context.sent[-1]
    assert embed.title == "Session of 2026-11-20"
    assert "2 rounds, 2 players" in embed.description
    assert "Team A 0 : 2 Team B" in embed.description  # bravo beat 8:30 by 2:30
    assert embed.fields[0].value == "supply: 0 : 2 (8:30 / 6:00)"
    # 1500 damage in 14.5 minutes, 10 kills and 8 deaths.
    assert "1. alpha: 103 DPM, 10/8" in embed.fields[1].value


def test_a_long_evening_fits_into_discords_limits():
    report = SessionReport(
        "2026-11-20",
        60,
        [MatchScore(f"a_map_with_a_long_name_{n}", "10:00", "9:59", (2, 0)) for n in range(60)],
        [PlayerTotal("*_`" * 30, 60, 999, 999, 99999, 400.0) for _ in range(30)],
    )
    embed = embed_of(report)
    assert all(len(field.value) <= 1024 for field in embed.fields)
    assert embed.fields[0].value.endswith("\n…")
    assert len(embed) <= 6000


async def test_health_tells_the_backend_and_its_absence(db, watcher, monkeypatch):
    cog, context = HealthCog(db, watcher), Context()
    await cog.health.callback(cog, context)
    assert ("PostgreSQL 1" if db.backend == "postgresql" else "SQLite 3") in context.sent[0]
    assert "answered in" in context.sent[0]
    assert "Import: 0 rounds since the start" in context.sent[0]

    async def away():
        raise DatabaseUnavailableError("the database cannot be reached")

    monkeypatch.setattr(db, "describe", away)
    watcher.problem = "the game server: no answer"
    await cog.health.callback(cog, context)
    assert context.sent[1] == (
        "Database: away: the database cannot be reached\nImport: the game server: no answer"
    )


async def test_the_bot_has_its_commands_and_answers_failures(db, watcher):
    async with UltimateBot(db, watcher) as bot:
        await bot.setup_hook()
        assert {"last_session", "health"} <= {command.name for command in bot.commands}
        assert bot.intents.message_content
        context = Context()
        await bot.on_command_error(context, commands.CommandNotFound())
        assert context.sent == []
        failure = commands.CommandInvokeError(DatabaseUnavailableError("secret detail"))
        await bot.on_command_error(context, failure)
        assert context.sent == ["The database is away, try again in a minute."]
        await bot.on_command_error(context, commands.MissingPermissions(["administrator"]))
        assert "Administrator" in context.sent[1]
        await bot.on_command_error(context, commands.CommandInvokeError(KeyError("secret detail")))
        assert context.sent[2] == "That went wrong; the reason is in the bot's log."


async def test_discord_names_are_not_formatting():
    report = SessionReport("2026-11-20", 1, [], [PlayerTotal("_a_*b*", 1, 1, 0, 10, 5.0)])
    assert r"\_a\_\*b\*" in embed_of(report).fields[1].value
    assert isinstance(embed_of(report), discord.Embed)


# ------------------------------------------------------------------------------------ logging in


async def log_in(db, watcher, monkeypatch, *outcomes):
    """Let Discord answer each login as told; return the pauses between them."""
    answers, pauses = iter(outcomes), []

    async def start(_bot, _token):
        raise next(answers)

    async def sleep(seconds):
        pauses.append(seconds)

    monkeypatch.setattr(UltimateBot, "start", start)
    monkeypatch.setattr("bot.ultimate_bot.asyncio.sleep", sleep)
    with pytest.raises(SettingsError) as caught:
        await run_discord("token-word", db, watcher)
    assert "token-word" not in str(caught.value)
    return str(caught.value), pauses


async def test_a_refused_token_is_a_wrong_setting(db, watcher, monkeypatch):
    said, pauses = await log_in(db, watcher, monkeypatch, discord.LoginFailure("Improper token"))
    assert said == "Discord refuses DISCORD_BOT_TOKEN: Improper token"
    assert pauses == []


async def test_a_missing_intent_is_a_wrong_setting(db, watcher, monkeypatch):
    said, _ = await log_in(db, watcher, monkeypatch, discord.PrivilegedIntentsRequired(None))
    assert "'message content'" in said


async def test_discord_out_of_reach_is_tried_again(db, watcher, monkeypatch):
    _, pauses = await log_in(
        db,
        watcher,
        monkeypatch,
        OSError("no route"),
        discord.GatewayNotFound(),
        discord.LoginFailure("Improper token"),
    )
    assert pauses == [30.0, 30.0]
