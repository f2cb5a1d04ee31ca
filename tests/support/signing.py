"""Keys that sign the manifests of backups, as ``ssh-keygen -Y`` wants them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_keys(directory: Path) -> Path:
    """Make the keys "server" and "stranger" and the list "signers", which knows the first.

    Returns the directory.
    """
    for name in ("server", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True
        )
    public = (directory / "server.pub").read_text()
    (directory / "signers").write_text(f'stats namespaces="postgres-backup" {public}')
    return directory
