"""The generator: same arguments, same bytes; the game server's format; numbers that agree."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from bot.core.stats_parser import StatsFileName, parse, second_round_alone, seconds

SCRIPT = Path(__file__).resolve().parents[2] / "demo" / "sample_world" / "generate_stats.py"


def generate(directory: Path, *options: str) -> str:
    command = [sys.executable, str(SCRIPT), "--out", str(directory), *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Three weeks until a fixed day."""
    directory = tmp_path_factory.mktemp("world")
    generate(directory, "--weeks", "3", "--seed", "7", "--until", "2026-11-22")
    return directory


@pytest.fixture(scope="module")
def rounds(world):
    """Every round by the name of its file."""
    names = (StatsFileName.parse(path.name) for path in world.iterdir())
    return {name: parse((world / name.text).read_bytes()) for name in sorted(n for n in names if n)}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(world, tmp_path):
    arguments = ("--weeks", "3", "--until", "2026-11-22")
    generate(tmp_path / "same", *arguments, "--seed", "7")
    generate(tmp_path / "other", *arguments, "--seed", "8")
    assert contents(tmp_path / "same") == contents(world)
    assert contents(tmp_path / "other").keys() != contents(world).keys()


def test_size_and_place_in_time(rounds):
    assert len(rounds) == 3 * 4 * 20
    first, last = min(rounds), max(rounds)
    assert first.ended >= datetime(2026, 11, 1)
    assert last.ended < datetime(2026, 11, 22, 6)  # the last evening may end after midnight


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--weeks", "1", "--rounds-per-day", "4"), 16),
        (("--weeks", "2", "--evenings-per-week", "7", "--rounds-per-day", "2"), 28),
        (("--weeks", "1", "--players", "2", "--rounds-per-day", "2"), 8),
        (("--weeks", "1", "--players", "100", "--rounds-per-day", "40"), 160),
    ],
)
def test_sizes_are_options(tmp_path, options, count):
    output = generate(tmp_path, *options)
    assert output.startswith(f"{count} rounds, ")
    names = [StatsFileName.parse(path.name) for path in tmp_path.iterdir()]
    assert sum(name is not None for name in names) == count
    assert max(name.ended for name in names if name) < datetime.now()


def test_files_are_dated_when_the_round_ended(world):
    for path in world.iterdir():
        ended = datetime.strptime(path.name[:17], "%Y-%m-%d-%H%M%S")
        assert datetime.fromtimestamp(path.stat().st_mtime) == ended


def test_other_files_lie_beside_the_rounds(world):
    names = [path.name for path in world.iterdir()]
    assert sum(name.endswith("_ws.txt") for name in names) > 20
    assert sum(name.endswith("-endstats.txt") for name in names) > 20
    assert max(path.stat().st_size for path in world.iterdir()) < 5000


def test_every_second_round_has_its_partner_and_its_time_limit(rounds):
    for name, second in rounds.items():
        if name.round_number == 2:
            partner = name.first_round(rounds)
            assert second.time_limit == rounds[partner].actual_time
            assert seconds(second.actual_time) <= seconds(second.time_limit)
            assert timedelta(minutes=2) < name.ended - partner.ended < timedelta(minutes=20)
    assert sum(name.round_number == 1 for name in rounds) == len(rounds) / 2


def test_winners_follow_from_the_times(rounds):
    for round_ in rounds.values():
        assert (round_.winner_team == round_.defender_team) == round_.is_full_hold
    assert {round_.is_full_hold for round_ in rounds.values()} == {True, False}


def test_the_past_has_what_a_migration_must_survive(world, rounds):
    days = defaultdict(list)
    for name in rounds:
        if name.round_number == 1:
            days[name.ended.date()].append(name.map_name)
    assert any(len(maps) > len(set(maps)) for maps in days.values()), "no map twice a day"
    assert any(
        name.first_round(rounds).ended.date() != name.ended.date()
        for name in rounds
        if name.round_number == 2
    ), "no match across midnight"

    names = {player.name for round_ in rounds.values() for player in round_.players}
    text = "".join(names)
    assert len(names) > 30
    for feature in ("^", "'", '"', "/", "Ž", "カ", "\N{REPLACEMENT CHARACTER}", "%s", ";"):
        assert feature in text, feature
    assert any(name.endswith(".") for name in names)
    assert any(name.endswith(" ") for name in names)
    assert any(b"\xf6" in content for content in contents(world).values())
    assert any(player.team == 3 for round_ in rounds.values() for player in round_.players)


