"""What the commands do, without the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import apsw
import psycopg
from psycopg import errors

from ferry import (
    attempt,
    audit,
    database,
    ddl,
    difference,
    existing,
    load,
    pages,
    proof,
    reverse,
    server,
    snapshot,
    sqlite,
    storage,
    sync,
    trial,
    versions,
)
from ferry.census import Census, Hazard, note_shapes, take_census
from ferry.difference import NoDifferenceError
from ferry.errors import DifferentError, RefusedError, UsageError
from ferry.keys import find_equal_keys
from ferry.names import NameHazard, find_name_hazards
from ferry.rows import MAX_ROWS, Changes
from ferry.rules import Application, Rules
from ferry.rules import draft as draft_rules
from ferry.schema import ForeignKey, NotCarried, Schema, Table, quote_name, read_schema
from ferry.source import Source, lies_alone, open_sqlite
from ferry.types import declared_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ferry.report import Report
    from ferry.screen import Screen

_LISTED = 10  # names in a message
# Of PostgreSQL's errors those after which the connection is as good as before.
_FAULTS_OF_A_STATEMENT = (psycopg.ProgrammingError, psycopg.DataError)
_BOTH = ("new", "base")  # two files that are attached beside each other


class Journey:
    """One run of a command: where it reports to."""

    def __init__(self, report: Report, screen: Screen, rules: Rules | None = None) -> None:
        self.report = report
        self.screen = screen
        self.rules = rules
        self.application: Application | None = None
        self.database = database.Database()
        self.remark = ""  # stands before what rules did, where the output is for a program

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a part of the run."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.report.timing(name, time.monotonic() - started)

    def examine(self, source: Source, *, new_tables: bool = True) -> tuple[Schema, Census]:
        """Read schema and contents of the source; everything found goes into the report.

        ``new_tables``: ferry makes tables and indexes, so their names have to suit PostgreSQL.
        """
        self.report.data["source"] = source.describe()
        for warning in source.warnings:
            self._warn(warning)
        with self.stage("inspect"):
            schema = self._read_schema(source)
            if self.rules is not None:
                schema = self._apply_rules(source, schema, self.rules)
            census = take_census(source.connection, schema)
            if self.application is not None:
                for table in schema.tables:
                    entries = census.tables[table.name].columns
                    storage.note_storage(source.connection, table, entries, self.application)
            ruled = self.application.changed if self.application is not None else ()
            census.hazards += find_equal_keys(source.connection, schema, census, ruled)
            census.hazards = [_by_original_names(schema, hazard) for hazard in census.hazards]
            census.hazards = [self._name_useless_rule(hazard) for hazard in census.hazards]
            census.hazards += find_name_hazards(schema, indexes=new_tables)
            known = len(source.warnings)
            source.check_sound()
            for warning in source.warnings[known:]:
                self._warn(warning)
        if not any(table.rows for table in census.tables.values()):
            self._warn(f"all tables of {source.path} are empty: is it the right file?")
        self.report.census(schema, census)
        self._read_database(source, schema)
        self.report.hazards(census.hazards)
        return schema, census

    def _read_database(self, source: Source, schema: Schema) -> None:
        """Note what there is beside rows, for `reverse`."""
        self.database = database.read(source, schema)
        self.report.data["database"] = self.database.as_json()

    def _name_useless_rule(self, hazard: Hazard) -> Hazard:
        """Say of a hazard that a rule has not helped, if one was for it."""
        applied = self.application.applied if self.application is not None else ()
        for entry in applied:
            same = (entry.table, entry.rule.hazard) == (hazard.table, hazard.code)
            if same and entry.column in hazard.column.split(", "):
                remedy = (
                    f"rule {entry.rule.number} ({entry.rule.action}) does not help with these: "
                    f"choose another action for them, or {hazard.remedy}"
                )
                return dataclasses.replace(hazard, remedy=remedy)
        return hazard

    def _read_schema(self, source: Source) -> Schema:
        schema = read_schema(source.connection)
        if not schema.tables:
            raise RefusedError(
                f"{source.path} has no tables",
                "programs make such a file when they are started in the wrong directory: look for "
                "the real one",
            )
        return schema

    def _apply_rules(self, source: Source, schema: Schema, rules: Rules) -> Schema:
        """Put the rules before the tables, and say what they do."""
        self.application = Application(source.connection, schema, rules)
        schema = self.application.run()
        self.report.data["rules"] = [entry.as_json() for entry in self.application.applied]
        for entry in self.application.applied:
            self.screen.say(
                f"{self.remark}rule {entry.rule.number}: {entry.table}.{entry.column}: "
                f"{entry.rule.hazard} → {entry.rule.action}, {entry.count} values"
                + (f", {entry.cut} of them lose digits or a time of day" if entry.cut else "")
            )
        for (table, column), key in self.application.followed.items():
            self.screen.say(
                f"{self.remark}{table}.{column}: takes the type of {key}, as it refers to it"
            )
        for rule in self.application.unused():
            self._warn(f"rule {rule.number} ({rule.hazard} → {rule.action}) found nothing to do")
        unused = self.application.renaming.unused(self.application.schema)
        for rename in rules.renames:
            if rename in unused:
                self._warn(f"rename {rename.number}: there is no {rename}")
            else:
                self.screen.say(f"{self.remark}rename {rename.number}: {rename} → {rename.to}")
        return schema

    def _set_rows_aside(self) -> None:
        """Write the rows that rules keep out to the quarantine file."""
        if self.application is None:
            return
        counts = self.application.write_quarantine()
        self.report.data["quarantine"] = {
            "file": str(self.application.rules.quarantine),
            "rows": counts,
        }
        for table, count in counts.items():
            self._warn(
                f"{count} rows of {table} were set aside by a rule; they stand in full in "
                f"{self.application.rules.quarantine}"
            )

    def refuse_hazards(self, hazards: Sequence[Hazard]) -> None:
        """Stop if there is anything that cannot be carried as it is."""
        if hazards:
            found = "\n  ".join(map(str, hazards))
            raise RefusedError(
                f"{len(hazards)} hazard{'s'[: len(hazards) != 1]}; nothing was written\n  {found}",
                "each line names its way out; or let `ferry inspect SQLITE --rules rules.toml` "
                "write a draft of rules to choose from, and copy with --rules rules.toml",
            )

    def inspect(self, path: str, draft: Path | None = None, dsn: str | None = None) -> None:
        """Judge a SQLite file: raises RefusedError if it cannot be carried as it is.

        Where to ``draft`` is given, a rules file to choose from is written there. With a ``dsn``
        PostgreSQL is asked about each expression, on temporary tables.
        """
        with open_sqlite(path) as source:
            schema, census = self.examine(source)
            collations = sorted(schema.foreign_collations)
            if draft is not None and (census.hazards or collations):
                _write_draft(draft, census, collations)
                self.screen.say(f"a draft of rules to choose from was written: {draft}")
            plan = ddl.make_plan(schema, census, "public")
            self.report.not_carried(plan.not_carried)
            if dsn is not None:
                self._try_out(dsn, schema, census)
            self.screen.grid(
                ("table", "rows", "column", "declared", "becomes", "NULLs"),
                [
                    (
                        table.name,
                        census.tables[table.name].rows,
                        column.name,
                        column.declared or "-",
                        census.tables[table.name].columns[column.name].pg_type,
                        census.tables[table.name].columns[column.name].nulls,
                    )
                    for table in schema.tables
                    for column in table.columns
                ],
            )
            self.show_not_carried()
            self.refuse_hazards(census.hazards)
            self.screen.say("no hazards: every value can be carried")

    def _try_out(self, dsn: str, schema: Schema, census: Census) -> None:
        """Let PostgreSQL judge every expression of the plan, and leave nothing behind."""
        with self.stage("try out"), server.transaction(dsn, write=True) as target:
            self.report.target(server.describe(target, "pg_temp"))
            plan = ddl.make_plan(schema, census, "pg_temp")
            self.report.not_carried(attempt.try_out(target, plan))
            target.rollback()

    def show_not_carried(self) -> None:
        """Name on the screen what does not arrive."""
        for item in self.report.data["not_carried"]:
            self.screen.say(f"not carried: {item['what']} {item['name']}: {item['reason']}")

    def schema(self, path: str, namespace: str) -> None:
        """Print PostgreSQL's DDL for a SQLite file; raises RefusedError for names alone."""
        self.remark = "-- "
        with open_sqlite(path) as source:
            schema, census = self.examine(source)
            self.refuse_hazards([h for h in census.hazards if isinstance(h, NameHazard)])
            plan = ddl.make_plan(schema, census, namespace)
            self.report.not_carried(plan.not_carried)
            for statement in plan.statements():
                self.screen.say(f"{statement};")
            for item in plan.not_carried:
                self.screen.say(f"-- not carried: {item.what} {item.name}: {item.reason}")

    def copy(self, path: str, dsn: str, namespace: str, *, into_existing: bool = False) -> str:
        """Copy everything in one transaction and prove it before the commit.

        Returns the outcome. Raises FerryError; the target is then as it was.
        """
        if into_existing:
            return self._copy_into_existing(path, dsn, namespace)
        with open_sqlite(path) as source:
            schema, census = self.examine(source)
            self.refuse_hazards(census.hazards)
            plan = ddl.make_plan(schema, census, namespace)
            with server.transaction(dsn, write=True) as target:
                self.report.target(server.describe(target, namespace))
                server.lock_target(target, namespace)
                present = server.relations(target, namespace)
                if present:
                    self._judge_filled_target(source, target, schema, namespace, present)
                    self.screen.say("nothing to do: the target already holds exactly this database")
                    return "nothing to do"
                server.ensure_schema(target, namespace)
                totals = {name: table.rows for name, table in census.tables.items()}
                with self.stage("load"), self.screen.rows_progress(totals) as advance:
                    lost = load.load(
                        source.connection, target, schema, census, plan, namespace, advance
                    )
                comparable = _without_impossible_keys(target, schema, namespace)
                with proof.Comparison(
                    source.connection, target, comparable, namespace, remember=self._remembers
                ) as comparison:
                    with self.stage("build"):
                        lost += load.build(target, schema, plan, namespace)
                    self.report.not_carried([*plan.not_carried, *lost])
                    with self.stage("prove"):
                        result = comparison.finish()
                self._show_proof(result)
                self._compare_views(source, target, schema, plan, lost, namespace)
                memories = ddl.memories(schema, census)
                self._leave_memories(target, namespace, memories, source, schema, _totals(result))
                self._set_rows_aside()
                self.show_not_carried()
                source.check_unchanged()
        self.screen.say("copied and proven: both sides are equal")
        return "copied"

    def _compare_views(
        self,
        source: Source,
        target: psycopg.Connection,
        schema: Schema,
        plan: ddl.Plan,
        lost: Sequence[NotCarried],
        namespace: str,
    ) -> None:
        """Keep only the views that answer as they do in SQLite."""
        fallen = {item.name for item in lost if item.what == "view"}
        carried = [step.name for step in plan.steps if step.what == "view"]
        carried = [name for name in carried if name not in fallen]
        with self.stage("views"):
            dropped, notes = attempt.differing_views(
                source.connection, target, schema, carried, namespace
            )
        self.report.not_carried(dropped)
        for note in notes:
            self._warn(note)

    def _copy_into_existing(self, path: str, dsn: str, namespace: str) -> str:
        """Copy into empty tables that the application made itself."""
        with open_sqlite(path) as source:
            schema, census = self.examine(source, new_tables=False)
            self.refuse_hazards(census.hazards)
            with server.transaction(dsn, write=True) as target:
                self.report.target(server.describe(target, namespace))
                server.lock_target(target, namespace)
                server.check_owning(target, namespace, [table.name for table in schema.tables])
                found = existing.compare_schemas(target, schema, census, namespace)
                for line in found.notes:
                    self._warn(line)
                if found.lossy:
                    lines = "\n  ".join(found.lossy)
                    raise RefusedError(
                        f"the application's tables cannot take everything:\n  {lines}",
                        "change the application's schema, or copy without --into-existing",
                    )
                tables = [table for table in schema.tables if table.name in found.columns]
                schema = dataclasses.replace(schema, tables=tables)
                if self._is_filled(source, target, schema, namespace):
                    self.screen.say("nothing to do: the target already holds exactly this database")
                    return "nothing to do"
                totals = {table.name: census.tables[table.name].rows for table in tables}
                with (
                    self.stage("load"),
                    self.screen.rows_progress(totals) as advance,
                    load.without_foreign_keys(target, namespace, list(totals)),
                ):
                    for table in tables:
                        load.copy_table(
                            source.connection,
                            target,
                            table,
                            census.tables[table.name],
                            namespace,
                            found.columns[table.name],
                            lambda rows, name=table.name: advance(name, rows),
                            fresh=False,
                        )
                load.set_sequences(target, schema, namespace)
                for name in totals:
                    target.execute(f"ANALYZE {quote_name(namespace)}.{quote_name(name)}")
                result = self._prove(source.connection, target, schema, namespace, structure=False)
                for line in proof.compare_structure(target, schema, namespace):
                    self._warn(f"the application's schema: {line}")
                memories = ddl.memories(schema, census)
                self._leave_memories(target, namespace, memories, source, schema, _totals(result))
                self._set_rows_aside()
                source.check_unchanged()
        self.screen.say("copied and proven: both sides are equal")
        return "copied"

    def _is_filled(
        self, source: Source, target: psycopg.Connection, schema: Schema, namespace: str
    ) -> bool:
        """Tell whether the target holds exactly this database; refuse one that holds another."""
        counts = {}
        for table in schema.tables:
            (counts[table.name],) = target.execute(
                f"SELECT count(*) FROM {quote_name(namespace)}.{quote_name(table.name)}"
            ).fetchone()
        if not any(counts.values()):
            return False
        with contextlib.suppress(DifferentError):
            self._prove(source.connection, target, schema, namespace, structure=False)
            return True
        filled = ", ".join(f"{name} ({rows} rows)" for name, rows in counts.items() if rows)
        raise RefusedError(
            f"the target is not empty: {filled}",
            "--into-existing fills empty tables; if these rows may go, delete them yourself",
        )

    def _leave_memories(
        self,
        target: psycopg.Connection,
        namespace: str,
        memories: dict[str, dict[str, Any]],
        source: Source,
        schema: Schema,
        totals: dict[str, tuple[proof.TableSides, proof.Total]],
        written: Mapping[str, versions.Written] = MappingProxyType({}),
    ) -> None:
        """Leave with each table what `reverse` and a later `sync` need to know.

        ``written`` says who wrote a table's rows, where that was asked already. Comments that
        somebody else has made stay as they are.
        """
        foreign = existing.foreign_comments(target, namespace, ddl.COMMENT)
        whole = {
            "extra": [program.sql for program in schema.programs],
            "database": self.database.as_json(),
        }
        for name, memory in memories.items():
            if name in foreign or name not in totals:
                continue
            sides, total = totals[name]
            for part in ("extra", "database"):  # once, with the first table
                memory.pop(part, None)
            memory |= whole
            whole = {}
            kept = (written.get(name) or versions.look(target, sides)).versions()
            memory["proof"] = {
                "source": source.sha256,
                "rules": self._rules_digest(),
                "columns": sides.names,
                "total": [total.rows, total.low, total.high],
                "versions": kept.as_json() if kept else None,
            }
            target.execute(ddl.comment(namespace, name, memory))

    def sync(
        self,
        path: str,
        dsn: str,
        namespace: str,
        base: str | None,
        *,
        check: bool = True,
        sha256: str = "",
    ) -> str:
        """Carry what has changed since a copy, in one transaction, and prove it.

        Without ``check`` the file's integrity is left to a later ``verify``. Raises RefusedError if
        the file has not this SHA-256, if one is given, or the target is not what the base says,
        DifferentError if both sides are not equal afterwards; nothing is written then.
        """
        with contextlib.ExitStack() as stack:
            # Of files that lie alone each page is read below, and their SHA-256 comes with that.
            alone = base is not None and all(map(lies_alone, (path, base)))
            source = stack.enter_context(open_sqlite(path, check=check, hashed=not alone))
            if not check:
                self.screen.say("SQLite's integrity check is left to `ferry verify`")
            self.report.data["source"] = source.describe()
            declared = self._read_schema(source)
            schema = declared
            if self.rules is not None:
                schema = self._apply_rules(source, declared, self.rules)
            self.report.ddl(schema)
            self._read_database(source, schema)
            self.report.not_carried(schema.not_carried)
            old = None
            if base is not None:
                old = stack.enter_context(open_sqlite(base, check=False, hashed=not alone))
                self.report.data["base"] = old.describe()
                sync.check_same_schema(declared, read_schema(old.connection))
            bench = stack.enter_context(sync.workbench(source.uri, old.uri if old else None))
            differing = None
            if alone:
                with self.stage("pages"):
                    differing = pages.Differing(bench, {"new": source.size, "base": old.size})
                source.sha256, old.sha256 = (differing.sha256[name] for name in _BOTH)
                self.report.data |= {"source": source.describe(), "base": old.describe()}
            if sha256 and source.sha256 != sha256:
                raise RefusedError(
                    f"{path} is not the file that was sent: its SHA-256 is {source.sha256}, "
                    f"not {sha256}",
                    "send it again",
                )
            rules = self.rules or Rules(Path(), Path())
            fronts = Application(bench, declared, rules, _BOTH if old else _BOTH[:1])
            fronts.run()
            if old is not None:
                Application(old.connection, declared, rules).run()
            target = stack.enter_context(server.transaction(dsn, write=True))
            self.report.target(server.describe(target, namespace))
            server.lock_target(target, namespace)
            names = [table.name for table in schema.tables]
            server.check_reading(target, namespace, names)
            server.check_owning(target, namespace, names)
            delta = sync.Delta(bench, target, schema, namespace, fronts.place, differing)
            memories = ddl.read_memories(target, namespace)
            if old is not None and self._was_carried(source, target, delta, memories):
                self._show_deltas([sync.TableDelta(table) for table in schema.tables])
                for file in (source, old):
                    file.check_sound()
                    file.check_unchanged()
                self.screen.say("nothing to do: this file was carried already")
                return "nothing to do"
            if old is not None and not _was_checked(old, memories):
                old.start_check()
            with self.stage("compare"):
                deltas = [self._find_delta(delta, table, old, memories) for table in schema.tables]
            census = delta.judge(deltas)
            self.report.hazards(census.hazards)
            self.refuse_hazards(census.hazards)
            with self.stage("carry"):
                delta.apply(deltas, census)
                load.set_sequences(target, schema, namespace)
            self._show_deltas(deltas)
            with self.stage("prove"):
                self._prove_sync(source, target, delta, deltas, namespace)
            totals = {item.table.name: (delta.sides(item.table), item.total) for item in deltas}
            self._refresh_memories(source, memories, schema, deltas)
            written = {item.table.name: item.written for item in deltas if item.written}
            self._leave_memories(target, namespace, memories, source, schema, totals, written)
            self._set_rows_aside()
            for file in filter(None, (source, old)):
                file.check_sound()
                file.check_unchanged()
        touched = sum(item.touched for item in deltas)
        self.screen.say(
            "carried and proven: both sides are equal"
            if touched
            else "nothing to do: both sides are equal"
        )
        return "carried" if touched else "nothing to do"

    def _find_delta(
        self,
        delta: sync.Delta,
        table: Table,
        base: Source | None,
        memories: dict[str, dict[str, Any]],
    ) -> sync.TableDelta:
        if base is None:
            return delta.from_target(table)
        sides = delta.sides(table)
        known = self._known_total(sides, base.sha256, memories)
        # Where the target was copied from another file, the proof will tell whether it matters.
        total, writers = known or (sides.sqlite_total(base.connection), None)
        found = delta.from_base(table, total)
        # Without a key both databases were compared, whatever the base says.
        if table.primary_key:
            found.versions = writers
        return found

    def _was_carried(
        self,
        source: Source,
        target: psycopg.Connection,
        delta: sync.Delta,
        memories: dict[str, dict[str, Any]],
    ) -> bool:
        """Tell whether the target holds exactly this file since an earlier run, and report it.

        So it is where that run's answer was lost at the commit, or its caller starts again.
        """
        if not memories:
            return False
        found = []
        for table in delta.schema.tables:
            sides = delta.sides(table)
            known = self._known_total(sides, source.sha256, memories)
            if known is None and table.name in memories:
                return False
            # A table with somebody else's comment is hashed on both sides.
            found.append((sides, *(known or (sides.sqlite_total(source.connection), None))))
        result = proof.Proof()
        with self.stage("prove"):
            for sides, total, writers in found:
                there = total
                written = versions.look(target, sides) if writers is not None else None
                if written is None or written.proven(writers) != sum(written.rows.values()):
                    there = proof.postgres_total(target, sides)
                elif sum(written.rows.values()) != total.rows:
                    return False
                else:
                    result.not_compared.append(_not_hashed(sides.table.name, total.rows))
                entry = proof.TableProof(sides.table.name)
                entry.judge(total, there)
                result.tables.append(entry)
        if not result.equal:
            return False
        comparable = _without_impossible_keys(target, delta.schema, delta.namespace)
        result.structure = proof.compare_structure(target, comparable, delta.namespace)
        self._show_proof(result)
        return True

    def _known_total(
        self, sides: proof.TableSides, sha256: str, memories: dict[str, dict[str, Any]]
    ) -> tuple[proof.Total, versions.Versions | None] | None:
        """Return what a table was proven to hold when it came from this file; None if it did not.

        With it, who had written the rows.
        """
        kept = memories.get(sides.table.name, {}).get("proof", {})
        if (kept.get("source"), kept.get("columns"), kept.get("rules")) != (
            sha256,
            sides.names,
            self._rules_digest(),
        ):
            return None
        return proof.Total(*kept["total"]), versions.Versions.from_json(kept.get("versions"))

    def _rules_digest(self) -> str:
        """Tell sets of rules apart: what a row is in PostgreSQL depends on them."""
        rules = (self.rules.rules, self.rules.renames) if self.rules else ([], [])
        return hashlib.sha256(repr(rules).encode()).hexdigest()

    def _show_deltas(self, deltas: list[sync.TableDelta]) -> None:
        for item in deltas:
            self.report.table(item.table.name)["delta"] = item.as_json()
        self.screen.grid(
            ("table", "inserted", "changed", "deleted"),
            [(d.table.name, d.inserted, d.changed, d.deleted) for d in deltas],
        )

    def _prove_sync(
        self,
        source: Source,
        target: psycopg.Connection,
        delta: sync.Delta,
        deltas: list[sync.TableDelta],
        namespace: str,
    ) -> None:
        """Compare PostgreSQL's checksums with what SQLite's side must have now."""
        result = proof.Proof()
        for item in deltas:
            there = self._total_after_sync(target, delta.sides(item.table), item)
            if there is None:
                there = proof.postgres_total(target, delta.sides(item.table))
            else:
                unseen = there.rows - item.carried.rows
                result.not_compared.append(_not_hashed(item.table.name, unseen))
            entry = proof.TableProof(item.table.name)
            entry.judge(item.total, there)
            result.tables.append(entry)
        if not result.equal:
            # Compare everything once more, from the beginning, to show what differs.
            self._prove(source.connection, target, delta.schema, namespace)
            raise DifferentError(
                "the target was not what the base says, although it is equal to the source now",
                "nothing was written; run sync without --base",
            )
        comparable = _without_impossible_keys(target, delta.schema, namespace)
        result.structure = proof.compare_structure(target, comparable, namespace)
        self._show_proof(result)

    def _total_after_sync(
        self, target: psycopg.Connection, sides: proof.TableSides, item: sync.TableDelta
    ) -> proof.Total | None:
        """Return PostgreSQL's checksum from that of the rows carried just now, if that will do.

        It does if all others are row versions that were proven; None if that cannot be said.
        """
        if item.versions is None:
            return None
        item.written = versions.look(target, sides)
        others = item.total.minus(item.carried)
        if item.written.proven(item.versions) != others.rows:
            return None
        own = proof.Total()
        if item.written.own():
            own = proof.postgres_total(target, sides, versions.OWN)
        return others.plus(own)

    def _refresh_memories(
        self,
        source: Source,
        memories: dict[str, dict[str, Any]],
        schema: Schema,
        deltas: list[sync.TableDelta],
    ) -> None:
        """Note how the values are written now, in tables that were touched."""
        for item in deltas:
            memory = memories.get(item.table.name)
            if memory is None or not item.touched:
                continue
            kinds = {
                column.name: kind
                for column in item.table.columns
                if (kind := declared_kind(column.declared))
            }
            entries = note_shapes(source.connection, item.table, kinds)
            if self.application is not None:
                storage.note_storage(source.connection, item.table, entries, self.application)
            memory["shapes"] = {n: entry.shapes for n, entry in entries.items() if entry.shapes}
            memory["exceptions"] = {
                n: entry.exceptions for n, entry in entries.items() if entry.exceptions
            }
        for number, table in enumerate(schema.tables):
            if table.name not in memories:
                memories[table.name] = {
                    "ddl": [table.ddl, *(index.ddl for index in table.indexes)],
                    "shapes": {},
                    "exceptions": {},
                    "order": number,
                    **({"renamed": table.renamed} if table.renamed else {}),
                }

    def _judge_filled_target(
        self,
        source: Source,
        target: psycopg.Connection,
        schema: Schema,
        namespace: str,
        present: dict[str, str],
    ) -> None:
        """Accept a target that already holds exactly this database, refuse any other."""
        ours = {table.name for table in schema.tables}
        if ours <= set(present):
            # Tables of somebody else's, that we may not read, hold nothing of ours.
            with (
                contextlib.suppress(DifferentError, errors.InsufficientPrivilege),
                target.transaction(),
            ):
                self._prove(source.connection, target, schema, namespace)
                return
        counts = []
        for name in sorted(present)[:_LISTED]:
            counts.append(name)
            if present[name] not in "rp":
                continue
            with contextlib.suppress(errors.InsufficientPrivilege), target.transaction():
                (rows,) = target.execute(
                    f"SELECT count(*) FROM {quote_name(namespace)}.{quote_name(name)}"
                ).fetchone()
                counts[-1] = f"{name} ({rows} rows)"
        more = f" and {len(present) - _LISTED} more" if len(present) > _LISTED else ""
        database = target.info.dbname
        raise RefusedError(
            f"the target is not empty: the schema {namespace} of the database {database} already "
            f"has {', '.join(counts)}{more}",
            "copy into an empty database or another schema (--schema NAME); if these tables may "
            "go, drop them yourself: ferry drops nothing",
        )

    def verify(self, path: str, dsn: str, namespace: str) -> str:
        """Compare contents and structure; raises DifferentError."""
        # PostgreSQL first: what is compared is its state at this moment, however large the file is.
        with server.transaction(dsn, write=False) as target:
            self.report.target(server.describe(target, namespace))
            with open_sqlite(path) as source:
                self.report.data["source"] = source.describe()
                schema = self._read_schema(source)
                if self.rules is not None:
                    schema = self._apply_rules(source, schema, self.rules)
                self.report.ddl(schema)
                self._read_database(source, schema)
                self.report.not_carried(schema.not_carried)
                server.check_reading(target, namespace, [table.name for table in schema.tables])
                self._prove(source.connection, target, schema, namespace)
        self.screen.say("verified: both sides are equal")
        return "equal"

    def reverse(
        self, dsn: str, path: str, namespace: str, baseline: Path | None, base: str | None = None
    ) -> str:
        """Write PostgreSQL's contents into a new SQLite file and prove it.

        ``base`` is the file that was moved, to tell what differs where the baseline does not know
        its rows.

        Raises DifferentError if SQLite cannot hold what PostgreSQL has; there is no file then.
        """
        kept = _read_baseline(baseline) if baseline is not None else None
        with (
            reverse.new_file(path) as partial,
            server.transaction(dsn, write=False) as target,
        ):
            self.report.data["source"] = server.describe(target, namespace)
            server.check_reading(target, namespace)
            memory = reverse.memory_from_comments(target, namespace)
            if kept is not None:
                memory.learn(kept)
            columns = proof.columns_of(target, namespace)
            if not columns:
                raise RefusedError(
                    f"the schema {namespace} of the database {target.info.dbname} has no tables",
                    "check the database and --schema NAME",
                )
            if base is not None:
                if not memory.database.settings:  # a ferry before this one made the copy
                    with open_sqlite(base, check=False, hashed=False) as old:
                        memory.database = database.read(old, read_schema(old.connection))
                lost = self._reverse_difference(partial, path, target, namespace, memory, base)
                if lost is not None:
                    return self._end_reverse(path, lost)
            elif not memory.database.settings:
                self._warn(
                    "what the original held beside rows (user_version, virtual tables, statistics) "
                    "is not known; --base FILE, the file that was moved, tells"
                )
            with self.stage("write"), self.screen.rows_progress({}) as advance:
                result = reverse.write(partial, target, namespace, memory, advance)
            for line in result.missing:
                self._warn(line)
            for name in result.added_tables:
                self._warn(f"table {name} is new in PostgreSQL; its DDL was derived")
            for name in result.added_columns:
                self._warn(f"column {name} is new in PostgreSQL; it was added")
            with self.stage("try"):
                lost = [*result.lost, *_try_out(partial, memory.database)]
            self.report.not_carried(lost)
            digest = snapshot.sha256(str(partial))
            with open_sqlite(str(partial)) as source:
                self.report.target({**source.describe(), "path": path, "sha256": digest})
                written = read_schema(source.connection)
                schema = Application(source.connection, written, memory.rules()).run()
                forms = proof.text_forms(columns, schema, memory.shapes)
                self._prove(
                    source.connection, target, schema, namespace, structure=False, forms=forms
                )
                if memory.rows or base is not None:
                    rules = memory.rules()
                    with _moved_file(source.uri, written, base, rules) as moved:
                        self._tell_changes(source.connection, schema, memory, columns, moved)
                elif kept is not None:
                    self._warn(
                        "what is new, changed or gone since the baseline is not counted: it does "
                        f"not hold more than {MAX_ROWS} rows; --base FILE counts them"
                    )
        return self._end_reverse(path, lost)

    def _end_reverse(self, path: str, lost: list[NotCarried]) -> str:
        self.show_not_carried()
        self.screen.say(
            f"written and proven: {path}"
            + (f", but {len(lost)} things named above did not come back" if lost else "")
        )
        return "written"

    def _reverse_difference(
        self,
        partial: Path,
        path: str,
        target: psycopg.Connection,
        namespace: str,
        memory: reverse.Memory,
        base: str,
    ) -> list[NotCarried] | None:
        """Carry what has changed into a copy of the file that was moved; see `difference`.

        Returns what did not come back; None where everything has to be written, and ``partial`` is
        empty then.
        """
        try:
            # Whatever stands in the way, writing everything may still do.
            with target.transaction():
                with self.stage("compare"), open_sqlite(base, check=False, hashed=False) as old:
                    proofs = self._proofs_against_one_file(target, namespace, base)
                    schema = read_schema(old.connection)
                    if proofs.keys() != {table.name for table in schema.tables}:
                        raise NoDifferenceError("tables have come or gone")
                    items = difference.find(target, old.connection, schema, namespace, proofs)
                    size = old.size
                with self.stage("write"), self.screen.rows_progress({}) as advance:
                    digest = difference.copy_file(Path(base), partial)
                    if any(kept["source"] != digest for kept in proofs.values()):
                        raise NoDifferenceError(
                            "it is not the file that the database was proven against"
                        )
                    result, entries = reverse.change(
                        partial, target, namespace, memory, items, advance
                    )
            if not all(entry.equal for entry in entries):
                raise NoDifferenceError("the sums are not those of the database")
        except (NoDifferenceError, RefusedError, apsw.Error, *_FAULTS_OF_A_STATEMENT) as error:
            self.screen.say(f"everything is written anew, not {base} changed: {error}")
            os.truncate(partial, 0)
            return None
        self.report.data["base"] = {"path": base, "size": size, "sha256": digest}
        with self.stage("try"):
            lost = [*result.lost, *_try_out(partial, memory.database)]
        self.report.not_carried(lost)
        digest = snapshot.sha256(str(partial))
        with open_sqlite(str(partial), check=False, hashed=False) as source:
            self.report.target({**source.describe(), "path": path, "sha256": digest})
        unseen = [(item, item.before.rows - len(item.gone)) for item in items]
        self._show_proof(
            proof.Proof(
                entries,
                not_compared=[_not_hashed(item.table.name, rows) for item, rows in unseen if rows],
            )
        )
        self._show_changes((item.table.name, item.changes()) for item in items)
        return lost

    def _proofs_against_one_file(
        self, target: psycopg.Connection, namespace: str, base: str
    ) -> dict[str, dict[str, Any]]:
        """Return what the tables' comments say about their last proof.

        Raises NoDifferenceError unless it was one file's, without rules.
        """
        if not lies_alone(base):
            raise NoDifferenceError("a program has it open, or left a log beside it")
        memories = ddl.read_memories(target, namespace)
        proofs = {name: kept.get("proof", {}) for name, kept in memories.items()}
        rules = self._rules_digest()  # of none
        if not all(kept.get("source") and kept["rules"] == rules for kept in proofs.values()):
            raise NoDifferenceError("the database was filled by rules, or by somebody else")
        return proofs

    def audit_sql(self, paths: list[str], dsn: str, exclude: Sequence[str] = ()) -> str:
        """Let PostgreSQL judge the SQL in a program's sources; raises RefusedError if any fails."""
        with server.transaction(dsn, write=False) as target:
            self.report.target(server.describe(target, "public"))
            server.check_search_path(target)
            with self.stage("audit"):
                findings = audit.audit(target, paths, exclude)
        self.report.data["statements"] = [item.as_json() for item in findings.statements]
        counts = {verdict: findings.count(verdict) for verdict in ("ok", "fails", "unjudged")}
        excluded = findings.count("excluded")
        if excluded:
            counts["excluded"] = excluded
        warned = sum(bool(item.warnings) for item in findings.statements)
        if warned:
            counts["warned"] = warned
        self.report.data["counts"] = counts
        for item in findings.statements:
            if item.verdict not in ("ok", "excluded"):
                head = " ".join(item.sql.split())
                self.screen.say(f"{item.file}:{item.line}: {item.verdict}: {item.message}")
                self.screen.say(f"    {head[:160]}{'…' if len(head) > 160 else ''}")
                if item.instead:
                    self.screen.say(f"    instead: {item.instead}")
            for warning in item.warnings:
                self.screen.say(f"{item.file}:{item.line}: warning: {warning}")
        for remark in findings.remarks:
            self._warn(remark)
        for path in findings.left_out:
            self._warn(f"{path}: left out, by --exclude")
        self.screen.say(
            f"{len(findings.statements)} statements: {counts['ok']} accepted, "
            f"{counts['fails']} fail, {counts['unjudged']} cannot be judged"
            + (f", {excluded} are not for PostgreSQL" if excluded else "")
            + (f"; {warned} are accepted and may mean something else" if warned else "")
        )
        self.screen.say(
            "not seen: text in a variable that is passed for a number or a time, LIKE (which minds "
            "case in PostgreSQL), NULLs in ascending order (last), and what is put together later"
        )
        if counts["fails"]:
            raise RefusedError(
                f"{counts['fails']} of {len(findings.statements)} statements fail on this database",
                "rewrite them as listed above, then run this again",
            )
        return "accepted"

    def _tell_changes(
        self,
        written: apsw.Connection,
        schema: Schema,
        memory: reverse.Memory,
        columns: dict[str, dict[str, tuple[str, bool]]],
        moved: _Moved | None,
    ) -> None:
        """Say which rows are new, changed or gone since the baseline."""
        found = []
        for table in schema.tables:
            kinds = {name: kind for name, (kind, _) in columns.get(table.name, {}).items()}
            if table.name in memory.rows and kinds:
                changes = proof.changes_since(memory.rows[table.name], written, table, kinds)
                if changes is None:
                    self._warn(f"{table.name}: its columns have changed since the baseline")
                    continue
            elif moved is not None and table.name in moved.tables and kinds:
                changes = moved.changes(proof.TableSides(table, kinds, ""))
            else:
                self._warn(f"{table.name}: the baseline does not know its rows")
                continue
            found.append((table.name, changes))
        self._show_changes(found)

    def _show_changes(self, found: Iterable[tuple[str, Changes]]) -> None:
        shown = []
        for name, changes in found:
            self.report.table(name)["since_baseline"] = dataclasses.asdict(changes)
            shown.append((name, changes.new, changes.changed, changes.deleted))
        self.screen.grid(("since the baseline", "new", "changed", "deleted"), shown)

    def _warn(self, text: str) -> None:
        self.report.message(text, "warning")
        self.screen.note(f"warning: {text}")

    @property
    def _remembers(self) -> bool:
        """Whether proofs keep the rows for a later ``reverse --baseline``: in the report."""
        return self.report.path is not None

    def _prove(
        self,
        source: apsw.Connection,
        target: psycopg.Connection,
        schema: Schema,
        namespace: str,
        *,
        structure: bool = True,
        forms: Mapping[tuple[str, str], str] = MappingProxyType({}),
    ) -> proof.Proof:
        """Compare both sides; raises DifferentError. ``forms``: see `proof.text_forms`."""
        schema = _without_impossible_keys(target, schema, namespace)
        with self.stage("prove"):
            result = proof.compare(
                source, target, schema, namespace, remember=self._remembers, forms=forms
            )
        if not structure:
            # The constraints are the original's own; PostgreSQL's are of no consequence here.
            result.structure.clear()
        self._show_proof(result)
        return result

    def _show_proof(self, result: proof.Proof) -> None:
        """Report a comparison; raises DifferentError if it is not equal."""
        self.report.proof(result)
        self.screen.grid(
            (
                "table",
                "rows\nSQLite",
                "rows\nPostgreSQL",
                "checksum\nSQLite",
                "checksum\nPostgreSQL",
                "",
            ),
            [
                (
                    table.name,
                    table.rows_sqlite,
                    table.rows_postgres,
                    self.screen.short(table.checksum_sqlite),
                    self.screen.short(table.checksum_postgres),
                    "equal" if table.equal else "DIFFERENT",
                )
                for table in result.tables
            ],
        )
        for line in result.not_compared:
            self.screen.say(f"not compared: {line}")
        if not result.equal:
            lines = [*result.structure]
            for table in result.tables:
                if not table.equal and table.checksum_postgres:  # else the table is missing
                    least = "" if table.counted_all else "at least "
                    lines.append(
                        f"table {table.name}: {least}{table.only_sqlite} rows only in SQLite, "
                        f"{least}{table.only_postgres} only in PostgreSQL"
                    )
                    lines += [f"  {_describe(difference)}" for difference in table.differences]
            raise DifferentError("the two sides differ\n  " + "\n  ".join(lines))


