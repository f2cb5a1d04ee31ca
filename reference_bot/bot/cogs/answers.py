"""How answers look, and the one way in which they are sent."""

from __future__ import annotations

from typing import Any

import discord
from discord.ext import commands

GOLD, BLUE, GREEN, RED = (
    discord.Colour.gold(),
    discord.Colour.blue(),
    discord.Colour.green(),
    discord.Colour.red(),
)
FIELD_LIMIT = 1024  # characters that Discord takes in an embed's field
MESSAGE_LIMIT = 2000  # and in a message beside its embeds
NAME_LIMIT = 40  # more than the game allows


class Context(commands.Context):
    """A command that was asked; its answer is sent once, whatever happens."""

    async def send(self, content: str | None = None, **options: Any) -> discord.Message:
        """Answer, as a reply where the bot may read the question again.

        The question's id is the answer's nonce: Discord makes one message of all that come with
        the same one within a few minutes. So a try that is repeated because its answer got lost
        makes no second message, and neither does a second bot with our token.
        """
        if content is not None and len(content) > MESSAGE_LIMIT:  # it repeats a long question
            content = content[: MESSAGE_LIMIT - 1] + "…"
        options.setdefault("nonce", self.message.id)
        if self.bot_permissions.read_message_history:
            question = self.message.to_reference(fail_if_not_exists=False)
            options.setdefault("reference", question)
            options.setdefault("mention_author", False)
        return await super().send(content, **options)


class Help(commands.HelpCommand):
    """``!help``: the commands with a line each."""

    def __init__(self) -> None:
        super().__init__(command_attrs={"help": "Show the commands, or how one is used."})

    async def send_bot_help(self, _: object) -> None:
        """List all commands that the one who asks may use."""
        embed = discord.Embed(title="Commands", colour=BLUE)
        usable = await self.filter_commands(self.context.bot.commands, sort=True)
        embed.description = "\n".join(
            f"`{self._usage(command)}` {command.short_doc}" for command in usable
        )
        await self.context.send(embed=embed)

    async def send_command_help(self, command: commands.Command) -> None:
        """Explain one."""
        embed = discord.Embed(title=self._usage(command), description=command.help, colour=BLUE)
        await self.context.send(embed=embed)

    async def send_error_message(self, error: str) -> None:
        """Say that there is no such command."""
        await self.context.send(error)

    def _usage(self, command: commands.Command) -> str:
        usage = f" {command.usage}" if command.usage else ""
        return f"{self.context.clean_prefix}{command.name}{usage}"


def plain(name: str) -> str:
    """Return a player's name in one line, never empty, for places that Discord does not format."""
    return " ".join(name.split())[:NAME_LIMIT] or "?"


def shown(name: str) -> str:
    """Make a player's name harmless: no formatting, no mention, one line, never empty."""
    return discord.utils.escape_mentions(discord.utils.escape_markdown(plain(name)))


def fit(lines: list[str], limit: int = FIELD_LIMIT) -> str:
    """Join as many lines as Discord takes; something where there are none."""
    text = "\n".join(lines)
    while len(text) > limit:
        lines = lines[:-1]
        text = "\n".join([*lines, "…"])
    return text or "–"


def duration(seconds: int) -> str:
    """Write a time that was played."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def whole_number(text: str, what: str, most: int = 10**6) -> int:
    """Read what a player typed.

    Raises:
        commands.UserInputError: it is no number from 1 on.

    """
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= most:
        raise commands.UserInputError(f"{what} must be a number from 1 to {most:,}.")
    return int(text)
