"""Fetching and catching up: unfinished files, lost connections, wrong keys, outages."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import asyncssh
import pytest
from bot.core.database import DatabaseUnavailableError
from bot.core.round_import import processed_files
from bot.core.settings import BotSettings
from bot.core.stats_watcher import StatsWatcher
from support import stats_files
from support.stats_files import FIRST, SECOND


@pytest.fixture
def settings_with(tmp_path):
    """A function that makes the bot's settings, with the directory as the bot makes it."""

    def make(*environments: dict[str, str]) -> BotSettings:
        values = {"BOT_STATE_DIR": str(tmp_path / "state"), "STATS_SETTLE_SECONDS": "0.05"}
        for environment in environments:
            values |= environment
        settings = BotSettings.from_environment(values)
        settings.local_stats.mkdir(parents=True, exist_ok=True)
        return settings

    return make


@pytest.fixture
async def watch(settings_with, game_server, db):
    """A watcher of the game server, as after a start of the bot."""
    watcher = StatsWatcher(settings_with(game_server.environment), db)
    yield watcher
    await watcher.close()


async def error_of(db, name):
    return await db.fetch_value(
        "SELECT error_message FROM processed_files WHERE filename = ? AND success = FALSE", name
    )


async def test_fetches_what_is_new_and_only_that(watch, game_server, db):
    stats_files.write(game_server.stats, FIRST, stats_files.supply_first())
    assert await watch.look() == 1
    stats_files.write(game_server.stats, SECOND, stats_files.supply_second())
    assert await watch.look() == 1
    assert await watch.look() == 0
    assert await processed_files(db) == {FIRST, SECOND}


async def test_files_are_imported_oldest_first_whatever_their_dates_on_disk(watch, game_server, db):
    stats_files.write(game_server.stats, SECOND, stats_files.supply_second())
    stats_files.write(game_server.stats, FIRST, stats_files.supply_first())
    assert await watch.look() == 2
    assert await db.fetch_value("SELECT round_number FROM rounds ORDER BY id LIMIT 1") == 1


async def test_a_growing_file_waits_until_it_is_finished(watch, game_server, db, monkeypatch):
    lines = stats_files.supply_first().splitlines(keepends=True)
    path = stats_files.write(game_server.stats, FIRST, "".join(lines[:2]))  # one player is missing
    sleep = asyncio.sleep

    async def write_on(seconds: float) -> None:
        await sleep(seconds)
        with path.open("a") as file:
            file.write(lines[2])

    with monkeypatch.context() as patch:
        patch.setattr("bot.core.stats_watcher.asyncio.sleep", write_on)
        assert await watch.look() == 0
    assert await db.fetch_value("SELECT COUNT(*) FROM processed_files") == 0
    assert await watch.look() == 1
    assert await db.fetch_value("SELECT COUNT(*) FROM player_comprehensive_stats") == 2


async def test_a_file_that_grows_between_list_and_fetch_is_left_for_later(
    watch, game_server, db, settings_with, monkeypatch
):
    whole = stats_files.supply_first()
    beginning = "".join(whole.splitlines(keepends=True)[:2])
    path = stats_files.write(game_server.stats, FIRST, beginning)
    settled = watch._settled

    async def settled_then_grown(done):
        files = await settled(done)
        path.write_text(whole)
        return files

    with monkeypatch.context() as patch:
        patch.setattr(watch, "_settled", settled_then_grown)
        assert await watch.look() == 0
    assert list(settings_with().local_stats.iterdir()) == []
    assert await watch.look() == 1
    assert await db.fetch_value("SELECT COUNT(*) FROM player_comprehensive_stats") == 2


async def test_a_cut_off_file_is_noted_and_imported_when_it_is_whole(
    watch, game_server, db, caplog
):
    whole = stats_files.supply_first()
    stats_files.write(game_server.stats, FIRST, whole[:-20])
    assert await watch.look() == 0
    assert "no end" in await error_of(db, FIRST)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert await watch.look() == 0  # nothing changed: not even tried
    assert not caplog.records
    stats_files.write(game_server.stats, FIRST, whole)
    assert await watch.look() == 1
    assert await error_of(db, FIRST) is None