def _not_hashed(table: str, rows: int) -> str:
    return (
        f"table {table}: the contents of {rows} rows that nobody has written to since they were "
        "proven (`ferry verify` compares them again)"
    )


def _try_out(path: Path, known: database.Database) -> list[NotCarried]:
    """Try what a program does with the file that was written; nothing of it remains."""
    connection = sqlite.connect(str(path.absolute()), stand_ins=False)
    try:
        broken = trial.find_broken(connection, known.refused)
        if known.wal:
            connection.pragma("journal_mode", "wal")
    finally:
        connection.close()
    return [
        NotCarried("statement", what, f"SQLite does not take it in the new file: {said}")
        for what, said in broken.items()
    ]


def _without_impossible_keys(target: psycopg.Connection, schema: Schema, namespace: str) -> Schema:
    """Leave out foreign keys between types that PostgreSQL does not compare.

    They have been named as not carried; the proof should not miss them.
    """
    present = proof.columns_of(target, namespace)
    widths = {"integer": 0, "numeric": 1, "double": 2}

    def possible(table: Table, key: ForeignKey) -> bool:
        parent, names = schema.table(key.parent), schema.referenced(key)
        if parent is None or not names:
            return False
        here, there = present.get(table.name, {}), present.get(parent.name, {})
        for name, other in zip(key.columns, names, strict=True):
            kind, wanted = here.get(table.column(name).name), there.get(other)
            if kind is None or wanted is None or kind[0] == wanted[0]:
                continue
            if widths.get(kind[0], 3) > widths.get(wanted[0], -1):
                return False
        return True

    tables = [
        dataclasses.replace(
            table, foreign_keys=tuple(key for key in table.foreign_keys if possible(table, key))
        )
        for table in schema.tables
    ]
    return dataclasses.replace(schema, tables=tables)


