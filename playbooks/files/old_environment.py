"""Tell what the old bot's own .env sets of some names. On the old PC, as root.

Usage: old_environment.py FILE NAME…

Prints JSON, an object by NAME. What looks like a secret, or like a place on the old PC, is told by
its kind alone (``{"secret": true}``, ``{"local": true}``) and never leaves that machine; anything
else is ``{"value": "…"}``. A file that is not there sets nothing. Python 3.8 or later, standard
library only.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASS|PWD|KEY|AUTH|CRED|WEBHOOK|DSN|UR[LI]|PRIVATE|SIGN|SALT|COOKIE|SESSION|PIN\b"
)
# A password in an address, or a word as only a machine makes them.
SECRET_VALUE = re.compile(r"://[^/\s]*:[^/\s]*@|^(?=.*[A-Za-z])(?=.*\d)[A-Za-z0-9_.+/=-]{24,}$")
LOCAL = re.compile(r"^(?:~|\.{1,2})?/|^[A-Za-z]:\\|\.(?:db|sqlite3?)$|^(?:localhost|127\.)")
LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*$")


def assigned(text: str) -> dict[str, str]:
    """Return the names and values of a .env file, the last one of each name."""
    found = {}
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if not match:
            continue
        name, value = match.groups()
        quoted = re.match(r"""(["'])(.*?)\1\s*(?:#.*)?$""", value)
        found[name] = quoted[2] if quoted else re.sub(r"(?:^|\s+)#.*$", "", value)
    return found


def told(name: str, value: str) -> dict[str, str | bool]:
    """Return what may be known of a value on another machine."""
    if SECRET_NAME.search(name.upper()) or SECRET_VALUE.search(value):
        return {"secret": True}
    if LOCAL.search(value):
        return {"local": True}
    return {"value": value}


def main(file: str, *names: str) -> None:
    """Read, choose and print."""
    try:
        values = assigned(Path(file).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        values = {}
    print(json.dumps({name: told(name, values[name]) for name in names if values.get(name)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
