"""Fixtures: the machines, the operator's channel, and playbooks as an operator runs them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra
from support import ansible
from support.discord import ask_machine, text_of

SCENARIO = Path(__file__).parents[1]


class Channel:
    """The operator's channel, on the stranger's machine."""

    def __init__(self, stranger: Any) -> None:
        self.stranger = stranger

    def messages(self) -> list[tuple[str, str]]:
        """Return who posted and what, oldest first."""
        answer = ask_machine(self.stranger, "/messages?channel=ops&author=webhook")
        return [(one["from_address"], text_of(one)) for one in answer]

    def wait_for(self, words: str, seconds: float = 60, after: int = 0) -> tuple[str, str]:
        """Wait for a message with these words behind the first ``after`` ones."""
        until = time.monotonic() + seconds
        while True:
            said = self.messages()[after:]
            for one in said:
                if words in one[1]:
                    return one
            assert time.monotonic() < until, f"nobody said {words!r} within {seconds} s: {said}"
            time.sleep(0.5)


@pytest.fixture(scope="session")
def machine() -> Callable[[str], Any]:
    """Return a machine by its name."""
    return lambda name: testinfra.get_host(f"docker://monitoring-{name}")


@pytest.fixture(scope="session")
def database(machine: Callable[[str], Any]) -> Any:
    """The database server."""
    return machine("database-vps")


@pytest.fixture(scope="session")
def bot(machine: Callable[[str], Any]) -> Any:
    """The bot server."""
    return machine("bot-vps")


@pytest.fixture(scope="session")
def stranger(machine: Callable[[str], Any]) -> Any:
    """Whoever plays Discord."""
    return machine("stranger")


@pytest.fixture(scope="session")
def channel(stranger: Any) -> Channel:
    """The operator's channel."""
    return Channel(stranger)


@pytest.fixture(scope="session")
def play() -> Callable[..., Any]:
    """Run a playbook with the scenario's inventory; return exit code and words."""

    def run(playbook: str, *options: str, **settings: object) -> tuple[int, str]:
        done = ansible.play(playbook, *options, inventory=SCENARIO / "inventory", **settings)
        return done.returncode, ansible.words(done)

    return run
