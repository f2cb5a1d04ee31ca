"""Make a SQLite database in the shape of the ET:Legacy bot's, of any size, the same every time.

Usage: python generate.py OUT.db [--weapons 1000000] [--seed 1]

Rows: for each weapon row about 0.14 player rows and 0.02 rounds, as in the real database; ids have
gaps, names have quotes, colour codes and non-ASCII letters, doubles are not exact in 4 bytes, and
timestamps come from two clocks in two formats.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNTERS = [
    "kills",
    "deaths",
    "damage_given",
    "damage_received",
    "team_damage_given",
    "team_damage_received",
    "gibs",
    "self_kills",
    "team_kills",
    "team_gibs",
    "headshot_kills",
    "headshots",
    "xp",
    "kill_assists",
    "kill_steals",
    "killing_spree_best",
    "death_spree_worst",
    "objectives_stolen",
    "objectives_returned",
    "dynamites_planted",
    "dynamites_defused",
    "times_revived",
    "revives_given",
    "bullets_fired",
    "bullets_hit",
    "denied_playtime",
    "useful_kills",
    "useless_kills",
    "double_kills",
    "triple_kills",
    "quad_kills",
    "multi_kills",
    "mega_kills",
    "full_selfkills",
    "constructions",
]
REALS = [
    "dpm",
    "kd_ratio",
    "efficiency",
    "accuracy",
    "time_played_minutes",
    "time_dead_minutes",
    "time_dead_ratio",
    "tank_meatshield",
]
WEAPONS = ("WS_MP40", "WS_THOMPSON", "WS_LUGER", "WS_COLT", "WS_GRENADE", "WS_KNIFE", "WS_STEN")
MAPS = ("supply", "goldrush", "radar", "adlernest", "te_escape2", "braundorf_b4")
NAMES = (
    "^1Kræk^7'en",
    'the "boss"',
    "back\\slash",
    "tab\there",
    "dots...",
    "space ",
    "Žiga",
    "名無し",
    "O'Neil; DROP TABLE rounds;--",
    "line\nbreak",
)

SCHEMA = f"""
CREATE TABLE rounds (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    round_date TEXT NOT NULL, round_time TEXT NOT NULL, match_id TEXT NOT NULL,
    map_name TEXT NOT NULL, round_number INTEGER NOT NULL,
    time_limit TEXT, actual_time TEXT, winner_team INTEGER DEFAULT 0,
    defender_team INTEGER DEFAULT 0, is_tied BOOLEAN DEFAULT FALSE, round_outcome TEXT,
    gaming_session_id INTEGER, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (match_id, round_number));
CREATE TABLE player_comprehensive_stats (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    round_id INTEGER NOT NULL REFERENCES rounds(id), round_date TEXT NOT NULL,
    map_name TEXT NOT NULL, round_number INTEGER NOT NULL, player_guid TEXT NOT NULL,
    player_name TEXT NOT NULL, clean_name TEXT NOT NULL, team INTEGER,
    {", ".join(f"{name} INTEGER DEFAULT 0" for name in COUNTERS)},
    {", ".join(f"{name} REAL DEFAULT 0.0" for name in REALS)},
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (round_id, player_guid));
CREATE TABLE weapon_comprehensive_stats (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    round_id INTEGER NOT NULL, player_guid TEXT NOT NULL, player_name TEXT NOT NULL,
    weapon_name TEXT NOT NULL, kills INTEGER DEFAULT 0, deaths INTEGER DEFAULT 0,
    headshots INTEGER DEFAULT 0, shots INTEGER DEFAULT 0, hits INTEGER DEFAULT 0,
    accuracy REAL DEFAULT 0.0,
    FOREIGN KEY (round_id) REFERENCES rounds(id),
    UNIQUE (round_id, player_guid, weapon_name));
CREATE TABLE player_links (
    discord_id BIGINT PRIMARY KEY, discord_username TEXT, et_guid TEXT UNIQUE, et_name TEXT,
    linked_date TIMESTAMP DEFAULT CURRENT_TIMESTAMP, verified BOOLEAN DEFAULT 0);
