"""What the commands answer. A context that only takes messages stands in for Discord's."""

from __future__ import annotations

from types import SimpleNamespace

import aiohttp
import discord
import pytest
from bot.cogs.answers import shown
from bot.cogs.health_cog import HealthCog
from bot.cogs.last_session_cog import LastSessionCog, embed_of
from bot.cogs.stats_cog import StatsCog, card
from bot.core.database import DatabaseTimeoutError, DatabaseUnavailableError
from bot.core.player_matches import Record, team_history
from bot.core.player_report import player_report
from bot.core.players import AskedWrongError, KnownPlayer, asked_for, find, known_players
from bot.core.round_report import round_report
from bot.core.session_report import PlayerTotal, SessionReport, list_sessions
from bot.core.settings import BotSettings, SettingsError
from bot.core.stats_parser import StatsFileName
from bot.core.team_history import Match
from bot.ultimate_bot import Services, UltimateBot, run_discord
from discord.ext import commands
from support import stats_files
from tools.stopwatch_scoring import MatchScore, last_session, score_session


class Context:
    """Collects what is sent."""

    command = "a_command"
    author = SimpleNamespace(id=1)

    def __init__(self):
        self.sent = []

    async def send(self, content=None, *, embed=None):
        self.sent.append(embed or content)


@pytest.fixture
def services(db, tmp_path):
    return Services(BotSettings.from_environment({"BOT_STATE_DIR": str(tmp_path)}), db)


@pytest.fixture
def watcher(services):
    return services.watcher


async def test_before_the_first_round(db):
    evenings, players, context = LastSessionCog(db), StatsCog(db), Context()
    for command in (evenings.last_session, evenings.sessions, evenings.stopwatch):
        await command.callback(evenings, context)
    assert context.sent == ["No rounds have been played yet."] * 3
    await players.leaderboard.callback(players, context, wanted="kills 7")
    assert context.sent[-1].description == "–"
    with pytest.raises(AskedWrongError, match="Nobody called “anna” has played here"):
        await players.stats.callback(players, context, player="anna")


async def test_rows_of_another_bot_that_lack_what_ours_writes(db, import_all, tmp_path):
    """No times, no session, odd names: commands leave out what is not there."""
    stats_files.write_match(tmp_path / "files")
    await import_all(tmp_path / "files")
    await db.execute("UPDATE rounds SET time_limit = NULL, actual_time = '', winner_team = 0")
    await db.execute("UPDATE player_comprehensive_stats SET clean_name = '`*' WHERE team = 1")
    assert (await score_session(db, 1))[0].points == (0, 0)
    name = StatsFileName.parse(stats_files.SECOND)
    assert (await round_report(db, name)).result == "no result"
    player = find(await known_players(db), stats_files.ALPHA)
    assert (await team_history(db, player)).record == Record(matches=1)
    await db.execute("UPDATE rounds SET time_limit = 'unknown', actual_time = '12 min'")
    assert (await score_session(db, 1))[0].points == (0, 0)
    assert (await round_report(db, name)).result == "no result"
    assert (await team_history(db, player)).record == Record(matches=1)
    await db.execute("UPDATE rounds SET gaming_session_id = NULL WHERE round_number = 2")
    assert await last_session(db) == 1  # the latest that is known, not the lack of one
    await db.execute("UPDATE rounds SET gaming_session_id = NULL")
    assert await list_sessions(db, 10, 0) == []
    assert await last_session(db) is None
    report = await player_report(db, player)
    assert report.sessions == []
    embed = card(report)
    assert embed.to_dict()


def test_a_long_evening_fits_into_discords_limits():
    report = SessionReport(
        "2026-11-20",
        60,
        [
            MatchScore(
                Match("m", f"a_map_with_a_long_name_{n}", ({}, {}), 0), "10:00", "9:59", (2, 0)
            )
            for n in range(60)
        ],
        [PlayerTotal("*_`" * 30, 60, 999, 999, 99999, 400.0) for _ in range(30)],
    )
    embed = embed_of(report)
    assert all(len(field.value) <= 1024 for field in embed.fields)
    assert embed.fields[0].value.endswith("\n…")
    assert len(embed) <= 6000


async def test_health_tells_the_backend_and_its_absence(db, watcher, monkeypatch):
    cog = HealthCog(db, watcher)
    embed = await cog.report(float("nan"))  # no heartbeat was answered yet
    fields = {field.name: field.value for field in embed.fields}
    assert embed.title == "All is well"
    assert ("PostgreSQL 1" if db.backend == "postgresql" else "SQLite 3") in fields["Database"]
    assert fields["Answered in"].endswith(" ms")
    assert fields["Import"] == "0 rounds since the start"
    assert "Discord" not in fields

    async def away():
        raise DatabaseUnavailableError("the database cannot be reached")

    watcher.problem = "the game server: no answer"
    assert (await cog.report(0.1)).title == "The import has a problem"
    monkeypatch.setattr(db, "health", away)
    embed = await cog.report(0.1)
    fields = {field.name: field.value for field in embed.fields}
    assert embed.title == "The database is away"
    assert fields["Database"] == "the database cannot be reached"
    assert fields["Import"] == "the game server: no answer"
    assert fields["Discord"] == "100 ms"


