"""Stats files by hand: what the parser reads, refuses and computes."""

from __future__ import annotations

import contextlib
import random
from datetime import datetime

import pytest
from bot.core.stats_parser import (
    FIELDS,
    WEAPONS,
    IncompleteFileError,
    StatsFileError,
    StatsFileName,
    Weapon,
    parse,
    second_round_alone,
    seconds,
    without_colours,
)
from support import stats_files
from support.stats_files import ALPHA, BRAVO, header, line


def player_of(round_, guid):
    return next(player for player in round_.players if player.guid == guid)


# ------------------------------------------------------------------------------------------ names


def test_a_file_name_tells_time_map_and_round():
    name = StatsFileName.parse("2026-11-20-000043-te_escape2-round-2.txt")
    assert name.ended == datetime(2026, 11, 20, 0, 0, 43)
    assert (name.map_name, name.round_number) == ("te_escape2", 2)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20-210000-supply-round-1_ws.txt",
        "2026-11-20-210730-supply-round-2-endstats.txt",
        "2026-11-20-210730-supply-round-3.txt",
        "2026-13-20-210730-supply-round-1.txt",
        "2026-11-20-210730-../../etc-round-1.txt",
        "2026-11-20-210730-supply-round-1.txt.part",
        "2026-11-20-210730-sup\udcffply-round-1.txt",  # a byte that is no UTF-8
        "2026-11-20-210730-sup\nply-round-1.txt",
        ".bash_history",
    ],
)
def test_other_files_are_ignored(text):
    assert StatsFileName.parse(text) is None


def names(*texts):
    return [StatsFileName.parse(f"{text}.txt") for text in texts]


def test_the_partner_is_the_nearest_earlier_first_round_of_the_map():
    second, *others = names(
        "2026-11-20-213000-supply-round-2",
        "2026-11-20-211000-supply-round-1",
        "2026-11-20-212200-supply-round-1",
        "2026-11-20-212500-radar-round-1",
        "2026-11-20-213500-supply-round-1",
    )
    assert second.first_round(others).text == "2026-11-20-212200-supply-round-1.txt"


def test_the_partner_may_be_of_the_day_before():
    second, first = names("2026-12-01-000311-supply-round-2", "2026-11-30-235420-supply-round-1")
    assert second.first_round([first]) == first


def test_a_first_round_of_another_match_is_no_partner():
    second, *others = names(
        "2026-11-20-213000-supply-round-2",
        "2026-11-20-203000-supply-round-1",
        "2026-11-20-213000-supply-round-1",
    )
    assert second.first_round(others) is None


# ---------------------------------------------------------------------------------------- content


def test_reads_the_header_and_a_player():
    round_ = parse(stats_files.supply_first().encode())
    assert (round_.server, round_.config) == ("^1Test ^7server", "legacy3")
    assert (round_.map_name, round_.round_number) == ("supply", 1)
    assert (round_.defender_team, round_.winner_team) == (2, 1)
    assert (round_.time_limit, round_.actual_time) == ("12:00", "8:30")
    assert not round_.is_full_hold

    bravo = player_of(round_, BRAVO)
    assert (bravo.name, bravo.clean_name, bravo.team) == ("^4bravo", "bravo", 2)
    assert bravo.weapons == {
        "WS_MP40": Weapon(hits=10, shots=40, kills=1, deaths=2, headshots=0),
        "WS_THOMPSON": Weapon(hits=20, shots=80, kills=2, deaths=4, headshots=1),
    }


def test_each_field_is_at_its_place():
    values = dict(enumerate(range(100, 138)))
    text = header("supply", 1, "10:00", "10:00") + line(ALPHA, "a", 1, "0", values)
    assert parse(text.encode()).players[0].fields == dict(zip(FIELDS, values.values(), strict=True))


def test_the_highest_and_lowest_weapon_bits():
    mask = 1 << 27 | 1
    text = header("supply", 1, "10:00", "1:00") + line(ALPHA, "a", 1, f"{mask} 1 2 3 4 5 6 7 8 9 0")
    assert parse(text.encode()).players[0].weapons == {
        "WS_KNIFE": Weapon(1, 2, 3, 4, 5),
        "WS_SYRINGE": Weapon(6, 7, 8, 9, 0),
    }
    assert len(WEAPONS) == 28