async def test_a_second_round_waits_for_its_first(watch, game_server, db):
    stats_files.write(game_server.stats, SECOND, stats_files.supply_second())
    assert await watch.look() == 0
    assert "first round is missing" in await error_of(db, SECOND)
    stats_files.write(game_server.stats, FIRST, stats_files.supply_first())
    assert await watch.look() == 2


async def test_a_broken_first_round_holds_back_its_second_until_it_is_mended(
    watch, game_server, db
):
    stats_files.write_match(game_server.stats)
    stats_files.write(game_server.stats, FIRST, "nonsense\n")
    assert await watch.look() == 0
    assert await db.fetch_value("SELECT COUNT(*) FROM processed_files WHERE success = FALSE") == 2
    stats_files.write(game_server.stats, FIRST, stats_files.supply_first())
    assert await watch.look() == 2


async def test_the_first_round_is_fetched_again_where_only_the_database_was_moved(
    watch, game_server, db, settings_with, tmp_path
):
    stats_files.write(game_server.stats, FIRST, stats_files.supply_first())
    await watch.look()
    elsewhere = settings_with(
        game_server.environment, {"BOT_STATE_DIR": str(tmp_path / "another host")}
    )
    moved = StatsWatcher(elsewhere, db)
    stats_files.write(game_server.stats, SECOND, stats_files.supply_second())
    assert await moved.look() == 1
    kills = await db.fetch_value(
        "SELECT kills FROM player_comprehensive_stats WHERE round_number = 2 AND player_guid = ?",
        stats_files.ALPHA,
    )
    assert kills == 4
    await moved.close()


async def test_files_left_in_local_stats_are_imported_without_a_game_server(settings_with, db):
    settings = settings_with({"SSH_ENABLED": "false"})
    stats_files.write_match(settings.local_stats)
    assert await StatsWatcher(settings, db).look() == 2


async def test_files_left_in_local_stats_are_imported_while_the_game_server_is_away(
    watch, game_server, settings_with
):
    stats_files.write_match(settings_with().local_stats)
    await game_server.stop()
    assert await watch.look() == 2
    assert watch.problem.startswith("the game server: etstats@127.0.0.1")
    await game_server.start()
    assert await watch.look() == 0
    assert watch.problem is None


async def test_a_lost_connection_is_opened_again(watch, game_server):
    stats_files.write(game_server.stats, FIRST, stats_files.supply_first())
    assert await watch.look() == 1
    await game_server.stop()
    await game_server.start()
    stats_files.write(game_server.stats, SECOND, stats_files.supply_second())
    imported = await watch.look()  # may notice only now that the connection is gone
    assert imported + await watch.look() == 1


async def test_a_file_that_cannot_be_fetched_stops_no_other(watch, game_server, db):
    stats_files.write(game_server.stats, FIRST, stats_files.supply_first())
    other = "2026-11-20-203000-radar-round-1.txt"
    (game_server.stats / other).mkdir()  # not even root can read that as a file
    assert await watch.look() == 1
    assert f"/stats/{other} (REMOTE_STATS_PATH)" in watch.problem
    assert await processed_files(db) == {FIRST}
    (game_server.stats / other).rmdir()
    stats_files.write(game_server.stats, other, stats_files.supply_first("radar"))
    assert await watch.look() == 1
    assert watch.problem is None


async def test_a_connection_that_breaks_between_list_and_fetch_is_made_once(
    watch, game_server, monkeypatch
):
    for minute in range(20):
        name = f"2026-11-20-20{minute:02}00-radar-round-1.txt"
        stats_files.write(game_server.stats, name, stats_files.supply_first("radar"))
    connects = []
    connect = asyncssh.connect

    async def counted(*arguments, **options):
        connects.append(arguments)
        return await connect(*arguments, **options)

    monkeypatch.setattr("bot.core.stats_source.asyncssh.connect", counted)
    settled = watch._settled

    async def settled_then_cut(done):
        files = await settled(done)
        await watch.close()
        return files

    monkeypatch.setattr(watch, "_settled", settled_then_cut)
    assert await watch.look() == 20
    assert len(connects) == 2


