"""Writing rounds into the database: each in one transaction, each once."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bot.core import team_history
from bot.core.database import Database, Row, Session
from bot.core.stats_parser import (
    MissingFirstRoundError,
    Player,
    Round,
    StatsFileError,
    StatsFileName,
    parse,
    read_stats,
    second_round_alone,
)

# Rounds that end less than this apart belong to one gaming session (one evening).
SESSION_GAP = timedelta(minutes=60)


def files_in(directory: Path) -> dict[str, StatsFileName]:
    """Return the round files in a directory by name; other files are left out."""
    names = (StatsFileName.parse(path.name) for path in directory.iterdir())
    return {name.text: name for name in names if name is not None}


async def processed_files(database: Database) -> set[str]:
    """Return the names of all files that have been imported."""
    rows = await database.fetch_all("SELECT filename FROM processed_files WHERE success = TRUE")
    return {row["filename"] for row in rows}


async def import_file(
    session: Session, directory: Path, name: StatsFileName, first_round: StatsFileName | None
) -> bool:
    """Import one file and note it in ``processed_files``; both or nothing.

    Args:
        session: any session; the import makes its own transaction (or savepoint) in it.
        directory: where the files are.
        name: the file.
        first_round: if this is a second round, the file of its first, where there is one.

    Returns:
        False when the file had been imported before; nothing is written then.

    Raises:
        StatsFileError: the file cannot be imported as it is.
        DatabaseError: nothing was written; see the kinds of it.

    """
    content = read_stats(directory / name.text)
    match_id = name.match_id
    round_ = _parse_as(content, name)
    if name.round_number == 2:
        if first_round is None:
            raise MissingFirstRoundError("the file of its first round is missing")
        match_id = first_round.match_id
        round_ = second_round_alone(round_, _read(directory, first_round))

    async with session.transaction():
        if not await note_success(session, name.text, hash_of(content)):
            return False
        round_id = await _write_round(session, name, match_id, round_)
        if round_id is None:  # the round is there; only the note about its file was lost
            await _check_same_round(session, name, match_id)
            return False
        await _write_players(session, round_id, name, round_)
        await team_history.note_aliases(session, name.ended, round_.players)
        await team_history.note_teams(session, match_id)
    return True


async def import_again(
    session: Session,
    directory: Path,
    name: StatsFileName,
    content: bytes,
    known: Collection[StatsFileName],
    *,
    shortest: int = 0,
) -> bool:
    """Let a round say what its file says now, after an earlier state of it was imported.

    The round keeps its id, its match and its session; its rows of players and weapons are written
    anew. So are those of the second round when a first one changes: that was taken off them.

    Args:
        session: any session; the import makes its own transaction (or savepoint) in it.
        directory: where the files of the match's other round are.
        name: the file.
        content: what stands in it now.
        known: all files, to find the match's other round among them.
        shortest: bytes that it must have, unless it is what was imported.

    Returns:
        False when exactly this content was imported before; nothing is written then.

    Raises:
        StatsFileError: the file cannot be imported as it is, or there is no such round.
        DatabaseError: nothing was written; see the kinds of it.

    """
    whole = alone = _parse_as(content, name)
    if name.round_number == 2:
        first = name.first_round(known)
        if first is None:
            raise MissingFirstRoundError("the file of its first round is missing")
        alone = second_round_alone(whole, _read(directory, first))

    async with session.transaction():
        changed = await session.execute(
            "UPDATE processed_files SET file_hash = ?, processed_at = ? "
            "WHERE filename = ? AND success = TRUE AND COALESCE(file_hash, '') <> ?",
            hash_of(content),
            _now(),
            name.text,
            hash_of(content),
        )
        if not changed:  # or somebody else has just done it
            return False
        if len(content) < shortest:
            raise StatsFileError(f"it has {len(content)} bytes, and had {shortest}; ours is kept")
        present = await _find_round(session, name)
        if present is None:
            raise StatsFileError("its round is not in the database")
        await _write_anew(session, present, name, alone)
        for second in name.second_rounds(known):
            there = await _find_round(session, second)
            if there is not None and there["match_id"] == present["match_id"]:
                numbers = second_round_alone(_read(directory, second), whole)
                await _write_anew(session, there, second, numbers)
        await team_history.note_teams(session, present["match_id"])
    return True


async def note_failure(database: Database, name: str, message: str) -> None:
    """Keep in ``processed_files`` why a file could not be imported (never over a success)."""
    await database.execute(
        """
        INSERT INTO processed_files (filename, success, error_message, processed_at)
        VALUES (?, FALSE, ?, ?)
        ON CONFLICT (filename) DO UPDATE
        SET error_message = excluded.error_message, processed_at = excluded.processed_at
        WHERE processed_files.success = FALSE
        """,
        name,
        message,
        _now(),
    )


def _parse_as(content: bytes, name: StatsFileName) -> Round:
    round_ = parse(content)
    if (round_.map_name, round_.round_number) != (name.map_name, name.round_number):
        raise StatsFileError(f"{name.text} holds round {round_.round_number} of {round_.map_name}")
    return round_


def _read(directory: Path, name: StatsFileName) -> Round:
    try:
        return _parse_as(read_stats(directory / name.text), name)
    except FileNotFoundError:
        raise StatsFileError(f"{name.text}, the match's other round, is not here") from None


def hash_of(content: bytes) -> str:
    """Return what ``processed_files.file_hash`` says of a file."""
    return hashlib.sha256(content).hexdigest()


def _moment(name: StatsFileName) -> tuple[str, str]:
    """Return round_date and round_time."""
    return f"{name.ended:%Y-%m-%d}", f"{name.ended:%H%M%S}"


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


async def note_success(session: Session, filename: str, file_hash: str | None) -> bool:
    """Note a file in ``processed_files`` as imported; return False where that is noted already."""
    claimed = await session.fetch_value(
        """
        INSERT INTO processed_files (filename, file_hash, success, processed_at)
        VALUES (?, ?, TRUE, ?)
        ON CONFLICT (filename) DO UPDATE
        SET file_hash = excluded.file_hash, success = TRUE, error_message = NULL,
            processed_at = excluded.processed_at
        WHERE processed_files.success = FALSE
        RETURNING id
        """,
        filename,
        file_hash,
        _now(),
    )
    return claimed is not None


async def _write_round(
    session: Session, name: StatsFileName, match_id: str, round_: Round
) -> int | None:
    """Return the new round's id, or None when the round is in the database already."""
    return await session.fetch_value(
        """
        INSERT INTO rounds (round_date, round_time, match_id, map_name, round_number,
                            gaming_session_id, time_limit, actual_time, winner_team,
                            defender_team, is_tied, round_outcome)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (match_id, round_number) DO NOTHING
        RETURNING id
        """,
        *_moment(name),
        match_id,
        round_.map_name,
        round_.round_number,
        await _gaming_session(session, name),
        *await _result(session, match_id, round_),
    )


