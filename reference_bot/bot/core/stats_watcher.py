"""Keeping the database in step with the game server's stats files.

What is new is found by names, never by times: whatever the game server or ``local_stats/`` has and
``processed_files`` does not have as a success is fetched and imported, oldest first. So files that
came while the bot was down, while the database was away or under another clock are not missed,
and none is imported twice. A file that has changed on the game server since it was imported (one
that stood still in the middle for longer than we wait) takes its round's place in the database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from bot.core.database import Database, DatabaseError, DatabaseValueError
from bot.core.round_import import files_in, import_again, import_file, note_failure, processed_files
from bot.core.settings import BotSettings
from bot.core.stats_parser import StatsFileError, StatsFileName
from bot.core.stats_source import RemoteFile, SourceError, StatsSource, keep
from bot.core.systemd import notify

log = logging.getLogger("stats")

BATCH = 40  # files that are fetched before they are imported
FETCHES_AT_ONCE = 8
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between tries while the database is away


class StatsWatcher:
    """Looks for new stats files, for ever."""

    def __init__(
        self,
        settings: BotSettings,
        database: Database,
        on_import: Callable[[Sequence[StatsFileName]], None] | None = None,
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            settings: where the files are.
            database: where the rounds go.
            on_import: is told after each look which files' rounds were imported.

        """
        self._settings = settings
        self._database = database
        self._on_import = on_import
        self._source = StatsSource(settings.ssh) if settings.ssh else None
        self._remote: dict[str, RemoteFile] = {}  # the game server's files at the last look
        # Files that could not be imported, and what they and their first round looked like then:
        # they are not tried again before that changes.
        self._failed: dict[str, object] = {}
        # Imported files as they were when they were compared with ours: the same, or not fit to
        # take its place.
        self._compared: dict[str, RemoteFile] = {}
        self.problem: str | None = None  # what is wrong at the moment, for people
        self.imported = 0  # rounds since the start
        self.renewed = 0  # files since the start that were imported again

    async def run(self) -> None:
        """Look again and again until cancelled."""
        pause = FIRST_PAUSE
        try:
            while True:
                try:
                    await self.look()
                    pause, wait = FIRST_PAUSE, self._settings.poll_interval
                except (DatabaseError, OSError) as error:
                    wait, pause = pause, min(pause * 2, LONGEST_PAUSE)
                    self._report(f"{error}; nothing is lost, next try in {wait:.0f} s")
                await asyncio.sleep(wait)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection to the game server."""
        if self._source is not None:
            await self._source.close()

    async def look(self, doubted: Collection[str] = ()) -> int:
        """Fetch and import whatever is new or has changed; return the number of new rounds.

        Args:
            doubted: names of imported files that are compared with what was imported even where
                they look the same on the game server as here.

        Raises:
            DatabaseError: the database is away; the files stay where they are.
            OSError: the state directory cannot be read or written.

        """
        done = await processed_files(self._database)
        problem = None
        try:
            self._remote = await self._settled(done)
        except SourceError as error:
            self._remote, problem = {}, f"the game server: {error}"
            doubted = ()  # to compare with ours alone would say nothing
        local = files_in(self._settings.local_stats)
        known = local | {name: file.name for name, file in self._remote.items()}
        new = sorted(
            name
            for text, name in known.items()
            if text not in done
            and (text not in self._failed or self._failed[text] != self._appearance(name, known))
        )
        changed = dict.fromkeys([*self._changed(self._remote, done)[:BATCH], *doubted])
        imported: list[StatsFileName] = []
        try:
            for text in changed:
                try:  # first, because a second round needs its first
                    await self._renew(known[text], known)
                except SourceError as error:
                    problem = f"the game server: {error}"
            for start in range(0, len(new), BATCH):
                batch = new[start : start + BATCH]
                notify(f"STATUS=importing: {start} of {len(new)} files are done")
                try:
                    await self._fetch(batch, known)
                except SourceError as error:
                    problem = f"the game server: {error}"
                await self._import(batch, known, imported)
        finally:  # an outage in the middle takes nothing back
            if imported and self._on_import:
                self._on_import(imported)
        self._report(problem)
        return len(imported)

    async def _settled(self, done: set[str]) -> dict[str, RemoteFile]:
        """List the game server's files without those that are being written just now."""
        if self._source is None:
            return {}
        files = await self._source.files()
        if files.keys() <= done and not self._changed(files, done):
            return files
        await asyncio.sleep(self._settings.settle_time)
        again = await self._source.files()
        return {name: file for name, file in again.items() if files.get(name) == file}

    def _changed(self, files: Mapping[str, RemoteFile], done: set[str]) -> list[str]:
        """Name the imported files that have another size than ours, or a later date.

        Our copies have the game server's dates, but for those that an older release or another bot
        has left: where clocks differ, such a one may be fetched once for nothing.
        """
        changed = []
        for text in sorted(files.keys() & done):
            if self._compared.get(text) == files[text]:
                continue
            try:
                ours = (self._settings.local_stats / text).stat()
            except FileNotFoundError:  # only the database was moved here
                continue
            if ours.st_size == files[text].size and int(ours.st_mtime) >= files[text].modified:
                self._compared[text] = files[text]
            else:
                changed.append(text)
        return changed

    async def _renew(self, name: StatsFileName, known: Mapping[str, StatsFileName]) -> None:
        """Import a file again if it is not what was imported.

        Our copy is replaced afterwards: who stops in between finds it changed once more.

        Raises:
            DatabaseError: nothing was written.
            SourceError: it could not be fetched.
            OSError: ``local_stats`` cannot be read or written.

        """
        here = self._settings.local_stats
        theirs = self._remote.get(name.text)
        if theirs:
            content = await self._source.read(theirs)
            if content is None:  # it changes just now
                return
            shortest = (here / name.text).stat().st_size  # what is missing now was there
        else:
            content, shortest = (here / name.text).read_bytes(), 0
        others = {one.text for one in name.second_rounds(known.values())}
        if partner := _first_round(name, known):
            others.add(partner.text)
        await self._fetch_these(self._not_here(others))
        try:
            async with self._database.session() as session:
                new = await import_again(
                    session, here, name, content, known.values(), shortest=shortest
                )
        except (StatsFileError, DatabaseValueError) as error:
            log.warning("%s has changed and is not imported again: %s", name.text, error)
        else:
            if theirs:
                keep(content, theirs, here)
            if new:
                self.renewed += 1
                log.info("%s has changed since it was imported: imported again", name.text)
        if theirs:
            self._compared[name.text] = theirs

    def _appearance(self, name: StatsFileName, known: Mapping[str, StatsFileName]) -> object:
        """Everything that the outcome of an import depends on."""
        partner = _first_round(name, known)
        return self._remote.get(name.text), partner, partner and self._remote.get(partner.text)

    async def _fetch(
        self, names: Sequence[StatsFileName], known: Mapping[str, StatsFileName]
    ) -> None:
        """Fetch files, and the first rounds that they build on where those are not here.

        Raises:
            SourceError: at least one could not be fetched; it stays new.
            OSError: ``local_stats`` cannot be written.

        """
        partners = {partner.text for name in names if (partner := _first_round(name, known))}
        await self._fetch_these({name.text for name in names} | self._not_here(partners))

    def _not_here(self, names: set[str]) -> set[str]:
        return names - files_in(self._settings.local_stats).keys()

    async def _fetch_these(self, wanted: set[str]) -> None:
        gate = asyncio.Semaphore(FETCHES_AT_ONCE)

        async def fetch(file: RemoteFile) -> None:
            async with gate:
                await self._source.fetch(file, self._settings.local_stats)

        outcomes = await asyncio.gather(
            *(fetch(self._remote[text]) for text in wanted & self._remote.keys()),
            return_exceptions=True,  # the others are fetched all the same
        )
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _import(
        self,
        names: Sequence[StatsFileName],
        known: Mapping[str, StatsFileName],
        imported: list[StatsFileName],
    ) -> None:
        """Import files that are here; what was new is added to ``imported`` at once."""
        here = files_in(self._settings.local_stats)
        for name in names:
            partner = _first_round(name, known)
            if name.text not in here or (partner and partner.text not in here):
                continue  # could not be fetched this time
            try:
                async with self._database.session() as session:
                    new = await import_file(session, self._settings.local_stats, name, partner)
            except (StatsFileError, DatabaseValueError) as error:
                log.warning("%s is not imported: %s", name.text, error)
                await note_failure(self._database, name.text, str(error))
                self._failed[name.text] = self._appearance(name, known)
            else:
                self._failed.pop(name.text, None)
                if new:
                    imported.append(name)
                    self.imported += 1
                log.info("%s %s", name.text, "imported" if new else "was imported before")

    def _report(self, problem: str | None) -> None:
        if problem is not None:
            log.error("%s", problem)
        elif self.problem is not None:
            log.info("all is well again")
        self.problem = problem
        state = problem or f"watching; {self.imported} rounds imported since the start"
        notify(f"STATUS={state}")


def _first_round(name: StatsFileName, known: Mapping[str, StatsFileName]) -> StatsFileName | None:
    return name.first_round(known.values()) if name.round_number == 2 else None
