"""The rules file: a choice for each hazard that the owner of the data has decided about.

A rule becomes part of a temporary view that stands in front of its table on our own connection to
SQLite (the file itself is not touched). What the census, the loader and the proof read under the
table's name are then the values as the rules make them, without the rows that they set aside. A
rename works the same way: the view bears PostgreSQL's names. Rules speak of SQLite's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import tomllib
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ferry.census import ferry_fits, fill_condition, row_expression, row_name
from ferry.errors import RefusedError, UsageError
from ferry.keys import equal_rows, unique_keys
from ferry.names import NameHazard, Rename, Renaming, read_rename
from ferry.schema import (
    FOLDING,
    ICU,
    Column,
    ForeignKey,
    Index,
    Key,
    Schema,
    Table,
    quote_name,
)
from ferry.sqlite import codec
from ferry.types import FITS, HAZARDS, declared_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import apsw

    from ferry.census import Hazard

QUARANTINE = "quarantine"
UNIQUE = "unique"  # instead of a primary key: what SQLite enforces of it
_CUTTING = ("utc", "drop-zone", "microseconds", "date")  # these may lose digits, which are counted
_ANY = {"null": "NULL", "set": "{value}", QUARANTINE: ""}
_SAMPLES = 5


@dataclass(frozen=True)
class _Retype:
    """An action that gives the column another declared type, and all its values a form for it."""

    declared: str
    expression: str = "{c}"


_TEXT = _Retype("TEXT", "ferry_text({c})")

# What may be done about each hazard: SQL for the new value, or another type for the column.
ACTIONS: dict[str, dict[str, str | _Retype]] = {
    "empty-text": {**_ANY, "text": _TEXT},
    "text-in-number": {**_ANY, "text": _TEXT},
    "fraction-in-integer": {
        **_ANY,
        "double": _Retype("REAL"),
        "round": "CAST(round({c}) AS INTEGER)",
        "truncate": "CAST({c} AS INTEGER)",
    },
    "beyond-64-bit": {**_ANY, "double": _Retype("REAL")},
    "integer-beyond-double": {**_ANY, "round": "CAST({c} AS REAL)"},
    "beyond-declared-decimal": {
        **_ANY,
        "round": "ferry_round({c}, {s})",
        "numeric": _Retype("NUMERIC"),
    },
    "number-in-boolean": {**_ANY, "nonzero": "({c} <> 0)", "integer": _Retype("INTEGER")},
    "text-in-boolean": {**_ANY, "text": _TEXT},
    "epoch-in-timestamp": {
        **_ANY,
        "seconds": "strftime('%Y-%m-%d %H:%M:%S', {c}, 'unixepoch')",
        "milliseconds": "strftime('%Y-%m-%d %H:%M:%f', {c} / 1000.0, 'unixepoch')",
        "integer": _Retype("BIGINT"),
    },
    "julian-day-in-timestamp": {
        **_ANY,
        "julian": "strftime('%Y-%m-%d %H:%M:%f', {c})",
        "double": _Retype("REAL"),
    },
    "word-in-timestamp": {**_ANY, "text": _TEXT},
    "time-zone-in-timestamp": {
        **_ANY,
        "utc": "ferry_utc({c}, '{k}')",
        "drop-zone": "ferry_drop_zone({c}, '{k}')",
        "text": _TEXT,
    },
    "fine-fraction-in-timestamp": {
        **_ANY,
        "microseconds": "ferry_microseconds({c})",
        "text": _TEXT,
    },
    "time-in-date": {
        **_ANY,
        "date": "substr({c}, 1, 10)",
        "timestamp": _Retype("TIMESTAMP"),
        "text": _TEXT,
    },
    "not-a-timestamp": {**_ANY, "text": _TEXT},
    "blob": dict(_ANY),
    "blob-in-text": {**_ANY, "decode": "ferry_utf8(CAST({c} AS BLOB))"},
    "number-in-text": {**_ANY, "text": "ferry_text({c})"},
    "text-in-blob": {**_ANY, "encode": "CAST({c} AS BLOB)"},
    "mixed-types": {"text": _TEXT},
    "nul-in-text": {**_ANY, "strip": "ferry_strip({c})"},
    "invalid-utf-8": {**_ANY, "replace": "ferry_utf8(CAST({c} AS BLOB))"},
    "null-in-not-null": {"set": "{value}", QUARANTINE: ""},
    "null-in-primary-key": {"unique": "", "set": "{value}", QUARANTINE: ""},
    "orphan": {"null": "NULL", QUARANTINE: ""},
    "equal-keys": {QUARANTINE: ""},
}


@dataclass(frozen=True)
class Rule:
    """One entry of the rules file; table and column may be patterns with ``*`` and ``?``."""

    number: int
    table: str
    column: str
    hazard: str
    action: str
    value: Any = None

    def fits(self, table: str, column: str) -> bool:
        """Tell whether the rule speaks of a column."""
        return fnmatchcase(table, self.table) and fnmatchcase(column, self.column)


@dataclass
class Rules:
    """A rules file that was read."""

    path: Path
    quarantine: Path
    rules: list[Rule] = field(default_factory=list)
    renames: list[Rename] = field(default_factory=list)
    # Collations of the application's, in capitals, and what stands for them.
    collations: dict[str, str] = field(default_factory=dict)
    timezone: str = ""  # what SQLite's localtime is


def read_rules(path: Path) -> Rules:
    """Read a rules file; raises UsageError that names the entry at fault."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"the rules {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the rules {path} are no TOML: {error}") from error
    unknown = data.keys() - {"rule", "rename", "collation", "quarantine", "timezone"}
    if unknown:
        raise UsageError(f"{path}: unknown: {', '.join(sorted(unknown))}", "see ferry/README.md")
    file = data.get("quarantine", path.stem + ".quarantine.jsonl")
    rules = Rules(path, path.parent / file, timezone=data.get("timezone", ""))
    if rules.timezone:
        try:
            ZoneInfo(rules.timezone)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            raise UsageError(
                f"{path}: there is no time zone {rules.timezone!r}",
                'as in timezone = "Europe/Berlin"',
            ) from None
    for number, entry in enumerate(_entries(path, data, "rule"), start=1):
        rules.rules.append(_read_rule(path, number, entry))
    for number, entry in enumerate(_entries(path, data, "rename"), start=1):
        rules.renames.append(read_rename(f"{path}: rename {number}", number, entry))
    for number, entry in enumerate(_entries(path, data, "collation"), start=1):
        if entry.keys() != {"name", "as"}:
            raise UsageError(
                f"{path}: collation {number}: it has a name and `as`, nothing else",
                'as = "nocase", "binary", or a locale of ICU\'s: "und-u-ks-level2"',
            )
        meaning = entry["as"].upper()
        if meaning not in ("BINARY", *FOLDING):
            meaning = f"{ICU}{entry['as']}"
        rules.collations[entry["name"].upper()] = meaning
    return rules


def _entries(path: Path, data: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    entries = data.get(kind, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{path}: each {kind} begins with a line [[{kind}]]")
    for number, entry in enumerate(entries, start=1):
        for key, value in entry.items():
            if key != "value" and not isinstance(value, str):
                raise UsageError(f"{path}: {kind} {number}: {key} has to be a text")
    return entries


def _read_rule(path: Path, number: int, entry: dict[str, Any]) -> Rule:
    place = f"{path}: rule {number}"
    missing = {"table", "column", "hazard", "action"} - entry.keys()
    unknown = entry.keys() - {"table", "column", "hazard", "action", "value"}
    if missing or unknown:
        words = [*(f"{key} is missing" for key in sorted(missing))]
        words += [f"{key} is unknown" for key in sorted(unknown)]
        raise UsageError(f"{place}: {', '.join(words)}", "a rule has table, column, hazard, action")
    actions = ACTIONS.get(entry["hazard"])
    if actions is None:
        raise UsageError(
            f"{place}: there is no hazard {entry['hazard']!r}", f"there are: {', '.join(ACTIONS)}"
        )
    if entry["action"] not in actions:
        raise UsageError(
            f"{place}: {entry['hazard']} has no action {entry['action']!r}",
            f"it has: {', '.join(actions)}",
        )
    if (entry["action"] == "set") != ("value" in entry):
        raise UsageError(f"{place}: the action set, and only it, has a value")
    return Rule(number, **entry)


def ferry_text(value: Any) -> str | None:
    """Return any value as text, numbers so that they read back exactly."""
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, str) else repr(value)


def _utf8(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace").replace("\0", "")


def _strip(value: Any) -> Any:
    return value.replace("\0", "") if isinstance(value, str) else value


def _round(value: Any, scale: int) -> Any:
    if not isinstance(value, (int, float)):
        return value
    return float(Decimal(repr(value)).quantize(Decimal(1).scaleb(-scale), ROUND_HALF_EVEN))


# A moment as programs write it, and what may stand behind it: an offset, a zone's name, both
# (Go, Java), Go's reading of its monotonic clock. AM, PM and BC are no zones.
_ZONED = re.compile(
    r"(?:(?P<day>\d{4}-\d\d-\d\d)[ T])?(?P<clock>\d\d:\d\d(?::\d\d)?)(?:\.(?P<fraction>\d+))?"
    r"(?: ?(?:UTC|GMT)?(?P<offset>[+-]\d\d(?::?\d\d(?::?\d\d)?)?))?"
    r"(?: ?\[?(?P<name>[Zz]|UT|utc|gmt|[A-Z]{3,5}|[A-Z][A-Za-z_]+/[A-Za-z_/+-]+|[+-]\d\d)\]?)?"
    r"(?: m=[+-][\d.]+)?"
)
# Hours of the names that mean one thing only. (IST, CST and others mean several.)
_ZONES = {
    **dict.fromkeys(("Z", "UT", "UTC", "GMT", "WET"), 0),
    **dict.fromkeys(("CET", "WEST", "MEZ"), 1),
    **dict.fromkeys(("CEST", "EET", "MESZ"), 2),
    **dict.fromkeys(("EEST", "MSK"), 3),
    **{"EDT": -4, "EST": -5, "CDT": -5, "MDT": -6, "MST": -7, "PDT": -7, "PST": -8},
}


def _offset(text: str | None, name: str | None, moment: datetime) -> timedelta | None:
    """Return how far a zone is ahead of UTC at a moment of its own, None if nobody can tell."""
    if text is not None:
        digits = text[1:].replace(":", "").ljust(6, "0")
        ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:4]), seconds=int(digits[4:]))
        return -ahead if text[0] == "-" else ahead
    if name is not None and "/" in name:
        try:
            return moment.replace(tzinfo=ZoneInfo(name)).utcoffset()
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return None
    hours = _ZONES.get((name or "").upper())
    return None if hours is None else timedelta(hours=hours)


