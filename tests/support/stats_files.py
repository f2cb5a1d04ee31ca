"""Hand-made stats files, and what they add up to."""

from __future__ import annotations

from pathlib import Path

# A player's 38 fields behind the TAB, by position; what is not named is 0.
FRACTIONS = (8, 21, 22, 23, 24, 25, 26)


def fields(values: dict[int, float]) -> str:
    """Write the 38 fields."""
    return "\t".join(
        f"{values.get(position, 0):.1f}" if position in FRACTIONS else str(values.get(position, 0))
        for position in range(38)
    )


def line(
    guid: str, name: str, team: int, weapons: str = "0", values: dict[int, float] | None = None
) -> str:
    """Write a player's line; ``weapons`` is the mask and the numbers."""
    return f"{guid}\\{name}\\1\\{team}\\{weapons} \t{fields(values or {})}\n"


def header(
    map_name: str, number: int, limit: str, actual: str, *, defender: int = 1, winner: int = 2
) -> str:
    """Write the first line."""
    parts = ("^1Test ^7server", map_name, "legacy3", number, defender, winner, limit, actual, 0)
    return "\\".join(map(str, parts)) + "\n"


# Weapon masks: 16 is MP40 (bit 4), 32 THOMPSON (bit 5), 48 both. Numbers: hits shots kills deaths
# headshots. Fields: 0 damage given, 1 received, 9 xp, 20 bullets, 22 minutes, 25 minutes dead.
ALPHA, BRAVO = "AAAAAAAA", "BBBBBBBB"


def supply_first(map_name: str = "supply") -> str:
    """Round 1: alpha is Axis and attacks; the objective falls after 8:30 of 12:00."""
    alpha = {0: 900, 1: 500, 9: 30, 20: 100, 22: 8.5, 25: 1.7}
    bravo = {0: 500, 1: 900, 9: 12, 20: 120, 22: 8.5, 25: 2.0}
    return (
        header(map_name, 1, "12:00", "8:30", defender=2, winner=1)
        + line(ALPHA, "^1al^7pha", 1, "16 40 100 6 3 5", alpha)
        + line(BRAVO, "^4bravo", 2, "48 10 40 1 2 0 20 80 2 4 1", bravo)
    )


def supply_second(map_name: str = "supply") -> str:
    """Round 2, cumulative: alone, alpha has 4 kills and 5 deaths, bravo 5 and 4, in 6:00."""
    alpha = {0: 1500, 1: 1200, 9: 22, 20: 190, 22: 14.5, 25: 0.9}
    bravo = {0: 1200, 1: 1500, 9: 25, 20: 240, 22: 14.5, 25: 1.2}
    return (
        header(map_name, 2, "8:30", "6:00", defender=2, winner=1)
        + line(ALPHA, "^1al^7pha", 2, "48 40 100 6 3 5 30 90 4 5 2", alpha)
        + line(BRAVO, "^4bravo", 1, "48 50 160 6 2 2 20 80 2 8 1", bravo)
    )


def write(directory: Path, name: str, text: str) -> Path:
    """Put a file into a directory, which is made if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(text)
    return path


FIRST, SECOND = "2026-11-20-210000-supply-round-1.txt", "2026-11-20-210730-supply-round-2.txt"


def write_match(directory: Path) -> None:
    """Write both files of the hand-made match."""
    write(directory, FIRST, supply_first())
    write(directory, SECOND, supply_second())
