"""Reading the stats files of an ET:Legacy game server.

A file describes one round: a header line, then a line for each player. The second file of a match
adds up both rounds for most counters; :func:`second_round_alone` takes the first round off again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

AXIS, ALLIES, SPECTATOR = 1, 2, 3

WEAPONS = (
    "KNIFE", "KNIFE_KBAR", "LUGER", "COLT", "MP40", "THOMPSON", "STEN", "FG42", "PANZERFAUST",
    "BAZOOKA", "FLAMETHROWER", "GRENADE", "MORTAR", "MORTAR2", "DYNAMITE", "AIRSTRIKE",
    "ARTILLERY", "SATCHEL", "GRENADELAUNCHER", "LANDMINE", "MG42", "BROWNING", "CARBINE", "KAR98",
    "GARAND", "K43", "MP34", "SYRINGE",
)  # by bit of the weapon mask  # fmt: skip

FIELDS = (
    "damage_given", "damage_received", "team_damage_given", "team_damage_received", "gibs",
    "self_kills", "team_kills", "team_gibs", "time_played_percent", "xp", "killing_spree",
    "death_spree", "kill_assists", "kill_steals", "headshot_kills", "objectives_stolen",
    "objectives_returned", "dynamites_planted", "dynamites_defused", "times_revived",
    "bullets_fired", "dpm", "time_played_minutes", "tank_meatshield", "time_dead_ratio",
    "time_dead_minutes", "kd_ratio", "useful_kills", "denied_playtime", "double_kills",
    "triple_kills", "quad_kills", "multi_kills", "mega_kills", "useless_kills", "full_self_kills",
    "repairs", "revives_given",
)  # by position behind the first TAB of a player's line  # fmt: skip
FRACTIONS = frozenset({
    "time_played_percent", "dpm", "time_played_minutes", "tank_meatshield", "time_dead_ratio",
    "time_dead_minutes", "kd_ratio",
})  # fmt: skip
CUMULATIVE = (*FIELDS[0:8], "bullets_fired", "time_played_minutes")  # over both rounds of a match

MOST_BYTES = 1 << 20  # of a file; a round of 64 players has some 20,000
LARGEST = 2**63  # no database takes more, and arithmetic with fractions works up to there

# Longest time between the ends of a match's two rounds: a full second round and a long break.
PARTNER_WINDOW = timedelta(minutes=45)

# A map's name has no control characters, and no bytes that are no UTF-8 (as Python shows them):
# neither database would take the name.
_FILE_NAME = re.compile(
    r"(\d{4}-\d\d-\d\d-\d{6})-([^/\\\x00-\x1f\ud800-\udfff]+)-round-([12])\.txt", re.ASCII
)
_PLAYER = re.compile(r"([^\\]+)\\(.*)\\(\d+)\\(\d)\\(\d+(?: \d+)*) ?\t(.*)")
_TIME = re.compile(r"(\d+):([0-5]\d)")


class StatsFileError(Exception):
    """The file cannot be read as a round; the message says where and why."""


class IncompleteFileError(StatsFileError):
    """The file ends too early: the game server may still be writing it."""


class MissingFirstRoundError(StatsFileError):
    """The file of a second round, whose numbers mean nothing without the first round's file."""


@dataclass(frozen=True, order=True)
class StatsFileName:
    """What the name of a stats file says; sorts by time."""

    ended: datetime  # local time of the game server
    round_number: int
    map_name: str
    text: str

    @classmethod
    def parse(cls, text: str) -> StatsFileName | None:
        """Return None for anything but a round's file (``_ws``, ``-endstats``, others)."""
        match = _FILE_NAME.fullmatch(text)
        if match is None:
            return None
        try:
            ended = datetime.strptime(match[1], "%Y-%m-%d-%H%M%S")
        except ValueError:
            return None
        return cls(ended, int(match[3]), match[2], text)

    @property
    def match_id(self) -> str:
        """Name of the match whose first round this file is, e.g. ``2026-11-02-213015-supply``."""
        return f"{self.ended:%Y-%m-%d-%H%M%S}-{self.map_name}"

    def first_round(self, others: Iterable[StatsFileName]) -> StatsFileName | None:
        """Find the partner of a second round: the nearest earlier first round of the same map."""
        return max(
            (
                other
                for other in others
                if other.round_number == 1
                and other.map_name == self.map_name
                and timedelta() < self.ended - other.ended <= PARTNER_WINDOW
            ),
            default=None,
        )

    def second_rounds(self, others: Collection[StatsFileName]) -> list[StatsFileName]:
        """Find the second rounds whose partner this first round is; usually one or none."""
        return [
            other
            for other in others
            if other.round_number == 2
            and other.map_name == self.map_name
            and timedelta() < other.ended - self.ended <= PARTNER_WINDOW
            and other.first_round(others) == self
        ]


