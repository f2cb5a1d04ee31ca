"""Fixtures: the machines, and Ansible from here with the scenario's inventory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scenario import SCENARIO, Machine
from support import ansible


@pytest.fixture(scope="session")
def database() -> Machine:
    return Machine("database-vps", "172.30.7.10")


@pytest.fixture(scope="session")
def standby() -> Machine:
    return Machine("standby-vps", "172.30.7.11")


@pytest.fixture(scope="session")
def bots_place() -> Machine:
    return Machine("bots-place", "172.30.7.20")


@pytest.fixture(scope="session")
def laptop() -> Machine:
    return Machine("laptop", "172.30.7.50")


@pytest.fixture(scope="session")
def play():
    """Run a playbook of the product, as the operator does."""

    def run(playbook: str, *options: str, **variables: object) -> subprocess.CompletedProcess[str]:
        options = ("--limit=all:!bot-vps", *options)
        return ansible.play(playbook, *options, inventory=SCENARIO / "inventory", **variables)

    return run


@pytest.fixture(scope="session")
def rounds(bots_place: Machine, database: Machine) -> int:
    """A table as the migration makes it; returns its number of rows."""
    result = bots_place.login(
        database,
        "migrator",
        "DROP TABLE IF EXISTS rounds; CREATE TABLE rounds (id bigint PRIMARY KEY, map_name text);"
        "INSERT INTO rounds SELECT n, 'goldrush' FROM generate_series(1, 1000) AS n",
    )
    assert result.rc == 0, result.stderr
    return 1000
