"""Look at the host, change nothing, and print what the role has to know as one JSON object.

Runs under the host's own Python (3.10 or newer), standard library only. Argument: a JSON object
with ``paths``, a ``unit`` and a ``user``.
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


PROPERTIES = "ActiveState,UnitFileState,NeedDaemonReload"
asked = json.loads(sys.argv[1])
shown = subprocess.run(
    ["systemctl", "show", asked["unit"], "--value", f"--property={PROPERTIES}"],
    capture_output=True,
    text=True,
    check=True,
)
print(
    json.dumps(
        {
            "paths": {path: state_of(path) for path in asked["paths"]},
            "unit": sorted(shown.stdout.split()),
            "user": asked["user"] in {user.pw_name for user in pwd.getpwall()},
            "authorities": Path("/etc/ssl/certs/ca-certificates.crt").exists(),
        }
    )
)
