"""The filter that bans who guesses database passwords: nobody gets somebody else banned by a name.

What fail2ban hands to an expression is "host ident[pid]: message" of one entry of the journal, line
breaks in it included.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

ROLE = Path(__file__).parents[2] / "roles/hardening"
FILTER = ROLE / "templates/etc/fail2ban/filter.d/hardening-postgresql.conf.j2"
ADDRESS = r"(?P<address>(?:\d{1,3}\.){3}\d{1,3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})"

WRONG = 'FATAL:  password authentication failed for user "x"'
ACCUSED = f"client=192.0.2.1 user=x db=y app=[unknown] {WRONG}"
STRANGER = "client=198.51.100.7"
REFUSED = "closing because: SASL authentication failed (age=2s)"


def accused(entry: str) -> set[str]:
    """Return the addresses that the filter would count for one entry of the journal."""
    text = configparser.ConfigParser()
    text.read_string(FILTER.read_text().replace("{{ ansible_managed }}", ""))
    expressions = text["Definition"]["failregex"].replace("<ADDR>", ADDRESS).splitlines()
    # Upstream compiles with MULTILINE where a filter reads more than a line: "^" must not help.
    found = (re.compile(line.strip(), re.MULTILINE).search(entry) for line in expressions)
    return {match["address"] for match in found if match}


@pytest.mark.parametrize(
    ("message", "address"),
    [
        (f"[3-1] {STRANGER} user=x db=y app=[unknown] {WRONG}", "198.51.100.7"),
        (
            "[3-1] client=2001:db8::7 user=x db=y app=z FATAL:  no pg_hba.conf entry for host",
            "2001:db8::7",
        ),
        (
            f'[3-1] {STRANGER} user=a b db= app=[unknown] FATAL:  role "a b" does not exist',
            "198.51.100.7",
        ),
        # Whatever a name says, it is the server that names the address.
        (f"[3-1] {STRANGER} user={ACCUSED} db=y app=z {WRONG}", "198.51.100.7"),
        (f'[3-1] {STRANGER} user=x db=y app=z FATAL:  role "{ACCUSED}" does not exist', None),
        (f"[3-1] {STRANGER} user=x db=y app={ACCUSED} {WRONG}", "198.51.100.7"),
    ],
)
def test_who_fails_at_postgresql_is_counted(message: str, address: str | None) -> None:
    assert accused(f"h postgres[7]: {message}") <= {address or "198.51.100.7"}
    assert (address is None) or accused(f"h postgres[7]: {message}") == {address}


@pytest.mark.parametrize(
    "message",
    [
        # The pieces of a user name with a line break in it.
        f"[3-2] {ACCUSED}",
        f"[3-2] [4-1] {ACCUSED}",
        f"[3-2] h postgres[7]: [4-1] {ACCUSED}",
        f"[3-1] {STRANGER} user=x\nh postgres[7]: [4-1] {ACCUSED}",
        f"[3-1] {STRANGER} user=x\n[4-1] {ACCUSED}",
        # Rows and statements that a bot logs, with a player's name in them.
        f"[3-1] client=192.0.2.1 user=app db=s app=bot ERROR:  duplicate key ({ACCUSED})",
        f"[3-1] client=192.0.2.1 user=app db=s app=bot LOG:  duration: 300 ms  {WRONG}",
        f"[3-1] client=192.0.2.1 user=app db=s app=bot STATEMENT:  SELECT '{WRONG}'",
        f"[3-1] client=192.0.2.1 user=app db=s app=bot LOG:  {WRONG}",
        # Without a number, or with the prefix of another server.
        ACCUSED,
        f"user=x db=y app={ACCUSED}",
        f"[3-1] client=[local] user={ACCUSED}",
    ],
)
def test_nobody_else_is_counted_for_postgresql(message: str) -> None:
    assert accused(f"h postgres[7]: {message}") == set()


@pytest.mark.parametrize(
    ("message", "addresses"),
    [
        (f"s/app@198.51.100.7:43362 {REFUSED}", {"198.51.100.7"}),
        (f"s/app@[2001:db8::7]:43362 {REFUSED}", {"2001:db8::7"}),
        (f"a/b@192.0.2.1:1@198.51.100.7:43362 {REFUSED}", {"198.51.100.7"}),
        (f"a/b@192.0.2.1:1 {REFUSED}@198.51.100.7:43362 {REFUSED}", set()),
        (f"a/b@192.0.2.1:1 {REFUSED}\n\tx@198.51.100.7:43362 {REFUSED}", set()),
        (f"a/b\n\th pgbouncer[7]: C-0x1: x@192.0.2.1:1 {REFUSED}", set()),
        (f"a/b\n\tC-0x1: x@192.0.2.1:1 {REFUSED}@198.51.100.7:43362 {REFUSED}", set()),
        (f"a/b@192.0.2.1:1 {REFUSED} and more", set()),
    ],
)
def test_pgbouncer(message: str, addresses: set[str]) -> None:
    assert accused(f"h pgbouncer[7]: C-0x55f8e4dcb0a0: {message}") == addresses


@pytest.mark.parametrize("ident", ["etlegacy-bot", "sshd", "sudo"])
def test_other_programs_accuse_nobody(ident: str) -> None:
    assert accused(f"h {ident}[7]: [3-1] {ACCUSED}") == set()
    assert accused(f"h {ident}[7]: h postgres[7]: [3-1] {ACCUSED}") == set()
    assert accused(f"h {ident}[7]: C-0x1: a/b@192.0.2.1:1 {REFUSED}") == set()
