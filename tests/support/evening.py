"""An evening whose teams and stopwatch scores were worked out by hand.

Four players. Anna and Ben are one team, Cleo and Dan the other; Emil stands in for Dan later.

map      round 1 (Axis)      result            round 2 (sides changed)    who wins
radar    Anna, Ben attack    fall after 6:00   others hold: 6:00 / 6:00   Anna and Ben
supply   Cleo, Dan attack    full hold 12:00   others do it in 11:59      Anna and Ben
frost    Cleo, Emil attack   full hold 10:00   others are held as well    nobody
goldrush Anna, Ben attack    fall after 9:00   others need 8:59           Cleo and Emil
"""

from __future__ import annotations

from pathlib import Path

from support import stats_files
from support.stats_files import header, line

A, B, C, D, E = ("Anna", "Ben", "Cleo", "Dan", "Emil")
AXIS, ALLIES = 1, 2
#        map, end of round 1 and 2, limit, actual 1, actual 2, defender, Axis in round 1, Allies
EVENING = [
    ("radar", "200600", "201300", "12:00", "6:00", "6:00", ALLIES, (A, B), (C, D)),
    ("supply", "202600", "203900", "12:00", "12:00", "11:59", AXIS, (A, B), (C, D)),
    ("frost", "205000", "210100", "10:00", "10:00", "10:00", ALLIES, (C, E), (A, B)),
    ("goldrush", "211100", "212100", "12:00", "9:00", "8:59", AXIS, (E, C), (B, A)),
]


def write_evening(directory: Path) -> None:
    for map_name, first, second, limit, one, two, defender, axis, allies in EVENING:
        for number, time, allowed, taken, sides in (
            (1, first, limit, one, (axis, allies)),
            (2, second, one, two, (allies, axis)),
        ):
            text = header(map_name, number, allowed, taken, defender=defender) + "".join(
                # In the second round everybody has done twice what he had done in the first.
                line(
                    f"{name:X<8}", f"^3{name}", team, f"16 {number} {4 * number} {number} 0 0",
                    {0: 100 * number, 20: 4 * number, 22: 5.0 * number},
                )
                for team, side in enumerate(sides, 1)
                for name in side
            )  # fmt: skip
            stats_files.write(directory, f"2026-11-20-{time}-{map_name}-round-{number}.txt", text)
