"""What the tests of this scenario share."""

import contextlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ansible

SCENARIO = Path(__file__).resolve().parent.parent


FIGURES: list[tuple[str, float, float]] = []


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what test_deploy.py has measured; nothing is judged by it."""
    if FIGURES:
        terminalreporter.section("deploy.yml: seconds in all, and of them without a bot on Discord")
    for what, seconds, silent in FIGURES:
        terminalreporter.write_line(f"{what:<44}{seconds:8.1f}{silent:8.1f}")


class Deployment:
    """Runs the scenario's converge.yml with other settings, as an operator would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def begin(self, *options: str, **settings: Any) -> subprocess.Popen[str]:
        """Start it on Debian 12, in a process group of its own."""
        return ansible.begin(
            SCENARIO / "converge.yml",
            "--limit=bot",
            *options,
            inventory=SCENARIO / "inventory/hosts.yml",
            environment={"MOLECULE_PROJECT_DIRECTORY": str(ansible.ROOT)},
            **settings,
        )

    def __call__(self, *options: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        """Run it to its end; returns exit code and everything it said."""
        return ansible.finish(self.begin(*options, **settings))

    def source(self, **files: str) -> Path:
        """Return a copy of the test bot in which some files have other contents.

        A name is written with `__` for `/` and without its ending, `.py` unless it is given.
        """
        copy = self.directory / "source"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(SCENARIO / "files" / "test_bot", copy)
        for name, text in files.items():
            path = copy / name.replace("__", "/")
            (path if path.exists() else path.with_suffix(".py")).write_text(text)
        return copy


@pytest.fixture
def figures() -> list[tuple[str, float, float]]:
    """What was measured, its seconds, and those without an answer; printed at the end."""
    return FIGURES


@pytest.fixture
def deploy(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


@pytest.fixture
def service(host: Any) -> Any:
    """Ask systemd for a property of the bot's unit."""

    def ask(name: str) -> str:
        return host.check_output(f"systemctl show testbot --property {name} --value").strip()

    return ask


@pytest.fixture
def command_lines(host: Any) -> Any:
    """Record all command lines of the machine; `with` gives a function that returns them."""

    @contextlib.contextmanager
    def record() -> Iterator[Any]:
        out = f"/run/command-lines-{uuid.uuid4().hex}"
        read = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
        loop = f"while sleep 0.05; do {read}; done > {out}"
        host.check_output(f"systemd-run --quiet --unit {Path(out).name} sh -c {json.dumps(loop)}")
        try:
            yield lambda: host.file(out).content_string
        finally:
            host.run(f"systemctl stop {Path(out).name}")

    return record
