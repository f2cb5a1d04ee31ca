"""One run at a time: a lock in a directory of this host. Runs as root on the bot server.

    lock.py take DIRECTORY CLAIM [INSTEAD_OF]   CLAIM is JSON with at least "id"
    lock.py keep DIRECTORY ID                   says that the holder still works
    lock.py release DIRECTORY ID                gives it back; nothing to do if it is another's

Prints JSON: "mine" (whether the caller holds the lock now) and "holder" (whose it is, or null).
INSTEAD_OF is the id of a holder that is known to be dead; its lock is taken over unless somebody
else was quicker. The exit code is 0 in all these cases.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HOLDER = "holder.json"


@contextlib.contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """Let nobody else look at the holder or change it meanwhile; the kernel frees it at our end."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def read(directory: Path) -> dict[str, Any] | None:
    """Return the holder; None if the lock is free, or if the host has died while it was written."""
    try:
        return json.loads((directory / HOLDER).read_text())
    except (FileNotFoundError, ValueError):
        return None


def write(directory: Path, holder: dict[str, Any]) -> None:
    """Put the holder in place as a whole."""
    new = directory / f"{HOLDER}.new"
    new.write_text(json.dumps(holder))
    new.rename(directory / HOLDER)


def act(action: str, directory: Path, argument: str, instead_of: str) -> dict[str, Any]:
    """Do one of the three things; return what is to be printed."""
    holder = read(directory)
    if action == "take":
        claim = json.loads(argument)
        if holder is None or holder["id"] in (claim["id"], instead_of):
            holder = {**claim, "since": time.time(), "seen": time.time()}
            write(directory, holder)
        return {"mine": holder["id"] == claim["id"], "holder": holder}
    mine = holder is not None and holder["id"] == argument
    if action == "keep" and mine:
        holder["seen"] = time.time()
        write(directory, holder)
    elif action == "release" and mine:
        (directory / HOLDER).unlink()
        holder = None
    return {"mine": mine and action == "keep", "holder": holder}


def main() -> None:
    """Read the arguments, act, print."""
    action, directory, argument, *rest = sys.argv[1:]
    with guarded(Path(directory)):
        answer = act(action, Path(directory), argument, rest[0] if rest else "")
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
