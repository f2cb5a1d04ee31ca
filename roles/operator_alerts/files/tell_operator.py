#!/usr/bin/python3 -I
"""Tell the operator something, by a webhook, and lose nothing on the way.

    … | tell-operator        take the message on standard input; never waits for the network
    tell-operator send       deliver what waits (tell-operator.service, started by its path unit)
    tell-operator status     what is open, waits, was delivered or given up, as JSON

Messages lie in SPOOL/new until the webhook has taken them. An answer of 429 is obeyed, everything
else is tried again for a day; then the message is in the journal and in SPOOL/given_up. The
webhook's address is a secret: it is read from the settings (root's, and the unit's group's)
and is in no message of this program. Standard library only, Python 3.10 or newer.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SETTINGS = Path("/etc/tell-operator.json")
SPOOL = Path("/var/spool/tell-operator")
MOTD = Path("/run/motd.d")
# Discord takes 2,000 characters; what is longer goes in pieces, up to PIECES.
PIECE = 1800
PIECES = 10
# A flood is an attack or a fault in a loop; the first messages say what the next ones would.
WAITING_MOST = 500
REMEMBERED = 100
ANSWER_SECONDS = 20
PAUSES = (2, 5, 10, 30, 60)
RETRY_AFTER_MOST = 3600


class Rejected(Exception):
    """The webhook did not take it. ``wait``: as it asks; ``message_only``: others may pass."""

    def __init__(
        self, reason: str, wait: float | None = None, *, message_only: bool = False
    ) -> None:
        super().__init__(reason)
        self.wait = wait
        self.message_only = message_only


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """The message is for the address in the settings and for no other."""

    def redirect_request(self, *_: object) -> None:
        """Follow nowhere; the answer counts as a failure."""


def body_of(url: str, template: str, host: str, text: str) -> tuple[bytes, str]:
    """Return what is posted, and its type.

    Without a template the address decides: Slack's format for Slack and for addresses that end in
    ``/slack``, else Discord's. In a template ``{text}`` and ``{host}`` are replaced; where it is
    JSON, inside of its texts, so that no message can change its form.
    """
    if not template:
        parts = urlsplit(url)
        if parts.hostname == "hooks.slack.com" or parts.path.rstrip("/").endswith("/slack"):
            for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
                text = text.replace(sign, name)
            filled: object = {"text": text}
        else:
            filled = {"content": text, "allowed_mentions": {"parse": []}}
        return json.dumps(filled).encode(), "application/json"

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            pieces = value.split("{text}")
            return text.join(piece.replace("{host}", host) for piece in pieces)
        if isinstance(value, list):
            return [fill(one) for one in value]
        if isinstance(value, dict):
            return {key: fill(one) for key, one in value.items()}
        return value

    try:
        form = json.loads(template)
    except ValueError:
        form = template
    if isinstance(form, dict | list):
        return json.dumps(fill(form)).encode(), "application/json"
    return fill(template).encode(), "text/plain; charset=utf-8"


def wait_of(error: urllib.error.HTTPError) -> float:
    """Return the seconds that an answer of 429 asks for, in its head or (Discord) in its body."""
    asked: object = error.headers.get("Retry-After")
    with contextlib.suppress(ValueError, OSError, AttributeError, http.client.HTTPException):
        asked = json.loads(error.read(10_000)).get("retry_after", asked)
    try:
        seconds = float(str(asked))
    except ValueError:
        seconds = 5.0
    return min(max(seconds, 0.1), RETRY_AFTER_MOST) if seconds == seconds else 5.0


def post(settings: dict[str, Any], message: dict[str, Any]) -> None:
    """Hand one message to the webhook.

    Raises:
        Rejected: it was not taken; the reason holds nothing of the address.

    """
    opener = urllib.request.build_opener(NoRedirect)
    try:
        body, kind = body_of(
            settings["url"], settings.get("body", ""), message["host"], message["text"]
        )
        request = urllib.request.Request(  # noqa: S310 - the owner's address, from root's file
            settings["url"],
            data=body,
            headers={"Content-Type": kind, "User-Agent": "tell-operator (1)"},
        )
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            answer.read(1000)
    except urllib.error.HTTPError as error:
        with error:
            reason = f"it answers {error.code}"
            if error.code == 429:
                raise Rejected(reason, wait_of(error)) from None
            raise Rejected(reason, message_only=error.code in (400, 413, 422)) from None
    except urllib.error.URLError as error:
        raise Rejected(f"it cannot be reached: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Rejected(f"it does not answer: {type(error).__name__}") from None
    except ValueError:
        raise Rejected("its address is malformed") from None


def names_in(directory: Path) -> list[str]:
    """Return what is in a directory, oldest message first."""
    return sorted(path.name for path in directory.iterdir())


class Spool:
    """The messages on disk: ``tmp`` while written, ``new`` while they wait, ``given_up``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.new = root / "new"
        self.given_up = root / "given_up"
        self.delivered = root / "delivered.jsonl"
        self.trouble = root / "trouble.json"

    def become_its_owner(self) -> None:
        """Root writes nothing in a directory of somebody else's: work as that user."""
        status = os.lstat(self.root)
        if os.geteuid() == 0 and status.st_uid != 0:
            os.setgroups([])
            os.setgid(status.st_gid)
            os.setuid(status.st_uid)
        os.umask(0o077)

    def write(self, path: Path, content: str) -> None:
        """Put a file in place whole, and on the disk before this returns."""
        draft = self.root / "tmp" / secrets.token_hex(8)
        with draft.open("x") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def add(self, text: str) -> list[str]:
        """Take a message; return the names of its pieces.

        Raises:
            OverflowError: too many wait already.

        """
        text = text.strip() or "(an alert without words)"
        pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
        if len(pieces) > PIECES:
            left = sum(map(len, pieces[PIECES:]))
            pieces = [*pieces[:PIECES], f"… {left} more characters"]
        if len(names_in(self.new)) + len(pieces) > WAITING_MOST:
            raise OverflowError(f"{WAITING_MOST} messages wait already")
        names = []
        for piece in pieces:
            name = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
            message = {"id": name, "at": time.time(), "host": socket.gethostname(), "text": piece}
            self.write(self.new / name, json.dumps(message))
            names.append(name)
        return names

    def messages(self, directory: Path) -> Iterator[dict[str, Any]]:
        """Return the messages in a directory, oldest first; what is none is passed over."""
        for name in names_in(directory):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                message = json.loads((directory / name).read_text())
                kinds = {"text": str, "host": str, "at": float | int}
                if all(isinstance(message[key], kind) for key, kind in kinds.items()):
                    yield message | {"id": name}

    def done(self, message: dict[str, Any]) -> None:
        """Forget a message that the webhook has."""
        (self.new / message["id"]).unlink()
        line = {
            "id": message["id"],
            "at": time.time(),
            "seconds": round(time.time() - message["at"], 1),
            "text": message["text"][:200],
        }
        kept = [*self.lines()[-REMEMBERED + 1 :], line]
        self.write(self.delivered, "".join(json.dumps(one) + "\n" for one in kept))
        self.trouble.unlink(missing_ok=True)

    def lines(self) -> list[dict[str, Any]]:
        """Return what was delivered lately."""
        try:
            return [json.loads(line) for line in self.delivered.read_text().splitlines()]
        except (OSError, ValueError):
            return []

    def set_aside_what_is_none(self) -> None:
        """Move away what is no message: it would start the service again and again."""
        for name in set(names_in(self.new)) - {one["id"] for one in self.messages(self.new)}:
            (self.new / name).rename(self.given_up / name)

    def give_up(self, message: dict[str, Any]) -> None:
        """Keep a message that is too old where it can be read."""
        (self.new / message["id"]).rename(self.given_up / message["id"])
        for name in names_in(self.given_up)[:-REMEMBERED]:
            (self.given_up / name).unlink()


