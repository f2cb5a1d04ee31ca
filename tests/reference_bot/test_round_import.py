"""What one match by hand becomes in either database, and that nothing is written twice."""

from __future__ import annotations

from datetime import datetime

import pytest
from bot.core.database import DatabaseValueError
from bot.core.round_import import import_file, note_failure, processed_files
from bot.core.stats_parser import MissingFirstRoundError, StatsFileName
from support import stats_files
from support.stats_files import ALPHA, BRAVO, FIRST, SECOND


async def row_counts(db):
    return {
        table: await db.fetch_value(f"SELECT COUNT(*) FROM {table}")
        for table in (
            "rounds",
            "player_comprehensive_stats",
            "weapon_comprehensive_stats",
            "processed_files",
            "player_aliases",
            "session_teams",
        )
    }


async def test_a_match_by_hand(db, import_all, tmp_path):
    stats_files.write_match(tmp_path)
    assert await import_all(tmp_path) == {FIRST: True, SECOND: True}
    assert await row_counts(db) == {
        "rounds": 2,
        "player_comprehensive_stats": 4,
        "weapon_comprehensive_stats": 1 + 2 + 1 + 2,
        "processed_files": 2,
        "player_aliases": 2,
        "session_teams": 2,
    }
    rounds = await db.fetch_all(
        "SELECT round_date, round_time, match_id, map_name, round_number, time_limit, actual_time, "
        "winner_team, defender_team, is_tied, round_outcome, gaming_session_id "
        "FROM rounds ORDER BY round_number"
    )
    match = "2026-11-20-210000-supply"
    assert [tuple(row) for row in rounds] == [
        ("2026-11-20", "210000", match, "supply", 1, "12:00", "8:30", 1, 2, False, "objective", 1),
        ("2026-11-20", "210730", match, "supply", 2, "8:30", "6:00", 1, 2, False, "objective", 1),
    ]
    players = await db.fetch_all(
        "SELECT player_guid, player_name, clean_name, team, kills, deaths, headshots, "
        "damage_given, time_played_seconds, dpm, kd_ratio, xp FROM player_comprehensive_stats "
        "WHERE round_number = 2 ORDER BY player_guid"
    )
    assert [tuple(row) for row in players] == [
        (ALPHA, "^1al^7pha", "alpha", 2, 4, 5, 2, 600, 360, 100.0, 0.8, 22),
        (BRAVO, "^4bravo", "bravo", 1, 5, 4, 2, 700, 360, 700 * 60 / 360, 1.25, 25),
    ]
    weapons = await db.fetch_all(
        "SELECT weapon_name, hits, shots, kills, deaths, headshots, accuracy "
        "FROM weapon_comprehensive_stats WHERE player_guid = ? ORDER BY id",
        ALPHA,
    )
    assert [tuple(row) for row in weapons] == [
        ("WS_MP40", 40, 100, 6, 3, 5, 40.0),
        ("WS_THOMPSON", 30, 90, 4, 5, 2, 100 * 30 / 90),
    ]
    aliases = await db.fetch_all("SELECT * FROM player_aliases ORDER BY guid")
    assert [tuple(row)[1:] for row in aliases] == [
        (ALPHA, "alpha", datetime(2026, 11, 20, 21), datetime(2026, 11, 20, 21, 7, 30), 2),
        (BRAVO, "bravo", datetime(2026, 11, 20, 21), datetime(2026, 11, 20, 21, 7, 30), 2),
    ]


async def test_a_second_import_writes_nothing(db, import_all, tmp_path):
    stats_files.write_match(tmp_path)
    await import_all(tmp_path)
    before = await row_counts(db)
    assert await import_all(tmp_path) == {FIRST: False, SECOND: False}
    assert await row_counts(db) == before


async def test_a_round_whose_note_was_lost_is_not_written_twice(db, import_all, tmp_path):
    stats_files.write_match(tmp_path)
    await import_all(tmp_path)
    before = await row_counts(db)
    await db.execute("DELETE FROM processed_files")
    assert await import_all(tmp_path) == {FIRST: False, SECOND: False}
    assert await row_counts(db) == before


async def test_an_error_half_way_leaves_nothing_of_the_round(db, tmp_path):
    stats_files.write(
        tmp_path, FIRST, stats_files.supply_first().replace("\t900\t", f"\t{2**63}\t")
    )
    name = StatsFileName.parse(FIRST)
    async with db.session() as session:
        with pytest.raises(DatabaseValueError):
            await import_file(session, tmp_path, name, None)
    assert set((await row_counts(db)).values()) == {0}


async def test_rounds_across_midnight_are_one_match_and_one_session(db, import_all, tmp_path):
    stats_files.write(tmp_path, "2026-11-30-235420-supply-round-1.txt", stats_files.supply_first())
    stats_files.write(tmp_path, "2026-12-01-000043-supply-round-2.txt", stats_files.supply_second())
    await import_all(tmp_path)
    rows = await db.fetch_all(
        "SELECT round_date, round_time, match_id, gaming_session_id FROM rounds ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [
        ("2026-11-30", "235420", "2026-11-30-235420-supply", 1),
        ("2026-12-01", "000043", "2026-11-30-235420-supply", 1),
    ]
    assert await db.fetch_value("SELECT MIN(session_start_date) FROM session_teams") == "2026-11-30"


