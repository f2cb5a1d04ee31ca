"""``!link`` and ``!unlink``: which Discord account is which player."""

from __future__ import annotations

import re

import discord
from discord.ext import commands

from bot.cogs.answers import Context, shown
from bot.core.database import Database
from bot.core.players import AskedWrongError, link, unlink


class LinkCog(commands.Cog):
    """The commands. Everybody links himself; administrators link and unlink others."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @commands.command(name="link", usage="player")
    async def link(self, context: Context, *, player: str = "") -> None:
        """Link your Discord account to a player, so that `!stats` knows you.

        Administrators link others: `!link @somebody player`.
        """
        somebody, player = _mentioned(context, player)
        if somebody is not None:
            _must_be_admin(context)
        if not player.strip():
            raise AskedWrongError("Which player? `!link your-name`, or the GUID.")
        target = somebody or context.author
        # What an administrator says counts as verified; what one says of oneself does not.
        linked = await link(
            self.database, target.id, target.name, player, verified=somebody is not None
        )
        who = "You are" if somebody is None else f"{shown(target.display_name)} is"
        await context.send(f"{who} now linked to **{shown(linked.name)}** ({linked.guid}).")

    @commands.command(name="unlink")
    async def unlink(self, context: Context, *, wanted: str = "") -> None:
        """Remove the link of your Discord account.

        Administrators unlink others: `!unlink @somebody`.
        """
        somebody, rest = _mentioned(context, wanted)
        if rest:
            raise AskedWrongError("`!unlink` removes your own link; nothing else has to be said.")
        if somebody is not None and somebody != context.author:
            _must_be_admin(context)
        target = somebody or context.author
        name = await unlink(self.database, target.id)
        await context.send(f"The link to **{shown(name)}** is removed.")


def _mentioned(context: Context, text: str) -> tuple[discord.abc.User | None, str]:
    """Split off a mention at the beginning.

    A bare name is never taken for a Discord account: players and accounts may be called the same.
    """
    match = re.match(r"<@!?(\d+)>\s*", text)
    if match is None:
        return None, text.strip()
    for user in context.message.mentions:
        if user.id == int(match[1]):
            return user, text[match.end() :].strip()
    raise AskedWrongError("That account is not here.")


def _must_be_admin(context: Context) -> None:
    if not context.permissions.administrator:
        raise commands.MissingPermissions(["administrator"])
