"""The report of a run: one JSON document, the same form for every command."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import psycopg

from ferry import __version__
from ferry.errors import UsageError
from ferry.types import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ferry.census import Census, Hazard
    from ferry.proof import Proof
    from ferry.schema import NotCarried, Schema

FORMAT = 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Report:
    """Collects what a command finds; written at the end, whatever the end is."""

    def __init__(self, command: str, path: Path | None = None) -> None:
        self.path = path
        self._clock = time.monotonic()
        self.data: dict[str, Any] = {
            "format": FORMAT,
            "command": command,
            "started": _now(),
            "finished": None,
            "seconds": None,
            "exit_code": None,
            "outcome": None,
            "messages": [],
            "versions": {
                "ferry": __version__,
                "python": platform.python_version(),
                "sqlite": apsw.sqlite_lib_version(),
                "psycopg": psycopg.__version__,
                "postgresql": None,
            },
            "source": None,
            "target": None,
            "tables": [],
            "hazards": [],
            "conversions": [],
            "not_carried": [],
            "structure": [],
            "not_compared": [],
            "timings": {},
        }
        if path is not None and path.is_dir():
            raise UsageError(
                f"the report cannot be written: {path} is a directory", "name a file in it"
            )
        if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
            raise UsageError(
                f"the report cannot be written: {path.parent} is no directory that we may write to"
            )

    def message(self, text: str, level: str = "info") -> None:
        """Keep a sentence for the reader; ``level`` is info, warning or error."""
        self.data["messages"].append({"level": level, "text": text})

    def timing(self, stage: str, seconds: float) -> None:
        """Keep how long a stage took."""
        self.data["timings"][stage] = round(seconds, 3)

    def target(self, description: dict[str, Any]) -> None:
        """Keep what the target is."""
        self.data["target"] = description
        self.data["versions"]["postgresql"] = description.get("server_version")

    def table(self, name: str) -> dict[str, Any]:
        """Return the entry of a table, made if it is not there yet."""
        for entry in self.data["tables"]:
            if entry["name"] == name:
                return entry
        entry = {
            "name": name,
            "rows_sqlite": None,
            "rows_postgres": None,
            "checksum_sqlite": None,
            "checksum_postgres": None,
            "equal": None,
        }
        self.data["tables"].append(entry)
        return entry

    def ddl(self, schema: Schema) -> None:
        """Keep each table's DDL, and that of views and triggers."""
        self.data["programs"] = [program.sql for program in schema.programs]
        for table in schema.tables:
            entry = self.table(table.name)
            entry["ddl"] = [table.ddl, *(index.ddl for index in table.indexes)]
            if table.renamed:
                entry["renamed"] = table.renamed

    def census(self, schema: Schema, census: Census) -> None:
        """Keep each table's DDL, columns and row count."""
        self.ddl(schema)
        for table in schema.tables:
            counted = census.tables[table.name]
            entry = self.table(table.name)
            entry["rows_sqlite"] = counted.rows
            entry["columns"] = [
                {
                    "name": column.name,
                    "declared": column.declared,
                    "type": counted.columns[column.name].pg_type,
                    "nulls": counted.columns[column.name].nulls,
                    "shapes": counted.columns[column.name].shapes,
                    "exceptions": counted.columns[column.name].exceptions,
                }
                for column in table.columns
            ]
            for column in table.columns:
                forgotten = counted.columns[column.name].forgotten
                if forgotten:
                    self.message(
                        f"{table.name}.{column.name}: values are written in several ways, and "
                        f"{forgotten} of them would come back from `reverse` in the usual one",
                        "warning",
                    )
                shapes = counted.columns[column.name].shapes
                for shape, count in shapes.items():
                    if counted.columns[column.name].kind == Kind.BOOLEAN and shape[:3] != "int":
                        self.data["conversions"].append(
                            {
                                "table": table.name,
                                "column": column.name,
                                "rule": f"text {shape!r} to boolean",
                                "count": count,
                            }
                        )

    def hazards(self, hazards: Iterable[Hazard]) -> None:
        """Keep what is in the way."""
        self.data["hazards"] += [
            {
                "code": hazard.code,
                "table": hazard.table,
                "column": hazard.column,
                "count": hazard.count,
                "samples": [
                    {"row": sample.row, "value": sample.value} for sample in hazard.samples
                ],
                "remedy": hazard.remedy,
            }
            for hazard in hazards
        ]

    def not_carried(self, items: Iterable[NotCarried]) -> None:
        """Keep what does not arrive."""
        self.data["not_carried"] += [
            {"what": item.what, "name": item.name, "reason": item.reason, "sql": item.sql}
            for item in items
        ]

    def proof(self, proof: Proof) -> None:
        """Keep the result of a comparison."""
        for table in proof.tables:
            entry = self.table(table.name)
            entry.update(table.as_json())
            if table.memory is not None:
                entry["row_memory"] = table.memory.as_json()
        self.data["structure"] = proof.structure
        self.data["not_compared"] = proof.not_compared

    def finish(self, exit_code: int, outcome: str) -> None:
        """Close the report and write it, complete or not at all."""
        self.data["finished"] = _now()
        self.data["seconds"] = round(time.monotonic() - self._clock, 3)
        self.data["exit_code"] = exit_code
        self.data["outcome"] = outcome
        if self.path is None:
            return
        partial = self.path.with_name(f".{self.path.name}.partial-{os.getpid()}")
        try:
            partial.write_text(json.dumps(self.data, indent=2, ensure_ascii=False) + "\n")
            partial.replace(self.path)
        except OSError as error:
            print(f"ferry: the report could not be written: {error}", file=sys.stderr)