async def test_the_same_map_twice_an_evening_is_two_matches(db, import_all, tmp_path):
    stats_files.write_match(tmp_path)
    stats_files.write(tmp_path, "2026-11-20-213000-supply-round-1.txt", stats_files.supply_first())
    stats_files.write(tmp_path, "2026-11-20-213800-supply-round-2.txt", stats_files.supply_second())
    assert set((await import_all(tmp_path)).values()) == {True}
    matches = await db.fetch_all(
        "SELECT match_id, COUNT(*) FROM rounds GROUP BY match_id ORDER BY match_id"
    )
    assert [tuple(row) for row in matches] == [
        ("2026-11-20-210000-supply", 2),
        ("2026-11-20-213000-supply", 2),
    ]


async def test_an_hour_without_games_ends_a_session(db, import_all, tmp_path):
    for time in ("200000", "205959", "215959"):
        stats_files.write(
            tmp_path, f"2026-11-20-{time}-radar-round-1.txt", stats_files.supply_first("radar")
        )
    await import_all(tmp_path)
    rows = await db.fetch_all("SELECT gaming_session_id FROM rounds ORDER BY round_time")
    assert [row[0] for row in rows] == [1, 1, 2]


async def test_a_time_of_another_form_in_a_row_of_another_bot(db, import_all, tmp_path):
    stats_files.write(tmp_path, FIRST, stats_files.supply_first())
    await import_all(tmp_path)
    await db.execute("UPDATE rounds SET round_time = '21:00:00'")
    stats_files.write(tmp_path, SECOND, stats_files.supply_second())
    assert (await import_all(tmp_path))[SECOND] is True


async def test_a_file_that_comes_late_joins_its_session(db, import_all, tmp_path):
    late, old = tmp_path / "late", tmp_path / "old"
    for time in ("200000", "230000"):
        stats_files.write(
            old, f"2026-11-20-{time}-radar-round-1.txt", stats_files.supply_first("radar")
        )
    stats_files.write(
        late, "2026-11-20-223000-radar-round-1.txt", stats_files.supply_first("radar")
    )
    await import_all(old)
    await import_all(late)
    rows = await db.fetch_all("SELECT gaming_session_id FROM rounds ORDER BY round_time")
    assert [row[0] for row in rows] == [1, 2, 2]


async def test_both_defences_holding_is_a_tie(db, import_all, tmp_path):
    first = stats_files.supply_first().replace("\\12:00\\8:30", "\\8:30\\8:30")
    second = stats_files.supply_second().replace("\\8:30\\6:00", "\\8:30\\8:30")
    stats_files.write(tmp_path, FIRST, first)
    stats_files.write(tmp_path, SECOND, second)
    await import_all(tmp_path)
    rows = await db.fetch_all("SELECT round_outcome, is_tied FROM rounds ORDER BY id")
    assert [tuple(row) for row in rows] == [("fullhold", False), ("fullhold", True)]


async def test_a_second_round_without_its_first_is_refused(db, tmp_path):
    stats_files.write(tmp_path, SECOND, stats_files.supply_second())
    name = StatsFileName.parse(SECOND)
    async with db.session() as session:
        with pytest.raises(MissingFirstRoundError):
            await import_file(session, tmp_path, name, None)
    assert set((await row_counts(db)).values()) == {0}


async def test_a_second_round_does_not_vanish_behind_that_of_the_match_before(
    db, import_all, tmp_path
):
    """The first round's file of a match was lost; the same map had been played shortly before."""
    stats_files.write_match(tmp_path)
    later = "2026-11-20-214400-supply-round-2.txt"
    stats_files.write(tmp_path, later, stats_files.supply_second())
    outcome = await import_all(tmp_path)
    assert "has another second round" in outcome[later]
    assert "first round is missing" in outcome[later]
    assert await processed_files(db) == {FIRST, SECOND}

    between = "2026-11-20-214000-supply-round-1.txt"
    stats_files.write(tmp_path, between, stats_files.supply_first())
    outcome = await import_all(tmp_path)
    assert outcome[later] is True
    assert await db.fetch_value("SELECT COUNT(*) FROM rounds") == 4


async def test_a_file_under_another_rounds_name_is_refused(import_all, tmp_path):
    stats_files.write(tmp_path, FIRST, stats_files.supply_first("radar"))
    assert await import_all(tmp_path) == {FIRST: f"{FIRST} holds round 1 of radar"}


async def test_a_failure_is_noted_and_a_later_success_takes_its_place(db, import_all, tmp_path):
    await note_failure(db, FIRST, "cut off")
    await note_failure(db, FIRST, "still cut off")
    row = await db.fetch_one("SELECT success, error_message, file_hash FROM processed_files")
    assert tuple(row) == (False, "still cut off", None)
    assert await processed_files(db) == set()

    stats_files.write(tmp_path, FIRST, stats_files.supply_first())
    await import_all(tmp_path)
    row = await db.fetch_one("SELECT success, error_message, file_hash FROM processed_files")
    assert tuple(row)[:2] == (True, None)
    assert len(row["file_hash"]) == 64

    await note_failure(db, FIRST, "never over a success")
    assert await processed_files(db) == {FIRST}
