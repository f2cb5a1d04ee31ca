"""``!health``: whether the parts that the bot needs are working."""

from __future__ import annotations

import time

from discord.ext import commands

from bot.core.database import Database, DatabaseError
from bot.core.stats_watcher import StatsWatcher


class HealthCog(commands.Cog):
    """The command; the answer goes to administrators only."""

    def __init__(self, database: Database, watcher: StatsWatcher) -> None:
        self.database = database
        self.watcher = watcher

    @commands.command(name="health")
    @commands.has_permissions(administrator=True)
    async def health(self, context: commands.Context) -> None:
        """Show the database in use, its answer time and the state of the import."""
        await context.send(await self.report())

    async def report(self) -> str:
        """Ask the database and the watcher how they are."""
        begun = time.perf_counter()
        try:
            database = await self.database.describe()
            database += f", answered in {(time.perf_counter() - begun) * 1000:.0f} ms"
        except DatabaseError as error:
            database = f"away: {error}"
        watcher = self.watcher.problem or f"{self.watcher.imported} rounds since the start"
        return f"Database: {database}\nImport: {watcher}"
