"""With whom and against whom a player has played, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from tools.stopwatch_scoring import attackers_win, is_timed

from bot.core.database import Database
from bot.core.players import KnownPlayer, known_players
from bot.core.stats_parser import ALLIES, AXIS


@dataclass
class Record:
    """Matches with a known result, from the player's side."""

    matches: int = 0  # also those without a result
    won: int = 0
    lost: int = 0
    drawn: int = 0

    def count(self, outcome: int | None) -> None:
        """Add a match: 1 won, -1 lost, 0 drawn, None without a result."""
        self.matches += 1
        self.won += outcome == 1
        self.lost += outcome == -1
        self.drawn += outcome == 0


@dataclass
class TeamHistory:
    """A player's matches."""

    player: KnownPlayer
    record: Record = field(default_factory=Record)
    mates: list[tuple[str, Record]] = field(default_factory=list)  # name, together; most first
    opponents: list[tuple[str, Record]] = field(default_factory=list)  # seen from the player


async def team_history(database: Database, player: KnownPlayer) -> TeamHistory:
    """Go through all matches of a player.

    A match is won by the stopwatch's rules (tools/stopwatch_scoring.py). Who changed sides during
    a match belongs where he played last; so does each mate and opponent, seen from the player.
    """
    rounds = await database.fetch_all(
        """
        SELECT match_id, round_number, time_limit, actual_time, defender_team FROM rounds
        WHERE match_id IN (
            SELECT r.match_id FROM rounds r JOIN player_comprehensive_stats p ON p.round_id = r.id
            WHERE p.player_guid = ?)
        """,
        player.guid,
    )
    people = await database.fetch_all(
        """
        SELECT r.match_id, r.round_number, o.player_guid, o.team
        FROM player_comprehensive_stats p
        JOIN rounds r ON r.id = p.round_id
        JOIN player_comprehensive_stats o ON o.round_id = p.round_id
        WHERE p.player_guid = ? AND o.team IN (1, 2)
        ORDER BY r.round_number
        """,
        player.guid,
    )
    sides: dict[str, dict[str, int]] = {}  # match: {guid: side in round 1}
    for row in people:
        team = row["team"] if row["round_number"] == 1 else AXIS + ALLIES - row["team"]
        sides.setdefault(row["match_id"], {})[row["player_guid"]] = team
    by_match: dict[str, dict[int, object]] = {}
    for row in rounds:
        by_match.setdefault(row["match_id"], {})[row["round_number"]] = row

    history = TeamHistory(player)
    mates: dict[str, Record] = {}
    opponents: dict[str, Record] = {}
    for match_id, people_of_match in sides.items():
        mine = people_of_match.pop(player.guid, None)
        if mine is None:  # he only watched
            continue
        outcome = _outcome(by_match[match_id], mine)
        history.record.count(outcome)
        for guid, side in people_of_match.items():
            (mates if side == mine else opponents).setdefault(guid, Record()).count(outcome)
    players = await known_players(database)
    for target, found in ((history.mates, mates), (history.opponents, opponents)):
        target += [(players[guid].name, record) for guid, record in found.items()]
        target.sort(key=lambda entry: (-entry[1].matches, entry[0].casefold()))
    return history


def _outcome(rounds: dict[int, object], side: int) -> int | None:
    """Return 1, -1 or 0 for the team that began on ``side``; None without a result."""
    first, second = rounds.get(1), rounds.get(2)
    if not first or not second or not is_timed(first) or not is_timed(second):
        return None
    winner = attackers_win(first, second)
    if winner is None:
        return 0
    attacked_first = first["defender_team"] != side
    return 1 if (winner == 1) == attacked_first else -1
