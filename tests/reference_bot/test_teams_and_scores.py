"""Teams and stopwatch scores of the evening in support/evening.py, which was worked out by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from bot.core.session_report import last_session_report
from bot.core.team_history import matches_of_session, recognise_teams
from support import stats_files
from support.evening import A, B, C, D, E, write_evening
from support.stats_files import header, line
from tools.stopwatch_scoring import attackers_win, last_session, score_session, total


@pytest.fixture
async def evening(db, import_all, tmp_path):
    write_evening(tmp_path / "files")
    outcome = await import_all(tmp_path / "files")
    assert set(outcome.values()) == {True}
    return db


async def test_teams_keep_their_name_over_sides_maps_and_substitutes(evening):
    matches = await matches_of_session(evening, 1)
    assert [match.map_name for match in matches] == ["radar", "supply", "frost", "goldrush"]
    teams = [tuple(set(team.values()) for team in match.teams) for match in matches]
    assert teams == [({A, B}, {C, D}), ({A, B}, {C, D}), ({A, B}, {C, E}), ({A, B}, {C, E})]
    assert [match.began_as_axis for match in matches] == [0, 0, 1, 1]


async def test_the_teams_are_in_the_database_as_json(evening):
    rows = await evening.fetch_all(
        "SELECT session_start_date, team_name, player_guids, player_names FROM session_teams "
        "WHERE map_name = ? ORDER BY team_name",
        "goldrush",
    )
    assert [(row["session_start_date"], row["team_name"]) for row in rows] == [
        ("2026-11-20", "Team A"),
        ("2026-11-20", "Team B"),
    ]
    assert sorted(json.loads(rows[0]["player_guids"])) == ["AnnaXXXX", "BenXXXXX"]
    assert sorted(json.loads(rows[1]["player_names"])) == [C, E]
    assert await evening.fetch_value("SELECT COUNT(*) FROM session_teams") == 8


async def test_the_scores_of_the_evening(evening):
    assert await last_session(evening) == 1
    scores = await score_session(evening, 1)
    assert [(score.map_name, score.points) for score in scores] == [
        ("radar", (2, 0)),
        ("supply", (2, 0)),
        ("frost", (1, 1)),
        ("goldrush", (0, 2)),
    ]
    assert total(scores) == (5, 3)


async def test_a_match_that_is_still_going_on_gives_no_points(db, import_all, tmp_path):
    write_evening(tmp_path / "files")
    for path in (tmp_path / "files").glob("*goldrush-round-2*"):
        path.unlink()
    await import_all(tmp_path / "files")
    last = (await score_session(db, 1))[-1]
    assert (last.map_name, last.second_time, last.points) == ("goldrush", None, (0, 0))


async def test_a_match_imported_late_renames_the_teams_after_it(evening, import_all, tmp_path):
    before = await matches_of_session(evening, 1)
    assert set(before[0].teams[0].values()) == {A, B}
    # The evening began with a match in which the others were Axis.
    first = header("oasis", 1, "9:00", "9:00") + "".join(
        line(f"{name:X<8}", name, team, "0", {22: 9.0})
        for name, team in ((C, 1), (D, 1), (A, 2), (B, 2))
    )
    stats_files.write(tmp_path / "late", "2026-11-20-195500-oasis-round-1.txt", first)
    await import_all(tmp_path / "late")
    row = await evening.fetch_one(
        "SELECT player_names FROM session_teams WHERE map_name = ? AND team_name = ?",
        *("goldrush", "Team A"),
    )
    assert sorted(json.loads(row["player_names"])) == [C, E]


async def test_the_same_map_twice_in_a_session(evening, import_all, tmp_path):
    """Answers tell both matches; ``session_teams`` has room for one, and holds the later."""
    for number, time, axis, allies in (
        (1, "213100", (C, D), (A, E)),
        (2, "213900", (A, E), (C, D)),
    ):
        text = header("radar", number, "7:00", "7:00") + "".join(
            line(f"{name:X<8}", name, team, "0", {22: 7.0 * number})
            for team, side in enumerate((axis, allies), 1)
            for name in side
        )
        stats_files.write(tmp_path / "again", f"2026-11-20-{time}-radar-round-{number}.txt", text)
    assert set((await import_all(tmp_path / "again")).values()) == {True}
    matches = await matches_of_session(evening, 1)
    played = [
        [set(team.values()) for team in match.teams]
        for match in matches
        if match.map_name == "radar"
    ]
    assert played == [[{A, B}, {C, D}], [{A, E}, {C, D}]]
    scores = [score for score in await score_session(evening, 1) if score.map_name == "radar"]
    assert [score.points for score in scores] == [(2, 0), (1, 1)]
    rows = await evening.fetch_all(
        "SELECT player_names FROM session_teams WHERE map_name = ? ORDER BY team_name", "radar"
    )
    assert [set(json.loads(row["player_names"])) for row in rows] == [{A, E}, {C, D}]


def test_one_who_changes_teams_counts_where_he_was_last_and_spectators_nowhere():
    rows = [
        {"match_id": "m", "map_name": "x", "round_number": number, "player_guid": guid,
         "clean_name": guid.lower(), "team": team}
        for number, guid, team in ((1, "P", 1), (1, "Q", 2), (1, "R", 1), (1, "S", 3),
                                   (2, "P", 2), (2, "Q", 1), (2, "R", 1))
    ]  # fmt: skip
    (match,) = recognise_teams(rows)
    assert match.teams == ({"P": "p"}, {"Q": "q", "R": "r"})


@pytest.mark.parametrize(
    ("first", "second", "round_"),
    [
        (("10:00", "7:00"), ("7:00", "6:59"), 2),
        (("10:00", "7:00"), ("7:00", "7:00"), 1),
        (("10:00", "10:00"), ("10:00", "9:00"), 2),
        (("10:00", "10:00"), ("10:00", "10:00"), None),
    ],
)
def test_who_wins_a_match(first, second, round_):
    rounds = [{"time_limit": limit, "actual_time": actual} for limit, actual in (first, second)]
    assert attackers_win(*rounds) == round_


async def test_the_report_of_the_last_session(evening):
    report = await last_session_report(evening)
    assert (report.date, report.rounds, len(report.scores)) == ("2026-11-20", 8, 4)
    assert {player.name for player in report.players} == {A, B, C, D, E}
    anna = next(player for player in report.players if player.name == A)
    # 8 rounds of 5 minutes with 100 damage and one kill each.
    assert (anna.rounds, anna.kills, anna.deaths, anna.damage, anna.dpm) == (8, 8, 0, 800, 20.0)


async def test_no_report_without_rounds(db):
    assert await last_session_report(db) is None


@pytest.mark.usefixtures("evening")
async def test_the_command_line(database_environment):
    command = [sys.executable, "tools/stopwatch_scoring.py"]
    checkout = Path(__file__).resolve().parents[2] / "reference_bot"
    environment = {"PATH": os.environ["PATH"]} | database_environment

    def run(*options):
        return subprocess.run(
            [*command, *options], cwd=checkout, env=environment, text=True, capture_output=True
        )

    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = [text.split() for text in done.stdout.splitlines()]
    assert lines[1] == ["radar", "6:00", "/", "6:00", "2", "0"]
    assert lines[-1] == ["total", "5", "3"]
    assert run("--session", "99").stdout == "no rounds of that session\n"
