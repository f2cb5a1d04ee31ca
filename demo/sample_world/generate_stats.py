#!/usr/bin/env python3
"""Write stats files as an ET:Legacy game server does, for a made-up community.

    python demo/sample_world/generate_stats.py --out DIR --weeks 3 --seed 7
    python demo/sample_world/generate_stats.py --out DIR --new-match [--at 2026-11-22T21:40:00]

The first form writes the past: weeks of evenings before the day --until (default: yesterday). The
second adds one match, a file for each of its two rounds, that ended just now or at --at; without
--map on the map that was not played in DIR for longest. The same arguments, and DIR, give the same
bytes. Needs nothing but Python 3.9 or later.

The numbers agree with one another: every kill is somebody's death by the same weapon, damage given
is damage received, and the file of a second round adds up both rounds where a game server does.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

AXIS, ALLIES, SPECTATOR = 1, 2, 3
SERVER = "^1Puls^7Quake ^4ET^7:^2Legacy ^7#1"
MAPS = {  # name: time limit in minutes
    "supply": 12, "etl_adlernest": 10, "te_escape2": 12, "sw_goldrush_te": 15, "etl_frostbite": 10,
    "braundorf_b4": 10, "radar": 12, "et_brewdog": 8, "erdenberg_t2": 12, "etl_sp_delivery": 10,
}  # fmt: skip

# Names that players really choose: colour codes, quotes, slashes, trailing dots and spaces,
# letters of other alphabets; "\udcf6" is a stray Latin-1 byte, as old clients send it.
NAMES = [
    ("^1vid", "^1v^7id.slo"), ("^4S^7uper^4B^7oyy",), ("^2.^7olympus",), ("^3carniee", "carniee."),
    ("^7bronze^1./",), ("^5O'Neill", "^5O'Neill^7 "), ('^6"The ^7Wall^6"',), ("^0Žiga^7Č",),
    ("^1e^3X^1e^7.",), ("^2Müller^7..",), ("^8ipkiss",), ("^dØystein",), ("^7/dev/^1null",),
    ("^1[^7KRK^1]^7 Łukasz", "Łukasz"), ("^3Señor ^1Panzer",), ("wAjs",), ("^4Т^7анк",),
    ("^7-^1=^7lagger^1=^7-",), ("^2squAze.",), ("^^5caret",), ("J\udcf6rg",), ("^xDr. Who?",),
    ("^9n00b; DROP TABLE",), ("^1q^2m^3r",), ("^7immoo",), ("^1Ægir ^7& Co",), ("^3%s%n",),
    ("^5proner2^72",), ("^hendekk ", "^hendekk"), ("^7カミカゼ",), ("^1pl^7",), ("^2.lgz^1*",),
    ("^7Ciril ^1Š.",), ("^4homer",), ("^6Aimless ^7Pew",), ("^3jype",),
]  # fmt: skip

# Weapon bits of the stats format. Each side has its own rifle and pistol.
KNIFE, LUGER, COLT, MP40, THOMPSON, STEN, FG42, PANZERFAUST = 0, 2, 3, 4, 5, 6, 7, 8
GRENADE, MORTAR, DYNAMITE, AIRSTRIKE, ARTILLERY, SATCHEL = 11, 12, 14, 15, 16, 17
LAUNCHER, LANDMINE, MG42, GARAND, K43, SYRINGE = 18, 19, 20, 24, 25, 27
EXPLOSIVES = {PANZERFAUST, GRENADE, MORTAR, DYNAMITE, AIRSTRIKE, ARTILLERY, SATCHEL, LAUNCHER,
              LANDMINE}  # fmt: skip
NO_BULLETS = EXPLOSIVES | {KNIFE, SYRINGE}
CLASSES = {  # extra weapons and how often they kill, beside rifle, pistol and grenade
    "medic": {KNIFE: 1, SYRINGE: 0},
    "engineer": {DYNAMITE: 2, LAUNCHER: 12, LANDMINE: 3},
    "fieldops": {AIRSTRIKE: 6, ARTILLERY: 5},
    "soldier": {PANZERFAUST: 20, MG42: 6, MORTAR: 4},
    "covert": {STEN: 15, FG42: 10, SATCHEL: 4},
}

# The 38 fields behind the TAB, and those that a second round's file adds up over both rounds.
FIELDS = (
    "damage_given", "damage_received", "team_damage_given", "team_damage_received", "gibs",
    "self_kills", "team_kills", "team_gibs", "time_played_percent", "xp", "killing_spree",
    "death_spree", "kill_assists", "kill_steals", "headshot_kills", "objectives_stolen",
    "objectives_returned", "dynamites_planted", "dynamites_defused", "times_revived",
    "bullets_fired", "dpm", "time_played_minutes", "tank_meatshield", "time_dead_ratio",
    "time_dead_minutes", "kd_ratio", "useful_kills", "denied_playtime", "double_kills",
    "triple_kills", "quad_kills", "multi_kills", "mega_kills", "useless_kills", "full_self_kills",
    "repairs", "revives_given",
)  # fmt: skip
FRACTIONS = {"time_played_percent", "dpm", "time_played_minutes", "tank_meatshield",
             "time_dead_ratio", "time_dead_minutes", "kd_ratio"}  # fmt: skip
CUMULATIVE = (*FIELDS[0:8], "bullets_fired", "time_played_minutes")


@dataclass(frozen=True)
class Person:
    """A member of the community."""

    guid: str
    names: tuple[str, ...]  # the usual one first
    skill: float  # 1.0 is average
    role: str


@dataclass
class Record:
    """A player's numbers in one round, or added up over two."""

    weapons: dict[int, list[int]] = field(default_factory=dict)  # hits shots kills deaths headshots
    fields: dict[str, float] = field(default_factory=lambda: dict.fromkeys(FIELDS, 0))

    def weapon(self, bit: int) -> list[int]:
        """Return the five counters of a weapon, zero at first."""
        return self.weapons.setdefault(bit, [0] * 5)

    def sum(self, index: int) -> int:
        """Add up one of the five counters over all weapons."""
        return sum(counters[index] for counters in self.weapons.values())