async def _result(session: Session, match_id: str, round_: Round) -> tuple[object, ...]:
    """Return how a round went: the columns of ``rounds`` from time_limit to round_outcome."""
    is_tied = False
    if round_.round_number == 2 and round_.is_full_hold:
        first = await session.fetch_value(
            "SELECT round_outcome FROM rounds WHERE match_id = ? AND round_number = 1", match_id
        )
        is_tied = first == "fullhold"
    return (
        round_.time_limit,
        round_.actual_time,
        round_.winner_team,
        round_.defender_team,
        is_tied,
        "fullhold" if round_.is_full_hold else "objective",
    )


async def _find_round(session: Session, name: StatsFileName) -> Row | None:
    """Return id and match_id of a file's round, or None where it is not in the database."""
    return await session.fetch_one(
        "SELECT id, match_id FROM rounds WHERE round_date = ? AND round_time = ? "
        "AND map_name = ? AND round_number = ?",
        *_moment(name),
        name.map_name,
        name.round_number,
    )


async def _write_anew(session: Session, row: Row, name: StatsFileName, round_: Round) -> None:
    """Replace what the database says of a round, given what :func:`_find_round` returned."""
    round_id = row["id"]
    await session.execute(
        "UPDATE rounds SET time_limit = ?, actual_time = ?, winner_team = ?, defender_team = ?, "
        "is_tied = ?, round_outcome = ? WHERE id = ?",
        *await _result(session, row["match_id"], round_),
        round_id,
    )
    before = await session.fetch_all(
        "SELECT player_guid, clean_name FROM player_comprehensive_stats WHERE round_id = ?",
        round_id,
    )
    await session.execute("DELETE FROM weapon_comprehensive_stats WHERE round_id = ?", round_id)
    await session.execute("DELETE FROM player_comprehensive_stats WHERE round_id = ?", round_id)
    await _write_players(session, round_id, name, round_)
    # Names are counted by round: those of this one were counted when it was first imported.
    counted = {tuple(row) for row in before}
    present = {(player.guid, player.clean_name) for player in round_.players}
    await team_history.forget_aliases(session, counted - present)
    new = [one for one in round_.players if (one.guid, one.clean_name) not in counted]
    await team_history.note_aliases(session, name.ended, new)