def _without_zone(value: Any, kind: str, *, shift: bool) -> Any:
    """Return a moment without its zone, in UTC if it is to be shifted; as it is if that fails."""
    match = _ZONED.fullmatch(value) if isinstance(value, str) else None
    if match is None or not (match["offset"] or match["name"]):
        return value
    if match["day"] is None:
        # A time of day alone is shifted into no other day.
        return value if shift or kind != "time" else _with_fraction(match["clock"], match)
    try:
        moment = datetime.fromisoformat(f"{match['day']} {match['clock']}")
        if shift:
            ahead = _offset(match["offset"], match["name"], moment)
            if ahead is None:
                return value
            moment -= ahead
    except (ValueError, OverflowError):
        return value
    if kind == "date":
        return moment.date().isoformat()
    return _with_fraction(moment.isoformat(" "), match)


def _with_fraction(text: str, match: re.Match[str]) -> str:
    if match["fraction"] is None:
        return text
    return f"{text if text.count(':') > 1 else text + ':00'}.{match['fraction'][:6]}"


def _utc(value: Any, kind: str) -> Any:
    return _without_zone(value, kind, shift=True)


def _drop_zone(value: Any, kind: str) -> Any:
    return _without_zone(value, kind, shift=False)


def _microseconds(value: Any) -> Any:
    """Return a moment with six digits behind the point at most."""
    head, point, fraction = value.partition(".") if isinstance(value, str) else ("", "", "")
    return f"{head}.{fraction[:6]}" if point and fraction.isdigit() else value


