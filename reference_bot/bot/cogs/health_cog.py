"""``!health``: whether the parts that the bot needs are working."""

from __future__ import annotations

import math
import time

import discord
from discord.ext import commands

from bot.cogs.answers import GREEN, RED, Context, duration
from bot.core.database import Database, DatabaseError
from bot.core.stats_watcher import StatsWatcher

STARTED = time.monotonic()


class HealthCog(commands.Cog):
    """The command; the answer goes to administrators only."""

    def __init__(self, database: Database, watcher: StatsWatcher) -> None:
        self.database = database
        self.watcher = watcher

    @commands.command(name="health")
    @commands.has_permissions(administrator=True)
    async def health(self, context: Context) -> None:
        """Show the database in use, its answer time and the state of the import."""
        await context.send(embed=await self.report(context.bot.latency))

    async def report(self, latency: float) -> discord.Embed:
        """Ask the database and the watcher how they are.

        Args:
            latency: seconds between the last heartbeat and Discord's answer; may be no number.

        """
        embed = discord.Embed(title="All is well", colour=GREEN)
        try:
            health = await self.database.health()
        except DatabaseError as error:
            embed.title, embed.colour = "The database is away", RED
            embed.add_field(name="Database", value=str(error)[:1024], inline=False)
        else:
            embed.add_field(name="Database", value=str(health), inline=False)
            embed.add_field(name="Answered in", value=f"{health.milliseconds:.0f} ms")
            embed.add_field(
                name="Connections",
                value=f"{health.connections} of {health.limit}, {health.idle} idle",
            )
            rounds = await self.database.fetch_value("SELECT COUNT(*) FROM rounds")
            embed.add_field(name="Rounds", value=f"{rounds:,}")
        if self.watcher.problem:
            if embed.colour == GREEN:
                embed.title, embed.colour = "The import has a problem", RED
            embed.add_field(name="Import", value=self.watcher.problem[:1024], inline=False)
        else:
            value = f"{self.watcher.imported} rounds since the start"
            embed.add_field(name="Import", value=value)
        if math.isfinite(latency):
            embed.add_field(name="Discord", value=f"{latency * 1000:.0f} ms")
        embed.add_field(name="Running for", value=duration(round(time.monotonic() - STARTED)))
        return embed
