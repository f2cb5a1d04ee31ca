"""Score the stopwatch matches of a gaming session.

In stopwatch the attackers of round 1 set a time that the attackers of round 2 have to beat. The
team that wins a match gets two points; when both defences held to the end, each gets one.

    python tools/stopwatch_scoring.py            # the last session
    python tools/stopwatch_scoring.py --session 12
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bot.core.database import Database, DatabaseError, DatabaseSettings, Row, Session
from bot.core.settings import load_environment
from bot.core.stats_parser import AXIS, is_time, seconds
from bot.core.team_history import TEAM_NAMES, Match, matches_of_session


@dataclass(frozen=True)
class MatchScore:
    """The result of one match."""

    match: Match
    first_time: str  # round 1, M:SS
    second_time: str | None  # round 2; None when it was not played
    points: tuple[int, int]  # Team A, Team B

    @property
    def map_name(self) -> str:
        """Where it was played."""
        return self.match.map_name


def is_timed(round_: Row) -> bool:
    """Whether both times of a round are known; in old rows they may be missing or be no times."""
    return is_time(round_["time_limit"]) and is_time(round_["actual_time"])


def attackers_win(first: Row, second: Row) -> int | None:
    """Return the number of the round whose attackers won the match, or None for a draw.

    Args:
        first: round 1, a mapping with time_limit and actual_time (``M:SS``).
        second: round 2 of the same match.

    """
    if seconds(second["actual_time"]) < seconds(second["time_limit"]):
        return 2  # beat the time of round 1
    if seconds(first["actual_time"]) < seconds(first["time_limit"]):
        return 1  # reached the objective, and the others did not in the same time
    return None


async def score_session(source: Database | Session, gaming_session_id: int) -> list[MatchScore]:
    """Score each match of a gaming session; one without its second round gives no points."""
    rows = await source.fetch_all(
        "SELECT match_id, round_number, time_limit, actual_time, defender_team FROM rounds "
        "WHERE gaming_session_id = ?",
        gaming_session_id,
    )
    rounds = {(row["match_id"], row["round_number"]): row for row in rows}
    scores = []
    for match in await matches_of_session(source, gaming_session_id):
        first, second = (rounds.get((match.match_id, number)) for number in (1, 2))
        if first is None:
            continue
        points = (0, 0)
        if second is not None and is_timed(first) and is_timed(second):
            winner = attackers_win(first, second)
            # Team A attacked in round 1 if it was Axis and Axis did not defend, or the reverse.
            a_was_axis = match.began_as_axis == 0
            a_attacked_in = 2 if a_was_axis == (first["defender_team"] == AXIS) else 1
            points = (1, 1) if winner is None else (2, 0) if winner == a_attacked_in else (0, 2)
        scores.append(
            MatchScore(
                match,
                first["actual_time"],
                second["actual_time"] if second is not None else None,
                points,
            )
        )
    return scores


def total(scores: list[MatchScore]) -> tuple[int, int]:
    """Add up the points of both teams."""
    return sum(score.points[0] for score in scores), sum(score.points[1] for score in scores)


async def last_session(source: Database | Session) -> int | None:
    """Return the id of the latest gaming session, or None when nothing was played yet.

    Rounds that another bot has written may belong to none.
    """
    return await source.fetch_value(
        "SELECT gaming_session_id FROM rounds WHERE gaming_session_id IS NOT NULL "
        "ORDER BY round_date DESC, round_time DESC LIMIT 1"
    )


async def _print_scores(wanted: int | None) -> int:
    async with Database(DatabaseSettings.from_environment(), "stopwatch_scoring") as database:
        chosen = await last_session(database) if wanted is None else wanted
        scores = await score_session(database, chosen) if chosen is not None else []
    if not scores:
        print("no rounds of that session" if wanted is not None else "no rounds yet")
        return 1
    print(f"session {chosen}{TEAM_NAMES[0]:>29}{TEAM_NAMES[1]:>8}")
    for score in scores:
        times = f"{score.first_time} / {score.second_time or 'not played'}"
        print(f"{score.map_name:<20}{times:<14}{score.points[0]:>6}{score.points[1]:>8}")
    print(f"{'total':<34}{total(scores)[0]:>6}{total(scores)[1]:>8}")
    return 0


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--session", type=int, help="gaming session id (default: the last one)")
    wanted = parser.parse_args().session
    load_environment()
    try:
        return asyncio.run(_print_scores(wanted))
    except DatabaseError as error:
        print(f"stopwatch_scoring: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