async def _check_same_round(session: Session, name: StatsFileName, match_id: str) -> None:
    """Raise StatsFileError where the round that the match has is not that of this file."""
    there = await session.fetch_one(
        "SELECT round_date, round_time FROM rounds WHERE match_id = ? AND round_number = ?",
        match_id,
        name.round_number,
    )
    if tuple(there) != _moment(name):
        raise StatsFileError(
            f"match {match_id} has another second round, of {' '.join(there)};"
            " the file of this one's first round is missing"
        )


async def _gaming_session(session: Session, name: StatsFileName) -> int:
    """Find the gaming session of a round, or begin a new one."""
    moment = _moment(name)
    before = await session.fetch_one(
        """
        SELECT round_date, round_time, gaming_session_id FROM rounds
        WHERE (round_date, round_time) <= (?, ?)
        ORDER BY round_date DESC, round_time DESC LIMIT 1
        """,
        *moment,
    )
    after = await session.fetch_one(
        """
        SELECT round_date, round_time, gaming_session_id FROM rounds
        WHERE (round_date, round_time) > (?, ?)
        ORDER BY round_date, round_time LIMIT 1
        """,
        *moment,
    )
    for near in (before, after):
        if near is not None and near["gaming_session_id"] is not None:
            with contextlib.suppress(ValueError):  # a row of another bot, with another kind of time
                then = datetime.strptime(near["round_date"] + near["round_time"], "%Y-%m-%d%H%M%S")
                if abs(name.ended - then) < SESSION_GAP:
                    return near["gaming_session_id"]
    return (await session.fetch_value("SELECT MAX(gaming_session_id) FROM rounds") or 0) + 1


async def _write_players(
    session: Session, round_id: int, name: StatsFileName, round_: Round
) -> None:
    rows = [_player_row(round_id, name, player) for player in round_.players]
    columns = list(rows[0])
    await session.execute_many(
        f"INSERT INTO player_comprehensive_stats ({', '.join(columns)}) "
        f"VALUES ({', '.join('?' * len(columns))})",
        [tuple(row.values()) for row in rows],
    )
    await session.execute_many(
        """
        INSERT INTO weapon_comprehensive_stats (round_id, player_guid, player_name, weapon_name,
                                                hits, shots, kills, deaths, headshots, accuracy)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        [
            (round_id, player.guid, player.name, weapon, *record.numbers(), record.accuracy)
            for player in round_.players
            for weapon, record in player.weapons.items()
        ],
    )


def _player_row(round_id: int, name: StatsFileName, player: Player) -> dict[str, object]:
    return {
        "round_id": round_id,
        "round_date": _moment(name)[0],
        "map_name": name.map_name,
        "round_number": name.round_number,
        "player_guid": player.guid,
        "player_name": player.name,
        "clean_name": player.clean_name,
        "team": player.team,
    } | player.columns()
