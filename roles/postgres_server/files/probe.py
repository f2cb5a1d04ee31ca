"""Look at the host, change nothing, and print what the role has to know as one JSON object.

Runs under the host's own Python (3.10 or newer), standard library only. Argument: major version.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TLS = Path("/etc/postgresql/tls")


def clusters() -> list[str]:
    """Return the major versions that have a cluster called main."""
    return sorted(path.parent.name for path in Path("/etc/postgresql").glob("[0-9]*/main"))


def running_port(major: str) -> int | None:
    """Return the port that the running server listens on now, None when it is down."""
    try:
        lines = Path(f"/var/lib/postgresql/{major}/main/postmaster.pid").read_text().splitlines()
        return int(lines[3])
    except (OSError, IndexError, ValueError):
        return None


def free_mb(directory: str) -> int:
    """Return the MiB free where ``directory`` is or will be."""
    path = Path(directory)
    while not path.exists():
        path = path.parent
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize // 2**20


def memory_mb() -> int:
    """Return the host's RAM in MiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


def public_key(*arguments: str) -> str:
    """Return the public key that openssl finds, empty when it finds none."""
    try:
        return subprocess.run(
            ["openssl", *arguments], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def certificate() -> str:
    """Return the server's certificate; empty when it, its key or the key's protection is amiss."""
    key_file, certificate_file = TLS / "server.key", TLS / "server.crt"
    key = public_key("pkey", "-pubout", "-in", str(key_file))
    if not key or key != public_key("x509", "-pubkey", "-noout", "-in", str(certificate_file)):
        return ""
    status = key_file.stat()
    if status.st_uid != 0 or status.st_mode & 0o777 != 0o640 or not (TLS / "ca.crt").exists():
        return ""
    return certificate_file.read_text()


def main(major: str) -> None:
    """Print the findings."""
    found = clusters()
    print(
        json.dumps(
            {
                "clusters": found,
                "cluster": major in found,
                "port": running_port(major),
                "free_mb": min(free_mb("/var/lib/postgresql"), free_mb("/var/backups")),
                "memory_mb": memory_mb(),
                "certificate": certificate(),
            }
        )
    )


main(sys.argv[1])
