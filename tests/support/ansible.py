"""Playbooks, run from this machine as an operator runs them; also for the scenarios' tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("ansible-playbook")


def begin(
    playbook: str | Path,
    *options: str,
    inventory: str | Path,
    environment: dict[str, str] | None = None,
    **settings: object,
) -> subprocess.Popen[str]:
    """Start a playbook in a process group of its own, and nobody to answer its questions.

    Args:
        playbook: its path, if relative from the repository.
        options: further options of ansible-playbook.
        inventory: the same.
        environment: what is added to this process's.
        settings: extra variables.

    Returns:
        The process; its standard output has everything that it says, without colours.

    """
    return subprocess.Popen(
        [COMMAND, "-i", inventory, "--extra-vars", json.dumps(settings), *options, playbook],
        cwd=ROOT,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            "ETL_CACHE": str(ROOT / ".cache"),
            **(environment or {}),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(run: subprocess.Popen[str], seconds: float = 1800) -> subprocess.CompletedProcess[str]:
    """Wait for its end and return exit code and output; kill it if it takes longer than this."""
    try:
        output, _ = run.communicate(timeout=seconds)
    finally:
        if run.poll() is None:
            run.kill()
    return subprocess.CompletedProcess(run.args, run.returncode, output, stderr="")


def play(
    playbook: str | Path,
    *options: str,
    inventory: str | Path,
    environment: dict[str, str] | None = None,
    **settings: object,
) -> subprocess.CompletedProcess[str]:
    """Run a playbook to its end, as ``begin`` starts it; return exit code and output."""
    run = begin(playbook, *options, inventory=inventory, environment=environment, **settings)
    return finish(run)


def words(run: subprocess.CompletedProcess[str]) -> str:
    """Return what was said without line breaks, which depend on the width."""
    return " ".join(run.stdout.split())