def _loses(value: Any, new: Any, kind: str) -> bool:
    """Tell whether a moment that was written anew lost digits other than 0, or its time of day."""
    match = _ZONED.fullmatch(value) if isinstance(value, str) else None
    if match is None or value == new:
        return False
    if (match["fraction"] or "")[6:].strip("0"):
        return True
    if kind != "date":
        return False
    return bool(re.sub(r"[0:.]", "", match["clock"] + (match["fraction"] or "")))


def _is_utf8(value: bytes | None) -> bool:
    try:
        (value or b"").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


_FUNCTIONS = (
    ("ferry_text", 1, ferry_text),
    ("ferry_utf8", 1, _utf8),
    ("ferry_is_utf8", 1, _is_utf8),
    ("ferry_strip", 1, _strip),
    ("ferry_round", 2, _round),
    ("ferry_utc", 2, _utc),
    ("ferry_drop_zone", 2, _drop_zone),
    ("ferry_microseconds", 1, _microseconds),
    ("ferry_loses", 3, _loses),
    ("ferry_fits", 3, ferry_fits),
)


def _constant(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, (int, float)):
        return repr(value)
    return "'" + str(value).replace("'", "''") + "'"


@dataclass
class Applied:
    """What a rule did to one column."""

    rule: Rule
    table: str
    column: str
    count: int
    samples: list[dict[str, str]]
    cut: int | None = None  # how many values lose digits other than 0, where the action may cut

    def as_json(self) -> dict[str, Any]:
        """Return the entry in the report."""
        return {
            "table": self.table,
            "column": self.column,
            "hazard": self.rule.hazard,
            "action": self.rule.action,
            "count": self.count,
            "samples": self.samples,
            **({} if self.cut is None else {"cut": self.cut}),
        }


