"""Who played with whom, and under which names.

In stopwatch the two teams change sides after the first round, so "Axis" is no team. A team is
recognised by its players: within one gaming session, the side that shares most players with a
team's previous match is that team again. "Team A" is the one that began the session as Axis.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from bot.core.database import Database, Row, Session
from bot.core.stats_parser import ALLIES, AXIS, Player

TEAM_NAMES = ("Team A", "Team B")


@dataclass(frozen=True)
class Match:
    """The two teams of one match."""

    match_id: str
    map_name: str
    teams: tuple[dict[str, str], dict[str, str]]  # Team A, Team B: {guid: name}
    began_as_axis: int  # which of the two, 0 or 1, was Axis in round 1


async def note_aliases(session: Session, seen: datetime, players: Iterable[Player]) -> None:
    """Count the names that the players used in a round that ended at ``seen``."""
    await session.execute_many(
        """
        INSERT INTO player_aliases (guid, alias, first_seen, last_seen, times_seen)
        VALUES (?, ?, ?, ?, 1)
        ON CONFLICT (guid, alias) DO UPDATE
        SET first_seen = CASE WHEN excluded.first_seen < player_aliases.first_seen
                              THEN excluded.first_seen ELSE player_aliases.first_seen END,
            last_seen = CASE WHEN excluded.last_seen > player_aliases.last_seen
                             THEN excluded.last_seen ELSE player_aliases.last_seen END,
            times_seen = player_aliases.times_seen + 1
        """,
        [(player.guid, player.clean_name, seen, seen) for player in players],
    )


async def forget_aliases(session: Session, names: Iterable[tuple[str, str]]) -> None:
    """Take back one use of each name, given as GUID and alias; one never used again goes."""
    for guid, alias in names:
        await session.execute(
            "UPDATE player_aliases SET times_seen = times_seen - 1 WHERE guid = ? AND alias = ?",
            guid,
            alias,
        )
        await session.execute(
            "DELETE FROM player_aliases WHERE guid = ? AND alias = ? AND times_seen <= 0",
            guid,
            alias,
        )


async def matches_of_session(source: Database | Session, gaming_session_id: int) -> list[Match]:
    """Work out the teams of every match of a gaming session, in the order they were played."""
    rows = await source.fetch_all(
        """
        SELECT r.match_id, r.map_name, r.round_number, p.player_guid, p.clean_name, p.team
        FROM rounds r JOIN player_comprehensive_stats p ON p.round_id = r.id
        WHERE r.gaming_session_id = ?
        ORDER BY r.round_date, r.round_time, p.id
        """,
        gaming_session_id,
    )
    return recognise_teams(rows)


def recognise_teams(rows: Iterable[Row]) -> list[Match]:
    """Group player rows, ordered by time, into matches and name each match's sides.

    Args:
        rows: mappings with match_id, map_name, round_number, player_guid, clean_name, team.

    """
    maps: dict[str, str] = {}
    sides: dict[str, dict[str, tuple[int, str]]] = {}  # match: {guid: (side in round 1, name)}
    for row in rows:
        maps[row["match_id"]] = row["map_name"]
        players = sides.setdefault(row["match_id"], {})
        if row["team"] in (AXIS, ALLIES):  # one who changed teams counts where he was last
            swapped = row["round_number"] == 2
            side = (row["team"] == ALLIES) != swapped
            players[row["player_guid"]] = (int(side), row["clean_name"])

    matches: list[Match] = []
    for match_id, players in sides.items():
        axis, allies = (
            {guid: name for guid, (at, name) in players.items() if at == side} for side in (0, 1)
        )
        began_as_axis = 0
        if matches:
            team_a, team_b = matches[-1].teams
            same = len(axis.keys() & team_a) + len(allies.keys() & team_b)
            swapped = len(axis.keys() & team_b) + len(allies.keys() & team_a)
            began_as_axis = int(swapped > same)
        teams = (allies, axis) if began_as_axis else (axis, allies)
        matches.append(Match(match_id, maps[match_id], teams, began_as_axis))
    return matches


async def note_teams(session: Session, match_id: str) -> None:
    """Write the teams of a match into ``session_teams``, and of those played after it.

    Usually there are none after it; when a file was imported late, their teams may get new names.
    The table, as it has always been, has one place for a map and a date: of two matches there it
    holds the later. Nothing here reads it; :func:`matches_of_session` knows both.
    """
    gaming_session_id = await session.fetch_value(
        "SELECT gaming_session_id FROM rounds WHERE match_id = ? ORDER BY round_number DESC",
        match_id,
    )
    if gaming_session_id is None:  # a row of another bot that was imported again
        return
    start = await session.fetch_value(
        "SELECT MIN(round_date) FROM rounds WHERE gaming_session_id = ?", gaming_session_id
    )
    matches = await matches_of_session(session, gaming_session_id)
    ids = [match.match_id for match in matches]
    await session.execute_many(
        """
        INSERT INTO session_teams (session_start_date, map_name, team_name, player_guids,
                                   player_names)
        VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (session_start_date, map_name, team_name) DO UPDATE
        SET player_guids = excluded.player_guids, player_names = excluded.player_names
        """,
        [
            (
                start,
                match.map_name,
                name,
                json.dumps(list(team)),
                json.dumps(list(team.values()), ensure_ascii=False),
            )
            for match in matches[ids.index(match_id) :]
            for name, team in zip(TEAM_NAMES, match.teams, strict=True)
        ],
    )
