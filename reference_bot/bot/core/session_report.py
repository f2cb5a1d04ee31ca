"""What the last evening's games looked like."""

from __future__ import annotations

from dataclasses import dataclass

from tools.stopwatch_scoring import MatchScore, last_session, score_session

from bot.core.database import Database


@dataclass(frozen=True)
class PlayerTotal:
    """A player's sums over a gaming session."""

    name: str
    rounds: int
    kills: int
    deaths: int
    damage: int
    dpm: float


@dataclass(frozen=True)
class SessionReport:
    """One gaming session."""

    date: str  # of its first round
    rounds: int
    scores: list[MatchScore]
    players: list[PlayerTotal]  # most damage per minute first


async def last_session_report(database: Database) -> SessionReport | None:
    """Sum up the latest gaming session; None when nothing was played yet."""
    async with database.session() as session:
        chosen = await last_session(session)
        if chosen is None:
            return None
        frame = await session.fetch_one(
            "SELECT MIN(round_date) AS date, COUNT(*) AS rounds FROM rounds "
            "WHERE gaming_session_id = ?",
            chosen,
        )
        players = await session.fetch_all(
            """
            SELECT MAX(p.clean_name) AS name, COUNT(*) AS rounds, SUM(p.kills) AS kills,
                   SUM(p.deaths) AS deaths, SUM(p.damage_given) AS damage,
                   SUM(p.time_played_seconds) AS seconds
            FROM player_comprehensive_stats p JOIN rounds r ON r.id = p.round_id
            WHERE r.gaming_session_id = ?
            GROUP BY p.player_guid
            """,
            chosen,
        )
        scores = await score_session(session, chosen)
    totals = [
        PlayerTotal(
            name=row["name"],
            rounds=row["rounds"],
            kills=row["kills"],
            deaths=row["deaths"],
            damage=row["damage"],
            dpm=row["damage"] * 60 / row["seconds"] if row["seconds"] else 0.0,
        )
        for row in players
    ]
    totals.sort(key=lambda player: (-player.dpm, player.name))
    return SessionReport(frame["date"], frame["rounds"], scores, totals)


@dataclass(frozen=True)
class SessionLine:
    """A gaming session in a list."""

    number: int
    date: str  # of its first round
    begun: str  # end of its first and of its last round, HH:MM
    ended: str
    rounds: int
    maps: int
    players: int


async def list_sessions(database: Database, count: int, skip: int) -> list[SessionLine]:
    """Return ``count`` gaming sessions, newest first, without the first ``skip``."""
    rows = await database.fetch_all(
        """
        SELECT gaming_session_id AS number, MIN(round_date || round_time) AS begun,
               MAX(round_date || round_time) AS ended, COUNT(*) AS rounds,
               COUNT(DISTINCT map_name) AS maps
        FROM rounds WHERE gaming_session_id IS NOT NULL
        GROUP BY gaming_session_id ORDER BY MAX(round_date || round_time) DESC LIMIT ? OFFSET ?
        """,
        count,
        skip,
    )
    if not rows:
        return []
    numbers = [row["number"] for row in rows]
    players = await database.fetch_all(
        "SELECT r.gaming_session_id AS number, COUNT(DISTINCT p.player_guid) AS players "
        "FROM rounds r JOIN player_comprehensive_stats p ON p.round_id = r.id "
        f"WHERE r.gaming_session_id IN ({', '.join('?' * len(numbers))}) "
        "GROUP BY r.gaming_session_id",
        *numbers,
    )
    present = {row["number"]: row["players"] for row in players}
    return [
        SessionLine(
            number=row["number"],
            date=row["begun"][:10],
            begun=f"{row['begun'][10:12]}:{row['begun'][12:14]}",
            ended=f"{row['ended'][10:12]}:{row['ended'][12:14]}",
            rounds=row["rounds"],
            maps=row["maps"],
            players=present.get(row["number"], 0),
        )
        for row in rows
    ]
