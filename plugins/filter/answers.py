# MIT License, see LICENSE
"""Filters for what a program on another host has printed: data, whose form is checked before use.

A host that somebody has taken over answers in the place of our programs. So each answer that goes
on to another host, into a record, a path, a command to copy or a verdict is taken apart here: it is
JSON of a limited size without NaN and without the same key twice, and it has the keys and kinds of
values that the program gives. What no program gives goes no further.

    {{ __lock_first.stdout | answer_of(inventory_hostname, 'lock') }}
    {{ __watch_asked.stdout | complaint_of(database_host, 'watch of the database') }}
    {{ __host_key.content | b64decode | public_key_of(inventory_hostname) }}

Own code, not jsonschema: Ansible forks a process for each task, and each would import that anew.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

from ansible.errors import AnsibleFilterError

MOST_BYTES = 64 * 2**20  # digests of a large file, names and dates of all state files
MOST_TEXT = 100_000  # characters
MOST_ITEMS = 200_000
LATEST = 4_102_444_800  # 2100, in seconds since 1970
Shape = Callable[[Any, str], Any]


class UnfitError(Exception):
    """A value has not the form that it should have; the message says where and what."""


def _unfit(where: str, wanted: str, value: Any) -> NoReturn:
    shown = ascii(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
    raise UnfitError(f"{where or 'the whole'} is {shown}, and has to be {wanted}")


# ------------------------------------------------------------------------------------------ shapes


def flag(value: Any, where: str) -> bool:
    """Take true and false; 1 and "yes" are neither."""
    return value if isinstance(value, bool) else _unfit(where, "true or false", value)


def whole(value: Any, where: str) -> int:
    """Take a whole number that fits 64 bits and is not negative."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        _unfit(where, "a whole number", value)
    return value


def integer(value: Any, where: str) -> int:
    """Take a whole number that fits 64 bits, such as the time of a file from before 1970."""
    if isinstance(value, bool) or not isinstance(value, int) or not abs(value) < 2**63:
        _unfit(where, "a whole number", value)
    return value