@dataclass(frozen=True)
class StatsFile:
    """A file to be written."""

    name: str
    content: bytes
    written: datetime


def community(chance: random.Random, size: int) -> list[Person]:
    """Make up the players; beyond the list of names they are numbered."""
    return [
        Person(
            guid=f"{chance.getrandbits(32):08X}",
            names=NAMES[index] if index < len(NAMES) else (f"^{index % 10}recruit^7{index}",),
            skill=chance.uniform(0.6, 1.6),
            role=chance.choice(sorted(CLASSES)),
        )
        for index in range(size)
    ]


# --------------------------------------------------------------------------------------- one round


def play_round(
    chance: random.Random, sides: dict[int, list[Person]], seconds: int
) -> dict[str, Record]:
    """Let two sides fight for a while; return each player's numbers by GUID."""
    records = {person.guid: Record() for side in sides.values() for person in side}
    for person in (*sides[AXIS], *sides[ALLIES]):
        share = chance.uniform(0.5, 0.95) if chance.random() < 0.06 else 1.0
        fields = records[person.guid].fields
        fields["time_played_minutes"] = max(0.1, round(seconds * share / 60, 1))
        fields["time_played_percent"] = round(100 * share, 1)

    for _ in range(round(len(records) * seconds / 60 * chance.uniform(0.9, 1.5))):
        team = chance.choice((AXIS, ALLIES))
        killer = _somebody(chance, sides[team])
        victim = chance.choice(sides[AXIS + ALLIES - team])
        _kill(chance, records[killer.guid], records[victim.guid], _weapon(chance, killer, team))
        if chance.random() < 0.5:  # a mate had hurt the victim before
            helper = records[chance.choice(sides[team]).guid]
            _hurt(helper, records[victim.guid], chance.randint(10, 70))
            if helper is not records[killer.guid]:
                helper.fields["kill_assists"] += 1
        if chance.random() < 0.03:
            _kill_mate(chance, [records[person.guid] for person in sides[team]])
        if chance.random() < 0.25:
            _revive(chance, [records[person.guid] for person in sides[AXIS + ALLIES - team]])

    for team, side in sides.items():
        for person in side:
            _finish(chance, records[person.guid], person, team)
    return records