@dataclass(frozen=True)
class Weapon:
    """A player's record with one weapon; ``deaths`` are those suffered from it."""

    hits: int
    shots: int
    kills: int
    deaths: int
    headshots: int

    def numbers(self) -> tuple[int, ...]:
        """Return the five counters in the order of the file."""
        return (self.hits, self.shots, self.kills, self.deaths, self.headshots)

    @property
    def accuracy(self) -> float:
        """Hits per shot in percent; explosives exceed 100."""
        return 100.0 * self.hits / self.shots if self.shots else 0.0


@dataclass(frozen=True)
class Player:
    """One player's line."""

    guid: str
    name: str  # as in the game, with colour codes
    team: int
    weapons: dict[str, Weapon]  # by stored name, WS_MP40
    fields: dict[str, int | float]  # by the names in FIELDS

    @property
    def clean_name(self) -> str:
        """The name without colour codes."""
        return without_colours(self.name)

    def columns(self) -> dict[str, int | float]:
        """Return the player's numbers under the names of the database's columns."""
        kills, deaths, headshots, hits, shots = (
            sum(getattr(weapon, name) for weapon in self.weapons.values())
            for name in ("kills", "deaths", "headshots", "hits", "shots")
        )
        minutes = self.fields["time_played_minutes"]
        played = round(minutes * 60)
        return self.fields | {
            "kills": kills,
            "deaths": deaths,
            "headshots": headshots,
            "time_played_seconds": played,
            "time_played_percent": round(self.fields["time_played_percent"]),
            "dpm": self.fields["damage_given"] * 60 / played if played else 0.0,
            "kd_ratio": kills / deaths if deaths else float(kills),
            "efficiency": 100.0 * kills / (kills + deaths) if kills + deaths else 0.0,
            "accuracy": 100.0 * hits / shots if shots else 0.0,
            "time_dead_ratio": 100.0 * self.fields["time_dead_minutes"] / minutes
            if minutes
            else 0.0,
        }


@dataclass(frozen=True)
class Round:
    """One stats file."""

    server: str
    map_name: str
    config: str
    round_number: int
    defender_team: int
    winner_team: int
    time_limit: str  # M:SS
    actual_time: str  # M:SS
    players: tuple[Player, ...]

    @property
    def is_full_hold(self) -> bool:
        """Whether the defenders held until the time was up."""
        return seconds(self.actual_time) >= seconds(self.time_limit)


def without_colours(name: str) -> str:
    """Remove ET's colour codes: a caret and the one character after it."""
    return re.sub(r"\^.", "", name)


def is_time(text: str | None) -> bool:
    """Whether a text is a time of the form ``M:SS``."""
    return text is not None and _TIME.fullmatch(text.strip()) is not None


def seconds(minutes_and_seconds: str) -> int:
    """Turn ``M:SS`` into seconds.

    Raises:
        StatsFileError: it has another form.

    """
    match = _TIME.fullmatch(minutes_and_seconds.strip())
    if match is None:
        raise StatsFileError(f"{minutes_and_seconds!r} is not a time of the form M:SS")
    return int(match[1]) * 60 + int(match[2])


def read_stats(file: Path) -> bytes:
    """Return the contents of a file; one that is no round's by its size is not taken into memory.

    Raises:
        StatsFileError: it is too long.
        OSError: it cannot be read.

    """
    with file.open("rb") as opened:
        content = opened.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise StatsFileError(f"{file.name} has more than {MOST_BYTES} bytes")
    return content