def _with_collations(schema: Schema, meanings: dict[str, str]) -> Schema:
    """Return the schema with the collations that stand for those of the application's."""
    if not meanings:
        return schema

    def known(collation: str) -> str:
        return meanings.get(collation, collation)

    def key(old: Key) -> Key:
        return dataclasses.replace(old, collations=tuple(map(known, old.collations)))

    def index(old: Index) -> Index:
        parts = (dataclasses.replace(p, collation=known(p.collation)) for p in old.parts)
        return dataclasses.replace(old, parts=tuple(parts))

    tables = [
        dataclasses.replace(
            table,
            columns=tuple(
                dataclasses.replace(column, collation=known(column.collation))
                for column in table.columns
            ),
            primary_key=table.primary_key and key(table.primary_key),
            uniques=tuple(map(key, table.uniques)),
            indexes=tuple(map(index, table.indexes)),
        )
        for table in schema.tables
    ]
    return dataclasses.replace(schema, tables=tables)


class Application:
    """Puts the rules in front of the tables of one connection.

    The views bear the tables' names (PostgreSQL's, where they are renamed) and stand before the
    tables of ``main``; or, where there are several attached ``databases`` with the same tables,
    ``place`` tells where each one's are.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        schema: Schema,
        rules: Rules,
        databases: Sequence[str] = ("main",),
    ) -> None:
        self.connection = connection
        self.schema = schema
        self.rules = rules
        self.databases = databases
        self.renaming = Renaming(rules.renames)
        self.applied: list[Applied] = []
        self.set_aside: list[tuple[Table, str]] = []  # table and condition
        self._places: dict[tuple[str, str], str] = {}
        self._types: dict[str, list[str]] = {}  # declared types of the tables that are done
        # Columns that get another type, and those of them that only follow the key they point to.
        self._retyped: dict[tuple[str, str], _Retype] = {}
        self.followed: dict[tuple[str, str], str] = {}
        self._unique_instead: set[str] = set()  # tables whose primary key has NULLs
        self._found: dict[tuple[int, str, str], bool] = {}
        for name, arguments, function in _FUNCTIONS:
            connection.create_scalar_function(name, function, arguments, deterministic=True)

    def run(self) -> Schema:
        """Create the views; returns the schema with the types and names that the rules ask for."""
        self._find_types()
        schema = self.renaming.apply(self.schema)
        renamed = {table.original: table for table in schema.tables}
        for table in self._parents_first():
            self._apply(table, renamed[table.name])
        for number, table in enumerate(schema.tables):
            columns = zip(table.columns, self._types[table.original], strict=True)
            schema.tables[number] = dataclasses.replace(
                table,
                columns=tuple(dataclasses.replace(c, declared=declared) for c, declared in columns),
            )
        schema = self._with_unique_keys(schema)
        schema.zone = self.rules.timezone
        return _with_collations(schema, self.rules.collations)

    def place(self, database: str, table: str) -> str:
        """Return where SQL finds a table (by its name in PostgreSQL) of a database."""
        return self._places.get((database, table), f"{database}.{quote_name(table)}")

    @property
    def changed(self) -> set[str]:
        """The tables (by their names in PostgreSQL) whose values or rows rules change."""
        changed = {entry.table for entry in self.applied}
        return {self.renaming.table(name) for name in changed}

    def _parents_first(self) -> list[Table]:
        """Order the tables so that rows set aside in a parent are known to its children."""
        ordered: dict[str, Table] = {}

        def add(table: Table, above: tuple[str, ...]) -> None:
            for key in table.foreign_keys:
                parent = self.schema.table(key.parent)
                if parent is not None and parent.name not in (*above, *ordered):
                    add(parent, (*above, parent.name))
            ordered.setdefault(table.name, table)

        for table in self.schema.tables:
            add(table, (table.name,))
        return list(ordered.values())

    def _apply(self, table: Table, renamed: Table) -> None:
        """Find out which rules have work in a table, and put views with them before it."""
        acting = {
            column.name: [rule for rule in self.rules.rules if self._finds(rule, table, column)]
            for column in table.columns
        }
        for database in self.databases:
            self._put_view(database, table, renamed, acting)
        self._types[table.name] = []
        for column in table.columns:
            retype = self._retyped.get((table.name, column.name))
            self._types[table.name].append(retype.declared if retype else column.declared)
            if any(rule.action == UNIQUE for rule in acting[column.name]):
                self._unique_instead.add(table.name)

    def _put_view(
        self, database: str, table: Table, renamed: Table, acting: dict[str, list[Rule]]
    ) -> None:
        values, unwanted = [], []
        for column, name in zip(table.columns, renamed.columns, strict=True):
            value = own = f"t0.{quote_name(column.name)}"
            cases = ""
            if (table.name, column.name) in self.followed:
                retype = self._retyped[table.name, column.name]
                value = retype.expression.replace("{c}", own)
            for rule in acting[column.name]:
                condition = self._condition(rule, table, column, database)
                action = ACTIONS[rule.hazard][rule.action]
                if rule.action == QUARANTINE:
                    unwanted.append(condition)
                elif rule.action == UNIQUE:
                    continue
                elif isinstance(action, _Retype):
                    value = action.expression.replace("{c}", own)
                else:
                    new = action.replace("{value}", _constant(rule.value))
                    cases += f" WHEN {condition} THEN {fill_condition(new, column, own)}"
            if cases:
                value = f"CASE{cases} ELSE {value} END"
            values.append(f"{value} AS {quote_name(name.name)}")
        # `SELECT *` of a virtual table leaves out the rowid, which is one of its columns to us.
        follows = any((table.name, column.name) in self.followed for column in table.columns)
        if not (any(acting.values()) or renamed.renamed or follows or table.virtual):
            return
        rowid, name_of_rowid = row_name(table), row_name(renamed)
        if rowid is not None and name_of_rowid is not None:
            values.append(f"t0.{rowid} AS {name_of_rowid}")
        where = " AND ".join(f"({condition}) IS NOT TRUE" for condition in unwanted) or "TRUE"
        alone = self.databases == ("main",)
        view = quote_name(renamed.name if alone else f"ferry:{database}:{renamed.name}")
        self.connection.execute(
            f"CREATE TEMP VIEW {view} AS SELECT {', '.join(values)} "
            f"FROM {database}.{quote_name(table.name)} t0 WHERE {where}"
        )
        self._places[database, renamed.name] = f"temp.{view}"
        if not alone and database == self.databases[0]:
            # Under the table's own name stand the first one's rows, as they do without rules.
            self.connection.execute(
                f"CREATE TEMP VIEW {quote_name(renamed.name)} AS SELECT * FROM temp.{view}"
            )

    def _condition(self, rule: Rule, table: Table, column: Column, database: str) -> str | None:
        """Return SQL that is true for the values the rule speaks of; None if it does not apply."""
        name = f"t0.{quote_name(column.name)}"
        if rule.hazard in ("null-in-not-null", "null-in-primary-key"):
            key = table.primary_key.columns if table.primary_key else ()
            wanted = column.name in key if rule.hazard.endswith("key") else column.not_null
            return f"{name} IS NULL" if wanted else None
        if rule.hazard == "orphan":
            return self._orphan_condition(table, column, database)
        if rule.hazard == "equal-keys":
            return self._equal_keys_condition(table, column, database)
        if rule.hazard == "nul-in-text":
            return f"typeof({name}) = 'text' AND instr({name}, char(0)) > 0"
        if rule.hazard == "invalid-utf-8":
            return f"typeof({name}) = 'text' AND NOT ferry_is_utf8(CAST({name} AS BLOB))"
        kind = declared_kind(column.declared)
        if rule.hazard == "mixed-types":
            return f"{name} IS NOT NULL" if kind is None else None
        if kind is None:
            return None
        codes = [hazard.code for hazard in HAZARDS[kind]]
        if rule.hazard not in codes:
            return None
        cases = " ".join(
            f"WHEN {fill_condition(hazard.condition, column, name)} THEN {number}"
            for number, hazard in enumerate(HAZARDS[kind])
        )
        fits = fill_condition(FITS[kind], column, name)
        return (
            f"({name} IS NOT NULL AND NOT {fits} AND CASE {cases} END = {codes.index(rule.hazard)})"
        )

    def _equal_keys_condition(self, table: Table, column: Column, database: str) -> str | None:
        """Return what is true for all rows but the first of those whose keys become equal."""
        rowid = row_name(table)
        if rowid is None and table.primary_key is None:
            return None  # nothing to tell the rows by
        key = [rowid] if rowid else [quote_name(name) for name in table.primary_key.columns]
        own = ", ".join(f"t0.{name}" for name in key)
        kinds = {other.name: declared_kind(other.declared) for other in table.columns}
        place = f"{database}.{quote_name(table.name)}"
        conditions = []
        for unique in unique_keys(table):
            wanted = [f"{name} AS k{number}" for number, name in enumerate(key)]
            query = equal_rows(table, unique, kinds, place, wanted)
            if column.name in unique.columns and query is not None:
                names = ", ".join(f"k{number}" for number in range(len(key)))
                conditions.append(f"({own}) IN (SELECT {names} FROM ({query}))")
        return " OR ".join(conditions) or None

    def _orphan_condition(self, table: Table, column: Column, database: str) -> str | None:
        conditions = []
        for key in table.foreign_keys:
            if column.name.lower() in {name.lower() for name in key.columns}:
                condition = self._points_nowhere(table, key, database)
                if condition is not None:
                    conditions.append(condition)
        return " OR ".join(conditions) or None

    def _points_nowhere(self, table: Table, key: ForeignKey, database: str) -> str | None:
        names = self.schema.referenced(key)
        parent = self.schema.table(key.parent)
        if parent is None or not names:
            return None
        place, there = f"{database}.{quote_name(parent.name)}", names
        if parent.name in self._types:
            # The parent's own view: rows that a rule has set aside are no parents any more. Views
            # cannot ask one another in a circle, though.
            place = self.place(database, self.renaming.table(parent.name))
            if place.startswith("temp."):
                there = tuple(self.renaming.column(parent.name, name) for name in names)
        children = [f"t0.{quote_name(table.column(name).name)}" for name in key.columns]
        filled = " AND ".join(f"{child} IS NOT NULL" for child in children)
        same = " AND ".join(
            f"p.{quote_name(name)} = {child}" for name, child in zip(there, children, strict=True)
        )
        return f"({filled} AND NOT EXISTS (SELECT 1 FROM {place} p WHERE {same}))"

    def _find_types(self) -> None:
        """Find out which columns get another type; what points to a key gets the key's type."""
        for table in self.schema.tables:
            for column in table.columns:
                for rule in self.rules.rules:
                    action = ACTIONS[rule.hazard][rule.action]
                    if isinstance(action, _Retype) and self._finds(rule, table, column):
                        self._retyped[table.name, column.name] = action
        grown = True
        while grown:
            grown = False
            for table in self.schema.tables:
                for key in table.foreign_keys:
                    parent, names = self.schema.table(key.parent), self.schema.referenced(key)
                    if parent is None or not names:
                        continue
                    for child, name in zip(key.columns, names, strict=True):
                        column = table.column(child)
                        place = (table.name, column.name)
                        retype = self._retyped.get((parent.name, name))
                        if retype is None or place in self._retyped:
                            continue
                        if declared_kind(column.declared) != declared_kind(retype.declared):
                            self._retyped[place] = retype
                            self.followed[place] = f"{parent.name}.{name}"
                            grown = True

    def _with_unique_keys(self, schema: Schema) -> Schema:
        """Return the schema with UNIQUE instead of the primary keys in which NULLs are to stay."""
        if not self._unique_instead:
            return schema
        keys = {
            table.name: table.primary_key
            for table in schema.tables
            if table.original in self._unique_instead and table.primary_key is not None
        }

        def pointing(key: ForeignKey) -> ForeignKey:
            parent = schema.table(key.parent)
            if parent is None or parent.name not in keys or key.references:
                return key
            return dataclasses.replace(key, references=keys[parent.name].columns)

        tables = []
        for table in schema.tables:
            new = dataclasses.replace(table, foreign_keys=tuple(map(pointing, table.foreign_keys)))
            if table.name in keys:
                uniques = (keys[table.name], *new.uniques)
                new = dataclasses.replace(new, primary_key=None, uniques=uniques)
            tables.append(new)
        return dataclasses.replace(schema, tables=tables)

    def _finds(self, rule: Rule, table: Table, column: Column) -> bool:
        """Tell whether a rule has work in a column; if there is one database, note how much."""
        place = (rule.number, table.name, column.name)
        if place not in self._found:
            self._found[place] = self._looks(rule, table, column)
        return self._found[place]

    def _looks(self, rule: Rule, table: Table, column: Column) -> bool:
        if not rule.fits(table.name, column.name):
            return False
        if self.databases == ("main",):
            condition = self._condition(rule, table, column, "main")
            return condition is not None and self._note(rule, table, column, condition)
        for database in self.databases:
            condition = self._condition(rule, table, column, database)
            place = f"{database}.{quote_name(table.name)} t0"
            if (
                condition is not None
                and self.connection.execute(
                    f"SELECT 1 FROM {place} WHERE {condition} LIMIT 1"
                ).fetchone()
            ):
                return True
        return False

    def _note(self, rule: Rule, table: Table, column: Column, condition: str) -> bool:
        place = f"main.{quote_name(table.name)} t0"
        (count,) = self.connection.execute(
            f"SELECT count(*) FROM {place} WHERE {condition}"
        ).fetchone()
        if not count:
            return False
        rows = self.connection.execute(
            f"SELECT {row_expression(table)}, substr(quote(CAST(t0.{quote_name(column.name)} "
            f"AS BLOB)), 1, 80) FROM {place} WHERE {condition} LIMIT {_SAMPLES}"
        )
        samples = [{"row": str(row), "value": _readable(value)} for row, value in rows]
        cut = None
        if rule.action in _CUTTING:
            name = f"t0.{quote_name(column.name)}"
            new = fill_condition(str(ACTIONS[rule.hazard][rule.action]), column, name)
            kind = declared_kind(column.declared)
            (cut,) = self.connection.execute(
                f"SELECT count(*) FROM {place} WHERE {condition} "
                f"AND ferry_loses({name}, {new}, '{kind}')"
            ).fetchone()
        self.applied.append(Applied(rule, table.name, column.name, count, samples, cut))
        if rule.action == QUARANTINE:
            self.set_aside.append((table, condition))
        return True

    def unused(self) -> list[Rule]:
        """Return the rules that found nothing to do."""
        used = {entry.rule.number for entry in self.applied}
        return [rule for rule in self.rules.rules if rule.number not in used]

    def write_quarantine(self) -> dict[str, int]:
        """Write the rows that were set aside, in full, one JSON object a line.

        Returns how many rows of which table. Nothing is written where there are none.
        """
        conditions: dict[str, list[str]] = {}
        tables = {}
        for table, condition in self.set_aside:
            tables[table.name] = table
            conditions.setdefault(table.name, []).append(condition)
        if not conditions:
            return {}
        counts: dict[str, int] = {}
        path = self.rules.quarantine
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        encoding = codec(self.connection)
        try:
            with partial.open("w") as file:
                for name, found in conditions.items():
                    columns = [column.name for column in tables[name].columns]
                    # Text as bytes: it may be what is wrong with the row.
                    wanted = ", ".join(
                        f"typeof({c}), iif(typeof({c}) = 'text', CAST({c} AS BLOB), {c})"
                        for c in (f"t0.{quote_name(column)}" for column in columns)
                    )
                    query = (
                        f"SELECT {wanted} FROM main.{quote_name(name)} t0 "
                        f"WHERE {' OR '.join(found)}"
                    )
                    for row in self.connection.execute(query):
                        typed = zip(row[::2], row[1::2], strict=True)
                        values = {
                            column: _json_value(storage, value, encoding)
                            for column, (storage, value) in zip(columns, typed, strict=True)
                        }
                        line = json.dumps({"table": name, "row": values}, ensure_ascii=False)
                        file.write(line + "\n")
                        counts[name] = counts.get(name, 0) + 1
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise RefusedError(
                f"the quarantine file {path} cannot be written: {error.strerror}"
            ) from error
        return counts


