"""Defaults that SQLite computes, said in PostgreSQL: moments, random ids, empty JSON.

SQLite's moments are UTC and have whole seconds, whatever the server's time zone is. ``localtime``
is that of the machine that SQLite ran on, which only the rules can tell (``timezone``).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import TYPE_CHECKING

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from ferry.expressions import UntranslatableError
from ferry.types import FALSE_WORDS, TRUE_WORDS, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTEGERS = (Kind.INTEGER, Kind.BIGINT)
_NUMBERS = (*_INTEGERS, Kind.DOUBLE, Kind.NUMERIC)
_TIMES = (Kind.TIMESTAMP, Kind.DATE, Kind.TIME)
_RANDOM = "uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())"  # 244 bits of chance
_SHORT = {
    exp.CurrentTimestamp: ("datetime", []),
    exp.CurrentDate: ("date", []),
    exp.CurrentTime: ("time", []),
}
_FORMATS = {
    "%Y": "YYYY",
    "%m": "MM",
    "%d": "DD",
    "%H": "HH24",
    "%M": "MI",
    "%S": "SS",
    "%f": "SS.MS",
    "%j": "DDD",
    "%F": "YYYY-MM-DD",
    "%T": "HH24:MI:SS",
    "%R": "HH24:MI",
}
_FORMAT_OF = {
    Kind.TIMESTAMP: "%Y-%m-%d %H:%M:%S",
    Kind.DATE: "%Y-%m-%d",
    Kind.TIME: "%H:%M:%S",
}


@dataclass(frozen=True)
class _Said:
    """An expression in PostgreSQL's SQL, and what it gives."""

    sql: str
    kind: Kind
    number: str = ""  # the same as a number, where it is a text of digits
    moment: str = ""  # the timestamp behind it
    format: str = ""  # and how strftime() writes it


def quote_text(text: str) -> str:
    """Return a string constant for PostgreSQL (standard_conforming_strings on)."""
    return "'" + text.replace("'", "''") + "'"


def constant(text: str, kind: Kind, *, is_string: bool) -> str:
    """Return a constant of a kind, as SQLite's affinity would store it."""
    if kind == Kind.BOOLEAN:
        if text.lower() in TRUE_WORDS:
            return "true"
        if text.lower() in FALSE_WORDS:
            return "false"
        raise UntranslatableError(f"{text!r} is no boolean")
    if kind in _INTEGERS:
        if not re.fullmatch(r"-?\d+", text) or not -(2**63) <= int(text) < 2**63:
            raise UntranslatableError(f"{text!r} is no integer of 64 bits")
        return text
    if kind in (Kind.DOUBLE, Kind.NUMERIC):
        if not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text):
            raise UntranslatableError(f"{text!r} is no number")
        return text
    if kind == Kind.TEXT:
        return quote_text(text)
    if kind in _TIMES and is_string and _is_time(text, kind):
        return f"{quote_text(text)}::{kind}"
    raise UntranslatableError(f"{text!r} as default of a column of type {kind}")