def parse(content: bytes) -> Round:
    """Read the bytes of a stats file.

    Bytes that are no UTF-8 and NUL (which PostgreSQL cannot store) become U+FFFD.

    Raises:
        IncompleteFileError: the end is missing.
        StatsFileError: it is no stats file.

    """
    text = content.decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    if not text.endswith("\n"):
        raise IncompleteFileError("the last line has no end")
    header, *lines = [line for line in text.replace("\r\n", "\n").split("\n") if line]
    parts = header.split("\\")
    if len(parts) not in (8, 9):
        raise StatsFileError(f"the header has {len(parts)} parts, not 8 or 9")
    if not lines:
        raise IncompleteFileError("there are no players")
    server, map_name, config, number, defender, winner, limit, actual = parts[:8]
    if number not in ("1", "2"):
        raise StatsFileError(f"the header's round number is {number!r}, not 1 or 2")
    try:
        if seconds(actual) == 0 and len(parts) == 9:  # a newer script's only true time
            played = round(float(parts[8]))
            actual = f"{played // 60}:{played % 60:02d}"
        round_ = Round(
            server=server,
            map_name=map_name,
            config=config,
            round_number=int(number),
            defender_team=int(defender),
            winner_team=int(winner),
            time_limit=_checked_time(limit),
            actual_time=_checked_time(actual),
            players=(),
        )
    except (ValueError, OverflowError) as error:  # the latter from an endless time
        raise StatsFileError(f"the header: {error}") from None
    # A player who came back under the same GUID: the later line holds the present numbers.
    players = {player.guid: player for player in map(_player, lines)}
    return replace(round_, players=tuple(players.values()))


def _checked_time(text: str) -> str:
    seconds(text)
    return text.strip()


def _player(line: str) -> Player:
    match = _PLAYER.fullmatch(line)
    if match is None:
        raise StatsFileError(f"not a player's line: {line[:60]!r}")
    guid, name, _, team, weapons, fields = match.groups()
    values = fields.split("\t")
    if len(values) < len(FIELDS):
        raise StatsFileError(f"{guid}: {len(values)} fields, not {len(FIELDS)}")
    try:
        player = Player(
            guid=guid,
            name=name,
            team=int(team),
            weapons=_weapons(guid, [int(number) for number in weapons.split()]),
            fields={
                field: _fraction(value) if field in FRACTIONS else int(value)
                for field, value in zip(FIELDS, values, strict=False)
            },
        )
    except ValueError as error:
        raise StatsFileError(f"{guid}: {error}") from None
    numbers = [*player.fields.values()]
    for weapon in player.weapons.values():
        numbers += weapon.numbers()
    if max(map(abs, numbers)) > LARGEST:
        raise StatsFileError(f"{guid}: a number is beyond all bounds")
    return player


def _fraction(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else 0.0  # the game server divides by zero at times


def _weapons(guid: str, numbers: list[int]) -> dict[str, Weapon]:
    mask, *rest = numbers
    bits = [bit for bit in range(mask.bit_length()) if mask >> bit & 1]
    if bits and bits[-1] >= len(WEAPONS):
        raise StatsFileError(f"{guid}: weapon mask {mask} names an unknown weapon")
    if len(rest) != 5 * len(bits):
        raise StatsFileError(f"{guid}: {len(rest)} weapon numbers for {len(bits)} weapons")
    return {
        f"WS_{WEAPONS[bit]}": Weapon(*rest[5 * index : 5 * index + 5])
        for index, bit in enumerate(bits)
    }


def second_round_alone(second: Round, first: Round) -> Round:
    """Take the first round off a second round's cumulative numbers.

    A player who was not in the first round stays as he is. So does one whose counters are lower
    than in the first round: he reconnected, and the game server began again from zero.
    """
    before = {player.guid: player for player in first.players}
    return replace(
        second,
        players=tuple(
            _difference(player, before[player.guid]) if player.guid in before else player
            for player in second.players
        ),
    )


def _difference(total: Player, before: Player) -> Player:
    nothing = Weapon(0, 0, 0, 0, 0)
    fields = {name: total.fields[name] - before.fields[name] for name in CUMULATIVE}
    weapons = {
        name: tuple(
            a - b
            for a, b in zip(
                total.weapons.get(name, nothing).numbers(),
                before.weapons.get(name, nothing).numbers(),
                strict=True,
            )
        )
        for name in total.weapons | before.weapons
    }
    if min(*fields.values(), *(min(numbers) for numbers in weapons.values())) < 0:
        return total
    fields["time_played_minutes"] = round(fields["time_played_minutes"], 6)  # 19.5 - 9.7
    return replace(
        total,
        fields=total.fields | fields,
        weapons={name: Weapon(*numbers) for name, numbers in weapons.items() if any(numbers)},
    )
