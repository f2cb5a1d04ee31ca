"""Look at the host, change nothing, and print what the role has to know as one JSON object.

One call in place of one per module: whatever is found to be as it should be is not touched again.
Runs under the host's own Python (3.10 or newer), standard library only. Argument: a JSON object
with `major`, `archive` (stanza and paths), and the names to look for in `files`, `texts`,
`packages`, `units`, `users` and `newer_than`.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import subprocess
import sys
import time
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
    if status.st_uid != 0 or status.st_mode & 0o777 != 0o640:
        return ""
    return certificate_file.read_text()


def state_of(path: str) -> str:
    """Return digest (or "directory"), mode, owner and group of ``path``; "absent" without it."""
    file = Path(path)
    if not file.exists():
        return "absent"
    status = file.stat()
    kind = "directory" if file.is_dir() else hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{kind} {status.st_mode & 0o7777:04o} {file.owner()} {file.group()}"


def archive(major: str, asked: dict) -> dict:
    """Return which of the archive's files are there, and whether it has a backup of this cluster.

    The latter is false where there is no archive or nobody asks for a stanza.
    """
    found = {"leftovers": [path for path in asked["paths"] if Path(path).exists()], "good": False}
    if not asked["stanza"] or not Path("/usr/bin/pgbackrest").exists():
        return found
    info = subprocess.run(
        [
            *("runuser", "-u", "postgres", "--", "pgbackrest"),
            *(f"--stanza={asked['stanza']}", "--output=json", "info"),
        ],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,  # judged by what it prints
    )
    control = subprocess.run(
        [
            f"/usr/lib/postgresql/{major}/bin/pg_controldata",
            f"--pgdata=/var/lib/postgresql/{major}/main",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    stanzas = json.loads(info.stdout) if info.returncode == 0 else []
    if stanzas and stanzas[0]["status"]["code"] == 0:
        newest = stanzas[0]["backup"][-1]["database"]["id"]
        system = {each["id"]: each["system-id"] for each in stanzas[0]["db"]}[newest]
        found["good"] = f"identifier: {system}" in " ".join(control.stdout.split())
    return found


def text_of(path: str) -> str:
    """Return what stands in a file; nothing without it."""
    file = Path(path)
    return file.read_text().strip() if file.exists() else ""


def installed(packages: list[str]) -> list[str]:
    """Return those of ``packages`` that are installed."""
    answer = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
        check=False,  # 1 where one of them is not known
    )
    lines = [line.split() for line in answer.stdout.splitlines()]
    return [name for name, status in lines if status == "installed"]


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


def newer_than(unit: str, paths: list[str]) -> list[str]:
    """Return those of ``paths`` that changed after ``unit`` was last started or reloaded."""
    answer = subprocess.run(
        ["systemctl", "show", unit, "--property=StateChangeTimestampMonotonic", "--value"],
        capture_output=True,
        text=True,
        check=True,
    )
    since_boot = int(answer.stdout or 0) / 1e6
    read = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + since_boot
    return [path for path in paths if Path(path).exists() and Path(path).stat().st_mtime > read]


def main(asked: dict) -> None:
    """Print the findings."""
    major = asked["major"]
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
                "files": {path: state_of(path) for path in asked["files"]},
                "archive": archive(major, asked["archive"]),
                "texts": {path: text_of(path) for path in asked["texts"]},
                "packages": installed(asked["packages"]),
                "units_amiss": units_amiss(asked["units"]),
                "newer": {
                    unit: newer_than(unit, paths) for unit, paths in asked["newer_than"].items()
                },
                "users": [
                    user.pw_name for user in pwd.getpwall() if user.pw_name in asked["users"]
                ],
            }
        )
    )


main(json.loads(sys.argv[1]))
