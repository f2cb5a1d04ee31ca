"""Bring what a run leaves behind from ferry's folder to the control machine.

    evidence.py collect FOLDER NAME ...      there, as ferry: prints these files as one line
    evidence.py store FOLDER NAME ... < LINE
                                        here: writes them, each under its own name
    evidence.py store FOLDER NAME=OTHER ... < LINE
                                        or under another one that this machine gives

Only the names that ``store`` is given are written, and nothing else that a host sends: the line
may be anything. A file is taken when it is text of at most ``MOST`` characters (JSON where its name
says so). Files are the operator's alone (0600), and so is the folder (0700). What has another form
ends it with 1 and a sentence, with nothing written. Standard library only.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
import zlib
from pathlib import Path

MOST = 32 << 20  # characters of one file; a report of a large database has some 100,000
MOST_OF_ALL = 4 * MOST


def collect(folder: Path, names: list[str]) -> str:
    """Return the files that are there, as one line."""
    found = {}
    for name in names:
        try:
            opened = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        with os.fdopen(opened, encoding="utf-8", errors="replace") as file:
            if stat.S_ISREG(os.fstat(opened).st_mode):
                found[name] = file.read(MOST + 1)
    return base64.b64encode(zlib.compress(json.dumps(found).encode())).decode()


def unpack(line: str, names: list[str]) -> dict[str, str]:
    """Return {name: text} of a line; leave with a sentence where it has another form."""
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(base64.b64decode(line.strip(), validate=True), MOST_OF_ALL)
        if not unpacker.eof:
            raise SystemExit(
                "The host sent more than evidence, or half of it. Nothing was written."
            )
        found = json.loads(text)
        if not isinstance(found, dict):
            raise TypeError("no object")
    except (ValueError, TypeError, zlib.error, RecursionError) as error:
        raise SystemExit(
            f"The host sent no evidence ({error!r:.200}). Nothing was written."
        ) from None
    for name, text in found.items():
        if name not in names:
            raise SystemExit(f"The host sent a file that nobody asked for: {name!a:.200}.")
        if not isinstance(text, str) or len(text) > MOST:
            raise SystemExit(
                f"The host sent a {name} that is no text of at most {MOST} characters."
            )
        if name.endswith(".json"):
            try:
                json.loads(text)
            except (ValueError, RecursionError):
                raise SystemExit(f"The host sent a {name} that is no JSON.") from None
    return found


def store(folder: Path, wanted: dict[str, str], line: str) -> list[str]:
    """Write the files of a line, as those that are wanted ({name: name here}); return the names."""
    found = unpack(line, list(wanted))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name, text in found.items():
        new = folder / f".{wanted[name]}.new"
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        new.replace(folder / wanted[name])
    return sorted(wanted[name] for name in found)


if __name__ == "__main__":
    action, place, *arguments = sys.argv[1:]
    if action == "collect":
        print(collect(Path(place), arguments))
    else:
        pairs = [argument.partition("=") for argument in arguments]
        print(
            *store(Path(place), {name: here or name for name, _, here in pairs}, sys.stdin.read())
        )
