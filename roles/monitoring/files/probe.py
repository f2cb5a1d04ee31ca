"""Look at the host, change nothing, and print what the role has to know as one JSON object.

Runs under the host's own Python (3.10 or newer), standard library only. Argument: a JSON object
with ``paths``, ``packages``, ``units``, ``users`` and ``key``.
"""

from __future__ import annotations

import hashlib
import json
import pwd
import subprocess
import sys
from pathlib import Path


def state_of(path: str) -> str:
    """Return digest (or "directory") and mode of ``path`` if it is root's; "absent" without it."""
    file = Path(path)
    if not file.exists():
        return "absent"
    status = file.stat()
    kind = "directory" if file.is_dir() else hashlib.sha256(file.read_bytes()).hexdigest()
    owner = "" if status.st_uid == 0 else f" {status.st_uid}"
    return f"{kind} {status.st_mode & 0o7777:04o}{owner}"


def lines(*command: str) -> list[str]:
    """Return what a command prints, whatever its exit code."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


asked = json.loads(sys.argv[1])
shown = lines("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *asked["packages"])
installed = {line.split()[0] for line in shown if line.endswith(" installed")}
stopped = []
for unit in asked["units"]:
    properties = "ActiveState,UnitFileState,NeedDaemonReload"
    found = lines("systemctl", "show", unit, "--value", f"--property={properties}")
    if sorted(line for line in found if line) != ["active", "enabled", "no"]:
        stopped.append(unit)
public = Path(f"{asked['key']}.pub") if asked["key"] else None
print(
    json.dumps(
        {
            "paths": {path: state_of(path) for path in asked["paths"]},
            "packages": [name for name in asked["packages"] if name not in installed],
            "stopped": stopped,
            "users": [user.pw_name for user in pwd.getpwall() if user.pw_name in asked["users"]],
            "key": public.read_text().strip() if public and public.exists() else "",
        }
    )
)