def say(priority: int, text: str) -> None:
    """Write a line for the journal, in which a message stays one line."""
    print(f"<{priority}>{' / '.join(text.splitlines())}", flush=True)


def send(spool: Spool, settings: dict[str, Any]) -> None:
    """Deliver until nothing waits."""
    failures = 0
    spool.set_aside_what_is_none()
    while waiting := list(spool.messages(spool.new)):
        pause = None
        for message in waiting:
            try:
                post(settings, message)
            except Rejected as rejected:
                reason = str(rejected)
                if time.time() - message["at"] > settings.get("hours", 24) * 3600:
                    spool.give_up(message)
                    say(2, f"given up, {reason}: {message['text']}")
                    continue
                spool.write(spool.trouble, json.dumps({"at": time.time(), "reason": reason}))
                say(4, f"{message['id']} waits, {reason}")
                pause = rejected.wait
                if not rejected.message_only:
                    break
            else:
                failures = 0
                spool.done(message)
                say(6, f"delivered {message['id']}")
        else:
            if not names_in(spool.new):
                return
        if pause is None:
            pauses = settings.get("pauses", PAUSES)
            pause = pauses[min(failures, len(pauses) - 1)]
            failures += 1
        time.sleep(pause)


def open_alerts(motd: Path) -> list[str]:
    """Return what the host's alerts have written for whoever logs in and have not taken back."""
    found = []
    for path in sorted(motd.glob("*")):
        with contextlib.suppress(OSError):
            lines = path.read_text(errors="replace").splitlines()
            found += [line for line in lines if line.startswith("ALERT from ")]
    return found


def status(spool: Spool, settings: dict[str, Any], motd: Path) -> dict[str, Any]:
    """Return everything that can be asked for."""
    try:
        trouble = json.loads(spool.trouble.read_text())["reason"]
    except (OSError, ValueError, KeyError):
        trouble = ""
    now = time.time()
    waiting = [
        {"id": one["id"], "text": one["text"], "seconds": round(now - one["at"])}
        for one in spool.messages(spool.new)
    ]
    return {
        "webhook": bool(settings.get("url")),
        "open": open_alerts(motd),
        "waiting": waiting,
        "trouble": trouble if waiting else "",
        "given_up": [
            {"id": one["id"], "text": one["text"]} for one in spool.messages(spool.given_up)
        ],
        "delivered": spool.lines(),
    }


def main() -> int:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", nargs="?", default="take", choices=["take", "send", "status"])
    parser.add_argument("--spool", type=Path, default=SPOOL)
    parser.add_argument("--settings", type=Path, default=SETTINGS)
    parser.add_argument("--motd", type=Path, default=MOTD)
    asked = parser.parse_args()
    settings = json.loads(asked.settings.read_text())
    spool = Spool(asked.spool)
    text = sys.stdin.buffer.read().decode(errors="replace") if asked.command == "take" else ""
    if asked.command == "take" and not settings.get("url"):
        print("tell-operator: no webhook is set, so nobody is told", file=sys.stderr)
        return 3
    spool.become_its_owner()
    if asked.command == "send":
        send(spool, settings)
    elif asked.command == "status":
        print(json.dumps(status(spool, settings, asked.motd)))
    else:
        try:
            print(" ".join(spool.add(text)))
        except OverflowError as error:
            print(f"tell-operator: {error}; this one is in the journal only", file=sys.stderr)
            return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