def _by_original_names(schema: Schema, hazard: Hazard) -> Hazard:
    """Return a hazard as somebody finds it who looks into SQLite, or writes a rule."""
    table = schema.table(hazard.table)
    if table is None or not table.renamed:
        return hazard
    originals = {column.name: column.original for column in table.columns}
    columns = ", ".join(originals.get(name, name) for name in hazard.column.split(", "))
    return dataclasses.replace(hazard, table=table.original, column=columns)


def _totals(result: proof.Proof) -> dict[str, tuple[proof.TableSides, proof.Total]]:
    return {table.name: (table.sides, table.total) for table in result.tables if table.sides}


def _was_checked(base: Source, memories: dict[str, dict[str, Any]]) -> bool:
    """Tell whether all tables were proven against this very file, which was found sound then."""
    kept = [memory.get("proof", {}).get("source") for memory in memories.values()]
    return bool(kept) and all(digest == base.sha256 for digest in kept)


@dataclass
class _Moved:
    """The file that was moved, attached beside a new one."""

    bench: apsw.Connection
    fronts: Application
    tables: set[str]  # those that both files have, with the same columns

    def changes(self, sides: proof.TableSides) -> Changes:
        """Compare a table of both files."""
        places = (self.fronts.place(side, sides.table.name) for side in _BOTH)
        return proof.changes_between(self.bench, sides, *places)