def _readable(value: Any) -> str:
    """Turn quote() of a blob back into something to read."""
    text = str(value)
    if text.startswith("X'"):
        digits = text[2:].rstrip("'")
        return bytes.fromhex(digits[: len(digits) // 2 * 2]).decode("utf-8", "replace")
    return text


def _json_value(storage: str, value: Any, encoding: str) -> Any:
    if storage == "text":
        with contextlib.suppress(UnicodeDecodeError):
            return value.decode(encoding)
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _draft_rename(hazard: NameHazard) -> list[str]:
    lines = ["", f"# {hazard.samples[0].value}", "# [[rename]]"]
    if hazard.kind == "column":
        lines += [
            f"# table = {json.dumps(hazard.table, ensure_ascii=False)}",
            f"# column = {json.dumps(hazard.column, ensure_ascii=False)}",
        ]
    else:
        lines.append(f"# {hazard.kind} = {json.dumps(hazard.table, ensure_ascii=False)}")
    return [*lines, f"# to = {json.dumps(hazard.proposal, ensure_ascii=False)}"]


def draft(hazards: Iterable[Hazard], collations: Iterable[str] = ()) -> str:
    """Return a rules file for the hazards found: everything commented out, to choose from.

    ``collations`` are those that only the application defines.
    """
    lines = [
        "# Rules for ferry: remove the # before a rule, and choose one action for it.",
        "# Rows that are set aside (quarantine) go to this file, in full, beside the rules:",
        '# quarantine = "set-aside.jsonl"',
    ]
    for name in collations:
        lines += [
            "",
            f"# Without this, columns with COLLATE {name} are compared as plain text.",
            "# [[collation]]",
            f"# name = {json.dumps(name, ensure_ascii=False)}",
            '# as = "und-u-ks-level2"  # a locale of ICU (this one: without case), nocase, binary',
        ]
    for hazard in hazards:
        if isinstance(hazard, NameHazard):
            lines += _draft_rename(hazard)
            continue
        actions = ACTIONS.get(hazard.code)
        if actions is None:
            continue
        shown = ", ".join(f"{sample.row}: {sample.value}" for sample in hazard.samples)
        column = hazard.column.split(", ")[0]
        lines += [
            "",
            *(f"# {line}" for line in f"{hazard.count} values ({shown})".splitlines()),
            f"# or correct them in SQLite: {hazard.remedy}",
            "# [[rule]]",
            f"# table = {json.dumps(hazard.table)}",
            f"# column = {json.dumps(column)}",
            f"# hazard = {json.dumps(hazard.code)}",
            f"# action = {json.dumps(next(iter(actions)))}  # {', '.join(actions)}",
        ]
        if "set" in actions:
            lines.append("# value = 0  # with the action set")
    return "\n".join(lines) + "\n"