def _somebody(chance: random.Random, side: list[Person]) -> Person:
    return chance.choices(side, [person.skill for person in side])[0]


def _weapon(chance: random.Random, person: Person, team: int) -> int:
    rifle, pistol = (MP40, LUGER) if team == AXIS else (THOMPSON, COLT)
    weights = {rifle: 60, pistol: 8, GRENADE: 10, **CLASSES[person.role]}
    if person.role == "covert":
        weights[K43 if team == AXIS else GARAND] = 20
    return chance.choices(list(weights), list(weights.values()))[0]


def _hurt(by: Record, whom: Record, damage: int) -> None:
    by.fields["damage_given"] += damage
    whom.fields["damage_received"] += damage


def _kill(chance: random.Random, killer: Record, victim: Record, weapon: int) -> None:
    killer.weapon(weapon)[2] += 1
    victim.weapon(weapon)[3] += 1
    _hurt(killer, victim, chance.randint(90, 150))
    if weapon not in NO_BULLETS and chance.random() < 0.3:
        killer.fields["headshot_kills"] += 1
    for name, probability in (("gibs", 0.35), ("kill_steals", 0.08)):
        killer.fields[name] += chance.random() < probability
    useful = chance.random() < 0.5
    killer.fields["useful_kills" if useful else "useless_kills"] += chance.random() < 0.6
    killer.fields["denied_playtime"] += chance.randint(0, 20)


def _kill_mate(chance: random.Random, side: list[Record]) -> None:
    if len(side) < 2:
        return
    culprit, victim = chance.sample(side, 2)
    damage = chance.randint(60, 130)
    culprit.fields["team_kills"] += 1
    culprit.fields["team_gibs"] += chance.random() < 0.2
    culprit.fields["team_damage_given"] += damage
    victim.fields["team_damage_received"] += damage
    victim.weapon(GRENADE)[3] += 1


def _revive(chance: random.Random, side: list[Record]) -> None:
    if len(side) < 2:
        return
    medic, patient = chance.sample(side, 2)
    medic.fields["revives_given"] += 1
    patient.fields["times_revived"] += 1


