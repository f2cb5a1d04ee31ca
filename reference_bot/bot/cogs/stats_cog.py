"""``!stats``, ``!leaderboard`` and ``!team_history``: players."""

from __future__ import annotations

import discord
from discord.ext import commands

from bot.cogs.answers import BLUE, GOLD, GREEN, Context, duration, fit, plain, shown, whole_number
from bot.core.database import Database
from bot.core.player_matches import Record, TeamHistory, team_history
from bot.core.player_report import (
    CATEGORIES,
    Leaderboard,
    PlayerReport,
    leaderboard,
    player_report,
    ratio,
)
from bot.core.players import asked_for

WEAPONS_SHOWN = 6
PEOPLE_SHOWN = 8
MEDALS = ("🥇", "🥈", "🥉")


class StatsCog(commands.Cog):
    """The commands and the look of their answers."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @commands.command(name="stats", usage="[player]")
    async def stats(self, context: Context, *, player: str = "") -> None:
        """Show a player's card: by name, GUID or mention; without one, yours."""
        chosen = await asked_for(self.database, context.author.id, player)
        await context.send(embed=card(await player_report(self.database, chosen)))

    @commands.command(
        name="leaderboard",
        usage="[kind] [days]",
        help="Show the ten best of a kind, of all time or of the last days.\n\n"
        f"Kinds: {', '.join(CATEGORIES)}. Example: `!leaderboard accuracy 30`",
    )
    async def leaderboard(self, context: Context, *, wanted: str = "") -> None:
        """Rank the players."""
        words = wanted.lower().split()
        days = (
            whole_number(words.pop(), "The days", 36_500) if words and words[-1].isdigit() else None
        )
        best = await leaderboard(self.database, " ".join(words) or "dpm", days)
        await context.send(embed=ranking(best))

    @commands.command(name="team_history", usage="[player]")
    async def team_history(self, context: Context, *, player: str = "") -> None:
        """Show with whom and against whom a player plays, and how that ends."""
        chosen = await asked_for(self.database, context.author.id, player)
        await context.send(embed=history(await team_history(self.database, chosen)))


def card(report: PlayerReport) -> discord.Embed:
    """Lay out a player's card."""
    totals = report.totals
    embed = discord.Embed(title=shown(report.player.name), colour=BLUE)
    embed.description = (
        f"{totals['rounds']:,} rounds, {100 * ratio(totals['won'], totals['rounds']):.0f} % won · "
        f"{duration(totals['seconds'])} · {totals['first']} to {totals['last']}"
    )
    fields = {
        "DPM": f"{report.dpm:.0f}",
        "K/D": f"{report.kd:.2f}",
        "Accuracy": f"{report.accuracy:.1f} %",
        "Kills": f"{totals['kills']:,} / {totals['deaths']:,} deaths",
        "Damage": f"{totals['damage_given']:,} / {totals['damage_received']:,} taken",
        "Headshots": f"{totals['headshots']:,}",
        "Revives": f"{totals['revives_given']:,} given, {totals['times_revived']:,} got",
        "Best spree": f"{totals['best_spree']} kills",
        "Objectives": f"{totals['objectives']:,}",
    }
    for name, value in fields.items():
        embed.add_field(name=name, value=value)
    weapons = [
        f"{_weapon(row['weapon_name'])}: {row['kills']:,} kills"
        for row in report.weapons[:WEAPONS_SHOWN]
        if row["kills"]
    ]
    embed.add_field(name="Weapons", value=fit(weapons), inline=False)
    latest = [
        f"{row['date']}: {60 * ratio(row['damage'], row['seconds']):.0f} DPM, "
        f"{row['kills']}/{row['deaths']}"
        for row in report.sessions
    ]
    embed.add_field(name="Latest sessions", value=fit(latest), inline=False)
    others = [plain(name) for name in report.player.names[1:6]]
    also = f" · also {', '.join(others)}" if others else ""
    embed.set_footer(text=f"{report.player.guid}{also}")
    return embed


def ranking(best: Leaderboard) -> discord.Embed:
    """Lay out a leaderboard."""
    since = f" since {best.since}" if best.since else ""
    embed = discord.Embed(title=f"{best.title}{since}", colour=GOLD)
    embed.description = fit(
        [
            f"{MEDALS[place] if place < len(MEDALS) else f'**{place + 1}.**'} {shown(one.name)}: "
            f"{one.value} ({one.rounds:,} rounds)"
            for place, one in enumerate(best.places)
        ],
        4096,
    )
    embed.set_footer(text=f"at least {best.fewest_rounds} rounds · {', '.join(CATEGORIES)}")
    return embed


def history(found: TeamHistory) -> discord.Embed:
    """Lay out whom a player plays with."""
    embed = discord.Embed(title=f"Teams of {shown(found.player.name)}", colour=GREEN)
    embed.description = f"{found.record.matches:,} matches: {_balance(found.record)}"
    for name, people in (("With", found.mates), ("Against", found.opponents)):
        lines = [
            f"{shown(other)}: {record.matches:,}, {_balance(record)}"
            for other, record in people[:PEOPLE_SHOWN]
        ]
        embed.add_field(name=name, value=fit(lines), inline=False)
    steady = [entry for entry in found.mates if entry[1].matches >= 5]
    if steady:
        luck, record = max(steady, key=lambda entry: ratio(entry[1].won, entry[1].matches))
        share = 100 * ratio(record.won, record.matches)
        embed.add_field(
            name="Best together", value=f"{shown(luck)}: {share:.0f} % won", inline=False
        )
    embed.set_footer(text="won and lost from this player's side, by the rules of stopwatch")
    return embed


def _weapon(stored: str) -> str:
    return stored.removeprefix("WS_").replace("_", " ").title()


def _balance(record: Record) -> str:
    drawn = f", {record.drawn} drawn" if record.drawn else ""
    return f"{record.won} won, {record.lost} lost{drawn}"
