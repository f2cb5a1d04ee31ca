"""Which PostgreSQL type a SQLite column gets, and which of its values fit that type as they are.

SQLite keeps a storage class per value, not per column, so a declared type promises little. Each
kind below has a condition (SQL, evaluated by SQLite) that a value fulfils if it can be carried
without loss, and a list of hazards: names for the ways in which values break it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

INT4_MIN, INT4_MAX = -(2**31), 2**31 - 1


class Kind(StrEnum):
    """A PostgreSQL type that ferry creates; the value is the type's name in DDL."""

    INTEGER = "integer"
    BIGINT = "bigint"
    DOUBLE = "double precision"
    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"
    DATE = "date"
    TIME = "time"
    TEXT = "text"
    BYTEA = "bytea"


@dataclass(frozen=True)
class HazardRule:
    """A way in which a value does not fit: SQL condition over ``{c}``, and how to get out."""

    code: str
    condition: str
    remedy: str


_D = "[0-9]"
_DATE = f"{_D * 4}-[01]{_D}-[0-3]{_D}"
_MINUTES = f"[0-2]{_D}:[0-5]{_D}"
_SECONDS = f"{_MINUTES}:[0-5]{_D}"
_REAL_DATE = (
    "substr({c}, 1, 4) > '0000' AND substr({c}, 6, 2) BETWEEN '01' AND '12' "
    "AND substr({c}, 9, 2) >= '01' AND (substr({c}, 9, 2) <= '28' "  # every month has these
    "OR date(substr({c}, 1, 10), '+0 days') = substr({c}, 1, 10))"
)

_INTEGER_FITS = "typeof({c}) = 'integer'"
# Spellings that PostgreSQL's own boolean input takes, beside SQLite's 0 and 1.
TRUE_WORDS = ("t", "true", "y", "yes", "on", "1")
FALSE_WORDS = ("f", "false", "n", "no", "off", "0")
_WORDS = ", ".join(f"'{word}'" for word in (*TRUE_WORDS, *FALSE_WORDS))

# What a value must be (or NULL) to be carried as it is.
FITS: dict[Kind, str] = {
    Kind.INTEGER: _INTEGER_FITS,
    Kind.BIGINT: _INTEGER_FITS,
    # Integers up to 2^53 are exact as doubles; SQLite itself stores 5.0 as 5 in such columns.
    Kind.DOUBLE: "(typeof({c}) = 'real' OR typeof({c}) = 'integer' "
    "AND {c} BETWEEN -9007199254740992 AND 9007199254740992)",
    Kind.NUMERIC: "(typeof({c}) IN ('integer', 'real') AND ferry_fits({c}, {p}, {s}))",
    Kind.BOOLEAN: "(typeof({c}) = 'integer' AND {c} IN (0, 1) "
    f"OR typeof({{c}}) = 'text' AND lower({{c}}) IN ({_WORDS}))",
    # What SQLite's datetime() gives back as it was is fine, and needs no patterns (IS: it gives
    # NULL for what is no time).
    Kind.TIMESTAMP: "(typeof({c}) = 'text' AND (substr({c}, 1, 4) > '0000' AND ("
    "datetime({c}) IS {c} OR datetime({c}) IS replace(substr({c}, 1, 19), 'T', ' ') "
    "AND length({c}) BETWEEN 21 AND 26 AND substr({c}, 20, 1) = '.' "
    "AND substr({c}, 21) NOT GLOB '*[^0-9]*') OR ("
    f"{{c}} GLOB '{_DATE}[ T]{_SECONDS}' OR length({{c}}) BETWEEN 21 AND 26 "
    f"AND {{c}} GLOB '{_DATE}[ T]{_SECONDS}.{_D}*' AND substr({{c}}, 21) NOT GLOB '*[^0-9]*' "
    f"OR {{c}} GLOB '{_DATE}[ T]{_MINUTES}' OR {{c}} GLOB '{_DATE}') "
    f"AND substr({{c}}, 12, 2) < '24' AND {_REAL_DATE}))",
    Kind.DATE: f"(typeof({{c}}) = 'text' AND {{c}} GLOB '{_DATE}' AND {_REAL_DATE})",
    Kind.TIME: "(typeof({c}) = 'text' AND ("
    f"{{c}} GLOB '{_SECONDS}' OR {{c}} GLOB '{_MINUTES}' OR length({{c}}) BETWEEN 10 AND 15 "
    f"AND {{c}} GLOB '{_SECONDS}.{_D}*' AND substr({{c}}, 10) NOT GLOB '*[^0-9]*') "
    "AND substr({c}, 1, 2) < '24')",
    Kind.TEXT: "typeof({c}) = 'text'",
    Kind.BYTEA: "typeof({c}) = 'blob'",
}

