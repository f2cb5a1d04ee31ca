"""Comparing what should agree: the game server's files, ours, ``processed_files`` and ``rounds``.

A round belongs to a file by date, time, map and number. Another bot, or an older one, may have
noted a file as processed without writing its round, or the other way round; both are found here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bot.core.database import Database, Session
from bot.core.round_import import files_in, hash_of, note_success
from bot.core.round_report import key_of
from bot.core.stats_parser import StatsFileName
from bot.core.stats_source import RemoteFile


@dataclass(frozen=True)
class Comparison:
    """Names of round files, each list in the order of time."""

    remote: int  # files on the game server; -1 where it was not asked
    local: int
    rounds: int
    missing: list[str] = field(default_factory=list)  # there is a file, but no round
    noted_in_vain: list[str] = field(default_factory=list)  # of these, noted as a success
    lost: list[str] = field(default_factory=list)  # noted as a success, no round and no file
    unnoted: list[str] = field(default_factory=list)  # there is a round, but no note
    changed: list[str] = field(default_factory=list)  # ours is not the file that was imported
    outdated: list[str] = field(default_factory=list)  # ours has another size than theirs
    failed: dict[str, str] = field(default_factory=dict)  # of the missing, why

    @property
    def agrees(self) -> bool:
        """Whether there is nothing to mend."""
        return not (self.missing or self.lost or self.unnoted or self.changed or self.outdated)


async def compare(
    database: Database, local_stats: Path, remote: Mapping[str, RemoteFile] | None
) -> Comparison:
    """Compare without changing anything.

    Args:
        database: the bot's.
        local_stats: the directory of fetched files; may be missing.
        remote: the game server's files by name, None where there is none to ask.

    """
    async with database.session() as session:
        rounds = await session.fetch_all(
            "SELECT round_date, round_time, map_name, round_number FROM rounds"
        )
        notes = await session.fetch_all(
            "SELECT filename, file_hash, success, error_message FROM processed_files"
        )
    imported = {f"{key_of(row)}.txt" for row in rounds}
    here = files_in(local_stats) if local_stats.is_dir() else {}
    there = remote or {}
    # Notes about files that are no rounds (another bot notes those too) say nothing about rounds.
    hashes = {row["filename"]: row["file_hash"] for row in notes if row["success"]}
    noted = {name for name in hashes if StatsFileName.parse(name)}
    missing = (here.keys() | there.keys()) - imported
    return Comparison(
        remote=len(there) if remote is not None else -1,
        local=len(here),
        rounds=len(imported),
        missing=sorted(missing),
        noted_in_vain=sorted(missing & noted),
        lost=sorted(noted - imported - here.keys() - there.keys()),
        unnoted=sorted(imported - noted),
        changed=sorted(
            name
            for name in here.keys() & imported & noted
            if _is_sha256(hashes[name])
            and hashes[name] != hash_of((local_stats / name).read_bytes())
        ),
        outdated=sorted(
            name
            for name in here.keys() & there.keys()
            if (local_stats / name).stat().st_size != there[name].size
        ),
        failed={
            row["filename"]: row["error_message"] or "no reason was noted"
            for row in notes
            if not row["success"] and row["filename"] in missing
        },
    )


async def mend_notes(database: Database, local_stats: Path, found: Comparison) -> None:
    """Make ``processed_files`` say what is so; the files that are missing can then be imported."""

    async def work(session: Session) -> None:
        for name in found.noted_in_vain:
            await session.execute("DELETE FROM processed_files WHERE filename = ?", name)
        for name in found.unnoted:
            file = local_stats / name
            content = file.read_bytes() if file.is_file() else None
            await note_success(session, name, hash_of(content) if content is not None else None)

    await database.repeat(work)


def _is_sha256(text: str | None) -> bool:
    return text is not None and len(text) == 64