def test_six_to_twelve_play(rounds):
    sizes = {sum(player.team != 3 for player in round_.players) for round_ in rounds.values()}
    assert sizes <= set(range(6, 13))
    assert len(sizes) > 2


def test_the_numbers_agree_with_one_another(rounds):
    for name, round_ in rounds.items():
        if name.round_number == 2:
            round_ = second_round_alone(round_, rounds[name.first_round(rounds)])
        columns = [player.columns() for player in round_.players]

        def total(field, columns=columns):
            return sum(column[field] for column in columns)

        assert total("deaths") == total("kills") + total("team_kills")
        assert total("damage_given") == total("damage_received")
        assert total("team_damage_given") == total("team_damage_received")
        assert total("times_revived") == total("revives_given")
        for player, column in zip(round_.players, columns, strict=True):
            assert min(column.values()) >= 0
            assert column["headshot_kills"] <= column["kills"]
            assert column["time_played_seconds"] <= seconds(round_.actual_time) + 6
            assert column["time_dead_minutes"] <= column["time_played_minutes"]
            for weapon in player.weapons.values():
                assert weapon.headshots <= weapon.hits


def test_players_who_change_between_the_rounds(rounds):
    pairs = [
        ({p.guid for p in rounds[name.first_round(rounds)].players}, {p.guid for p in r.players})
        for name, r in rounds.items()
        if name.round_number == 2
    ]
    assert any(second - first for first, second in pairs)
    assert any(first - second for first, second in pairs)


# ------------------------------------------------------------------------------------- one match


def test_a_new_match_ends_when_it_is_told(tmp_path):
    output = generate(tmp_path, "--new-match", "--at", "2026-11-22T21:40:00", "--map", "supply")
    first, second = (StatsFileName.parse(name) for name in output.splitlines())
    assert second.text == "2026-11-22-214000-supply-round-2.txt"
    assert second.first_round([first]) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == [first.text, second.text]
    alone = second_round_alone(
        parse((tmp_path / second.text).read_bytes()), parse((tmp_path / first.text).read_bytes())
    )
    assert len(alone.players) == 8


def test_a_new_match_ends_now_among_the_same_people(tmp_path, rounds):
    before = datetime.now().replace(microsecond=0)
    output = generate(tmp_path, "--new-match")
    second = StatsFileName.parse(output.splitlines()[1])
    assert before <= second.ended <= datetime.now()
    known = {player.guid for round_ in rounds.values() for player in round_.players}
    assert {player.guid for player in parse((tmp_path / second.text).read_bytes()).players} <= known


def test_two_new_matches_differ(tmp_path):
    for minute in (10, 40):
        generate(tmp_path, "--new-match", "--at", f"2026-11-22T21:{minute}:00", "--map", "radar")
    files = [content for name, content in sorted(contents(tmp_path).items()) if "round-2" in name]
    assert len(files) == 2
    assert files[0] != files[1]


def test_matches_of_one_evening_are_played_on_different_maps(tmp_path):
    ended = datetime(2026, 11, 22, 21, 40)
    maps = []
    for minute in range(11):
        output = generate(
            tmp_path, "--new-match", "--at", f"{ended + timedelta(minutes=minute):%Y-%m-%dT%H:%M}"
        )
        maps.append(StatsFileName.parse(output.splitlines()[0]).map_name)
    assert len(set(maps[:10])) == 10
    assert maps[10] == maps[0], "none is left: the one that was played longest ago"


@pytest.mark.parametrize(
    "options", [("--weeks", "0"), ("--players", "1"), ("--until", "someday"), ("--map", "nowhere")]
)
def test_wrong_options_are_refused(tmp_path, options):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "out"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error:" in done.stderr
    assert not (tmp_path / "out").exists()


def test_needs_nothing_but_the_standard_library(tmp_path):
    command = [sys.executable, "-I", "-S", str(SCRIPT), "--out", str(tmp_path), "--weeks", "1"]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": os.environ["PATH"]})
