"""Fixtures that all tests share: one PostgreSQL server per run, one fresh database per test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.postgres import Cluster, Database

if TYPE_CHECKING:
    from collections.abc import Iterator


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
