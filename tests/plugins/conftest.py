"""Plugins and modules of the role hardening, which are files and no packages."""

import importlib.util
from pathlib import Path

import pytest

ROLE = Path(__file__).resolve().parents[2] / "roles" / "hardening"


def load(path):
    """Import a file by its path below the role."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROLE / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def filters():
    return load("filter_plugins/hardening.py")


@pytest.fixture(scope="session")
def ssh_banners():
    return load("lookup_plugins/ssh_banners.py")


@pytest.fixture(scope="session")
def ufw_rules():
    return load("library/ufw_rules.py")


@pytest.fixture(scope="session")
def text_files():
    return load("library/text_files.py")


@pytest.fixture(scope="session")
def file_modes():
    return load("library/file_modes.py")


@pytest.fixture(scope="session")
def host_state():
    return load("library/host_state.py")