def test_computes_what_the_database_stores():
    columns = player_of(parse(stats_files.supply_first().encode()), ALPHA).columns()
    assert (columns["kills"], columns["deaths"], columns["headshots"]) == (6, 3, 5)
    assert columns["time_played_seconds"] == 510  # 8.5 minutes
    assert columns["dpm"] == 900 * 60 / 510
    assert columns["kd_ratio"] == 2.0
    assert columns["efficiency"] == 100 * 6 / 9
    assert columns["accuracy"] == 40.0
    assert columns["time_dead_ratio"] == pytest.approx(20.0)  # 1.7 of 8.5 minutes


def test_nothing_is_divided_by_zero():
    text = header("supply", 1, "10:00", "1:00") + line(ALPHA, "a", 1, "16 0 0 3 0 0")
    columns = parse(text.encode()).players[0].columns()
    assert columns["kd_ratio"] == 3.0
    assert (columns["dpm"], columns["accuracy"], columns["time_dead_ratio"]) == (0.0, 0.0, 0.0)


def test_explosives_hit_more_often_than_they_are_fired():
    assert Weapon(hits=7, shots=2, kills=1, deaths=0, headshots=0).accuracy == 350.0


NAMES = [
    ('^6"The ^7Wall^6"', '"The Wall"'),
    ("^5O'Neill^7 ", "O'Neill "),
    ("/dev/null..", "/dev/null.."),
    ("Müller ^dØ", "Müller Ø"),
    ("^^5caret", "5caret"),
    ("back\\slash", "back\\slash"),
    ("^1", ""),
    ("カミカゼ", "カミカゼ"),
    ("last^", "last^"),
    ("two\u2028lines\x85", "two\u2028lines\x85"),
]


@pytest.mark.parametrize(("name", "clean"), NAMES)
def test_names_keep_every_letter_and_lose_their_colours(name, clean):
    text = header("supply", 1, "10:00", "1:00") + line(ALPHA, name, 1)
    player = parse(text.encode()).players[0]
    assert (player.name, player.clean_name) == (name, clean)
    assert without_colours(name) == clean


def test_stray_bytes_and_nul_become_replacement_characters():
    text = header("supply", 1, "10:00", "1:00") + line(ALPHA, "J@rg#", 1)
    content = text.encode().replace(b"@", b"\xf6").replace(b"#", b"\0")
    assert parse(content).players[0].name == "J\N{REPLACEMENT CHARACTER}rg\N{REPLACEMENT CHARACTER}"


def test_a_number_that_is_none_counts_as_zero():
    text = stats_files.supply_first().replace("\t1.7\t", "\tnan\t")
    assert player_of(parse(text.encode()), ALPHA).fields["time_dead_minutes"] == 0.0


def test_a_header_with_and_without_play_time():
    text = header("supply", 1, "10:00", "1:00") + line(ALPHA, "a", 1)
    short = text.replace("\\1:00\\0\n", "\\1:00\n")
    assert short != text
    assert parse(short.encode()) == parse(text.encode())


def test_the_play_time_stands_in_for_an_empty_actual_time():
    text = header("supply", 1, "10:00", "0:00") + line(ALPHA, "a", 1)
    assert parse(text.replace("\\0:00\\0\n", "\\0:00\\231.45\n").encode()).actual_time == "3:51"


def test_every_beginning_of_a_file_is_refused_as_unfinished_or_has_all_it_shows():
    content = stats_files.supply_first().encode()
    for length in range(len(content)):
        try:
            round_ = parse(content[:length])
        except StatsFileError:
            continue
        # Cut exactly between two players: only the watcher's settle time can tell.
        assert content[:length].endswith(b"\n")
        assert [player.guid for player in round_.players] == [ALPHA]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (b"", "no end"),
        (header("supply", 1, "10:00", "1:00").encode(), "no players"),
        (b"garbage\nmore\n", "header has 1 parts"),
        (header("supply", 3, "10:00", "1:00").encode() + b"x\n", "round number is '3'"),
        (header("supply", 1, "10m", "1:00").encode() + b"x\n", "'10m' is not a time"),
        (header("supply", 1, "10:00", "1:00").encode() + b"x\n", "not a player's line: 'x'"),
        (
            (header("supply", 1, "10:00", "1:00") + line(ALPHA, "a", 1, "16 1 2 3")).encode(),
            "3 weapon numbers for 1 weapons",
        ),
        (
            (header("supply", 1, "10:00", "1:00") + line(ALPHA, "a", 1, f"{1 << 28}")).encode(),
            "unknown weapon",
        ),
        (
            (header("supply", 1, "10:00", "1:00") + line(ALPHA, "a", 1)).encode()[:-9] + b"\n",
            "fields, not 38",
        ),
        (
            (header("supply", 1, "10:00", "1:00") + line(ALPHA, "a", 1)).encode()[:-2] + b"x\n",
            "invalid literal",
        ),
        (
            (header("supply", 1, "10:00", "0:00")[:-2] + "inf\n" + line(ALPHA, "a", 1)).encode(),
            "the header: cannot convert",
        ),
        (
            (
                header("supply", 1, "10:00", "1:00") + line(ALPHA, "a", 1, f"1 1 1 1 1 {10**400}")
            ).encode(),
            "beyond all bounds",
        ),
        (
            (header("supply", 1, "10:00", "1:00") + line(ALPHA, "a", 1, "0", {22: 1e300})).encode(),
            "beyond all bounds",
        ),
    ],
)
def test_says_what_is_wrong_with_a_file(broken, says):
    with pytest.raises(StatsFileError, match=says):
        parse(broken)