async def test_the_bot_has_its_commands_and_answers_failures(services):
    async with UltimateBot(services) as bot:
        await bot.setup_hook()
        assert {command.name for command in bot.commands} == {
            "last_session", "sessions", "stopwatch", "stats", "leaderboard", "team_history", "link",
            "unlink", "health", "help",
        }  # fmt: skip
        assert bot.intents.message_content
        context = Context()
        await bot.on_command_error(context, commands.CommandNotFound())
        assert context.sent == []
        failure = commands.CommandInvokeError(DatabaseUnavailableError("secret detail"))
        await bot.on_command_error(context, failure)
        assert context.sent == ["The database is away, try again in a minute."]
        failure = commands.CommandInvokeError(DatabaseTimeoutError("secret detail"))
        await bot.on_command_error(context, failure)
        assert "too busy" in context.sent[1]
        await bot.on_command_error(context, commands.MissingPermissions(["administrator"]))
        assert "Administrator" in context.sent[2]
        await bot.on_command_error(context, commands.CommandInvokeError(KeyError("secret detail")))
        assert context.sent[3] == "That went wrong; the reason is in the bot's log."
        wrong = AskedWrongError("{} is linked, `!unlink` first.", "_a_*b* @everyone")
        await bot.on_command_error(context, commands.CommandInvokeError(wrong))
        said = "\\_a\\_\\*b\\* @\u200beveryone is linked, `!unlink` first."
        assert context.sent[4] == said


async def test_discord_names_are_not_formatting():
    report = SessionReport("2026-11-20", 1, [], [PlayerTotal("_a_*b*", 1, 1, 0, 10, 5.0)])
    assert r"\_a\_\*b\*" in embed_of(report).fields[1].value
    assert isinstance(embed_of(report), discord.Embed)


def test_names_that_several_players_use_are_harmless_in_the_question_back():
    players = {
        guid: KnownPlayer(guid, (f"**{number:034}**",))
        for number, guid in enumerate(map("{:08X}".format, range(20)))
    }
    with pytest.raises(AskedWrongError) as caught:
        find(players, "**")
    said = caught.value.said(shown)
    assert said.startswith("Several players match: \\*\\*0000")
    assert " (00000000), " in said
    assert said.endswith(" and 12 more. Write more of the name, or the GUID.")
    assert len(said) < 2000
    assert str(caught.value).startswith("Several players match: **0000")
    with pytest.raises(AskedWrongError) as caught:
        find(players, "{0} {x}")  # braces are a name like any other
    assert caught.value.said(shown) == "Nobody called “{0} {x}” has played here."


async def test_a_mention_of_an_account_that_cannot_be_is_linked_to_no_player(db):
    with pytest.raises(AskedWrongError, match="linked to no player"):
        await asked_for(db, 1, f"<@{2**63}>")


# ------------------------------------------------------------------------------------ logging in


async def log_in(services, monkeypatch, *outcomes):
    """Let Discord answer each login as told; return the pauses between them."""
    answers, pauses = iter(outcomes), []

    async def start(_bot, _token):
        raise next(answers)

    async def sleep(seconds):
        pauses.append(seconds)

    monkeypatch.setattr(UltimateBot, "start", start)
    monkeypatch.setattr("bot.ultimate_bot.asyncio.sleep", sleep)
    with pytest.raises(SettingsError) as caught:
        await run_discord("token-word", services)
    assert "token-word" not in str(caught.value)
    return str(caught.value), pauses


async def test_a_refused_token_is_a_wrong_setting(services, monkeypatch):
    said, pauses = await log_in(services, monkeypatch, discord.LoginFailure("Improper token"))
    assert said == "Discord refuses DISCORD_BOT_TOKEN: Improper token"
    assert pauses == []


async def test_a_missing_intent_is_a_wrong_setting(services, monkeypatch):
    said, _ = await log_in(services, monkeypatch, discord.PrivilegedIntentsRequired(None))
    assert "'message content'" in said


async def test_discord_out_of_reach_is_tried_again(services, monkeypatch):
    _, pauses = await log_in(
        services,
        monkeypatch,
        OSError("no route"),
        discord.GatewayNotFound(),
        aiohttp.ServerDisconnectedError(),  # no OSError
        discord.LoginFailure("Improper token"),
    )
    assert pauses == [30.0] * 3
    assert services.discord_answered.is_set()
