# MIT License, see LICENSE
"""Action `backup_manifest`: check who signed a backup's manifest, and what stands in it, here."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

DOCUMENTATION = """
name: backup_manifest
short_description: Check a backup's manifest on the control machine
description:
  - Whoever keeps copies of backups can put any file in their place; age encrypts, it does not say
    who did it. The database server signs its manifests (ssh-keygen -Y), and a manifest names the
    checksums of the dump. Nothing of a manifest is used before its signature was found good, and
    each value that is used is of the form that it should be.
  - Reads on the control machine only. Never changes the host.
options:
  directory:
    description: Directory with manifest.json and manifest.json.sig.
    required: true
  signers:
    description: File with the servers' public keys, as ssh-keygen's ALLOWED SIGNERS.
    required: true
  database:
    description: The database whose backup it has to be.
    required: true
  stamp:
    description: The backup that was asked for. Empty where nobody named one.
    required: true
  newest:
    description: >-
      The directory holds what a host says is its newest backup. It is refused when it is older than
      max_age_hours, or older than one that was seen here before.
    type: bool
    required: true
  max_age_hours:
    description: See newest.
    type: int
    required: true
"""

RETURN = """
manifest:
  description: What the manifest says.
  type: dict
"""

NAMESPACE = "postgres-backup"
MANIFEST_BYTES = 16 * 2**20
SIGNATURE_BYTES = 64 * 2**10
STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
SHA256 = re.compile(r"[0-9a-f]{64}")
CHECKSUM = re.compile(r"-?[0-9]{1,40}")


def read(path: Path, most: int) -> bytes:
    """Return what is in a file. Raises AnsibleActionFail without one, or with too much in it."""
    try:
        with path.open("rb") as file:
            found = file.read(most + 1)
    except OSError as error:
        raise AnsibleActionFail(
            f"{path}: {error.strerror}. A backup is a dump.age with its manifest.json and the "
            "server's signature, manifest.json.sig; one without a signature was made before there "
            "were any, or somebody took it away. What still lies on the database server is signed "
            "by the next backup (playbooks/backup.yml). Nothing was decrypted."
        ) from error
    if len(found) > most:
        raise AnsibleActionFail(f"{path} has more than {most} bytes. Nothing was decrypted.")
    return found


def check_signature(directory: Path, text: bytes, signers: Path, database: str) -> None:
    """Raise AnsibleActionFail unless a server that is known here has signed ``text``."""
    read(directory / "manifest.json.sig", SIGNATURE_BYTES)
    if not signers.is_file():
        raise AnsibleActionFail(
            f"{signers} is not there: it holds the public keys of the servers whose backups are "
            "restored. `ansible-playbook site.yml` writes the database server's into it; that of a "
            "server that is gone is in your copy of the inventory's secrets. Nothing was decrypted."
        )
    signature = str(directory / "manifest.json.sig")
    done = subprocess.run(
        [
            *("ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", database),
            *("-n", NAMESPACE, "-s", signature),
        ],
        input=text,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise AnsibleActionFail(
            f"{directory}/manifest.json was not signed by a server of {database} that {signers} "
            f"names ({said[-1] if said else 'no reason given'}): it was altered, or it is somebody "
            "else's. Take another backup. Nothing was decrypted."
        )


def is_table(value: Any) -> bool:
    """Return whether ``value`` is what a manifest says of a table."""
    return (
        isinstance(value, dict)
        and value.keys() == {"rows", "checksum"}
        and type(value["rows"]) is int
        and isinstance(value["checksum"], str)
        and CHECKSUM.fullmatch(value["checksum"]) is not None
    )


FORMS = {
    "stamp": lambda value: isinstance(value, str) and STAMP.fullmatch(value),
    "database": lambda value: isinstance(value, str),
    "bytes": lambda value: type(value) is int and value > 0,
    "sha256": lambda value: isinstance(value, str) and SHA256.fullmatch(value),
    "plain_sha256": lambda value: isinstance(value, str) and SHA256.fullmatch(value),
    "rows": lambda value: type(value) is int and value >= 0,
    "restored_and_compared": lambda value: value is True,
    "tables": lambda value: isinstance(value, dict) and all(map(is_table, value.values())),
    "sequences": lambda value: (
        isinstance(value, dict) and all(type(number) is int for number in value.values())
    ),
    "objects": lambda value: (
        isinstance(value, dict) and all(type(number) is int for number in value.values())
    ),
}


def parse(text: bytes) -> dict[str, Any]:
    """Return what a manifest says. Raises AnsibleActionFail where it is none."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise AnsibleActionFail(f"The manifest is no JSON: {error}.") from error
    wrong = [
        name
        for name, fits in FORMS.items()
        if not isinstance(found, dict) or name not in found or not fits(found[name])
    ]
    if wrong:
        raise AnsibleActionFail(
            f"The manifest is none that this repository reads: {', '.join(wrong)} missing or of "
            "another form. Nothing was decrypted."
        )
    # Not in manifests of former times.
    creates_public = found.get("creates_public", False) is True
    return {**{name: found[name] for name in FORMS}, "creates_public": creates_public}