def number(value: Any, where: str) -> float:
    """Take a number that can be reckoned with."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        _unfit(where, "a number", value)
    return value


def moment(value: Any, where: str) -> float:
    """Take seconds since 1970 that a calendar knows."""
    if not 0 <= number(value, where) <= LATEST:
        _unfit(where, "a time", value)
    return value


def text(value: Any, where: str) -> str:
    """Take a text of a length that can be shown."""
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        _unfit(where, f"a text of at most {MOST_TEXT} characters", value)
    return value


def matching(pattern: str, wanted: str) -> Shape:
    """Make a shape of texts that fit a pattern as a whole."""
    compiled = re.compile(pattern)

    def take(value: Any, where: str) -> str:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            _unfit(where, wanted, value)
        return value

    return take


# In a command that somebody copies, in a table, in an argument: letters that mean nothing there.
name = matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", "a plain name")
sha256 = matching(r"[0-9a-f]{64}", "a SHA-256")
digests = matching(r"[A-Za-z0-9+/]*={0,2}", "in Base64")
path = matching(r"[^\x00-\x1f\x7f]{1,4096}", "a path")


def perhaps(shape: Shape) -> Shape:
    """Make a shape of what may be null."""
    return lambda value, where: None if value is None else shape(value, where)


def listed(shape: Shape, least: int = 0) -> Shape:
    """Make a shape of lists."""

    def take(value: Any, where: str) -> list[Any]:
        if not isinstance(value, list) or not least <= len(value) <= MOST_ITEMS:
            _unfit(where, f"a list of {least} or more", value)
        return [shape(one, f"{where}[{place}]") for place, one in enumerate(value)]

    return take


def mapped(shape: Shape) -> Shape:
    """Make a shape of objects whose keys are paths, only compared with what is there."""

    def take(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > MOST_ITEMS:
            _unfit(where, "an object", value)
        return {path(key, where): shape(one, f"{where}.{key[:40]}") for key, one in value.items()}

    return take


def keyed(required: dict[str, Shape], optional: dict[str, Shape] | None = None) -> Shape:
    """Make a shape of objects. Other keys are left behind."""

    def take(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            _unfit(where, "an object", value)
        taken = {}
        for key, shape in (required | (optional or {})).items():
            if key in value:
                taken[key] = shape(value[key], f"{where}.{key}".lstrip("."))
            elif key in required:
                raise UnfitError(f"{f'{where}.{key}'.lstrip('.')} is missing")
        return taken

    return take


# ------------------------------------------------------------------------------------- our programs

_PROCESS = keyed({"place": text, "boot": text, "pid": whole, "started": text})
_HOLDER = keyed({"id": name, "purpose": text, "user": text, "host": text, "process": _PROCESS,
                 "since": moment, "seen": moment})  # fmt: skip
# Null where a table is on one side only.
_TABLE = keyed({"name": text, "rows_sqlite": perhaps(whole), "rows_postgres": perhaps(whole),
                "checksum_sqlite": perhaps(text), "checksum_postgres": perhaps(text),
                "equal": perhaps(flag)})  # fmt: skip
_FIGURE = keyed({"what": text, "seen": number, "limit": number})
_WATCHED = keyed({"at": moment, "sessions": whole, "running_seconds": number, "running": text,
                  "statement_ms": number, "statement": text, "rows": perhaps(whole)},
                 {"counted": mapped(listed(number))})  # fmt: skip

# By the words that a message calls them.
ANSWERS: dict[str, Shape] = {
    "lock": keyed({"mine": flag, "holder": perhaps(_HOLDER)}),
    "description of what is there": keyed(
        {"file": keyed({"size": whole, "block": whole, "digests": digests}),
         "folders": mapped(mapped(listed(integer)))}),
    "survey of the old PC": keyed({"is_sqlite": flag, "problems": listed(text)}),
    "packing of the parcel": keyed({"left_out": listed(text)}),
    "unpacking of the parcel": keyed(
        {"aside": listed(text)},
        dict.fromkeys(("size", "files", "sent", "changed", "blocks"), whole)),
    "freeze": keyed({"sha256": sha256, "frozen_sha256": sha256}),
    "clock and version": keyed(
        {"now": moment, "zone": matching(r"[+-]\d{4}", "an offset such as +0100"),
         "python": matching(r"\d{1,3}(\.\d{1,3}){1,2}\S{0,20}", "a version"), "system": text}),
    "clock of the game server": keyed({"zone": text, "here": text, "ahead": number}),
    "way to the database": keyed({"migrator": text, "app": text, "encrypted": flag,
                                  "tables": whole, "staged": whole, "version": text}),
    "room of the rehearsal": keyed({"database": whole, "bot": whole}),
    "health gate": keyed(
        {"healthy": flag, "reason": text, "pid": matching(r"\d{1,10}", "a process id"),
         "ready": number, "serves_since": number}),
    "connections of the bot": keyed({"ports": listed(whole), "alive": flag}),
    "sessions of the bot": keyed({"sessions": whole, "error": text}),
    "trial of the old bot": keyed({"adapter": flag, "setting": flag, "error": text}),
    "comparison": keyed(
        {"exit_code": perhaps(whole), "outcome": perhaps(text), "tables": listed(_TABLE),
         "messages": listed(keyed({"level": text, "text": text}))}),
    "watch of the database": _WATCHED,
    "watch of the bot": keyed(
        {"figures": listed(_FIGURE), "over": listed(name), "crossed": listed(text)}),
    # A host speaks for itself alone: "place" is not its to say.
    "checks": listed(
        keyed({"id": name, "check": text, "ok": perhaps(flag), "said": text}), least=1),
    "due migrations": keyed({"due": listed(text), "tables": whole}),
    "audit of the SQL": keyed(
        {"refused": listed(keyed({"file": text, "line": whole, "message": text, "new": flag}))}),
    "open alerts": keyed({"open": listed(text), "waiting": listed(keyed({})),
                          "given_up": listed(keyed({})), "trouble": text}),
}  # fmt: skip


# ------------------------------------------------------------------------------------------ filters


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse the same key twice: two readers would not agree on it."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UnfitError("a key stands there twice")
    return found


def _constant(word: str) -> NoReturn:
    raise UnfitError(f"{word} stands there, which compares with nothing")


def _read(said: Any, what: str) -> Any:
    if not isinstance(said, str):
        _unfit("", "text", said)
    if len(said) > MOST_BYTES:
        raise UnfitError(f"it has {len(said)} characters, and may have {MOST_BYTES}")
    try:
        found = json.loads(said, object_pairs_hook=_pairs, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        start = ascii(said.strip()[:60])
        raise UnfitError(f"it is not JSON ({error}) and begins with {start}") from None
    return ANSWERS[what](found, "")


def answer_of(said: Any, host: str, what: str) -> Any:
    """Return a host's answer as data of the form that it has to have.

    Raises AnsibleFilterError, which names the host, where it has another one.
    """
    if what not in ANSWERS:
        raise AnsibleFilterError(f"answer_of: there is no answer {what!r}, only {sorted(ANSWERS)}")
    try:
        return _read(said, what)
    except UnfitError as error:
        raise AnsibleFilterError(
            f"{host} gave an answer that no program of this repository gives ({what}): {error}. It "
            f"was not used. Something on {host} answers in that program's place (its Python, its "
            "shell, sudo) or damages what it says: look there before you run this again."
        ) from None


def complaint_of(said: Any, host: str, what: str) -> str:
    """Return what is wrong with a host's answer, in words; nothing if it is fit."""
    try:
        answer_of(said, host, what)
    except AnsibleFilterError as error:
        return str(error)
    return ""


def public_key_of(said: Any, host: str, kinds: str = "ssh-ed25519") -> str:
    """Return a host's public SSH key: one line, one key, no options.

    It becomes a line of a file that says whom to trust, where a second one would say more.

    Raises AnsibleFilterError, which names the host, where it is anything else.
    """
    match = re.fullmatch(rf"({kinds}) ([A-Za-z0-9+/]+=*)( [ -~]*)?", str(said).strip())
    try:
        body = base64.b64decode(match[2], validate=True) if match else b""
    except binascii.Error:
        body = b""
    head = match[1].encode() if match else b""
    if not match or body[: 4 + len(head)] != len(head).to_bytes(4, "big") + head:
        raise AnsibleFilterError(
            f"What {host} gives as its public SSH key is not one line with one key ({kinds}): "
            f"{ascii(str(said))[:100]}. It was not used, and nobody was told to trust it. Look who "
            f"has changed that file on {host}."
        )
    return match[0]


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "answer_of": answer_of,
            "complaint_of": complaint_of,
            "public_key_of": public_key_of,
        }
