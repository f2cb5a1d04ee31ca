"""Fixtures that all tests share: one PostgreSQL server per run, one fresh database per test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.postgres import Cluster, Database

if TYPE_CHECKING:
    from collections.abc import Iterator

# Playbooks that tests start need half the processor time with it; the scenarios site, hardening and
# migrate run with Ansible's own.
os.environ.setdefault("ANSIBLE_STRATEGY", "mitogen_linear")
STRATEGIES = Path(__file__).parents[1] / "plugins/strategy"
os.environ.setdefault("ANSIBLE_STRATEGY_PLUGINS", str(STRATEGIES))  # where there is no ansible.cfg


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """A running PostgreSQL server of the tests' own (``TEST_PG_MAJOR`` chooses the version)."""
    with Cluster.of_major() as cluster:
        yield cluster


@pytest.fixture
def database(postgres_cluster: Cluster) -> Iterator[Database]:
    """An empty database: ``.dsn`` (socket), ``.tcp_dsn``, ``.environment``, ``.connect()``."""
    with postgres_cluster.fresh_database() as database:
        yield database


@pytest.fixture
def dsn(database: Database) -> str:
    """URI of a fresh, empty database; there is no password in it."""
    return database.dsn