@contextlib.contextmanager
def _moved_file(
    written: str, schema: Schema, path: str | None, rules: Rules
) -> Iterator[_Moved | None]:
    """Attach the file that was moved, if there is one, beside the one that was written.

    Args:
        written: the new file's URI.
        schema: what it has, without rules.
        path: the file that was moved.
        rules: what is renamed.

    """
    if path is None:
        yield None
        return
    columns = {table.name: {column.name for column in table.columns} for table in schema.tables}
    with open_sqlite(path, check=False) as base, sync.workbench(written, base.uri) as bench:
        then = read_schema(base.connection)
        tables = [
            table
            for table in then.tables
            if {column.name for column in table.columns} == columns.get(table.name)
        ]
        fronts = Application(bench, dataclasses.replace(then, tables=tables), rules, _BOTH)
        yield _Moved(bench, fronts, {table.name for table in fronts.run().tables})


def _write_draft(path: Path, census: Census, collations: Sequence[str]) -> None:
    try:
        with path.open("x") as file:
            file.write(draft_rules(census.hazards, collations))
    except OSError as error:
        raise UsageError(f"the rules {path} cannot be written: {error.strerror}") from error


def _read_baseline(path: Path) -> reverse.Memory:
    try:
        report = json.loads(path.read_text())
        return reverse.memory_from_report(report)
    except OSError as error:
        raise UsageError(f"the baseline {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no report of ferry: {error}") from error


def _describe(difference: dict[str, object]) -> str:
    if "only" in difference:
        return f"{difference['row']}: only in {difference['only']}: {difference['values']}"
    return f"{difference['row']}: {difference['columns']}"