def test_no_damage_to_a_file_is_a_bug_of_ours():
    """Whatever stands in a file, it is a round or a StatsFileError; all else would end the bot."""
    files = [text.encode() for text in (stats_files.supply_first(), stats_files.supply_second())]
    pieces = (b"inf", b"nan", b"1e308", b"-1", b"9" * 400, b"\xff", b"\0", b"\\", b"\t", b"\n", b"",
              b"0:00", "²".encode(), "١".encode())  # fmt: skip
    chance = random.Random(5)  # noqa: S311
    for _ in range(4000):
        content = bytearray(chance.choice(files))
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(content))
            content[start : start + chance.randint(0, 4)] = chance.choice(pieces)
        with contextlib.suppress(StatsFileError):
            round_ = parse(bytes(content))
            assert round_.is_full_hold in (True, False)
            for player in second_round_alone(round_, parse(files[0])).players:
                assert player.columns()


def test_a_missing_end_is_told_from_nonsense():
    with pytest.raises(IncompleteFileError):
        parse(stats_files.supply_first().encode()[:-1])


def test_seconds():
    assert (seconds("0:05"), seconds("12:00"), seconds("100:59")) == (5, 720, 6059)


# --------------------------------------------------------------------------------------- round two


def second_alone():
    return second_round_alone(
        parse(stats_files.supply_second().encode()), parse(stats_files.supply_first().encode())
    )


def test_the_second_round_loses_what_the_first_had():
    alpha = player_of(second_alone(), ALPHA)
    # The MP40 of round 1 was not used again: no row for it.
    assert alpha.weapons == {"WS_THOMPSON": Weapon(30, 90, 4, 5, 2)}
    assert player_of(second_alone(), BRAVO).weapons == {
        "WS_MP40": Weapon(40, 120, 5, 0, 2),
        "WS_THOMPSON": Weapon(0, 0, 0, 4, 0),
    }
    columns = alpha.columns()
    assert (columns["kills"], columns["deaths"], columns["headshots"]) == (4, 5, 2)
    assert (columns["damage_given"], columns["damage_received"]) == (600, 700)
    assert columns["bullets_fired"] == 90
    assert columns["time_played_minutes"] == 6.0
    assert columns["time_played_seconds"] == 360
    assert columns["dpm"] == 100.0
    assert columns["kd_ratio"] == 0.8


def test_fields_that_start_again_are_taken_as_they_are():
    columns = player_of(second_alone(), ALPHA).columns()
    assert columns["xp"] == 22
    assert columns["time_dead_minutes"] == 0.9
    assert columns["time_dead_ratio"] == pytest.approx(15.0)  # 0.9 of 6.0 minutes


def test_a_player_who_came_for_the_second_round_stays_as_he_is():
    late = line("CCCCCCCC", "late", 1, "16 5 20 2 1 0", {0: 200, 20: 20, 22: 6.0})
    second = parse((stats_files.supply_second() + late).encode())
    alone = second_round_alone(second, parse(stats_files.supply_first().encode()))
    assert player_of(alone, "CCCCCCCC") == player_of(second, "CCCCCCCC")
    assert len(alone.players) == 3


def test_a_player_whose_counters_began_again_stays_as_he_is():
    text = header("supply", 2, "8:30", "6:00") + line(
        ALPHA, "^1alpha", 2, "32 3 10 1 1 0", {0: 120, 20: 10, 22: 2.0}
    )
    alone = second_round_alone(parse(text.encode()), parse(stats_files.supply_first().encode()))
    assert player_of(alone, ALPHA).weapons == {"WS_THOMPSON": Weapon(3, 10, 1, 1, 0)}
    assert player_of(alone, ALPHA).fields["damage_given"] == 120