CREATE TABLE processed_files (
    id INTEGER PRIMARY KEY AUTOINCREMENT, filename TEXT UNIQUE NOT NULL, file_hash TEXT,
    success BOOLEAN DEFAULT 1, error_message TEXT,
    processed_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE session_teams (
    id INTEGER PRIMARY KEY AUTOINCREMENT, session_start_date TEXT NOT NULL,
    map_name TEXT NOT NULL, team_name TEXT NOT NULL, player_guids TEXT, player_names TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (session_start_date, map_name, team_name));
CREATE TABLE player_aliases (
    id INTEGER PRIMARY KEY AUTOINCREMENT, guid TEXT NOT NULL, alias TEXT NOT NULL,
    first_seen TIMESTAMP, last_seen TIMESTAMP, times_seen INTEGER DEFAULT 1,
    UNIQUE (guid, alias));
CREATE INDEX idx_rounds_date_map ON rounds (round_date, map_name);
CREATE INDEX idx_rounds_match ON rounds (match_id);
CREATE INDEX idx_player_round ON player_comprehensive_stats (round_id);
CREATE INDEX idx_player_guid ON player_comprehensive_stats (player_guid);
CREATE INDEX idx_player_date_map ON player_comprehensive_stats (round_date, map_name);
CREATE INDEX idx_weapon_round ON weapon_comprehensive_stats (round_id);
CREATE INDEX idx_weapon_guid ON weapon_comprehensive_stats (player_guid);
"""


def _round_rows(numbers: range, chance: random.Random) -> Iterator[tuple]:
    for number in numbers:
        day = f"2025-{1 + number // 28 % 12:02d}-{1 + number % 28:02d}"
        yield (
            1 + number * 3,  # ids have gaps: INSERT OR REPLACE burns them
            day,
            f"{number * 37 % 86400:06d}",
            f"{day}-{number:06d}",
            chance.choice(MAPS),
            1 + number % 2,
            f"{chance.randint(5, 20)}:00",
            f"{chance.randint(1, 20)}:{chance.randint(0, 59):02d}",
            chance.randint(0, 2),
            chance.randint(1, 2),
            chance.randint(0, 1),
            chance.choice(("Fullhold", None, "")),
            number // 20,
            f"{day} {chance.randint(0, 23):02d}:{chance.randint(0, 59):02d}:07",
        )


def generate(path: Path, weapons: int = 1_000_000, seed: int = 1) -> None:
    """Write the database; ``weapons`` is the number of rows of its largest table."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    rounds = max(weapons // 50, 2)
    players = 8
    per_player = max(weapons // (rounds * players), 1)
    guids = [f"{chance.getrandbits(32):08X}" for _ in range(60)]
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    for statement in SCHEMA.split(";\n"):
        connection.execute(statement)

    def insert(table: str, rows: Iterator[tuple], width: int) -> None:
        marks = ", ".join("?" * width)
        connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)

    insert("rounds", _round_rows(range(rounds), chance), 14)

    def player_rows() -> Iterator[tuple]:
        identifier = 0
        for number in range(rounds):
            for guid in chance.sample(guids, players):
                identifier += chance.randint(1, 3)
                name = chance.choice(NAMES)
                yield (
                    identifier,
                    1 + number * 3,
                    f"2025-{1 + number // 28 % 12:02d}-{1 + number % 28:02d}",
                    chance.choice(MAPS),
                    1 + number % 2,
                    guid,
                    name,
                    name.strip("^17"),
                    chance.randint(1, 2),
                    *(chance.randint(0, 500) for _ in COUNTERS),
                    *(chance.random() * 300 for _ in REALS),
                    f"2025-{1 + number // 28 % 12:02d}-{1 + number % 28:02d}T21:04:05."
                    f"{chance.randint(0, 999999):06d}",
                )

    insert("player_comprehensive_stats", player_rows(), 10 + len(COUNTERS) + len(REALS))

    def weapon_rows() -> Iterator[tuple]:
        identifier = 0
        cursor = connection.execute(
            "SELECT round_id, player_guid, player_name FROM player_comprehensive_stats"
        )
        for round_id, guid, name in cursor.fetchall():
            for weapon in range(per_player):
                identifier += chance.randint(1, 2)
                shots = chance.randint(1, 400)
                hits = chance.randint(0, shots)
                yield (
                    identifier,
                    round_id,
                    guid,
                    name,
                    WEAPONS[weapon % len(WEAPONS)] + "_B" * (weapon // len(WEAPONS)),
                    chance.randint(0, 20),
                    chance.randint(0, 20),
                    chance.randint(0, 9),
                    shots,
                    hits,
                    100.0 * hits / shots,
                )

    insert("weapon_comprehensive_stats", weapon_rows(), 11)
    files = rounds * 12
    insert(
        "processed_files",
        (
            (
                number * 30 + 7,
                f"2025-01-01-{number:09d}-supply-round-{1 + number % 2}.txt",
                f"{chance.getrandbits(128):032x}",
                1,
                None,
                f"2025-03-0{1 + number % 9}T10:11:12.{number % 1000000:06d}"
                if number % 2
                else f"2025-03-0{1 + number % 9} 10:11:12",
            )
            for number in range(files)
        ),
        6,
    )
    insert(
        "player_links",
        (
            (2**59 + number * 7919, f"user{number}", guid, NAMES[number % 10], None, number % 2)
            for number, guid in enumerate(guids)
        ),
        6,
    )
    connection.execute("UPDATE sqlite_sequence SET seq = seq + 1000 WHERE name = 'rounds'")
    connection.execute("COMMIT")
    connection.close()


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--weapons", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} exists")
    generate(options.out, options.weapons, options.seed)


if __name__ == "__main__":
    main()
