"""Whatever happens while files arrive, every round ends up in the database once.

With the bot as a process, and killed or cut off in the middle, in test_ultimate_bot.py: an outage
of the database while files arrive, a stop in the middle of an import, files written while it was
down.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import asyncssh
import database_manager
import pytest
from bot.core import stats_parser, stats_source
from bot.core.reconcile import compare
from bot.core.settings import BotSettings
from bot.core.stats_source import StatsSource
from bot.core.stats_watcher import StatsWatcher
from support import stats_files
from support.stats_files import FIRST, SECOND


@pytest.fixture
def settings(game_server, tmp_path):
    values = {"BOT_STATE_DIR": str(tmp_path / "state"), "STATS_SETTLE_SECONDS": "0.05"}
    settings = BotSettings.from_environment(values | game_server.environment)
    settings.local_stats.mkdir(parents=True)
    return settings


@pytest.fixture
async def look(settings, db):
    """A function that looks once, as the bot does after a restart."""

    async def run() -> int:
        watcher = StatsWatcher(settings, db)
        imported = await watcher.look()
        await watcher.close()
        return imported

    return run


@pytest.fixture
def every_round_once(settings, db):
    """A function that compares the game server's files with what is in the database."""

    async def check(count: int) -> None:
        source = StatsSource(settings.ssh)
        found = await compare(db, settings.local_stats, await source.files())
        await source.close()
        assert found.agrees, found
        assert found.remote == found.local == found.rounds == count
        assert await db.fetch_value("SELECT COUNT(*) FROM rounds") == count
        assert await db.fetch_value("SELECT COUNT(*) FROM processed_files") == count
        assert await database_manager.validate(db) == 0

    return check


@pytest.fixture(params=["Pacific/Kiritimati", "Pacific/Pago_Pago"], ids=["ahead", "behind"])
def elsewhere(request, monkeypatch):
    """This host's clock is 14 hours ahead of UTC, or 11 behind; the game server's is not."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("elsewhere")
async def test_a_clock_or_zone_apart_from_the_game_servers(look, game_server, every_round_once):
    """Files from yesterday's evening to tomorrow's, dated in the past and in the future."""
    begun = datetime.now().replace(microsecond=0) - timedelta(hours=20)
    for number, hours in enumerate(range(0, 48, 6)):
        ended = begun + timedelta(hours=hours)
        for round_, text in ((1, stats_files.supply_first()), (2, stats_files.supply_second())):
            ended += timedelta(minutes=8)
            name = f"{ended:%Y-%m-%d-%H%M%S}-supply-round-{round_}.txt"
            path = stats_files.write(game_server.stats, name, text)
            moment = time.time() + (number - 4) * 86400
            os.utime(path, (moment, moment))
        assert await look() == 2
    await every_round_once(16)


async def test_the_same_map_twice_a_day(look, game_server, every_round_once, db):
    for hour in ("20", "21"):
        stats_files.write(
            game_server.stats, FIRST.replace("-21", f"-{hour}"), stats_files.supply_first()
        )
        stats_files.write(
            game_server.stats, SECOND.replace("-21", f"-{hour}"), stats_files.supply_second()
        )
    assert await look() == 4
    assert await look() == 0
    await every_round_once(4)
    assert await db.fetch_value("SELECT COUNT(DISTINCT match_id) FROM rounds") == 2


async def test_a_file_that_is_no_round_by_its_size(
    look, game_server, settings, caplog, monkeypatch
):
    """150 MB under a round's name are not fetched, nor read where they lie here already."""
    text = stats_files.supply_first()
    monkeypatch.setattr(stats_parser, "MOST_BYTES", len(text.encode()) + 10)
    monkeypatch.setattr(stats_source, "MOST_BYTES", len(text.encode()) + 10)
    stats_files.write(game_server.stats, FIRST, text)
    stats_files.write(game_server.stats, FIRST.replace("supply", "radar"), text + "x" * 20)
    assert await look() == 1
    assert [file.name for file in settings.local_stats.iterdir()] == [FIRST]
    assert "radar-round-1.txt on the game server is too long for a round" in caplog.text
    stats_files.write(settings.local_stats, FIRST, text + "x" * 20)
    with pytest.raises(stats_parser.StatsFileError, match="has more than"):
        stats_parser.read_stats(settings.local_stats / FIRST)


async def test_a_server_that_sends_more_than_its_list_says(game_server, settings, monkeypatch):
    """It is cut off; an endless file does not fill the memory."""
    monkeypatch.setattr(stats_source, "MOST_BYTES", 1000)
    path = stats_files.write(game_server.stats, FIRST, "x" * 900)
    source = stats_source.StatsSource(settings.ssh)
    (listed,) = (await source.files()).values()
    with path.open("a") as file:
        file.write("x" * 5000)
    assert await source.read(listed) is None
    await source.close()