def seen(signers: Path, database: str) -> str:
    """Return the newest stamp that was seen here, or nothing."""
    path = signers.with_name(f"{signers.name}.seen")
    lines = path.read_text().splitlines() if path.exists() else []
    stamps = [line.split()[1] for line in lines if line.split()[:1] == [database]]
    return max((stamp for stamp in stamps if STAMP.fullmatch(stamp)), default="")


def check_backup(
    manifest: dict[str, Any], database: str, stamp: str, *, newest: bool, hours: int, known: str
) -> None:
    """Raise AnsibleActionFail unless it is the backup that was asked for."""
    found = manifest["stamp"]
    if manifest["database"] != database:
        raise AnsibleActionFail(
            f"The backup {found} is one of {manifest['database']}, not of {database}. "
            "Nothing was decrypted."
        )
    if stamp and stamp != found:
        raise AnsibleActionFail(
            f"The backup {stamp} was asked for, and {found} is what came: another one in its place "
            "is refused. Nothing was decrypted."
        )
    if stamp or not newest:
        return
    made = datetime.datetime.strptime(found, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    age = (datetime.datetime.now(datetime.UTC) - made).total_seconds() / 3600
    name_it = f"If you want that one, name it: -e restore_backup={found}. Nothing was decrypted."
    if found < known:
        raise AnsibleActionFail(
            f"The newest backup that is offered is {found}, but {known} was seen before: newer "
            f"ones are kept back or gone. {name_it}"
        )
    if age > hours:
        raise AnsibleActionFail(
            f"The newest backup that is offered, {found}, is {age:.0f} hours old (more than "
            f"{hours}): newer ones were not made, or are kept back. {name_it}"
        )


class ActionModule(ActionBase):
    """Entry point for Ansible."""

    _VALID_ARGS = frozenset(
        ("directory", "signers", "database", "stamp", "newest", "max_age_hours")
    )

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Check everything and return the manifest."""
        result = super().run(tmp, task_vars)
        given = self._task.args
        missing = sorted(self._VALID_ARGS - set(given))
        if missing:
            raise AnsibleActionFail(f"backup_manifest needs {', '.join(missing)}")
        directory, signers = Path(given["directory"]), Path(given["signers"])
        database = str(given["database"])
        text = read(directory / "manifest.json", MANIFEST_BYTES)
        check_signature(directory, text, signers, database)
        manifest = parse(text)
        check_backup(
            manifest,
            database,
            str(given["stamp"]),
            newest=bool(given["newest"]),
            hours=int(given["max_age_hours"]),
            known=seen(signers, database),
        )
        return {**result, "changed": False, "manifest": manifest}
