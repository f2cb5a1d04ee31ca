# MIT License, see LICENSE
"""Lookup `control_process`: which run of Ansible this is, and whether another one still lives."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: control_process
short_description: The run of ansible-playbook that asks, or whether another run still lives
description:
  - Without a term, describes the process of ansible-playbook that evaluates it so that it can be
    told apart from any other one, also after a restart of the machine or when its number is used
    again.
  - With such a description, says whether that process still lives. Only the machine that it ran on
    can tell.
options:
  _terms:
    description: A description that an earlier call has returned. None describes this run.
    required: false
"""

EXAMPLES = """
- name: This run
  ansible.builtin.debug:
    msg: "{{ lookup('control_process') }}"

- name: Whether an earlier run still works
  ansible.builtin.debug:
    msg: "{{ lookup('control_process', earlier) }}"
"""

RETURN = """
_raw:
  description:
    - Without a term a dictionary of C(place), C(boot), C(pid) and C(started).
    - With a term C(alive), C(dead) or C(elsewhere).
  type: list
"""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _ps(pid: int) -> str:
    # The same on Linux and macOS; nothing when there is no such process.
    answer = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    return answer.stdout.strip()


def started(pid: int) -> str:
    """Return when a process began, in the system's own notation; empty if there is none."""
    status = _read(f"/proc/{pid}/stat")
    if status:
        # The name in brackets may hold anything; the start is the 20th field after it.
        return status.rpartition(")")[2].split()[19]
    return "" if Path("/proc/self/stat").exists() else _ps(pid)


def place() -> str:
    """Return what tells this machine (or container) from others that have the same name."""
    machine = _read("/etc/machine-id") or f"{uuid.getnode():012x}"
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no path, "pid:[4026531836]"
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {machine} {namespace}".strip()


def boot() -> str:
    """Return what changes with every start of this machine; process 1 stands in where unknown."""
    return _read("/proc/sys/kernel/random/boot_id") or started(1)


def this_run() -> dict[str, Any]:
    """Describe the process of ansible-playbook, seen from it or from one of its workers."""
    parent = multiprocessing.parent_process()
    pid = os.getpid() if parent is None or parent.pid is None else parent.pid
    return {"place": place(), "boot": boot(), "pid": pid, "started": started(pid)}


def fate(run: Mapping[str, Any]) -> str:
    """Return `alive`, `dead` or `elsewhere` (another machine: not to be told from here)."""
    if run["place"] != place():
        return "elsewhere"
    if run["boot"] != boot():
        return "dead"
    return "alive" if started(int(run["pid"])) == run["started"] else "dead"


class LookupModule(LookupBase):
    """Describes this run, or tells the fate of others."""

    def run(self, terms: list[Any], *_: Any, **__: Any) -> list[Any]:
        """Raise AnsibleError for a term that no call has returned."""
        if not terms:
            return [this_run()]
        try:
            return [fate(term) for term in terms]
        except (KeyError, TypeError, ValueError) as error:
            raise AnsibleError(f"control_process: not a description of a run: {error!r}") from error
