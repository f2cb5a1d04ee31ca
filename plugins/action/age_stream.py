# MIT License, see LICENSE
"""Action `age_stream`: decrypt a file on the control machine, feed it to a command on the host."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path
from typing import Any

import pyrage
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

DOCUMENTATION = """
name: age_stream
short_description: Decrypt an age file here and feed it to a command on the host
description:
  - The private key and the plain data stay in the memory of the control machine; what reaches the
    host goes through the task's own connection (SSH, become) to the standard input of the command.
    Nothing is written to a disk on either side.
  - The whole file is held in memory.
options:
  src:
    description: The encrypted file on the control machine.
    required: true
  sha256:
    description: SHA-256 that the encrypted file must have.
    required: true
  plain_sha256:
    description: SHA-256 that the plain data must have.
    required: true
  identity:
    description: File with the private age keys on the control machine.
    required: true
  argv:
    description: The command.
    type: list
    required: true
"""

RETURN = """
rc:
  description: Exit code of the command.
stdout:
  description: What it printed.
"""


def read_identities(path: Path) -> list[pyrage.x25519.Identity]:
    """Return the private keys in an age identity file. Raises AnsibleActionFail without any."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        identities = [pyrage.x25519.Identity.from_str(key) for key in keys]
    except OSError as error:
        raise AnsibleActionFail(f"{path}: {error.strerror}. It opens the backups.") from error
    except pyrage.IdentityError as error:
        raise AnsibleActionFail(f"{path} is no age identity file.") from error
    if not identities:
        raise AnsibleActionFail(f"{path} holds no private key.")
    return identities


def decrypt(src: Path, sha256: str, plain_sha256: str, identity: Path) -> bytes:
    """Return the plain data of ``src``. Raises AnsibleActionFail when anything is not as it was."""
    try:
        sealed = src.read_bytes()
    except OSError as error:
        raise AnsibleActionFail(f"{src}: {error.strerror}.") from error
    if hashlib.sha256(sealed).hexdigest() != sha256:
        raise AnsibleActionFail(
            f"{src} is not the file that its manifest describes (truncated or altered). "
            "Take another backup."
        )
    try:
        plain = pyrage.decrypt(sealed, read_identities(identity))
    except pyrage.DecryptError as error:
        raise AnsibleActionFail(
            f"{identity} does not open {src}: {error}. Is it the identity of that inventory?"
        ) from error
    if hashlib.sha256(plain).hexdigest() != plain_sha256:
        raise AnsibleActionFail(f"{src} opens, but holds something else than its manifest says.")
    return plain


class ActionModule(ActionBase):
    """Entry point for Ansible."""

    _VALID_ARGS = frozenset(("src", "sha256", "plain_sha256", "identity", "argv"))

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Decrypt, run the command and return its result. Check mode only decrypts."""
        result = super().run(tmp, task_vars)
        missing = sorted(self._VALID_ARGS - set(self._task.args))
        if missing:
            raise AnsibleActionFail(f"age_stream needs {', '.join(missing)}")
        arguments = self._task.args
        plain = decrypt(
            Path(arguments["src"]),
            arguments["sha256"],
            arguments["plain_sha256"],
            Path(arguments["identity"]),
        )
        if self._task.check_mode:
            return {**result, "changed": True, "msg": f"{arguments['src']} opens"}
        command = shlex.join(str(word) for word in arguments["argv"])
        outcome = self._low_level_execute_command(command, in_data=plain)
        result.update(changed=True, rc=outcome["rc"], stdout=outcome["stdout"])
        if outcome["rc"]:
            result.update(
                failed=True, msg=f"{arguments['argv'][0]} failed: {outcome['stderr'].strip()}"
            )
        return result
