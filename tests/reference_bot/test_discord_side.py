"""Starting, news of rounds, and two bots at once: the bot as a process in the fake Discord."""

from __future__ import annotations

import asyncio

import pytest
from bot.core.round_import import files_in
from support import stats_files
from support.discord import FakeDiscord, text_of
from support.evening import write_evening

GENERAL = "700000000000000201"
STATS = "700000000000000202"
NEWS = {"channel": "stats", "author": "stats-bot"}
FIRST_NEWS = """supply · round 1
Axis won in 8:30 of 12:00
Axis
alpha: 106 DPM, 6/3
Allies
bravo: 59 DPM, 3/6
2026-11-20-210000-supply-round-1"""
# Round 2 alone: 600 damage in 6 minutes against 700; Team B, bravo's, beat the time of Team A.
SECOND_NEWS = """supply · round 2
Axis won in 6:00 of 8:30
Axis
bravo: 117 DPM, 5/4
Allies
alpha: 100 DPM, 4/5
Match
Team A 0 : 2 Team B
2026-11-20-210730-supply-round-2"""


@pytest.fixture
def fake(tmp_path):
    with FakeDiscord(tmp_path / "discord") as fake:
        yield fake


@pytest.fixture
def start(fake, start_bot, database_environment):
    """A function that starts the bot with a stats channel."""

    async def run(**more):
        settings = {"STATS_CHANNEL_ID": STATS} | more
        return await start_bot(database_environment, fake.environment, settings)

    return run


async def news_of(fake, count):
    """Wait for so many messages in the stats channel; the bot is listened to meanwhile."""

    def enough(fake):
        found = fake.get("/messages", **NEWS)
        return found if len(found) >= count else None

    return await asyncio.to_thread(fake.wait_until, enough)


postgresql = pytest.mark.parametrize("database_environment", ["postgresql"], indirect=True)


@postgresql
@pytest.mark.usefixtures("db")
async def test_each_round_is_told_once_over_restarts_and_outages(fake, start, tmp_path, import_all):
    local_stats = tmp_path / "state" / "local_stats"
    bot = await start()
    await bot.wait_for_notice("READY=1")
    stats_files.write(local_stats, stats_files.FIRST, stats_files.supply_first())
    assert text_of((await news_of(fake, 1))[0]) == FIRST_NEWS
    assert await bot.stop() == 0

    # While it is down a round is played; the database knows it before Discord does.
    stats_files.write(local_stats, stats_files.SECOND, stats_files.supply_second())
    await import_all(local_stats)
    bot = await start()
    assert text_of((await news_of(fake, 2))[1]) == SECOND_NEWS

    # Many at once become one message, and Discord's answer to it gets lost.
    fake.post("/faults", kind="rest", path="/messages", status=502, accepted=True)
    write_evening(tmp_path / "evening")
    for name in files_in(tmp_path / "evening"):
        (tmp_path / "evening" / name).rename(local_stats / name.replace("11-20", "11-21"))
    said = text_of((await news_of(fake, 3))[2])
    assert said.startswith(
        "8 rounds were imported\nplayed from 2026-11-21 20:06 to 2026-11-21 21:21"
    )
    assert await bot.stop() == 0
    assert "Traceback" not in bot.output
    bot = await start()
    await bot.wait_for_line("logged in as")
    assert await asyncio.to_thread(fake.ask, "!health", "admin")
    assert await bot.stop() == 0
    assert len(fake.get("/messages", **NEWS)) == 3
    assert fake.overlaps() == []


@postgresql
@pytest.mark.usefixtures("db")
async def test_the_news_do_not_begin_with_the_past(fake, start, tmp_path, import_all):
    local_stats = tmp_path / "state" / "local_stats"
    stats_files.write(local_stats, stats_files.FIRST, stats_files.supply_first())
    await import_all(local_stats)
    bot = await start()
    await bot.wait_for_line("logged in as")
    stats_files.write(local_stats, stats_files.SECOND, stats_files.supply_second())
    assert text_of((await news_of(fake, 1))[0]) == SECOND_NEWS
    assert await bot.stop() == 0


@postgresql
@pytest.mark.usefixtures("db")
async def test_two_bots_at_once_give_one_answer_and_are_found_out(fake, start):
    """What must never be, and what a player would see of it: nothing."""
    bots = [await start(), await start(STATS_CHANNEL_ID="123456789012345678")]
    for bot in bots:
        await bot.wait_for_notice("READY=1")
    assert (
        text_of(await asyncio.to_thread(fake.ask, "!sessions", quiet=0.7))
        == "No rounds have been played yet."
    )
    assert len(fake.overlaps()) == 1
    # And a channel that is not there is said, and harms nothing else.
    await bots[1].wait_for_line("STATS_CHANNEL_ID=123456789012345678: Unknown Channel; no news")
    for bot in bots:
        assert await bot.stop() == 0
    assert fake.overlaps()[0]["until"]


@postgresql
@pytest.mark.usefixtures("db")
async def test_ready_waits_for_discord_but_not_for_ever(fake, start):
    fake.post("/settings", token="another")
    refused = await start()
    assert await refused.wait() == 2
    assert "ultimate_bot: Discord refuses DISCORD_BOT_TOKEN" in refused.output
    assert not any("READY" in message for message in refused.heard)

    fake.post("/settings", token="token-of-the-tests", message_content=False)
    refused = await start()
    assert await refused.wait() == 2
    assert "'message content'" in refused.output
    fake.post("/settings", message_content=True)

    fake.stop()
    try:
        bot = await start()
        await bot.wait_for_line("next try in 30 s")
        await bot.wait_for_notice("READY=1")
        assert await bot.stop() == 0
    finally:
        fake.start()
