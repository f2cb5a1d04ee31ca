"""News of rounds: one message in the stats channel for each round that was imported."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import discord
from discord.ext import commands

from bot.cogs.answers import BLUE, fit, shown
from bot.core.database import Database, DatabaseError
from bot.core.round_report import SIDES, RoundReport, key_of, round_report, rounds_after
from bot.core.stats_parser import StatsFileName
from bot.core.team_history import TEAM_NAMES

log = logging.getLogger("news")

AT_ONCE = 6  # more than so many new rounds get one message together
REMEMBERED = 100  # messages of the channel that are read at the start
PAUSE = 15.0  # seconds before another try
PAUSE_WHEN_REFUSED = 900.0  # until somebody has given the bot its permissions back


class RoundNews:
    """Rounds that were imported and not yet told; outlives a connection to Discord."""

    def __init__(self) -> None:
        self.waiting: list[StatsFileName] = []
        self.arrived = asyncio.Event()
        self.told: set[str] = set()
        self.looked_back = False

    def add(self, names: Sequence[StatsFileName]) -> None:
        """Take in rounds that have just been imported."""
        self.waiting += names
        self.arrived.set()


class NewsCog(commands.Cog):
    """Writes the messages.

    What was told is not noted anywhere: it stands in the channel, each message with its round's
    name at the bottom. So neither a crash nor a move to another host or database makes the bot
    tell a round twice or leave it out.
    """

    def __init__(
        self, bot: commands.Bot, database: Database, channel: int, news: RoundNews
    ) -> None:
        self.bot = bot
        self.database = database
        self.channel_id = channel
        self.news = news
        self._task: asyncio.Task[None] | None = None

    async def cog_load(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def cog_unload(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        await self.bot.wait_until_ready()
        while True:
            try:
                channel = await self._channel()
                if not self.news.looked_back:
                    await self._look_back(channel)
                while True:
                    await self._tell_all(channel)
                    await self.news.arrived.wait()
                    self.news.arrived.clear()
            except (discord.Forbidden, discord.NotFound) as error:
                log.error("STATS_CHANNEL_ID=%d: %s; no news", self.channel_id, error.text)
                await asyncio.sleep(PAUSE_WHEN_REFUSED)
            except (OSError, discord.DiscordException, DatabaseError) as error:
                log.warning("news have to wait: %s", error)
            except Exception:
                log.exception("news have to wait")
            await asyncio.sleep(PAUSE)

    async def _channel(self) -> discord.abc.Messageable:
        return self.bot.get_channel(self.channel_id) or await self.bot.fetch_channel(
            self.channel_id
        )

    async def _look_back(self, channel: discord.abc.Messageable) -> None:
        """Find out what was told before, and what should have been."""
        try:
            async for message in channel.history(limit=REMEMBERED):
                if message.author == self.bot.user and message.embeds:
                    self.news.told.add(message.embeds[0].footer.text or "")
        except discord.Forbidden:
            log.warning("STATS_CHANNEL_ID: without 'read message history' a restart forgets news")
        self.news.looked_back = True
        told = [name for key in self.news.told if (name := StatsFileName.parse(f"{key}.txt"))]
        # Where nothing was ever told, the news begin with the next round.
        if told:
            missed = await rounds_after(self.database, key_of(max(told)), REMEMBERED)
            self.news.waiting = sorted({*missed, *self.news.waiting})

    async def _tell_all(self, channel: discord.abc.Messageable) -> None:
        while new := [name for name in self.news.waiting if key_of(name) not in self.news.told]:
            if len(new) > AT_ONCE:
                await self._tell_together(channel, new)
            else:
                report = await round_report(self.database, new[0])
                if report is not None:
                    await channel.send(embed=embed_of(report), nonce=_nonce(new[0]))
                new = new[:1]
            self.news.told |= {key_of(name) for name in new}
        self.news.waiting.clear()

    async def _tell_together(
        self, channel: discord.abc.Messageable, names: Sequence[StatsFileName]
    ) -> None:
        first, last = min(names), max(names)
        embed = discord.Embed(
            title=f"{len(names)} rounds were imported",
            description=f"played from {first.ended:%Y-%m-%d %H:%M} to {last.ended:%Y-%m-%d %H:%M}; "
            "`!last_session` and `!sessions` have them",
            colour=BLUE,
        )
        embed.set_footer(text=key_of(last))
        await channel.send(embed=embed, nonce=f"{_nonce(last)}-all")


def embed_of(report: RoundReport) -> discord.Embed:
    """Lay out the news of a round."""
    embed = discord.Embed(
        title=f"{shown(report.map_name)} · round {report.number}",
        description=report.result,
        colour=BLUE,
    )
    for team, side in SIDES.items():
        lines = [
            f"{shown(row['name'])}: {row['dpm']:.0f} DPM, {row['kills']}/{row['deaths']}"
            for row in report.players
            if row["team"] == team
        ]
        embed.add_field(name=side, value=fit(lines), inline=True)
    if report.score is not None:
        points = report.score.points
        value = f"{TEAM_NAMES[0]} {points[0]} : {points[1]} {TEAM_NAMES[1]}"
        embed.add_field(name="Match", value=value, inline=False)
    embed.set_footer(text=report.key)
    return embed


def _nonce(name: StatsFileName) -> str:
    """Name the message for Discord, in at most 25 characters, the same in every process."""
    return f"{name.ended:%Y%m%d%H%M%S}-{name.round_number}"
