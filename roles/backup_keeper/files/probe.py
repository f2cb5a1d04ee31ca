"""Look at the host, change nothing, and print what the role has to know as one JSON object.

One call in place of one per module: whatever is found to be as it should be is not touched again.
Runs under the host's own Python (3.10 or newer), standard library only. Argument: a JSON object
with the names to look for in `files`, `units` and `users`.
"""

from __future__ import annotations

import hashlib
import json
import pwd
import subprocess
import sys
from pathlib import Path


def state_of(path: str) -> str:
    """Return digest (or "directory"), mode, owner and group of ``path``; "absent" without it."""
    file = Path(path)
    if not file.exists():
        return "absent"
    status = file.stat()
    kind = "directory" if file.is_dir() else hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{kind} {status.st_mode & 0o7777:04o} {file.owner()} {file.group()}"


def units_amiss(units: dict[str, dict[str, str]]) -> list[str]:
    """Return the units of which a property is not what ``units`` wants."""
    amiss = []
    for unit, wanted in units.items():
        answer = subprocess.run(
            ["systemctl", "show", unit, f"--property={','.join(wanted)}"],
            capture_output=True,
            text=True,
            check=True,
        )
        if dict(line.split("=", 1) for line in answer.stdout.splitlines()) != wanted:
            amiss.append(unit)
    return amiss


def users(names: list[str]) -> dict[str, str]:
    """Return home and shell of those of ``names`` that exist."""
    return {
        user.pw_name: f"{user.pw_dir} {user.pw_shell}"
        for user in pwd.getpwall()
        if user.pw_name in names
    }


def main(asked: dict) -> None:
    """Print the findings."""
    print(
        json.dumps(
            {
                "files": {path: state_of(path) for path in asked["files"]},
                "units_amiss": units_amiss(asked["units"]),
                "users": users(asked["users"]),
            }
        )
    )


main(json.loads(sys.argv[1]))
