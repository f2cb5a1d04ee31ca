"""The bot: imports the game server's stats files and answers on Discord.

    python bot/ultimate_bot.py

Settings come from the environment and from .env (see .env.example). Exit codes: 0 stopped by a
signal, 2 a setting is wrong or missing, 5 the database stayed unreachable, 1 a bug.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # started as a script: make the checkout's packages importable
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import discord
from discord.ext import commands

from bot.cogs.answers import Context, Help, shown
from bot.cogs.health_cog import HealthCog
from bot.cogs.last_session_cog import LastSessionCog
from bot.cogs.link_cog import LinkCog
from bot.cogs.news_cog import NewsCog, RoundNews
from bot.cogs.stats_cog import StatsCog
from bot.core.database import (
    Database,
    DatabaseConfigurationError,
    DatabaseError,
    DatabaseSettings,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
)
from bot.core.players import AskedWrongError
from bot.core.schema import check_schema
from bot.core.settings import BotSettings, SettingsError, load_environment
from bot.core.stats_watcher import StatsWatcher
from bot.core.systemd import notify

log = logging.getLogger("bot")
discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # we do not speak

DISCORD_PAUSE = 30.0  # seconds
LOGIN_PATIENCE = 15.0  # seconds that READY waits for Discord's word on our token


class Services:
    """What the Discord side works with; outlives each connection to Discord."""

    def __init__(self, settings: BotSettings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.news = RoundNews()
        told = settings.discord_token is not None and settings.stats_channel is not None
        # Where nobody tells the news, nobody takes them away.
        self.watcher = StatsWatcher(settings, database, self.news.add if told else None)
        self.discord_answered = asyncio.Event()  # logged in, or known to be out of reach


class UltimateBot(commands.Bot):
    """The Discord side."""

    def __init__(self, services: Services) -> None:
        intents = discord.Intents.default()
        intents.message_content = True  # privileged: switch it on in the developer portal too
        super().__init__(
            command_prefix="!",
            intents=intents,
            help_command=Help(),
            case_insensitive=True,
            # A player may call himself @everyone; the bot never pings anybody.
            allowed_mentions=discord.AllowedMentions.none(),
        )
        self.services = services

    async def setup_hook(self) -> None:
        """Add the commands."""
        services = self.services
        await self.add_cog(LastSessionCog(services.database))
        await self.add_cog(StatsCog(services.database))
        await self.add_cog(LinkCog(services.database))
        await self.add_cog(HealthCog(services.database, services.watcher))
        if services.settings.stats_channel is not None:
            channel = services.settings.stats_channel
            await self.add_cog(NewsCog(self, services.database, channel, services.news))

    async def get_context(self, origin: discord.Message, /, *, cls: type = Context) -> Context:
        """Use our own way of answering."""
        return await super().get_context(origin, cls=cls)

    async def on_connect(self) -> None:
        """Say under which name we are on Discord; comes again after a long interruption.

        Commands are heard from now on; on_ready would come two seconds later.
        """
        log.info("logged in as %s", self.user)
        self.services.discord_answered.set()

    async def on_command_error(
        self, context: commands.Context, exception: commands.CommandError
    ) -> None:
        """Answer a command that failed; silence for commands of other bots."""
        if isinstance(exception, commands.CommandNotFound):
            return
        cause = getattr(exception, "original", exception)
        if isinstance(cause, discord.Forbidden):
            log.error("!%s: may not answer in #%s: %s", context.command, context.channel, cause)
            return
        if isinstance(cause, AskedWrongError):  # the player's mistake; the text says which
            answer = cause.said(shown)
        elif not isinstance(exception, commands.CommandInvokeError):  # another of his
            answer = str(cause)
        elif isinstance(cause, DatabaseTimeoutError):
            log.error("!%s: %s", context.command, cause)
            answer = "The database is too busy just now, try again in a minute."
        elif isinstance(cause, DatabaseUnavailableError):
            log.error("!%s: %s", context.command, cause)
            answer = "The database is away, try again in a minute."
        else:
            log.error("!%s failed", context.command, exc_info=exception.original)
            answer = "That went wrong; the reason is in the bot's log."
        try:
            await context.send(answer)
        except (OSError, discord.DiscordException) as error:
            log.error("!%s: cannot answer in #%s: %s", context.command, context.channel, error)


async def serve(settings: BotSettings, database: Database) -> None:
    """Run until cancelled.

    Raises:
        DatabaseError: at the start only; later outages are waited out.
        SettingsError: Discord does not accept the token or the intents, or the state directory
            cannot be made.

    """
    try:
        settings.local_stats.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"BOT_STATE_DIR: {error}") from error
    notify("STATUS=waiting for the database")
    await database.open(wait=settings.database_wait)
    tasks: list[asyncio.Task[None]] = []
    try:
        await check_schema(database)
        log.info("database: %s", await database.health())
        services = Services(settings, database)
        tasks.append(asyncio.create_task(services.watcher.run()))
        if settings.ssh is None:
            log.info("SSH_ENABLED is not true: only %s is watched", settings.local_stats)
        if settings.discord_token is None:
            log.info("DISCORD_BOT_TOKEN is not set: running without Discord")
        else:
            tasks.append(asyncio.create_task(run_discord(settings.discord_token, services)))
            # A token that Discord refuses is no start; a Discord that is away must not stop one.
            answered = asyncio.create_task(services.discord_answered.wait())
            await asyncio.wait(
                [answered, *tasks], timeout=LOGIN_PATIENCE, return_when=asyncio.FIRST_COMPLETED
            )
            answered.cancel()
            for task in tasks:
                if task.done():
                    await task  # raises what ended it
        log.info("ready")
        notify("READY=1\nSTATUS=ready")
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await database.close()


async def run_discord(token: str, services: Services) -> None:
    """Keep the Discord side running; the import goes on while Discord is away.

    Raises:
        SettingsError: Discord does not accept the token or the intents.

    """
    while True:
        try:
            async with UltimateBot(services) as bot:
                await bot.start(token)  # reconnects by itself once it was logged in
        except discord.LoginFailure as error:
            raise SettingsError(f"Discord refuses DISCORD_BOT_TOKEN: {error}") from error
        except discord.PrivilegedIntentsRequired as error:
            raise SettingsError(
                "Discord refuses the intent 'message content': switch it on for this bot in "
                "Discord's developer portal"
            ) from error
        except (OSError, discord.DiscordException) as error:
            log.error("Discord: %s; next try in %.0f s", error, DISCORD_PAUSE)
            services.discord_answered.set()
        except Exception:  # aiohttp's own, when the line breaks at login; the import must go on
            log.exception("Discord; next try in %.0f s", DISCORD_PAUSE)
            services.discord_answered.set()
        await asyncio.sleep(DISCORD_PAUSE)


async def run_until_signal(settings: BotSettings, database: Database) -> None:
    """Run :func:`serve`; SIGTERM and SIGINT end it in order."""
    serving = asyncio.create_task(serve(settings, database))
    stopped = False

    def stop(name: str) -> None:
        nonlocal stopped
        stopped = True
        log.info("%s: stopping", name)
        notify("STOPPING=1\nSTATUS=stopping")
        # A round that is being imported is rolled back; the next start imports it.
        serving.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop, number.name)
    try:
        await serving
    except asyncio.CancelledError:
        if not stopped:
            raise
        log.info("stopped")


def main() -> int:
    """Run the bot; return the exit code."""
    load_environment()
    try:
        settings = BotSettings.from_environment()
        logging.basicConfig(
            stream=sys.stdout,
            level=settings.log_level,
            format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        )
        # They tell of every packet, and of every try to connect during an outage.
        logging.getLogger("asyncssh").setLevel("WARNING")
        logging.getLogger("asyncpg").setLevel("ERROR")
        database = Database(DatabaseSettings.from_environment())
        asyncio.run(run_until_signal(settings, database))
    except (SettingsError, DatabaseConfigurationError) as error:
        return _give_up(2, error)
    except DatabaseError as error:
        return _give_up(5, error)
    return 0


def _give_up(code: int, error: Exception) -> int:
    notify(f"STATUS={error}")
    print(f"ultimate_bot: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
