"""Look at the inventory's secrets on this machine, and print the results as one JSON list.

Usage: control.py INVENTORY_DIRECTORY SECRETS_DIRECTORY

Results are those of host.py.
"""

import json
import subprocess
import sys
from pathlib import Path


def open_files(directory: Path) -> list[str]:
    """Return what others than the owner may look into."""
    return [str(path) for path in (directory, *directory.rglob("*")) if path.stat().st_mode & 0o077]


def tracked(directory: Path) -> list[str]:
    """Return the names below ``directory`` that git knows; none where there is no git."""
    done = subprocess.run(
        ["git", "-C", str(directory), "ls-files", "--full-name", "."],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.splitlines()


def is_open_vault(path: Path) -> bool:
    """Tell whether this is a file of passwords that is not encrypted."""
    return not path.read_bytes().startswith(b"$ANSIBLE_VAULT")


def main(inventory: Path, secrets: Path) -> None:
    """Look and print."""
    closed = open_files(secrets)
    vaults = [str(path) for path in inventory.rglob("vault.y*ml") if is_open_vault(path)]
    leaked = [
        name for name in tracked(inventory)
        if "/secrets/" in f"/{name}" or Path(name).name in (".env", "environment")
    ]  # fmt: skip
    results = [
        {
            "id": "control-secrets",
            "check": "The secrets on this machine are closed to others",
            "ok": not closed,
            "said": f"open: {', '.join(closed[:3])}" if closed else str(secrets),
        },
        {
            "id": "control-git",
            "check": "No password is in git or lies here in the clear",
            "ok": not (vaults or leaked),
            "said": ", ".join(vaults + leaked) or "the vault is encrypted; no secrets/, no .env",
        },
    ]
    print(json.dumps(results))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
