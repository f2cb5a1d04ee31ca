"""Name the processes that hold a file open, one "PID command" a line; run as root.

Usage: open_files.py FILE [FILE ...]

The database is only as frozen as its last writer. Standard library only: the old PC need not have
lsof or fuser.
"""

from __future__ import annotations  # the old PC may have Python 3.8

import os
import sys
from pathlib import Path


def holders(paths: set[str]) -> dict[int, str]:
    """Return {pid: command line} of the processes that have one of paths (real paths) open."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            opened = {os.path.realpath(fd) for fd in (process / "fd").iterdir()}
            if opened & paths:
                command = (
                    (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                found[int(process.name)] = command.strip() or "?"
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        except PermissionError:
            if process.name != "1":  # which opens no database; a sandbox hides it
                raise
    return found


if __name__ == "__main__":
    wanted = {os.path.realpath(path) for path in sys.argv[1:]}
    for pid, command in sorted(holders(wanted).items()):
        print(pid, command)
