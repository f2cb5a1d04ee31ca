"""Finding players by what people call them, and their links to Discord accounts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bot.core.database import Database, DatabaseValueError, Session

SHOWN = 8  # names in an answer that asks back


class AskedWrongError(Exception):
    """The question cannot be answered as it was put; the message is for the player who asked.

    Args:
        text: the message, with ``{}`` for each name in it.
        names: what players call themselves, or what was asked for; to be made harmless when shown.

    """

    def __init__(self, text: str, *names: str) -> None:
        self._text, self._names = text, names
        super().__init__(self.said(str))

    def said(self, shown: Callable[[str], str]) -> str:
        """Return the message with each name as ``shown`` writes it."""
        return self._text.format(*map(shown, self._names)) if self._names else self._text


@dataclass(frozen=True)
class KnownPlayer:
    """Somebody who has played."""

    guid: str
    names: tuple[str, ...]  # without colours, most frequent first

    @property
    def name(self) -> str:
        """The name that is used most."""
        return self.names[0]


async def known_players(
    source: Database | Session, guids: Sequence[str] | None = None
) -> dict[str, KnownPlayer]:
    """Return by GUID everybody who has played, or those named of them."""
    if guids is not None and not guids:
        return {}
    chosen = "" if guids is None else f"WHERE player_guid IN ({', '.join('?' * len(guids))}) "
    rows = await source.fetch_all(
        f"SELECT player_guid, clean_name, COUNT(*) AS rounds FROM player_comprehensive_stats "
        f"{chosen}GROUP BY player_guid, clean_name ORDER BY COUNT(*) DESC, clean_name",
        *(guids or ()),
    )
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row["player_guid"], []).append(row["clean_name"])
    return {guid: KnownPlayer(guid, tuple(used)) for guid, used in names.items()}


def find(players: dict[str, KnownPlayer], wanted: str) -> KnownPlayer:
    """Find one player by GUID, name, beginning or part of a name, whatever the case.

    It is compared here and not in SQL, because SQLite folds the case of ASCII letters only.

    Raises:
        AskedWrongError: nobody is called so, or several are.

    """
    text = wanted.strip().casefold()
    if not text:
        raise AskedWrongError("Which player?")
    for guid, player in players.items():
        if guid.casefold() == text:
            return player
    folded = {
        guid: [name.strip().casefold() for name in player.names] for guid, player in players.items()
    }
    kinds = (
        lambda names: names[0] == text,  # a usual name before one used once
        lambda names: text in names,
        lambda names: any(name.startswith(text) for name in names),
        lambda names: any(text in name for name in names),
    )
    for matches in kinds:
        found = [players[guid] for guid, names in folded.items() if matches(names)]
        if len(found) == 1:
            return found[0]
        if found:
            some = found[:SHOWN]
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise AskedWrongError(
                f"Several players match: {', '.join(['{} ({})'] * len(some))}{more}. "
                "Write more of the name, or the GUID.",
                *(text for player in some for text in (player.name, player.guid)),
            )
    names = {name: player.name for player in players.values() for name in folded[player.guid]}
    near = dict.fromkeys(names[name] for name in difflib.get_close_matches(text, names, n=3))
    hint = f" Did you mean {' or '.join(['{}'] * len(near))}?" if near else ""
    raise AskedWrongError(f"Nobody called “{{}}” has played here.{hint}", _short(wanted), *near)


async def linked_guid(source: Database | Session, discord_id: int) -> str | None:
    """Return the GUID that a Discord account is linked to."""
    return await source.fetch_value(
        "SELECT et_guid FROM player_links WHERE discord_id = ?", discord_id
    )


async def asked_for(database: Database, asker: int, wanted: str) -> KnownPlayer:
    """Find the player that a command is about: by name, by mention, or the asker.

    Raises:
        AskedWrongError: there is no such player, or no link.

    """
    mention = re.fullmatch(r"<@!?(\d+)>", wanted.strip())
    if wanted.strip() and not mention:
        return find(await known_players(database), wanted)
    account = int(mention[1]) if mention else asker
    guid = await linked_guid(database, account) if account < 2**63 else None  # no id is larger
    if guid is None:
        raise AskedWrongError(
            "That account is linked to no player."
            if mention
            else "Which player? Name one, or link yourself once with `!link your-name`."
        )
    players = await known_players(database, [guid])
    if guid not in players:
        raise AskedWrongError("The linked player {} has not played any round that is known.", guid)
    return players[guid]


async def link(
    database: Database, discord_id: int, username: str, wanted: str, *, verified: bool = False
) -> KnownPlayer:
    """Link a Discord account to a player.

    Raises:
        AskedWrongError: there is no such player, or one of the two is linked already.

    """
    player = find(await known_players(database), wanted)
    try:
        await database.execute(
            "INSERT INTO player_links (discord_id, discord_username, et_guid, et_name, "
            "linked_date, verified) VALUES (?, ?, ?, ?, ?, ?)",
            discord_id,
            username,
            player.guid,
            player.name,
            datetime.now(UTC).replace(tzinfo=None, microsecond=0),
            verified,
        )
    except DatabaseValueError:  # one of the two keys is taken: the one place that can be sure
        mine = await database.fetch_one(
            "SELECT et_guid, et_name FROM player_links WHERE discord_id = ?", discord_id
        )
        if mine is None:
            raise AskedWrongError(
                "{} is linked to another account. If that is wrong, ask an admin.", player.name
            ) from None
        if mine["et_guid"] == player.guid:
            raise AskedWrongError("{} is linked to this account already.", player.name) from None
        raise AskedWrongError(
            "This account is linked to {}. `!unlink` first.",
            mine["et_name"] or mine["et_guid"] or "nobody",
        ) from None
    return player


async def unlink(database: Database, discord_id: int) -> str:
    """Remove the link of a Discord account; return the player's name.

    Raises:
        AskedWrongError: there is none.

    """
    row = await database.fetch_one(
        "SELECT et_name, et_guid FROM player_links WHERE discord_id = ?", discord_id
    )
    removed = await database.execute("DELETE FROM player_links WHERE discord_id = ?", discord_id)
    if row is None or not removed:
        raise AskedWrongError("There is no link to remove.")
    return row["et_name"] or row["et_guid"] or "nobody"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