async def test_a_lost_state_directory_is_an_outage(watch, game_server, settings_with):
    stats_files.write_match(game_server.stats)
    local_stats = settings_with().local_stats
    local_stats.rmdir()
    with pytest.raises(OSError, match="local_stats"):
        await watch.look()
    local_stats.mkdir()
    assert await watch.look() == 2


async def test_another_host_key_is_refused(watch, game_server, db):
    stats_files.write_match(game_server.stats)
    known_hosts = Path(game_server.environment["SSH_KNOWN_HOSTS"])
    port = game_server.environment["SSH_PORT"]
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    known_hosts.write_text(f"[127.0.0.1]:{port} {other}")
    assert await watch.look() == 0
    assert "the host key is not the one in" in watch.problem
    assert "SSH_KNOWN_HOSTS" in watch.problem
    assert await processed_files(db) == set()


async def test_an_unknown_host_is_refused(watch, game_server):
    Path(game_server.environment["SSH_KNOWN_HOSTS"]).write_text("")
    assert await watch.look() == 0
    assert "SSH_KNOWN_HOSTS" in watch.problem


async def test_a_refused_key_and_a_missing_directory_are_named(
    game_server, settings_with, db, tmp_path
):
    stranger = tmp_path / "stranger"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(stranger)
    for change, says in (
        ({"SSH_KEY_PATH": str(stranger)}, "SSH_KEY_PATH) was refused"),
        ({"REMOTE_STATS_PATH": "/nowhere"}, "/nowhere (REMOTE_STATS_PATH)"),
    ):
        watcher = StatsWatcher(settings_with(game_server.environment, change), db)
        assert await watcher.look() == 0
        assert says in watcher.problem
        await watcher.close()


async def test_while_the_database_is_away_nothing_is_lost(watch, game_server, db, monkeypatch):
    stats_files.write_match(game_server.stats)
    with monkeypatch.context() as patch:

        async def away(*_: object) -> None:
            raise DatabaseUnavailableError("away")

        patch.setattr("bot.core.round_import._write_players", away)
        with pytest.raises(DatabaseUnavailableError):
            await watch.look()
        assert await db.fetch_value("SELECT COUNT(*) FROM rounds") == 0
        assert await db.fetch_value("SELECT COUNT(*) FROM processed_files") == 0
    assert await watch.look() == 2


async def test_a_value_that_the_database_refuses_is_the_files_fault(watch, game_server, db):
    stats_files.write_match(game_server.stats)
    stats_files.write(
        game_server.stats, FIRST, stats_files.supply_first().replace("\t900\t", f"\t{2**63}\t")
    )
    assert await watch.look() == 1  # the second round's file is good
    assert await error_of(db, FIRST)


async def test_a_file_whose_name_no_database_takes_stops_no_other(
    watch, game_server, settings_with
):
    stats_files.write_match(game_server.stats)
    name = FIRST.replace("supply", "sup\udcffply")  # as Python shows a byte that is no UTF-8
    for directory in (game_server.stats, settings_with().local_stats):
        stats_files.write(directory, name, stats_files.supply_first())
    assert await watch.look() == 2
    assert watch.problem is None


async def test_many_files_are_fetched_in_batches(watch, game_server, db):
    for minute in range(55):
        name = f"2026-11-20-20{minute:02}00-radar-round-1.txt"
        stats_files.write(game_server.stats, name, stats_files.supply_first("radar"))
    assert await watch.look() == 55
    assert await db.fetch_value("SELECT COUNT(DISTINCT gaming_session_id) FROM rounds") == 1
