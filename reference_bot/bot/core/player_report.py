"""A player's record, and the leaderboards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from bot.core.database import Database, Row
from bot.core.players import AskedWrongError, KnownPlayer, known_players

# Weapons whose hits per shot mean something; explosives exceed 100 %.
BULLETS = (
    "WS_LUGER", "WS_COLT", "WS_MP40", "WS_THOMPSON", "WS_STEN", "WS_FG42", "WS_MG42",
    "WS_BROWNING", "WS_CARBINE", "WS_KAR98", "WS_GARAND", "WS_K43", "WS_MP34",
)  # fmt: skip
LATEST_SESSIONS = 5
PLACES = 10
FEWEST_ROUNDS = 10  # to stand in a leaderboard


def ratio(part: float, whole: float) -> float:
    """Divide; by nothing gives 0."""
    return float(part) / float(whole) if whole else 0.0


@dataclass(frozen=True)
class PlayerReport:
    """Everything on a player's card."""

    player: KnownPlayer
    totals: Row  # sums by column, rounds, won, first, last (dates), best_spree
    weapons: list[Row]  # weapon_name, kills, headshots, hits, shots; most kills first
    sessions: list[Row]  # the latest: date, damage, seconds, kills, deaths

    @property
    def dpm(self) -> float:
        """Damage per minute."""
        return 60 * ratio(self.totals["damage_given"], self.totals["seconds"])

    @property
    def kd(self) -> float:
        """Kills per death; all kills where there was no death."""
        return ratio(self.totals["kills"], self.totals["deaths"] or 1)

    @property
    def accuracy(self) -> float:
        """Hits per shot in percent, bullets only."""
        bullets = [row for row in self.weapons if row["weapon_name"] in BULLETS]
        hits, shots = (sum(row[name] for row in bullets) for name in ("hits", "shots"))
        return 100 * ratio(hits, shots)


async def player_report(database: Database, player: KnownPlayer) -> PlayerReport:
    """Sum up all rounds of a player."""
    async with database.session() as session:
        totals = await session.fetch_one(
            """
            SELECT COUNT(*) AS rounds, SUM(p.kills) AS kills, SUM(p.deaths) AS deaths,
                   SUM(p.headshots) AS headshots, SUM(p.damage_given) AS damage_given,
                   SUM(p.damage_received) AS damage_received, SUM(p.gibs) AS gibs,
                   SUM(p.team_kills) AS team_kills, SUM(p.self_kills) AS self_kills,
                   SUM(p.revives_given) AS revives_given, SUM(p.times_revived) AS times_revived,
                   SUM(p.time_played_seconds) AS seconds, MAX(p.killing_spree) AS best_spree,
                   SUM(p.dynamites_planted + p.objectives_stolen) AS objectives,
                   SUM(CASE WHEN r.winner_team = p.team THEN 1 ELSE 0 END) AS won,
                   MIN(r.round_date) AS first, MAX(r.round_date) AS last
            FROM player_comprehensive_stats p JOIN rounds r ON r.id = p.round_id
            WHERE p.player_guid = ?
            """,
            player.guid,
        )
        weapons = await session.fetch_all(
            """
            SELECT weapon_name, SUM(kills) AS kills, SUM(headshots) AS headshots,
                   SUM(hits) AS hits, SUM(shots) AS shots
            FROM weapon_comprehensive_stats WHERE player_guid = ?
            GROUP BY weapon_name ORDER BY SUM(kills) DESC, weapon_name
            """,
            player.guid,
        )
        sessions = await session.fetch_all(
            """
            SELECT MIN(r.round_date) AS date, SUM(p.damage_given) AS damage,
                   SUM(p.time_played_seconds) AS seconds, SUM(p.kills) AS kills,
                   SUM(p.deaths) AS deaths
            FROM player_comprehensive_stats p JOIN rounds r ON r.id = p.round_id
            WHERE p.player_guid = ? AND r.gaming_session_id IS NOT NULL
            GROUP BY r.gaming_session_id
            ORDER BY MAX(r.round_date) DESC, r.gaming_session_id DESC LIMIT ?
            """,
            player.guid,
            LATEST_SESSIONS,
        )
    return PlayerReport(player, totals, weapons, sessions)


# ----------------------------------------------------------------------------------- leaderboards


