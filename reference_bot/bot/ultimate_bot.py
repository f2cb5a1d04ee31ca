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

from bot.cogs.health_cog import HealthCog
from bot.cogs.last_session_cog import LastSessionCog
from bot.core.database import (
    Database,
    DatabaseConfigurationError,
    DatabaseError,
    DatabaseSettings,
    DatabaseUnavailableError,
)
from bot.core.schema import check_schema
from bot.core.settings import BotSettings, SettingsError, load_environment
from bot.core.stats_watcher import StatsWatcher
from bot.core.systemd import notify

log = logging.getLogger("bot")

DISCORD_PAUSE = 30.0  # seconds


class UltimateBot(commands.Bot):
    """The Discord side."""

    def __init__(self, database: Database, watcher: StatsWatcher) -> None:
        intents = discord.Intents.default()
        intents.message_content = True  # privileged: switch it on in the developer portal too
        super().__init__(command_prefix="!", intents=intents)
        self.database = database
        self.watcher = watcher

    async def setup_hook(self) -> None:
        """Add the commands."""
        await self.add_cog(LastSessionCog(self.database))
        await self.add_cog(HealthCog(self.database, self.watcher))

    async def on_ready(self) -> None:
        """Say under which name we are on Discord."""
        log.info("logged in as %s", self.user)

    async def on_command_error(
        self, context: commands.Context, exception: commands.CommandError
    ) -> None:
        """Answer a command that failed; silence for commands of other bots."""
        if isinstance(exception, commands.CommandNotFound):
            return
        if not isinstance(exception, commands.CommandInvokeError):  # the user's mistake
            await context.send(str(exception))
        elif isinstance(exception.original, DatabaseUnavailableError):
            log.error("!%s: %s", context.command, exception.original)
            await context.send("The database is away, try again in a minute.")
        else:
            log.error("!%s failed", context.command, exc_info=exception.original)
            await context.send("That went wrong; the reason is in the bot's log.")


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
        watcher = StatsWatcher(settings, database)
        tasks.append(asyncio.create_task(watcher.run()))
        if settings.ssh is None:
            log.info("SSH_ENABLED is not true: only %s is watched", settings.local_stats)
        if settings.discord_token is None:
            log.info("DISCORD_BOT_TOKEN is not set: running without Discord")
        else:
            tasks.append(
                asyncio.create_task(run_discord(settings.discord_token, database, watcher))
            )
        log.info("ready")
        notify("READY=1\nSTATUS=ready")
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await database.close()


async def run_discord(token: str, database: Database, watcher: StatsWatcher) -> None:
    """Keep the Discord side running; the import goes on while Discord is away.

    Raises:
        SettingsError: Discord does not accept the token or the intents.

    """
    while True:
        try:
            async with UltimateBot(database, watcher) as bot:
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