_CLEAN = "correct these values in SQLite (on a copy of the file), or declare the column otherwise"
_BLOB = HazardRule("blob", "typeof({c}) = 'blob'", _CLEAN)
_EMPTY = HazardRule(
    "empty-text", "typeof({c}) = 'text' AND {c} = ''", "set them to NULL if they mean nothing"
)
_NUMBER_HAZARDS = (
    _EMPTY,
    HazardRule("text-in-number", "typeof({c}) = 'text'", _CLEAN),
    _BLOB,
)
_WORDS_OF_TIME = (
    "lower({c}) IN ('now', 'today', 'tomorrow', 'yesterday', 'epoch', 'infinity', '-infinity', "
    "'allballs')"
)
_TIME_HAZARDS = (
    _EMPTY,
    HazardRule(
        "epoch-in-timestamp",
        "typeof({c}) = 'integer'",
        "write them as text: datetime(value, 'unixepoch')",
    ),
    HazardRule(
        "julian-day-in-timestamp",
        "typeof({c}) = 'real'",
        "write them as text: datetime(value)",
    ),
    _BLOB,
    HazardRule(
        "word-in-timestamp",
        _WORDS_OF_TIME,
        "PostgreSQL would read the word as a moment; replace it by the moment that is meant",
    ),
    HazardRule(
        "time-zone-in-timestamp",
        "{c} GLOB '*[0-9]Z' OR {c} GLOB '*[0-9]z' OR {c} GLOB '*:[0-9][0-9]*[+-][0-9][0-9]*' "
        "OR {c} GLOB '*:[0-9][0-9]* [A-Za-z]*'",
        "write all values of the column in one time zone and drop the suffix",
    ),
    HazardRule(
        "fine-fraction-in-timestamp",
        f"{{c}} GLOB '*{_SECONDS}.{_D * 6}{_D}*' "
        "AND substr({c}, instr({c}, '.') + 1) NOT GLOB '*[^0-9]*'",
        "PostgreSQL keeps six digits: cut the others off if they mean nothing",
    ),
    HazardRule("not-a-timestamp", "1", _CLEAN),
)
_TIME_IN_DATE = HazardRule(
    "time-in-date",
    f"{{c}} GLOB '{_DATE}[ T]{_MINUTES}*' AND substr({{c}}, 17) NOT GLOB '*[^0-9:.]*'",
    "cut off the time if it means nothing, or declare the column TIMESTAMP",
)

HAZARDS: dict[Kind, tuple[HazardRule, ...]] = {
    Kind.INTEGER: (
        HazardRule(
            "beyond-64-bit",
            "typeof({c}) = 'real' AND abs({c}) >= 9.2e18",
            "SQLite has already rounded these to floating point; declare the column REAL, or "
            "restore the exact numbers as text",
        ),
        HazardRule("fraction-in-integer", "typeof({c}) = 'real'", "declare the column REAL"),
        *_NUMBER_HAZARDS,
    ),
    Kind.DOUBLE: (
        HazardRule(
            "integer-beyond-double",
            "typeof({c}) = 'integer'",
            "a double holds integers exactly up to 2^53 only; declare the column INTEGER",
        ),
        *_NUMBER_HAZARDS,
    ),
    Kind.NUMERIC: (
        *_NUMBER_HAZARDS,
        HazardRule("beyond-declared-decimal", "1", "declare more digits, or none: NUMERIC"),
    ),
    Kind.BOOLEAN: (
        HazardRule(
            "number-in-boolean",
            "typeof({c}) IN ('integer', 'real')",
            "declare the column INTEGER if it is no yes or no",
        ),
        _EMPTY,
        HazardRule("text-in-boolean", "typeof({c}) = 'text'", _CLEAN),
        _BLOB,
    ),
    Kind.TIMESTAMP: _TIME_HAZARDS,
    Kind.DATE: (*_TIME_HAZARDS[:-2], _TIME_IN_DATE, _TIME_HAZARDS[-1]),
    Kind.TIME: _TIME_HAZARDS,
    Kind.TEXT: (
        HazardRule("blob-in-text", "typeof({c}) = 'blob'", "declare the column BLOB, or cast them"),
        HazardRule("number-in-text", "1", _CLEAN),
    ),
    Kind.BYTEA: (HazardRule("text-in-blob", "1", "declare the column TEXT, or cast them to BLOB"),),
}
HAZARDS[Kind.BIGINT] = HAZARDS[Kind.INTEGER]


def precision_and_scale(declared: str) -> tuple[int, int] | None:
    """Return (precision, scale) of ``DECIMAL(10,2)`` and the like, None if there are none."""
    match = re.search(r"\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)", declared)
    if match is None:
        return None
    return int(match[1]), int(match[2] or 0)


def declared_kind(declared: str) -> Kind | None:
    """Judge a declared type; None means that only the contents can tell.

    Names that promise more than SQLite's affinity come first, SQLite's own rules after them.
    """
    name = re.sub(r"\s*\(.*\)\s*", " ", declared).strip().upper()
    if name in ("BOOLEAN", "BOOL"):
        return Kind.BOOLEAN
    if name in ("TIMESTAMP", "DATETIME", "TIMESTAMP WITHOUT TIME ZONE"):
        return Kind.TIMESTAMP
    if name == "DATE":
        return Kind.DATE
    if name in ("TIME", "TIME WITHOUT TIME ZONE"):
        return Kind.TIME
    if name in ("NUMERIC", "DECIMAL", "DEC"):
        return Kind.NUMERIC
    if "INT" in name:
        return Kind.BIGINT if "BIG" in name or name == "INT8" else Kind.INTEGER
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return Kind.TEXT
    if "BLOB" in name:
        return Kind.BYTEA
    if any(part in name for part in ("REAL", "FLOA", "DOUB")):
        return Kind.DOUBLE
    return None


def kind_of_contents(classes: set[str]) -> Kind | None:
    """Choose for a column without a telling type by the storage classes in it; None: mixed."""
    if classes <= {"text"}:
        return Kind.TEXT
    if classes == {"integer"}:
        return Kind.BIGINT
    if classes <= {"integer", "real"}:
        return Kind.DOUBLE
    if classes == {"blob"}:
        return Kind.BYTEA
    return None