def _finish(chance: random.Random, record: Record, person: Person, team: int) -> None:
    """Fill in what follows from the kills and deaths."""
    record.weapon(MP40 if team == AXIS else THOMPSON)  # carried even if nobody was hit
    for bit, counters in sorted(record.weapons.items()):
        kills = counters[2]
        if bit in EXPLOSIVES:
            counters[1] = kills + chance.randint(0, 4)  # shots
            counters[0] = kills + chance.randint(0, 2 * counters[1])  # hits: may exceed shots
        else:
            counters[0] = kills * chance.randint(2, 5) + chance.randint(0, 25)
            counters[1] = round(counters[0] / chance.uniform(0.2, 0.45))
            counters[4] = chance.randint(0, counters[0] // 4) if bit not in NO_BULLETS else 0
    fields = record.fields
    kills, deaths = record.sum(2), record.sum(3)
    minutes = fields["time_played_minutes"]
    fields["bullets_fired"] = sum(
        counters[1] for bit, counters in record.weapons.items() if bit not in NO_BULLETS
    )
    fields["self_kills"] = int(chance.random() < 0.3) + int(chance.random() < 0.1)
    fields["full_self_kills"] = min(fields["self_kills"], int(chance.random() < 0.2))
    fields["xp"] = 3 * kills + 2 * fields["revives_given"] + chance.randint(0, 25)
    fields["killing_spree"] = min(kills, chance.randint(0, 7))
    fields["death_spree"] = min(deaths, chance.randint(0, 5))
    fields["time_dead_minutes"] = round(min(deaths * chance.uniform(0.1, 0.25), minutes * 0.6), 1)
    fields["time_dead_ratio"] = round(100 * fields["time_dead_minutes"] / minutes, 1)
    fields["tank_meatshield"] = round(fields["damage_received"] / 130 / max(deaths, 1), 1)
    fields["kd_ratio"] = round(kills / deaths if deaths else kills, 1)
    fields["objectives_stolen"] = int(chance.random() < 0.1)
    fields["objectives_returned"] = int(chance.random() < 0.05)
    if person.role == "engineer":
        fields["dynamites_planted"] = chance.randint(0, 3)
        fields["dynamites_defused"] = chance.randint(0, 2)
        fields["repairs"] = chance.randint(0, 4)
    for size, name in enumerate(FIELDS[29:34], 2):
        fields[name] = int(kills >= 3 * size and chance.random() < 1.2 / size)


def add_up(first: Record, second: Record) -> Record:
    """Combine a player's two rounds as the second round's file shows them."""
    total = Record(fields=dict(second.fields))
    for name in CUMULATIVE:
        total.fields[name] = round(first.fields[name] + second.fields[name], 1)
    for record in (first, second):
        for bit, counters in record.weapons.items():
            total.weapons[bit] = [
                a + b
                for a, b in zip(total.weapon(bit), counters)  # noqa: B905 - Python 3.9
            ]
    kills, deaths = total.sum(2), total.sum(3)
    total.fields["kd_ratio"] = round(kills / deaths if deaths else kills, 1)
    return total


# ---------------------------------------------------------------------------------------- one file


def clock(seconds: int) -> str:
    """Format seconds as ``M:SS``."""
    return f"{seconds // 60}:{seconds % 60:02d}"


def player_line(person: Person, name: str, rounds: int, team: int, record: Record) -> str:
    """Format one player."""
    mask = sum(1 << bit for bit in record.weapons)
    numbers = [mask]
    for bit in sorted(record.weapons):
        numbers += record.weapons[bit]
    fields = "\t".join(
        f"{record.fields[field]:.1f}" if field in FRACTIONS else f"{record.fields[field]:.0f}"
        for field in FIELDS
    )
    return f"{person.guid}\\{name}\\{rounds}\\{team}\\{' '.join(map(str, numbers))} \t{fields}\n"


def stats_file(
    ended: datetime, map_name: str, number: int, header: list[str], lines: list[str]
) -> StatsFile:
    """Put a file together; stray bytes in names leave as they came."""
    text = "\\".join([SERVER, map_name, "legacy6", str(number), *header]) + "\n" + "".join(lines)
    return StatsFile(
        f"{ended:%Y-%m-%d-%H%M%S}-{map_name}-round-{number}.txt",
        text.encode(errors="surrogateescape"),
        ended,
    )


# --------------------------------------------------------------------------------------- one match


@dataclass(frozen=True)
class Match:
    """A match whose second round ends ``length`` after its beginning."""

    map_name: str
    times: tuple[int, int, int]  # limit of round 1, actual times of both rounds; seconds
    pauses: tuple[int, int]  # before each round; seconds

    @property
    def length(self) -> timedelta:
        """From the beginning of the first pause to the end of round 2."""
        return timedelta(seconds=sum(self.pauses) + sum(self.times[1:]))


def plan_match(chance: random.Random, map_name: str) -> Match:
    """Decide how long a match takes: the first time is the limit for the second round."""
    limit = MAPS[map_name] * 60
    first = limit if chance.random() < 0.25 else round(limit * chance.uniform(0.4, 0.98))
    second = first if chance.random() < 0.45 else max(90, round(first * chance.uniform(0.5, 0.98)))
    return Match(
        map_name, (limit, first, second), (chance.randint(40, 120), chance.randint(40, 90))
    )


def play_match(
    chance: random.Random, match: Match, teams: tuple[list[Person], list[Person]],
    begun: datetime, spare: list[Person],
) -> list[StatsFile]:  # fmt: skip
    """Play both rounds; the first team begins as Axis, then they change sides.

    Args:
        chance: the source of chance.
        match: the plan.
        teams: who plays.
        begun: when the first pause began, local time of the game server.
        spare: who may come in for the second round.

    """
    limit, first_time, second_time = match.times
    first_end = begun + timedelta(seconds=match.pauses[0] + first_time)
    second_end = first_end + timedelta(seconds=match.pauses[1] + second_time)
    first_sides = {AXIS: list(teams[0]), ALLIES: list(teams[1])}
    second_sides = {AXIS: list(teams[1]), ALLIES: list(teams[0])}
    if spare and chance.random() < 0.15:  # somebody goes home, somebody else takes over
        leaving = chance.choice((AXIS, ALLIES))
        second_sides[leaving][chance.randrange(len(second_sides[leaving]))] = spare[0]
    names = {
        person.guid: person.names[0] if chance.random() < 0.8 else person.names[-1]
        for person in (*teams[0], *teams[1], *spare)
    }

    defender = AXIS if sum(map(ord, match.map_name)) % 4 else ALLIES
    first = play_round(chance, first_sides, first_time)
    second = play_round(chance, second_sides, second_time)
    both = {
        guid: add_up(first[guid], record) if guid in first else record
        for guid, record in second.items()
    }
    files = []
    for number, sides, records, ended, allowed, taken in (
        (1, first_sides, first, first_end, limit, first_time),
        (2, second_sides, both, second_end, first_time, second_time),
    ):
        winner = defender if taken >= allowed else AXIS + ALLIES - defender
        lines = [
            player_line(
                person,
                names[person.guid],
                int(number == 2 and person.guid in first),  # rounds played before this one
                team,
                records[person.guid],
            )
            for team, side in sides.items()
            for person in side
        ]
        if spare and chance.random() < 0.1:
            lines.append(player_line(spare[-1], spare[-1].names[0], 0, SPECTATOR, Record()))
        chance.shuffle(lines)
        header = [str(defender), str(winner), clock(allowed), clock(taken), str(taken)]
        files.append(stats_file(ended, match.map_name, number, header, lines))
    return files


# --------------------------------------------------------------------------------------- the past


def play_evening(
    chance: random.Random, people: list[Person], day: date, matches: int, *, across_midnight: bool
) -> list[StatsFile]:
    """Play one session; its date is the one on which it begins."""
    size = chance.choice((3, 3, 4, 5, 5, 6))  # players in a team
    size = max(1, min(size, len(people) // 2))
    present = chance.sample(people, min(len(people), 2 * size + 3))
    names = chance.sample(sorted(MAPS), min(matches, len(MAPS)))
    while len(names) < matches:
        names.append(chance.choice(names))
    if matches > 3 and chance.random() < 0.4:  # a popular map comes again
        names[-1] = names[0]
    plans = [plan_match(chance, name) for name in names]
    begun = datetime.combine(day, datetime.min.time()) + timedelta(
        hours=20, seconds=chance.randint(0, 5400)
    )
    if across_midnight:  # so that one match has its rounds on two days
        last = plans[-1]
        before = sum((plan.length for plan in plans[:-1]), timedelta())
        to_first_end = timedelta(seconds=last.pauses[0] + last.times[1] + 20)
        midnight = datetime.combine(day + timedelta(days=1), datetime.min.time())
        begun = midnight - before - to_first_end
    files = []
    teams = (present[:size], present[size : 2 * size])
    for plan in plans:
        files += play_match(chance, plan, teams, begun, present[2 * size :])
        begun += plan.length
    return files + [extra for file in files for extra in _companions(chance, file)]


def _companions(chance: random.Random, file: StatsFile) -> list[StatsFile]:
    """Write the two kinds of other files that lie beside a round's file."""
    stem = file.name[: -len(".txt")]
    extra = []
    if chance.random() < 0.25:
        extra.append(StatsFile(f"{stem}_ws.txt", b"weapon stats\n" + file.content, file.written))
    if chance.random() < 0.25:
        awards = b"Most damage given\t^7somebody\t4211\nBest K/D\t^7somebody else\t2.1\n"
        extra.append(StatsFile(f"{stem}-endstats.txt", awards, file.written))
    return extra


def past(
    *, weeks: int, seed: int, until: date, evenings_per_week: int, rounds_per_day: int, players: int
) -> list[StatsFile]:
    """Make up weeks of evenings before the day ``until``, oldest first."""
    chance = random.Random(seed)  # noqa: S311 - a game
    people = community(chance, players)
    files = []
    for week in range(weeks, 0, -1):
        evenings = sorted(chance.sample(range(7), evenings_per_week))
        for evening in evenings:
            day = until - timedelta(days=7 * week - evening)
            files += play_evening(
                chance,
                people,
                day,
                max(1, rounds_per_day // 2),
                across_midnight=evening == evenings[0],
            )
    return sorted(files, key=lambda file: file.name)


def new_match(*, seed: int, ended: datetime, maps: list[str], players: int) -> list[StatsFile]:
    """Make up one match among the same community, on one of ``maps``, that ends at ``ended``."""
    people = community(random.Random(seed), players)  # noqa: S311
    chance = random.Random(f"{seed} {ended}")  # noqa: S311
    plan = plan_match(chance, chance.choice(maps))
    size = max(1, min(4, len(people) // 2))
    present = chance.sample(people, 2 * size)
    return play_match(chance, plan, (present[:size], present[size:]), ended - plan.length, spare=[])


def rested_maps(directory: Path) -> list[str]:
    """Return the maps on which no match in ``directory`` was played, or those longest ago.

    Matches that end "just now" overlap when they are asked for within minutes. A game server plays
    one at a time, so at least they must not look like rounds of one another.
    """
    last_played = dict.fromkeys(MAPS, "")
    for name in sorted(path.name for path in directory.glob("*-round-1.txt")):
        last_played[name[len("2026-11-22-214000-") : -len("-round-1.txt")]] = name
    longest_ago = min(last_played.values())
    return sorted(map_ for map_, played in last_played.items() if played == longest_ago)


def write(files: list[StatsFile], directory: Path) -> None:
    """Write the files, dated when the game server would have written them."""
    directory.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = directory / file.name
        path.write_bytes(file.content)
        moment = file.written.timestamp()
        os.utime(path, (moment, moment))


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="directory for the files")
    parser.add_argument("--seed", type=int, default=7, help="other number, other world")
    parser.add_argument("--players", type=int, default=30, help="size of the community")
    parser.add_argument("--weeks", type=int, default=3)
    parser.add_argument("--evenings-per-week", type=int, default=4, choices=range(1, 8))
    parser.add_argument("--rounds-per-day", type=int, default=20, help="two make a match")
    parser.add_argument(
        "--until",
        type=date.fromisoformat,
        help="first evening without games (default: yesterday, so nothing lies in the future)",
    )
    parser.add_argument("--new-match", action="store_true", help="write one match, nothing else")
    parser.add_argument(
        "--at", type=datetime.fromisoformat, help="when that match ended (default: now)"
    )
    parser.add_argument("--map", choices=sorted(MAPS), help="where that match was played")
    arguments = parser.parse_args()
    if arguments.players < 2 or arguments.weeks < 1 or arguments.rounds_per_day < 1:
        parser.error("--players must be at least 2, --weeks and --rounds-per-day at least 1")

    if arguments.new_match:
        ended = (arguments.at or datetime.now()).replace(microsecond=0)
        maps = [arguments.map] if arguments.map else rested_maps(arguments.out)
        files = new_match(seed=arguments.seed, ended=ended, maps=maps, players=arguments.players)
        write(files, arguments.out)
        print("\n".join(file.name for file in files))
        return 0
    files = past(
        weeks=arguments.weeks,
        seed=arguments.seed,
        until=arguments.until or date.today() - timedelta(days=1),
        evenings_per_week=arguments.evenings_per_week,
        rounds_per_day=arguments.rounds_per_day,
        players=arguments.players,
    )
    write(files, arguments.out)
    rounds = sum(file.name.endswith(("-round-1.txt", "-round-2.txt")) for file in files)
    print(f"{rounds} rounds, {len(files)} files in {arguments.out}, last: {files[-1].name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