async def test_a_server_whose_list_does_not_end(game_server, settings, monkeypatch):
    """It is left when it has more files than there can be, not when the memory is full."""
    sent = 0

    class Endless(asyncssh.SFTPServer):
        async def scandir(self, _path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
            nonlocal sent
            while True:
                sent += 1
                yield asyncssh.SFTPName(f"{sent:08d}{'x' * 200}".encode())

    monkeypatch.setattr(stats_source, "MOST_FILES", 1000)
    await game_server.stop()
    game_server._options["sftp_factory"] = Endless
    await game_server.start()
    source = StatsSource(settings.ssh)
    with pytest.raises(stats_source.SourceError, match="has more than 1000 files"):
        await source.files()
    assert sent < 3000
    await source.close()


@pytest.mark.timeout(60)
async def test_a_server_that_answers_nothing(game_server, settings, monkeypatch):
    """Connected and silent, also to the wish to close: given up, and worth another try."""

    class Silent(asyncssh.SFTPServer):
        async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
            await asyncio.sleep(3600)
            yield asyncssh.SFTPName(path)

    monkeypatch.setattr(stats_source, "ANSWER_TIMEOUT", 0.3)
    monkeypatch.setattr(stats_source, "CLOSE_TIMEOUT", 0.3)
    usual = game_server._options["sftp_factory"]
    await game_server.stop()
    game_server._options["sftp_factory"] = Silent
    await game_server.start()
    source = StatsSource(settings.ssh)
    with pytest.raises(stats_source.SourceError, match="no answer in time"):
        await source.files()
    await game_server.stop()
    game_server._options["sftp_factory"] = usual
    await game_server.start()
    assert await source.files() == {}, "the next look connects again"
    await source.close()


async def test_a_file_that_is_still_being_written(look, game_server, every_round_once):
    """Line by line, looked at all the while; a restart does not help it in early."""
    lines = stats_files.supply_first().splitlines(keepends=True)
    path = stats_files.write(game_server.stats, FIRST, "")
    imported = 0
    for line in lines:
        half = len(line) // 2
        for part in (line[:half], line[half:]):
            with path.open("a") as file:
                file.write(part)
            if part is not lines[-1][half:]:
                writing = asyncio.create_task(_touch_on(path))
                imported += await look()
                writing.cancel()
    assert imported == 0
    assert await look() == 1
    await every_round_once(1)


async def _touch_on(path):
    """The game server goes on: the file's date changes every few milliseconds."""
    for moment in range(10**6):
        os.utime(path, (moment, moment))
        await asyncio.sleep(0.005)


# All that comes from files, but for what depends on the order of imports: ids, numbers of sessions.
TABLES = (
    "SELECT round_date, round_time, match_id, map_name, round_number, time_limit, actual_time, "
    "winner_team, defender_team, is_tied, round_outcome FROM rounds "
    "ORDER BY round_date, round_time",
    "SELECT r.match_id, r.round_number, p.player_guid, p.clean_name, p.kills, p.deaths, "
    "p.headshots, p.damage_given, p.time_played_seconds, p.dpm "
    "FROM player_comprehensive_stats p JOIN rounds r ON r.id = p.round_id "
    "ORDER BY r.match_id, r.round_number, p.player_guid",
    "SELECT r.match_id, r.round_number, w.player_guid, w.weapon_name, w.hits, w.shots, w.kills, "
    "w.deaths, w.headshots FROM weapon_comprehensive_stats w JOIN rounds r ON r.id = w.round_id "
    "ORDER BY r.match_id, r.round_number, w.player_guid, w.weapon_name",
    "SELECT guid, alias, first_seen, last_seen, times_seen FROM player_aliases ORDER BY guid",
    "SELECT session_start_date, map_name, team_name, player_guids, player_names "
    "FROM session_teams ORDER BY map_name, team_name",
    "SELECT filename, file_hash, success, error_message FROM processed_files ORDER BY filename",
)


@pytest.fixture
def everything(db):
    """A function that returns all that was imported."""

    async def read() -> list[list[tuple]]:
        return [[tuple(row) for row in await db.fetch_all(table)] for table in TABLES]

    return read


def beginning(text: str) -> str:
    """The header and the first player."""
    return "".join(text.splitlines(keepends=True)[:2])


async def test_a_file_that_was_imported_before_it_was_whole(
    look, game_server, every_round_once, everything, db, settings
):
    """The game server stood still after the first player for longer than we wait.

    What is there in the end is what a rebuild from the whole files makes.
    """
    first, second = stats_files.supply_first(), stats_files.supply_second()
    stats_files.write(game_server.stats, FIRST, beginning(first).replace("^1al^7pha", "^3lag"))
    assert await look() == 1
    stats_files.write(game_server.stats, SECOND, beginning(second))
    assert await look() == 1
    ids = "SELECT id, match_id, gaming_session_id FROM rounds ORDER BY id"
    before = [tuple(row) for row in await db.fetch_all(ids)]
    assert await db.fetch_value("SELECT COUNT(*) FROM player_comprehensive_stats") == 2

    stats_files.write(game_server.stats, SECOND, second)
    assert await look() == 0
    stats_files.write(game_server.stats, FIRST, first)
    assert await look() == 0
    await every_round_once(2)
    mended = await everything()
    assert len(mended[1]) == 4
    assert [tuple(row) for row in await db.fetch_all(ids)] == before
    assert await look() == 0

    assert await database_manager.rebuild(db, settings.local_stats) == 0
    await every_round_once(2)
    assert await everything() == mended


async def test_a_round_that_is_imported_again_is_not_told_again(settings, db, game_server):
    told = []
    watcher = StatsWatcher(settings, db, told.extend)
    whole = stats_files.supply_first()
    stats_files.write(game_server.stats, FIRST, beginning(whole))
    assert await watcher.look() == 1
    stats_files.write(game_server.stats, FIRST, whole)
    assert await watcher.look() == 0
    await watcher.close()
    assert watcher.renewed == 1
    assert [name.text for name in told] == [FIRST]


async def test_a_file_that_changed_without_growing(look, game_server, every_round_once, db):
    path = stats_files.write(game_server.stats, FIRST, stats_files.supply_first())
    assert await look() == 1
    path.write_text(path.read_text().replace("\t900\t", "\t901\t"))
    later = path.stat().st_mtime + 5
    os.utime(path, (later, later))
    assert await look() == 0
    await every_round_once(1)
    damage = "SELECT MAX(damage_given) FROM player_comprehensive_stats"
    assert await db.fetch_value(damage) == 901


@pytest.mark.parametrize("rest", ["nonsense\n", "BBBBBBBB\\^4bra"])
async def test_a_changed_file_that_cannot_be_read_changes_nothing(
    look, game_server, everything, caplog, rest
):
    """It is written on just now, or by nobody who knows how; the imported round stays."""
    path = stats_files.write(game_server.stats, FIRST, beginning(stats_files.supply_first()))
    assert await look() == 1
    before = await everything()
    path.write_text(path.read_text() + rest)
    assert await look() == 0
    assert await everything() == before
    assert f"{FIRST} has changed and is not imported again: " in caplog.text
    path.write_text(stats_files.supply_first())
    assert await look() == 0
    assert len((await everything())[1]) == 2


def full_disk(*_: object) -> None:
    """What writing a copy comes to, at times."""
    raise OSError(errno.ENOSPC, "the disk is full")


async def test_a_first_round_changes_while_its_second_is_not_whole(
    look, game_server, every_round_once, db
):
    first, second = stats_files.supply_first(), stats_files.supply_second()
    stats_files.write(game_server.stats, FIRST, beginning(first))
    stats_files.write(game_server.stats, SECOND, beginning(second)[:-1])
    assert await look() == 1
    stats_files.write(game_server.stats, FIRST, first)
    assert await look() == 0
    assert await db.fetch_value("SELECT COUNT(*) FROM player_comprehensive_stats") == 2
    stats_files.write(game_server.stats, SECOND, second)
    assert await look() == 1
    await every_round_once(2)


@pytest.mark.parametrize("seed", range(4))
async def test_files_that_come_in_pieces_with_stalls_and_stops(
    settings, game_server, every_round_once, everything, db, seed
):
    """Looked at after each piece, with a full disk and a restart now and then.

    In the end the database holds what the whole files make of an empty one.
    """
    chance = random.Random(seed)  # noqa: S311
    files = {}
    for hour, map_name in ((18, "supply"), (19, "radar"), (21, "oasis")):
        for round_, text in ((1, stats_files.supply_first), (2, stats_files.supply_second)):
            files[f"2026-11-20-{hour}{round_}000-{map_name}-round-{round_}.txt"] = text(map_name)
    rest = dict(files)
    watcher = StatsWatcher(settings, db)
    while rest:
        # Pieces of the files that were begun, or the first of the next one.
        begun = [name for name in rest if (game_server.stats / name).exists()]
        name = chance.choice(begun + [name for name in rest if name not in begun][:1])
        ends = [number for number, one in enumerate(rest[name], 1) if one == "\n"]
        length = chance.choice([*ends, min(len(rest[name]), 100)])
        with (game_server.stats / name).open("a") as file:
            file.write(rest[name][:length])
        rest[name] = rest[name][length:]
        if not rest[name]:
            del rest[name]
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(OSError):
            if chance.random() < 0.2:
                module = chance.choice(("stats_watcher", "stats_source"))
                patch.setattr(f"bot.core.{module}.keep", full_disk)
            await watcher.look()
        if chance.random() < 0.3:
            await watcher.close()
            watcher = StatsWatcher(settings, db)
    await watcher.look()
    await watcher.close()
    await every_round_once(len(files))
    in_pieces = await everything()
    assert await database_manager.rebuild(db, settings.local_stats) == 0
    assert await everything() == in_pieces


async def test_a_stop_while_a_file_is_imported_again(look, game_server, every_round_once, db):
    """The database has the whole round, our copy is still the short one."""
    whole = stats_files.supply_first()
    path = stats_files.write(game_server.stats, FIRST, beginning(whole))
    assert await look() == 1
    path.write_text(whole)
    with pytest.MonkeyPatch.context() as patch:

        def stop(*_: object) -> None:
            raise asyncio.CancelledError

        patch.setattr("bot.core.stats_watcher.keep", stop)
        with pytest.raises(asyncio.CancelledError):
            await look()
    assert await db.fetch_value("SELECT COUNT(*) FROM player_comprehensive_stats") == 2
    assert await look() == 0
    await every_round_once(1)


async def test_a_file_with_broken_bytes(look, game_server, every_round_once, db):
    """Stray bytes, NUL, a name of nothing but colours: imported as well as can be, and once."""
    text = stats_files.supply_first().encode()
    text = text.replace(b"^1al^7pha", b"^1al\xff\xfe\x00pha").replace(b"^4bravo", b"^4^1^2")
    (game_server.stats / FIRST).write_bytes(text)
    second = stats_files.supply_second().encode().replace(b"^1al^7pha", b"\xc3\x28")
    (game_server.stats / SECOND).write_bytes(second)
    assert await look() == 2
    assert await look() == 0
    await every_round_once(2)
    names = await db.fetch_all("SELECT clean_name FROM player_comprehensive_stats ORDER BY id")
    assert [row["clean_name"] for row in names][:2] == ["al���pha", ""]


async def test_a_broken_file_holds_up_no_other_and_comes_in_when_it_is_mended(
    look, game_server, every_round_once
):
    stats_files.write_match(game_server.stats)
    broken = "2026-11-20-200000-radar-round-1.txt"
    stats_files.write(game_server.stats, broken, stats_files.supply_first("radar")[:-30])
    assert await look() == 2
    assert await look() == 0
    stats_files.write(game_server.stats, broken, stats_files.supply_first("radar"))
    assert await look() == 1
    await every_round_once(3)


# -------------------------------------------------------------------------------------- reconcile


@pytest.fixture
def reconcile(settings, db, capsys):
    """A function that runs ``reconcile``; returns exit code and output."""

    async def run(*, fix: bool = False) -> tuple[int, str]:
        return await database_manager.reconcile(db, settings, fix=fix), capsys.readouterr().out

    return run


async def test_reconcile_finds_and_mends_what_other_bots_leave(
    reconcile, look, game_server, every_round_once, db, settings
):
    stats_files.write_match(game_server.stats)
    assert await look() == 2
    assert await reconcile() == (
        0, "game server: 2 files; local_stats: 2 files; rounds: 2\nall agree\n"
    )  # fmt: skip

    # Noted as processed and never imported (written while the bot was down), once with our copy of
    # the file and once without; a round whose note was lost; a file that nobody has seen yet.
    for name in ("2026-11-20-190000-radar-round-1.txt", "2026-11-20-193000-frost-round-1.txt"):
        map_name = name.split("-")[4]
        stats_files.write(game_server.stats, name, stats_files.supply_first(map_name))
        await db.execute("INSERT INTO processed_files (filename) VALUES (?)", name)
    here = settings.local_stats / "2026-11-20-193000-frost-round-1.txt"
    here.write_bytes((game_server.stats / here.name).read_bytes())
    await db.execute("DELETE FROM processed_files WHERE filename = ?", FIRST)
    unseen = "2026-11-20-194500-oasis-round-1.txt"
    stats_files.write(game_server.stats, unseen, stats_files.supply_first("oasis"))
    # Another bot's note about a file that is no round is none of our business.
    await db.execute("INSERT INTO processed_files (filename) VALUES (?)", "x-endstats.txt")

    code, output = await reconcile()
    assert code == 1
    assert "FOUND 3 files without a round:\n  2026-11-20-190000-radar" in output
    assert "FOUND 2 of them noted as processed all the same:\n" in output
    assert f"FOUND 1 rounds without a note in processed_files:\n  {FIRST}\n" in output
    assert await db.fetch_value("SELECT COUNT(*) FROM rounds") == 2  # only looked

    code, output = await reconcile(fix=True)
    assert code == 0
    assert (
        "mended: 2 false notes removed, 1 notes written, 3 rounds imported, 0 imported again\n"
        in output
    )
    assert output.endswith("all agree\n")
    await db.execute("DELETE FROM processed_files WHERE filename = ?", "x-endstats.txt")
    await every_round_once(5)
    hashes = await db.fetch_value("SELECT COUNT(DISTINCT file_hash) FROM processed_files")
    assert hashes == 5  # the note that was written anew has its file's


async def test_reconcile_says_what_it_cannot_mend(reconcile, look, game_server, db):
    stats_files.write_match(game_server.stats)
    assert await look() == 2
    gone = "2026-11-01-210000-radar-round-1.txt"
    await db.execute("INSERT INTO processed_files (filename) VALUES (?)", gone)
    broken = "2026-11-20-200000-radar-round-1.txt"
    stats_files.write(game_server.stats, broken, "nonsense\n")
    cut_off = (game_server.stats / FIRST).read_text().splitlines(keepends=True)[:2]
    (game_server.stats / FIRST).write_text("".join(cut_off))
    code, output = await reconcile(fix=True)
    assert code == 1
    left = output.partition("mended: 0 false notes removed, 0 notes written, 0 rounds")[2]
    assert f"neither round nor file:\n  {gone}\n" in left
    assert f"{broken}: the header has 1 parts, not 8 or 9\n" in left
    assert f"have another size on the game server:\n  {FIRST}\n" in left
    # Ours has more than what is left there; nothing that is known is given up for it.
    assert await db.fetch_value("SELECT COUNT(*) FROM player_comprehensive_stats") == 4


async def test_reconcile_mends_copies_that_are_not_what_was_imported(
    reconcile, look, game_server, db, settings
):
    """One that the game server has as it was imported, and one that only we have."""
    stats_files.write_match(game_server.stats)
    alone = "2026-11-20-200000-radar-round-1.txt"
    stats_files.write(game_server.stats, alone, stats_files.supply_first("radar"))
    assert await look() == 3
    for name in (SECOND, alone):
        ours = settings.local_stats / name
        ours.write_bytes(ours.read_bytes().replace(b"bravo", b"BRAVO"))
    (game_server.stats / alone).unlink()
    _, output = await reconcile()
    assert f"not the ones that were imported:\n  {alone}\n  {SECOND}\n" in output
    code, output = await reconcile(fix=True)
    assert code == 0
    assert "0 rounds imported, 1 imported again\n" in output
    rows = await db.fetch_all(
        "SELECT DISTINCT clean_name, map_name FROM player_comprehensive_stats "
        "WHERE player_guid = ?",
        stats_files.BRAVO,
    )
    assert {tuple(row) for row in rows} == {("BRAVO", "radar"), ("bravo", "supply")}


async def test_reconcile_mends_a_file_that_was_imported_before_it_was_whole(
    reconcile, look, game_server, every_round_once, db
):
    whole = stats_files.supply_first()
    stats_files.write(game_server.stats, FIRST, beginning(whole))
    assert await look() == 1
    stats_files.write(game_server.stats, FIRST, whole)
    code, output = await reconcile()
    assert code == 1
    assert f"FOUND 1 files that have another size on the game server:\n  {FIRST}\n" in output
    code, output = await reconcile(fix=True)
    assert code == 0
    assert "0 rounds imported, 1 imported again\n" in output
    await every_round_once(1)
    assert await db.fetch_value("SELECT COUNT(*) FROM player_comprehensive_stats") == 2


async def test_reconcile_without_a_game_server_and_with_one_that_is_away(
    reconcile, game_server, db, tmp_path, capsys
):
    alone = BotSettings.from_environment({"BOT_STATE_DIR": str(tmp_path / "alone")})
    stats_files.write_match(alone.local_stats)
    assert await database_manager.reconcile(db, alone, fix=True) == 0
    assert "game server: not asked (SSH_ENABLED); local_stats: 2 files" in capsys.readouterr().out
    await game_server.stop()
    try:
        with pytest.raises(database_manager.SourceError):
            await reconcile()
    finally:
        await game_server.start()
