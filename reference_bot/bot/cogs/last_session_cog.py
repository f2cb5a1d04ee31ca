"""``!last_session``, ``!sessions`` and ``!stopwatch``: evenings as a whole."""

from __future__ import annotations

from datetime import date

import discord
from discord.ext import commands
from tools.stopwatch_scoring import MatchScore, last_session, score_session, total

from bot.cogs.answers import BLUE, GOLD, Context, fit, shown, whole_number
from bot.core.database import Database
from bot.core.session_report import SessionReport, last_session_report, list_sessions
from bot.core.team_history import TEAM_NAMES

MOST_PLAYERS = 12
PER_PAGE = 10


class LastSessionCog(commands.Cog):
    """The commands and the look of their answers."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @commands.command(name="last_session")
    async def last_session(self, context: Context) -> None:
        """Show the maps, the score and the players of the last session."""
        report = await last_session_report(self.database)
        if report is None:
            await context.send("No rounds have been played yet.")
        else:
            await context.send(embed=embed_of(report))

    @commands.command(name="sessions", usage="[page]")
    async def sessions(self, context: Context, page: str = "1") -> None:
        """List the sessions, newest first."""
        number = whole_number(page, "The page", 10_000)
        found = await list_sessions(self.database, PER_PAGE, PER_PAGE * (number - 1))
        if not found:
            await context.send(
                "No rounds have been played yet." if number == 1 else "There is no such page."
            )
            return
        embed = discord.Embed(title="Sessions", colour=BLUE)
        embed.description = fit(
            [
                f"**{_day(one.date)}** · {one.begun}–{one.ended} · {one.rounds} rounds on "
                f"{one.maps} maps · {one.players} players · `#{one.number}`"
                for one in found
            ],
            4096,
        )
        embed.set_footer(text=f"Page {number} · !stopwatch NUMBER shows the score of one")
        await context.send(embed=embed)

    @commands.command(name="stopwatch", usage="[session]")
    async def stopwatch(self, context: Context, session: str = "") -> None:
        """Show who won which map of a session; without a number of the last one."""
        chosen = (
            whole_number(session.lstrip("#"), "The session", 2**31 - 1)
            if session
            else await last_session(self.database)
        )
        scores = await score_session(self.database, chosen) if chosen is not None else []
        if not scores:
            await context.send(
                "There is no session of that number, see `!sessions`."
                if session
                else "No rounds have been played yet."
            )
            return
        points = total(scores)
        embed = discord.Embed(
            title=f"Stopwatch · session #{chosen}",
            description=f"**{TEAM_NAMES[0]} {points[0]} : {points[1]} {TEAM_NAMES[1]}**",
            colour=GOLD,
        )
        embed.add_field(name="Maps", value=fit([map_line(score) for score in scores]), inline=False)
        for number, name in enumerate(TEAM_NAMES):
            people: dict[str, str] = {}
            for score in scores:
                people |= score.match.teams[number]
            line_up = [shown(player) for player in people.values()]
            embed.add_field(name=name, value=fit(line_up), inline=True)
        await context.send(embed=embed)


def embed_of(report: SessionReport) -> discord.Embed:
    """Lay out a report as a Discord embed."""
    score = total(report.scores)
    embed = discord.Embed(
        title=f"Session of {report.date}",
        description=f"{report.rounds} rounds, {len(report.players)} players\n"
        f"**{TEAM_NAMES[0]} {score[0]} : {score[1]} {TEAM_NAMES[1]}**",
        colour=GOLD,
    )
    maps = [map_line(match) for match in report.scores]
    embed.add_field(name="Maps", value=fit(maps), inline=False)
    players = [
        f"{place}. {shown(player.name)}: {player.dpm:.0f} DPM, {player.kills}/{player.deaths}"
        for place, player in enumerate(report.players[:MOST_PLAYERS], 1)
    ]
    embed.add_field(name="Players", value=fit(players), inline=False)
    return embed


def map_line(score: MatchScore) -> str:
    """Write a match's result in one line."""
    return (
        f"{shown(score.map_name)}: {score.points[0]} : {score.points[1]} "
        f"({score.first_time or '–'} / {score.second_time or '–'})"
    )


def _day(text: str) -> str:
    return f"{date.fromisoformat(text):%a} {text}"