_PLAYERS = """
    SELECT p.player_guid AS guid, COUNT(*) AS rounds, {value} AS value
    FROM player_comprehensive_stats p
    WHERE p.team IN (1, 2) AND p.round_date >= ? GROUP BY p.player_guid
"""
_PLAYERS_AND_ROUNDS = """
    SELECT p.player_guid AS guid, COUNT(*) AS rounds, {value} AS value
    FROM player_comprehensive_stats p JOIN rounds r ON r.id = p.round_id
    WHERE p.team IN (1, 2) AND p.round_date >= ? GROUP BY p.player_guid
"""
# Its rounds are counted among the players' rows: to count the different ones among the eight times
# as many weapon rows would take most of the time.
_BULLETS = f"""
    SELECT w.player_guid AS guid, {{value}} AS value FROM weapon_comprehensive_stats w
    WHERE w.weapon_name IN ({", ".join(f"'{name}'" for name in BULLETS)})
      AND w.round_id IN (SELECT id FROM rounds WHERE round_date >= ?) GROUP BY w.player_guid
"""


@dataclass(frozen=True)
class Category:
    """One kind of leaderboard."""

    title: str
    value: str  # SQL for a player's value
    form: str  # how a value is written
    source: str = _PLAYERS


CATEGORIES = {
    "dpm": Category(
        "Damage per minute",
        "SUM(p.damage_given) * 60.0 / NULLIF(SUM(p.time_played_seconds), 0)",
        "{:.0f} DPM",
    ),
    "kills": Category("Kills", "SUM(p.kills)", "{:,} kills"),
    "kd": Category(
        "Kills per death",
        "SUM(p.kills) * 1.0 / CASE WHEN SUM(p.deaths) = 0 THEN 1 ELSE SUM(p.deaths) END",
        "{:.2f}",
    ),
    "damage": Category("Damage", "SUM(p.damage_given)", "{:,}"),
    "headshots": Category("Headshot kills", "SUM(p.headshot_kills)", "{:,} headshot kills"),
    "accuracy": Category(
        "Accuracy (bullets)",
        "SUM(w.hits) * 100.0 / NULLIF(SUM(w.shots), 0)",
        "{:.1f} %",
        _BULLETS,
    ),
    "revives": Category("Revives", "SUM(p.revives_given)", "{:,} revives"),
    "wins": Category(
        "Rounds won",
        "SUM(CASE WHEN r.winner_team = p.team THEN 1 ELSE 0 END) * 100.0 / COUNT(*)",
        "{:.0f} % won",
        _PLAYERS_AND_ROUNDS,
    ),
    "rounds": Category("Rounds played", "COUNT(*)", "{:,} rounds"),
}


@dataclass(frozen=True)
class Place:
    """One line of a leaderboard."""

    name: str
    value: str  # as it is written
    rounds: int


@dataclass(frozen=True)
class Leaderboard:
    """The best of a category."""

    title: str
    since: str | None  # date, inclusive
    fewest_rounds: int
    places: list[Place]


async def leaderboard(database: Database, category: str, days: int | None = None) -> Leaderboard:
    """Rank the players.

    Args:
        database: where the rounds are.
        category: a key of CATEGORIES.
        days: only so many days up to the newest round; None for all time.

    Raises:
        AskedWrongError: there is no such category.

    """
    chosen = CATEGORIES.get(category)
    if chosen is None:
        raise AskedWrongError(
            f"There is no leaderboard of that kind. There are: {', '.join(CATEGORIES)}."
        )
    since = None
    if days is not None:
        newest = await database.fetch_value("SELECT MAX(round_date) FROM rounds")
        if newest is not None:
            since = str(date.fromisoformat(newest[:10]) - timedelta(days=days - 1))
    rows = await database.fetch_all(chosen.source.format(value=chosen.value), since or "")
    values = {row["guid"]: row["value"] for row in rows if row["value"]}
    if chosen.source == _BULLETS:
        rows = await database.fetch_all(_PLAYERS.format(value="COUNT(*)"), since or "")
    rounds = {row["guid"]: row["rounds"] for row in rows}
    ranked = sorted(values, key=lambda guid: (-values[guid], guid))
    for fewest in (FEWEST_ROUNDS, 1):  # a young community has nobody with that many
        best = [guid for guid in ranked if rounds.get(guid, 0) >= fewest][:PLACES]
        if best:
            break
    players = await known_players(database, best)
    places = [
        Place(players[guid].name, chosen.form.format(values[guid]), rounds[guid]) for guid in best
    ]
    return Leaderboard(chosen.title, since, fewest, places)
