"""``!last_session``: the last evening in one message."""

from __future__ import annotations

import discord
from discord.ext import commands
from tools.stopwatch_scoring import total

from bot.core.database import Database
from bot.core.session_report import SessionReport, last_session_report
from bot.core.team_history import TEAM_NAMES

MOST_PLAYERS = 10


class LastSessionCog(commands.Cog):
    """The command and the look of its answer."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @commands.command(name="last_session")
    async def last_session(self, context: commands.Context) -> None:
        """Show the maps, the score and the players of the last session."""
        report = await last_session_report(self.database)
        if report is None:
            await context.send("No rounds have been played yet.")
        else:
            await context.send(embed=embed_of(report))


def embed_of(report: SessionReport) -> discord.Embed:
    """Lay out a report as a Discord embed."""
    score = total(report.scores)
    embed = discord.Embed(
        title=f"Session of {report.date}",
        description=f"{report.rounds} rounds, {len(report.players)} players\n"
        f"**{TEAM_NAMES[0]} {score[0]} : {score[1]} {TEAM_NAMES[1]}**",
        colour=discord.Colour.dark_gold(),
    )
    maps = "\n".join(
        f"{match.map_name}: {match.points[0]} : {match.points[1]} "
        f"({match.first_time} / {match.second_time or '–'})"
        for match in report.scores
    )
    embed.add_field(name="Maps", value=_fit(maps), inline=False)
    players = "\n".join(
        f"{place}. {discord.utils.escape_markdown(player.name)}: {player.dpm:.0f} DPM, "
        f"{player.kills}/{player.deaths}"
        for place, player in enumerate(report.players[:MOST_PLAYERS], 1)
    )
    embed.add_field(name="Players", value=_fit(players), inline=False)
    return embed


def _fit(text: str) -> str:
    """Shorten to what Discord takes in a field, at the end of a line."""
    if len(text) <= 1024:
        return text or "–"
    return text[:1022].rpartition("\n")[0] + "\n…"
