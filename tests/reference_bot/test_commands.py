"""The commands as players see them: the bot as a process, real discord.py, both databases.

The evening is the one of support/evening.py; every number here was worked out by hand.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bot.core.database import Database, DatabaseSettings
from bot.core.schema import create_schema
from support.discord import FakeDiscord, text_of
from support.evening import write_evening

CHECKOUT = Path(__file__).resolve().parents[2] / "reference_bot"


def prepare(environment: dict[str, str], *statements: str) -> None:
    async def run() -> None:
        database = Database(DatabaseSettings.from_environment(environment))
        await database.open(create=True)
        await create_schema(database)
        for statement in statements:
            await database.execute(statement)
        await database.close()

    asyncio.run(run())


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database_environment(request, tmp_path_factory):
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("sqlite") / "stats.db"
        yield {"DATABASE_TYPE": "sqlite", "DATABASE_PATH": str(path)}
        return
    cluster = request.getfixturevalue("postgres_cluster")
    with cluster.fresh_database() as database:
        yield {"DATABASE_URL": database.tcp_dsn, "DATABASE_POOL_MIN": "1"}


@pytest.fixture(scope="module")
def discord(database_environment, tmp_path_factory):
    """A Discord with the bot in it, which has imported the evening."""
    prepare(database_environment)
    state = tmp_path_factory.mktemp("state")
    write_evening(state / "local_stats")
    with FakeDiscord(tmp_path_factory.mktemp("discord")) as discord:
        discord.post("/settings", messages_per_window=1000)
        channel = discord.get("/state")["channels"]["stats"]
        settings = {"BOT_STATE_DIR": str(state), "STATS_CHANNEL_ID": channel}
        settings |= {"PATH": os.environ["PATH"], "STATS_POLL_SECONDS": "0.1"}
        with (state / "log").open("w") as log:
            bot = subprocess.Popen(
                [sys.executable, "bot/ultimate_bot.py"],
                cwd=CHECKOUT,
                env=settings | database_environment | discord.environment,
                stdout=log,
                stderr=log,
            )
        try:
            discord.wait_for_sessions(1)
            news = {"channel": "stats", "author": "stats-bot"}
            discord.wait_until(lambda discord: discord.get("/messages", **news))
            yield discord
            # Every question got its answer at once and none came later.
            answers = [message.get("message_reference", {}).get("message_id") for message in
                       discord.get("/messages", author="stats-bot")]  # fmt: skip
            asked = [number for number in answers if number]
            assert len(asked) == len(set(asked))
            assert discord.get("/state")["unknown_requests"] == []
        finally:
            bot.terminate()
            bot.wait()
        assert "Traceback" not in (state / "log").read_text()


def ask(discord, question, author="player", **more):
    return text_of(discord.ask(question, author, quiet=0, **more))


# --------------------------------------------------------------------------------------- evenings


def test_last_session(discord):
    said = ask(discord, "!last_session")
    assert "Session of 2026-11-20" in said
    assert "8 rounds, 5 players" in said
    assert "**Team A 5 : 3 Team B**" in said
    assert "frost: 1 : 1 (10:00 / 10:00)" in said
    assert "1. Anna: 20 DPM, 8/0" in said


def test_sessions(discord):
    said = ask(discord, "!sessions")
    assert "**Fri 2026-11-20** · 20:06–21:21 · 8 rounds on 4 maps · 5 players · `#1`" in said
    assert ask(discord, "!sessions 2") == "There is no such page."
    assert ask(discord, "!sessions zero") == "The page must be a number from 1 to 10,000."
    assert "from 1 to" in ask(discord, "!sessions 0")
    assert "from 1 to" in ask(discord, "!sessions " + "9" * 400)


def test_stopwatch(discord):
    for question in ("!stopwatch", "!stopwatch 1", "!stopwatch #1"):
        said = ask(discord, question)
        assert "Stopwatch · session #1\n**Team A 5 : 3 Team B**" in said
        assert "goldrush: 0 : 2 (9:00 / 8:59)" in said
        assert "Team A\nAnna\nBen\nTeam B\nCleo\nDan\nEmil" in said
    assert ask(discord, "!stopwatch 99") == "There is no session of that number, see `!sessions`."
    assert "must be a number" in ask(discord, "!stopwatch '")


# ---------------------------------------------------------------------------------------- players


def test_a_players_card(discord):
    # 8 rounds of 5 minutes with 100 damage, one kill with one hit of four shots each; the Allies
    # are said to have won every round, and in half of them Anna was one.
    for question in ("!stats Anna", "!stats anna", "!stats ann", "!stats ANNAXXXX", "!STATS nna"):
        said = ask(discord, question)
        assert said.startswith("Anna\n8 rounds, 50 % won · 40 min · 2026-11-20 to 2026-11-20\n")
        assert "DPM\n20\nK/D\n8.00\nAccuracy\n25.0 %\n" in said
        assert "Weapons\nMp40: 8 kills\n" in said
        assert "Latest sessions\n2026-11-20: 20 DPM, 8/0\nAnnaXXXX" in said


def test_a_player_who_is_not_there_or_not_the_only_one(discord):
    assert ask(discord, "!stats Annna").endswith("has played here. Did you mean Anna?")
    said = "Nobody called “@\u200beveryone” has played here."
    assert said in ask(discord, "!stats @everyone")
    assert "linked to no player" in ask(discord, f"!stats <@{'9' * 30}>")
    said = ask(discord, "!stats n")
    assert said.startswith("Several players match: ")
    assert "Dan (DanXXXXX)" in said
    assert len(ask(discord, "!stats " + "x" * 1900)) < 200
    assert "Which player? Name one, or link yourself" in ask(discord, "!stats", "stranger")


def test_leaderboards(discord):
    said = ask(discord, "!leaderboard")
    assert said.startswith("Damage per minute\n🥇 Anna: 20 DPM (8 rounds)\n")
    assert "at least 1 rounds" in said  # nobody has played ten
    said = ask(discord, "!leaderboard kills 30")
    assert said.startswith("Kills since 2026-10-22\n🥇 Anna: 8 kills (8 rounds)\n🥈 Ben: 8 kills")
    assert "**5.** Emil: 4 kills (4 rounds)" in said
    assert "🥇 Anna: 25.0 % (8 rounds)" in ask(discord, "!leaderboard ACCURACY")
    for kind in ("kd", "damage", "wins", "rounds"):
        assert "🥇 " in ask(discord, f"!leaderboard {kind} 1")
    for kind in ("headshots", "revives"):  # nobody has any
        assert "🥇 " not in ask(discord, f"!leaderboard {kind}")
    assert "There are: dpm, kills, kd," in ask(discord, "!leaderboard spam")
    assert "must be a number from 1" in ask(discord, "!leaderboard dpm 0")


def test_team_history(discord):
    said = ask(discord, "!team_history Anna")
    assert said.startswith("Teams of Anna\n4 matches: 2 won, 1 lost, 1 drawn\n")
    assert "With\nBen: 4, 2 won, 1 lost, 1 drawn\n" in said
    assert "Against\nCleo: 4, 2 won, 1 lost, 1 drawn\nDan: 2, 2 won, 0 lost\n" in said
    assert "Emil: 2, 0 won, 1 lost, 1 drawn" in said
    said = ask(discord, "!team_history Emil")
    assert said.startswith("Teams of Emil\n2 matches: 1 won, 0 lost, 1 drawn\n")


# ------------------------------------------------------------------------------------------ links


def test_link_and_unlink(discord):
    users = discord.get("/state")["users"]
    assert ask(discord, "!link") == "Which player? `!link your-name`, or the GUID."
    assert ask(discord, "!link ben") == "You are now linked to **Ben** (BenXXXXX)."
    assert ask(discord, "!link ben") == "Ben is linked to this account already."
    assert ask(discord, "!link cleo") == "This account is linked to Ben. `!unlink` first."
    assert ask(discord, "!stats").startswith("Ben\n")
    assert ask(discord, f"!stats <@{users['player']}>", "other").startswith("Ben\n")
    assert ask(discord, "!team_history").startswith("Teams of Ben\n")
    assert "linked to another account" in ask(discord, "!link Ben", "other")
    assert "no player" in ask(discord, f"!stats <@{users['other']}>")
    assert ask(discord, "!unlink") == "The link to **Ben** is removed."
    assert ask(discord, "!unlink") == "There is no link to remove."


def test_only_administrators_link_others(discord):
    other = f"<@{discord.get('/state')['users']['other']}>"
    missing = "You are missing Administrator permission(s) to run this command."
    assert ask(discord, f"!link {other} Dan") == missing
    assert (
        ask(discord, f"!link {other} Dan", "admin") == "other is now linked to **Dan** (DanXXXXX)."
    )
    assert ask(discord, f"!unlink {other}") == missing
    assert "nothing else has to be said" in ask(discord, "!unlink Dan", "other")
    assert ask(discord, f"!unlink {other}", "admin") == "The link to **Dan** is removed."
    assert ask(discord, "!link <@123456789012345678> Dan", "admin") == "That account is not here."


def test_a_name_is_no_discord_account(discord):
    """An account may be called like a player; only a mention means the account."""
    assert "now linked to **Cleo**" in ask(discord, "!link Cleo", "Dan")
    assert "now linked to **Dan**" in ask(discord, "!link Dan", "Cleo")
    assert ask(discord, "!stats", "Dan").startswith("Cleo\n")
    for author in ("Dan", "Cleo"):
        ask(discord, "!unlink", author)


# --------------------------------------------------------------------------------------- the rest


def test_health_is_for_administrators(discord, database_environment):
    said = ask(discord, "!health", "admin")
    assert said.startswith("All is well\nDatabase\n")
    assert ("SQLite 3" if "DATABASE_PATH" in database_environment else "PostgreSQL 1") in said
    assert "Rounds\n" in said
    assert "Administrator" in ask(discord, "!health")
    assert "Administrator" in ask(discord, "!health", "admin", channel="dm")


def test_help(discord):
    said = ask(discord, "!help")
    assert "`!stats [player]` Show a player's card" in said
    assert "!health" not in said
    assert "!health" in ask(discord, "!help", "admin")
    assert "Kinds: dpm, kills" in ask(discord, "!help leaderboard")
    assert ask(discord, "!help nonsense") == 'No command called "nonsense" found.'
    assert len(ask(discord, "!help " + "x" * 1990)) == 2000  # Discord takes no more


def test_it_answers_in_a_direct_message_and_in_reply(discord):
    answer = discord.ask("!last_session", channel="dm")
    assert answer["message_reference"]
    channel = discord.post("/channels", name="no-history", denied=1 << 16)["name"]
    answer = discord.ask("!last_session", channel=channel)
    assert "message_reference" not in answer


def test_silence_where_nothing_was_asked(discord):
    assert discord.silence("good evening", timeout=0.3)
    assert discord.silence("!other_bots_command", timeout=0.3)
    assert discord.silence("!health please", timeout=0.3) is False  # but a mistake is answered


def test_where_it_may_not_write_it_goes_on(discord):
    channel = discord.post("/channels", name="read-only", denied=1 << 11)["name"]
    assert discord.silence("!last_session", channel=channel)
    assert discord.silence("!stats nobody", channel=channel)
    assert ask(discord, "!last_session")
    refused = [request["code"] for request in discord.get("/state")["refused_requests"]]
    assert set(refused) == {50013}  # Missing Permissions


def test_nobody_is_ever_pinged(discord):
    answer = discord.ask("!stats @everyone <@700000000000000103>")
    assert answer["allowed_mentions"] == {"parse": [], "replied_user": False}