def _is_time(text: str, kind: Kind) -> bool:
    """Tell whether a text is a moment that exists, as SQLite writes it."""
    forms = {
        Kind.TIMESTAMP: (r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?", datetime),
        Kind.DATE: (r"\d{4}-\d\d-\d\d", date),
        Kind.TIME: (r"\d\d:\d\d(:\d\d(\.\d{1,6})?)?", time),
    }
    pattern, form = forms[kind]
    try:
        return bool(re.fullmatch(pattern, text)) and bool(str(form.fromisoformat(text)))
    except ValueError:
        return False


def computed_default(default: str, kind: Kind, zone: str) -> str:
    """Translate a default that is computed; raises UntranslatableError.

    ``zone`` is the time zone of the machine that SQLite ran on, empty where nobody has said it.
    """
    try:
        tree = sqlglot.parse_one(default, read="sqlite")
    except SqlglotError as error:
        raise UntranslatableError(str(error).splitlines()[0]) from error
    return f"({_assign(_Speaker(zone).say(tree), kind)})"


def _assign(said: _Said, kind: Kind) -> str:
    """Return the expression as a column of this kind stores it, by SQLite's affinity."""
    if kind in _TIMES and said.moment:
        plain = said.format.removesuffix("Z").replace("T", " ").replace("%f", "%S")
        if plain == _FORMAT_OF[kind]:
            unit = "milliseconds" if "%f" in said.format else "second"
            if kind == Kind.DATE:
                return f"CAST({said.moment} AS date)"
            return f"date_trunc('{unit}', {said.moment})" + ("::time" * (kind == Kind.TIME))
    if kind in (*_INTEGERS, Kind.DOUBLE, Kind.NUMERIC) and said.number:
        return said.number
    if kind == Kind.TEXT and said.kind in _INTEGERS:
        return f"CAST({said.sql} AS text)"
    fits = said.kind == kind or (kind in _NUMBERS and said.kind in _INTEGERS)
    if not fits and not (kind == Kind.NUMERIC and said.kind in _NUMBERS):
        raise UntranslatableError(f"a {said.kind} as default of a column of type {kind}")
    return said.sql


class _Speaker:
    """Says a tree of SQLite's in PostgreSQL."""

    def __init__(self, zone: str) -> None:
        self.zone = zone

    def say(self, node: exp.Expression) -> _Said:
        """Translate a node; raises UntranslatableError."""
        if isinstance(node, exp.Paren):
            inner = self.say(node.this)
            return _Said(f"({inner.sql})", inner.kind, inner.number, inner.moment, inner.format)
        if isinstance(node, exp.Literal):
            if node.is_string:
                return _Said(quote_text(node.this), Kind.TEXT)
            return _Said(node.this, Kind.BIGINT if node.this.isdigit() else Kind.DOUBLE)
        if isinstance(node, exp.Neg):
            return self._number(f"-{self._as_number(node.this).sql}", node.this)
        if isinstance(node, (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod)):
            return self._arithmetic(node)
        if isinstance(node, exp.DPipe):
            parts = [self.say(part) for part in (node.this, node.expression)]
            return _Said(" || ".join(map(_as_text, parts)), Kind.TEXT)
        if isinstance(node, exp.Cast):
            return self._cast(node)
        if isinstance(node, exp.Substring):
            return self._substring(node)
        return self._function(node)

    def _function(self, node: exp.Expression) -> _Said:
        if isinstance(node, (exp.Hex, exp.LowerHex)):
            inner = self.say(node.this)
            if inner.kind == Kind.BYTEA:
                digits = f"encode({inner.sql}, 'hex')"
                lower = isinstance(node, exp.LowerHex)
                return _Said(digits if lower else f"upper({digits})", Kind.TEXT)
        elif isinstance(node, (exp.Lower, exp.Upper)):
            inner = self.say(node.this)
            word = "lower" if isinstance(node, exp.Lower) else "upper"
            return _Said(f'{word}({_as_text(inner)} COLLATE "C")', Kind.TEXT)
        elif isinstance(node, exp.Rand):
            first = "left(encode(sha256(uuid_send(gen_random_uuid())), 'hex'), 16)"
            return _Said(f"('x' || {first})::bit(64)::bigint", Kind.BIGINT)
        elif isinstance(node, exp.Abs):
            return self._number(f"abs({self._as_number(node.this).sql})", node.this)
        elif isinstance(node, exp.JSONObject) and not node.expressions:
            return _Said("'{}'", Kind.TEXT)
        name, arguments = _call(node)
        if name == "randomblob" and len(arguments) == 1 and arguments[0].name.isdigit():
            return _random_bytes(int(arguments[0].name))
        if name == "json_array" and not arguments:
            return _Said("'[]'", Kind.TEXT)
        if name == "json" and len(arguments) == 1 and arguments[0].is_string:
            try:
                value = json.loads(arguments[0].name)
            except ValueError:
                raise UntranslatableError(f"{arguments[0].name!r} is no JSON") from None
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            return _Said(quote_text(text), Kind.TEXT)
        if name in ("datetime", "date", "time", "julianday", "unixepoch", "strftime"):
            return self._moment(name, arguments)
        raise UntranslatableError(f"PostgreSQL has no equivalent of {node.sql('sqlite')}")

    def _as_number(self, node: exp.Expression) -> _Said:
        said = self.say(node)
        if said.number:
            return _Said(said.number, Kind.BIGINT)
        if said.kind not in _NUMBERS:
            raise UntranslatableError(f"{node.sql('sqlite')} is no number")
        return said

    def _number(self, sql: str, node: exp.Expression) -> _Said:
        return _Said(sql, self._as_number(node).kind)

    def _arithmetic(self, node: exp.Binary) -> _Said:
        left, right = self._as_number(node.this), self._as_number(node.expression)
        sign = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%"}[type(node)]
        kinds = {left.kind, right.kind}
        if kinds <= {*_INTEGERS}:
            return _Said(f"{left.sql} {sign} {right.sql}", Kind.BIGINT)
        if sign == "%":
            raise UntranslatableError("a remainder of numbers that are no integers")
        return _Said(f"{left.sql} {sign} CAST({right.sql} AS double precision)", Kind.DOUBLE)

    def _cast(self, node: exp.Cast) -> _Said:
        inner, to = self.say(node.this), node.to.this
        if to in exp.DataType.INTEGER_TYPES:
            if inner.number or inner.kind in _INTEGERS:
                return _Said(inner.number or inner.sql, Kind.BIGINT)
            if inner.kind == Kind.DOUBLE:
                return _Said(f"CAST(trunc({inner.sql}) AS bigint)", Kind.BIGINT)
        if to in exp.DataType.TEXT_TYPES:
            return _Said(_as_text(inner), Kind.TEXT)
        raise UntranslatableError(f"{node.sql('sqlite')} would not be the same value")

    def _substring(self, node: exp.Substring) -> _Said:
        start, length = node.args.get("start"), node.args.get("length")
        text = _as_text(self.say(node.this))
        # abs(x) % n + 1 is how a random letter is chosen.
        whole = isinstance(start, exp.Literal) and start.name.isdigit() and int(start.name)
        chosen = (
            isinstance(start, exp.Add)
            and isinstance(start.this, exp.Mod)
            and isinstance(start.this.this, exp.Abs)
            and start.expression.name.isdigit()
            and int(start.expression.name)
        )
        if not (whole or chosen) or not (length is None or length.name.isdigit()):
            raise UntranslatableError(f"{node.sql('sqlite')} may count from the end")
        parts = [text, f"CAST({self.say(start).sql} AS integer)"]
        parts += [length.name] if length is not None else []
        return _Said(f"substr({', '.join(parts)})", Kind.TEXT)

    def _moment(self, name: str, arguments: Sequence[exp.Expression]) -> _Said:
        words = []
        for argument in arguments:
            if isinstance(argument, exp.CurrentTimestamp):
                words.append("now")
            elif isinstance(argument, exp.Literal) and argument.is_string:
                words.append(argument.name)
            else:
                raise UntranslatableError(f"a {name} of {argument.sql('sqlite')}")
        form = words.pop(0) if name == "strftime" else ""
        if words and words.pop(0).lower() != "now":
            raise UntranslatableError(f"a {name} of something else than now")
        modifiers = [word.strip().lower() for word in words]
        fine = [word for word in modifiers if word in ("subsec", "subsecond")]
        moment = self._modified([word for word in modifiers if word not in fine])
        seconds = f"extract(epoch FROM {moment})"
        if name == "julianday":
            days = f"CAST({seconds} / 86400 + 2440587.5 AS double precision)"
            return _Said(days, Kind.DOUBLE)
        if name == "unixepoch":
            if fine:
                return _Said(f"CAST(round({seconds}, 3) AS double precision)", Kind.DOUBLE)
            return _Said(f"CAST(floor({seconds}) AS bigint)", Kind.BIGINT)
        if form == "%s":
            whole = f"CAST(floor({seconds}) AS bigint)"
            return _Said(f"CAST({whole} AS text)", Kind.TEXT, number=whole)
        kinds = {"datetime": Kind.TIMESTAMP, "date": Kind.DATE, "time": Kind.TIME}
        form = form or _FORMAT_OF[kinds[name]]
        if fine:
            form = form.replace("%S", "%f")
        text = f"to_char({moment}, {quote_text(_to_char(form))})"
        return _Said(text, Kind.TEXT, moment=moment, format=form)

    def _modified(self, modifiers: Sequence[str]) -> str:
        """Return now as a timestamp in UTC, after SQLite's modifiers."""
        moment = "now() AT TIME ZONE 'utc'"
        for word in modifiers:
            shift = re.fullmatch(r"([+-]?)(\d+(?:\.\d+)?) (day|hour|minute|second)s?", word)
            start = re.fullmatch(r"start of (day|month|year)", word)
            if word == "localtime":
                if not self.zone:
                    raise UntranslatableError(
                        "it is in local time, and nothing says where: a line timezone = "
                        '"Europe/Berlin" (the zone that is meant) in the rules file does'
                    )
                moment = f"(({moment}) AT TIME ZONE 'utc') AT TIME ZONE {quote_text(self.zone)}"
            elif shift is not None:
                sign = shift[1] or "+"
                moment = f"({moment}) {sign} interval '{shift[2]} {shift[3]}'"
            elif start is not None:
                moment = f"date_trunc('{start[1]}', {moment})"
            else:
                raise UntranslatableError(f"the modifier {word!r} of a moment")
        return f"({moment})"


def _call(node: exp.Expression) -> tuple[str, list[exp.Expression]]:
    """Return the name of SQLite's function and its arguments."""
    for kind, call in _SHORT.items():
        if isinstance(node, kind):
            return call
    if isinstance(node, exp.Anonymous):
        return node.name.lower(), list(node.expressions)
    if isinstance(node, exp.TimeToStr):
        value = node.this
        value = value.this if isinstance(value, exp.TsOrDsToTimestamp) else value
        return "strftime", [node.args["format"], value]
    if isinstance(node, (exp.Date, exp.Time)):
        name = "date" if isinstance(node, exp.Date) else "time"
        arguments = [node.this, *(node.args.get("expressions") or [])]
        return name, [argument for argument in arguments if argument is not None]
    return "", []


def _to_char(form: str) -> str:
    """Return PostgreSQL's pattern for one of strftime()'s."""
    parts = re.findall(r"%.|[^%]+", form)
    found = []
    for part in parts:
        if part.startswith("%"):
            if part not in _FORMATS:
                raise UntranslatableError(f"the format {part} of strftime()")
            found.append(_FORMATS[part])
        else:
            letters = re.search(r"[A-Za-z\"\\]", part)
            escaped = part.replace("\\", "\\\\").replace('"', '\\"')
            found.append(f'"{escaped}"' if letters else part)
    return "".join(found)


def _as_text(said: _Said) -> str:
    if said.kind in _INTEGERS:
        return f"CAST({said.sql} AS text)"
    if said.kind != Kind.TEXT:
        raise UntranslatableError(f"a {said.kind} as text")
    return said.sql


def _random_bytes(count: int) -> _Said:
    if not 0 < count <= 256:
        raise UntranslatableError(f"{count} random bytes")
    blocks = " || ".join([f"sha256({_RANDOM})"] * -(-count // 32))
    return _Said(f"substring({blocks} FROM 1 FOR {count})", Kind.BYTEA)
