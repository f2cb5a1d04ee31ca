"""Values of types that SQLite has not, read from its texts: equal is what means the same.

The tables of an application may have jsonb, uuid, inet, interval or timestamptz where SQLite has a
text. PostgreSQL writes each such value in one way, the program wrote it in another. A text that is
no such value comes back as it is, behind a ``?``, and so is a difference.
"""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_UNITS = {
    "year": (12, 0, 0),
    "mon": (1, 0, 0),
    "month": (1, 0, 0),
    "week": (0, 7, 0),
    "day": (0, 1, 0),
    "hour": (0, 0, 3600),
    "minute": (0, 0, 60),
    "min": (0, 0, 60),
    "second": (0, 0, 1),
    "sec": (0, 0, 1),
}
_PART = re.compile(r"([+-]?\d+(?:\.\d+)?) ?([a-z]+?)s?(?: |$)")
_CLOCK = re.compile(r"([+-]?)(\d+):(\d\d)(?::(\d\d(?:\.\d{1,6})?))?$")
_ISO = re.compile(r"P(?=.)(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)W)?(?:(-?\d+)D)?"
                  r"(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?\d+(?:\.\d{1,6})?)S)?)?$")  # fmt: skip


def ferry_jsonb(value: Any) -> str | None:
    """Return JSON as PostgreSQL's jsonb writes it."""
    return _read(
        value, lambda text: _jsonb(json.loads(text, parse_int=Decimal, parse_float=Decimal))
    )


def _jsonb(value: Any) -> str:
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        return "{" + ", ".join(f"{_jsonb(key)}: {_jsonb(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_jsonb, value)) + "]"
    if isinstance(value, Decimal):
        text = format(value, "f")
        return text.removeprefix("-") if not value else text
    return json.dumps(value, ensure_ascii=False)


def ferry_uuid(value: Any) -> str | None:
    """Return a UUID in small letters, with its hyphens."""
    return _read(value, lambda text: str(uuid.UUID(text)))


def ferry_inet(value: Any) -> str | None:
    """Return an address and its network as PostgreSQL sends them, in hex."""
    return _read(value, _inet)


def _inet(text: str) -> str:
    address = ipaddress.ip_interface(text)
    family, packed = (2 if address.version == 4 else 3), address.ip.packed
    return bytes([family, address.network.prefixlen, 0, len(packed), *packed]).hex()


def ferry_instant(value: Any) -> str | None:
    """Return a moment in UTC with six digits; one without a zone is in UTC."""
    return _read(value, _instant)


def _instant(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return f"{moment.date().isoformat()} {moment:%H:%M:%S.%f}"


def ferry_interval(value: Any) -> str | None:
    """Return a span of time as months, days and microseconds."""
    return _read(value, _interval)


def _interval(text: str) -> str:
    iso = _ISO.match(text)
    if iso is not None:
        years, months, weeks, days, hours, minutes, seconds = (
            Decimal(n or 0) for n in iso.groups()
        )
        sums = [years * 12 + months, weeks * 7 + days, hours * 3600 + minutes * 60 + seconds]
        return _span(sums)
    sums = [Decimal(0)] * 3
    rest = text.strip().lower()
    while rest:
        clock, part = _CLOCK.match(rest), _PART.match(rest)
        if clock is not None:
            seconds = int(clock[2]) * 3600 + int(clock[3]) * 60 + Decimal(clock[4] or 0)
            sums[2] += -seconds if clock[1] == "-" else seconds
            break
        if part is None or part[2] not in _UNITS:
            raise ValueError(text)
        for place, size in enumerate(_UNITS[part[2]]):
            sums[place] += Decimal(part[1]) * size
        rest = rest[part.end() :]
    return _span(sums)


def _span(sums: list[Decimal]) -> str:
    months, days, seconds = sums
    if months % 1 or days % 1:  # PostgreSQL turns parts of days into hours
        raise ValueError("a part of a month or of a day")
    return f"{int(months)} {int(days)} {int(seconds * 1_000_000)}"


def _read(value: Any, how: Callable[[str], str]) -> str | None:
    if value is None:
        return None
    try:
        return how(value)
    except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError):
        return f"?{value!r}"


FUNCTIONS = {
    "jsonb": ferry_jsonb,
    "uuid": ferry_uuid,
    "inet": ferry_inet,
    "timestamptz": ferry_instant,
    "interval": ferry_interval,
}
# Canonical forms, as in ferry.proof: what concat() takes in SQLite's and in PostgreSQL's SQL.
CANONICAL = {
    "jsonb": (
        "length(ferry_jsonb({c})), ':', ferry_jsonb({c})",
        "length({c}::text), ':', {c}::text",
    ),
    "uuid": ("ferry_uuid({c}), ','", "{c}, ','"),
    "inet": ("ferry_inet({c}), ','", "encode(inet_send({c}), 'hex'), ','"),
    "timestamptz": (
        "ferry_instant({c}), ','",
        "to_char({c} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), ','",
    ),
    "interval": (
        "ferry_interval({c}), ','",
        "extract(year FROM {c})::bigint * 12 + extract(month FROM {c})::bigint || ' ' || "
        "extract(day FROM {c})::bigint || ' ' || "
        "(extract(hour FROM {c})::bigint * 3600 + extract(minute FROM {c})::bigint * 60) * 1000000 "
        "+ extract(microseconds FROM {c})::bigint, ','",
    ),
}
