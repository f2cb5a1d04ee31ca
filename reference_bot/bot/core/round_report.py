"""What is told of a round when it has just been imported."""

from __future__ import annotations

from dataclasses import dataclass

from tools.stopwatch_scoring import MatchScore, is_timed, score_session

from bot.core.database import Database, Row
from bot.core.stats_parser import ALLIES, AXIS, StatsFileName, seconds

SIDES = {AXIS: "Axis", ALLIES: "Allies"}
_ROUND = (
    "SELECT id, match_id, map_name, round_number, time_limit, actual_time, winner_team, "
    "gaming_session_id FROM rounds"
)


@dataclass(frozen=True)
class RoundReport:
    """A round and its players."""

    key: str  # names the round for good: its file's name without .txt
    map_name: str
    number: int
    result: str
    players: list[Row]  # name, team, kills, deaths, damage_given, dpm; most damage a minute first
    score: MatchScore | None  # of the whole match, after its second round


def key_of(row: Row | StatsFileName) -> str:
    """Name a round, given a row with round_date, round_time, map_name and round_number."""
    if isinstance(row, StatsFileName):
        return row.text.removesuffix(".txt")
    return "{round_date}-{round_time}-{map_name}-round-{round_number}".format(**dict(row))


async def round_report(database: Database, name: StatsFileName) -> RoundReport | None:
    """Describe a round by the name of its file; None when it is not in the database."""
    round_ = await database.fetch_one(
        f"{_ROUND} WHERE round_date = ? AND round_time = ? AND map_name = ? AND round_number = ?",
        f"{name.ended:%Y-%m-%d}",
        f"{name.ended:%H%M%S}",
        name.map_name,
        name.round_number,
    )
    if round_ is None:
        return None
    players = await database.fetch_all(
        "SELECT clean_name AS name, team, kills, deaths, damage_given, dpm "
        "FROM player_comprehensive_stats WHERE round_id = ? AND team IN (1, 2) "
        "ORDER BY dpm DESC, clean_name",
        round_["id"],
    )
    score = None
    if name.round_number == 2 and round_["gaming_session_id"] is not None:
        scores = await score_session(database, round_["gaming_session_id"])
        same = (one for one in scores if one.match.match_id == round_["match_id"])
        score = next(same, None)
    return RoundReport(
        key_of(name), name.map_name, name.round_number, result_of(round_), players, score
    )


def result_of(round_: Row) -> str:
    """Say in words how a round ended."""
    winner = SIDES.get(round_["winner_team"])
    if not is_timed(round_):
        return f"{winner} won" if winner else "no result"
    taken, limit = round_["actual_time"], round_["time_limit"]
    if seconds(taken) >= seconds(limit):
        return f"{winner or 'The defence'} held for the full {limit}"
    return f"{winner or 'The attack'} won in {taken} of {limit}"


async def rounds_after(database: Database, key: str, limit: int) -> list[StatsFileName]:
    """Return the latest rounds that ended after the one named, oldest first."""
    moment = (key[:10], key[11:17])
    rows = await database.fetch_all(
        "SELECT round_date, round_time, map_name, round_number FROM rounds "
        "WHERE (round_date, round_time) > (?, ?) ORDER BY round_date DESC, round_time DESC LIMIT ?",
        *moment,
        limit,
    )
    names = (StatsFileName.parse(f"{key_of(row)}.txt") for row in reversed(rows))
    return [name for name in names if name is not None]
