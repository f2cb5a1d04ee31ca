"""What the commands do, without the command line."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import psycopg

from ferry import ddl, load, proof, server
from ferry.census import Census, take_census
from ferry.errors import DifferentError, RefusedError
from ferry.schema import Schema, quote_name, read_schema
from ferry.source import Source, open_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ferry.report import Report
    from ferry.screen import Screen

_LISTED = 10  # names in a message


class Journey:
    """One run of a command: where it reports to."""

    def __init__(self, report: Report, screen: Screen) -> None:
        self.report = report
        self.screen = screen

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a part of the run."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.report.timing(name, time.monotonic() - started)

    def examine(self, source: Source) -> tuple[Schema, Census]:
        """Read schema and contents of the source; everything found goes into the report."""
        self.report.data["source"] = source.describe()
        for warning in source.warnings:
            self.report.message(warning, "warning")
            self.screen.note(f"warning: {warning}")
        with self.stage("inspect"):
            schema = read_schema(source.connection)
            census = take_census(source.connection, schema)
        self.report.schema(schema, census)
        self.report.hazards(census.hazards)
        return schema, census

    def refuse_hazards(self, census: Census) -> None:
        """Stop if there is anything that cannot be carried as it is."""
        if census.hazards:
            found = "\n  ".join(map(str, census.hazards))
            raise RefusedError(
                f"{len(census.hazards)} hazards in the contents; nothing was written\n  {found}",
                "each line names its way out; ferry/README.md explains the names",
            )

    def inspect(self, path: str) -> None:
        """Judge a SQLite file: raises RefusedError if it cannot be carried as it is."""
        with open_sqlite(path) as source:
            schema, census = self.examine(source)
            plan = ddl.make_plan(schema, census, "public")
            self.report.not_carried(plan.not_carried)
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
            self.refuse_hazards(census)

    def show_not_carried(self) -> None:
        """Name on the screen what does not arrive."""
        for item in self.report.data["not_carried"]:
            self.screen.say(f"not carried: {item['what']} {item['name']}: {item['reason']}")

    def schema(self, path: str, namespace: str) -> None:
        """Print PostgreSQL's DDL for a SQLite file."""
        with open_sqlite(path) as source:
            schema, census = self.examine(source)
            plan = ddl.make_plan(schema, census, namespace)
            self.report.not_carried(plan.not_carried)
            for statement in plan.statements():
                self.screen.say(f"{statement};")
            for item in plan.not_carried:
                self.screen.say(f"-- not carried: {item.what} {item.name}: {item.reason}")

    def copy(self, path: str, dsn: str, namespace: str) -> str:
        """Copy everything in one transaction and prove it before the commit.

        Returns the outcome. Raises FerryError; the target is then as it was.
        """
        with open_sqlite(path) as source:
            schema, census = self.examine(source)
            self.refuse_hazards(census)
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
                self.report.not_carried([*plan.not_carried, *lost])
                self._prove(source, target, schema, namespace)
                self.show_not_carried()
        self.screen.say("copied and proven: both sides are equal")
        return "copied"

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
            with contextlib.suppress(DifferentError):
                self._prove(source, target, schema, namespace)
                return
        counts = []
        for name in sorted(present)[:_LISTED]:
            if present[name] in "rp":
                (rows,) = target.execute(
                    f"SELECT count(*) FROM {quote_name(namespace)}.{quote_name(name)}"
                ).fetchone()
                counts.append(f"{name} ({rows} rows)")
            else:
                counts.append(name)
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
        with open_sqlite(path) as source:
            self.report.data["source"] = source.describe()
            schema = read_schema(source.connection)
            with server.transaction(dsn, write=False) as target:
                self.report.target(server.describe(target, namespace))
                self._prove(source, target, schema, namespace)
        self.screen.say("verified: both sides are equal")
        return "equal"

    def _prove(
        self, source: Source, target: psycopg.Connection, schema: Schema, namespace: str
    ) -> None:
        with self.stage("prove"):
            result = proof.compare(source.connection, target, schema, namespace)
        self.report.proof(result)
        self.screen.grid(
            (
                "table",
                "rows SQLite",
                "rows PostgreSQL",
                "checksum SQLite",
                "checksum PostgreSQL",
                "",
            ),
            [
                (
                    table.name,
                    table.rows_sqlite,
                    table.rows_postgres,
                    table.checksum_sqlite,
                    table.checksum_postgres,
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
                if not table.equal:
                    least = "" if table.counted_all else "at least "
                    lines.append(
                        f"table {table.name}: {least}{table.only_sqlite} rows only in SQLite, "
                        f"{least}{table.only_postgres} only in PostgreSQL"
                    )
                    lines += [f"  {_describe(difference)}" for difference in table.differences]
            raise DifferentError("the two sides differ\n  " + "\n  ".join(lines))


def _describe(difference: dict[str, object]) -> str:
    if "only" in difference:
        return f"{difference['row']}: only in {difference['only']}: {difference['values']}"
    return f"{difference['row']}: {difference['columns']}"
