"""The bot's database from the command line.

    python database_manager.py create            create the tables on the configured database
    python database_manager.py import DIRECTORY  import all stats files of a directory
    python database_manager.py rebuild --yes     write all rounds anew from local_stats/
    python database_manager.py validate          look for contradictions
    python database_manager.py reconcile         compare the game server's files, local_stats/,
                                                 processed_files and rounds; mend with --fix

The database is the bot's (DATABASE_* in the environment or .env). Exit codes: 0 done, 1 there are
findings or files that could not be imported, 2 usage or settings, 5 database or game server not
reachable. All but create may run beside the bot; a rebuild makes it wait.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from bot.core.database import (
    Database,
    DatabaseConfigurationError,
    DatabaseError,
    DatabaseSettings,
    DatabaseValueError,
    Session,
)
from bot.core.reconcile import Comparison, compare, mend_notes
from bot.core.round_import import files_in, import_file, processed_files
from bot.core.schema import check_schema, create_schema
from bot.core.settings import BotSettings, SettingsError, load_environment
from bot.core.stats_parser import StatsFileError
from bot.core.stats_source import SourceError, StatsSource
from bot.core.stats_watcher import StatsWatcher

SHOWN = 20  # names in a list of findings

# Everything that comes from stats files, children first. player_links does not: it is kept.
REBUILT = (
    "weapon_comprehensive_stats",
    "player_comprehensive_stats",
    "session_teams",
    "player_aliases",
    "processed_files",
    "rounds",
)

# What must not be found: (finding, statement that counts it).
CHECKS = (
    (
        "rounds without players",
        "SELECT COUNT(*) FROM rounds r WHERE NOT EXISTS "
        "(SELECT 1 FROM player_comprehensive_stats p WHERE p.round_id = r.id)",
    ),
    (
        "player rows without a round",
        "SELECT COUNT(*) FROM player_comprehensive_stats p WHERE NOT EXISTS "
        "(SELECT 1 FROM rounds r WHERE r.id = p.round_id)",
    ),
    (
        "weapon rows without a player row",
        "SELECT COUNT(*) FROM weapon_comprehensive_stats w WHERE NOT EXISTS "
        "(SELECT 1 FROM player_comprehensive_stats p "
        "WHERE p.round_id = w.round_id AND p.player_guid = w.player_guid)",
    ),
    (
        "rounds that are there twice",
        "SELECT COUNT(*) FROM (SELECT round_date, round_time, map_name, round_number FROM rounds "
        "GROUP BY round_date, round_time, map_name, round_number HAVING COUNT(*) > 1) doubled",
    ),
    (
        "second rounds without a first one",
        "SELECT COUNT(*) FROM rounds s WHERE s.round_number = 2 AND NOT EXISTS "
        "(SELECT 1 FROM rounds f WHERE f.match_id = s.match_id AND f.round_number = 1)",
    ),
    (
        "player rows whose kills, deaths or headshots are not the sums of their weapons",
        "SELECT COUNT(*) FROM (SELECT p.id FROM player_comprehensive_stats p "
        "LEFT JOIN weapon_comprehensive_stats w "
        "ON w.round_id = p.round_id AND w.player_guid = p.player_guid "
        "GROUP BY p.id, p.kills, p.deaths, p.headshots "
        "HAVING p.kills <> COALESCE(SUM(w.kills), 0) OR p.deaths <> COALESCE(SUM(w.deaths), 0) "
        "OR p.headshots <> COALESCE(SUM(w.headshots), 0)) wrong",
    ),
    (
        "player rows that disagree with their round on date, map or number",
        "SELECT COUNT(*) FROM player_comprehensive_stats p JOIN rounds r ON r.id = p.round_id "
        "WHERE p.round_date <> r.round_date OR p.map_name <> r.map_name "
        "OR p.round_number <> r.round_number",
    ),
    (
        "player rows with a negative number",
        "SELECT COUNT(*) FROM player_comprehensive_stats WHERE kills < 0 OR deaths < 0 "
        "OR damage_given < 0 OR damage_received < 0 OR time_played_seconds < 0",
    ),
    (
        "files that could not be imported",
        "SELECT COUNT(*) FROM processed_files WHERE success = FALSE",
    ),
)


async def create(database: Database) -> int:
    """Create the tables; an existing table is left as it is."""
    await database.open(create=True)
    new = await create_schema(database)
    await check_schema(database)
    print(f"created {', '.join(new)}" if new else "all tables are there already")
    return 0


async def import_directory(database: Database, directory: Path) -> int:
    """Import the files of a directory that were not imported before."""
    if not directory.is_dir():
        raise SettingsError(f"{directory} is not a directory")
    await database.open()
    await check_schema(database)
    done = await processed_files(database)
    async with database.session() as session:
        return await _import_all(session, directory, done)


async def rebuild(database: Database, directory: Path) -> int:
    """Delete all rounds and import ``local_stats/`` from scratch, in one transaction."""
    await database.open()
    await check_schema(database)
    present = files_in(directory).keys() if directory.is_dir() else set()
    lost = sorted(await processed_files(database) - present)
    if lost:
        print(
            f"refused: {len(lost)} imported files are not in {directory}, their rounds would be "
            f"lost (first: {lost[0]})",
            file=sys.stderr,
        )
        return 1
    async with database.transaction() as session:
        for table in REBUILT:
            await session.execute(f"DELETE FROM {table}")
        return await _import_all(session, directory, set())


async def _import_all(session: Session, directory: Path, done: set[str]) -> int:
    here = files_in(directory)
    imported = known = 0
    failures = {}
    for name in sorted(here.values()):
        if name.text in done:
            known += 1
            continue
        partner = name.first_round(here.values()) if name.round_number == 2 else None
        try:
            if await import_file(session, directory, name, partner):
                imported += 1
            else:
                known += 1
        except (StatsFileError, DatabaseValueError) as error:
            failures[name.text] = error
    for name, error in failures.items():
        print(f"{name}: {error}", file=sys.stderr)
    print(f"{imported} imported, {known} were imported before, {len(failures)} failed")
    return 1 if failures else 0


async def validate(database: Database) -> int:
    """Print row counts and sums, then what contradicts itself."""
    await database.open()
    await check_schema(database)
    for table in (*REBUILT[::-1], "player_links"):
        print(f"{table:<28}{await database.fetch_value(f'SELECT COUNT(*) FROM {table}'):>9} rows")
    sums = await database.fetch_one(
        "SELECT COALESCE(SUM(kills), 0) AS kills, COALESCE(SUM(deaths), 0) AS deaths, "
        "COALESCE(SUM(damage_given), 0) AS damage FROM player_comprehensive_stats"
    )
    print(f"{sums['kills']} kills, {sums['deaths']} deaths, {sums['damage']} damage")
    findings = 0
    for finding, statement in CHECKS:
        if count := await database.fetch_value(statement):
            findings += 1
            print(f"FOUND {count} {finding}")
    print(f"{findings} findings in {len(CHECKS)} checks" if findings else "no findings")
    return 1 if findings else 0


async def reconcile(database: Database, settings: BotSettings, *, fix: bool) -> int:
    """Print which files and rounds do not belong together; with ``fix`` mend what can be mended.

    Raises:
        SourceError: the game server does not give its list.

    """
    await database.open()
    await check_schema(database)
    source = StatsSource(settings.ssh) if settings.ssh else None
    try:
        found = await _compare(database, settings, source)
        _print_comparison(found)
        if found.agrees or not fix:
            return 0 if found.agrees else 1
        settings.local_stats.mkdir(parents=True, exist_ok=True)
        await mend_notes(database, settings.local_stats, found)
        watcher = StatsWatcher(settings, database)
        try:
            imported = await watcher.look(doubted=found.changed)
        finally:
            await watcher.close()
        print(
            f"mended: {len(found.noted_in_vain)} false notes removed, {len(found.unnoted)} notes "
            f"written, {imported} rounds imported, {watcher.renewed} imported again"
        )
        left = await _compare(database, settings, source)
    finally:
        if source is not None:
            await source.close()
    _print_comparison(left)
    return 0 if left.agrees else 1


async def _compare(
    database: Database, settings: BotSettings, source: StatsSource | None
) -> Comparison:
    remote = await source.files() if source else None
    return await compare(database, settings.local_stats, remote)


def _print_comparison(found: Comparison) -> None:
    there = "not asked (SSH_ENABLED)" if found.remote < 0 else f"{found.remote} files"
    print(f"game server: {there}; local_stats: {found.local} files; rounds: {found.rounds}")
    for what, names in (
        ("files without a round", found.missing),
        ("of them noted as processed all the same", found.noted_in_vain),
        ("noted as processed, but there is neither round nor file", found.lost),
        ("rounds without a note in processed_files", found.unnoted),
        ("files that have another size on the game server", found.outdated),
        ("files that are not the ones that were imported", found.changed),
    ):
        if names:
            print(f"FOUND {len(names)} {what}:")
            for name in names[:SHOWN]:
                why = f": {found.failed[name]}" if name in found.failed else ""
                print(f"  {name}{why}")
            if len(names) > SHOWN:
                print(f"  … and {len(names) - SHOWN} more")
    if found.agrees:
        print("all agree")


def _confirmed(question: str) -> bool:
    return sys.stdin.isatty() and input(f"{question} Type yes: ").strip() == "yes"


async def _run(arguments: argparse.Namespace) -> int:
    database = Database(DatabaseSettings.from_environment(), "database_manager")
    try:
        if arguments.command == "create":
            return await create(database)
        if arguments.command == "import":
            return await import_directory(database, arguments.directory)
        if arguments.command == "validate":
            return await validate(database)
        settings = BotSettings.from_environment()
        if arguments.command == "reconcile":
            return await reconcile(database, settings, fix=arguments.fix)
        local_stats = settings.local_stats
        if not arguments.yes and not _confirmed(f"Write all rounds anew from {local_stats}?"):
            print("nothing was done: say --yes", file=sys.stderr)
            return 2
        return await rebuild(database, local_stats)
    finally:
        await database.close()


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("create", help="create the tables")
    importing = commands.add_parser("import", help="import the stats files of a directory")
    importing.add_argument("directory", type=Path)
    rebuilding = commands.add_parser("rebuild", help="write all rounds anew from local_stats/")
    rebuilding.add_argument("--yes", action="store_true", help="do not ask")
    commands.add_parser("validate", help="look for contradictions")
    reconciling = commands.add_parser("reconcile", help="compare files, notes and rounds")
    reconciling.add_argument("--fix", action="store_true", help="mend what can be mended")
    arguments = parser.parse_args()
    load_environment()
    try:
        return asyncio.run(_run(arguments))
    except (SettingsError, DatabaseError, SourceError) as error:
        print(f"database_manager: {error}", file=sys.stderr)
        settings = isinstance(error, (SettingsError, DatabaseConfigurationError))
        return 2 if settings else 5


if __name__ == "__main__":
    sys.exit(main())
