"""Plugins and modules of the role hardening, which are files and no packages."""

import importlib.util
import sys
import types
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


@pytest.fixture
def security_updates(tmp_path, monkeypatch):
    """The program on the host, with python3-apt played and all of its files below tmp_path."""
    monkeypatch.setitem(sys.modules, "apt_pkg", types.ModuleType("apt_pkg"))
    module = load("files/hardening-security-updates.py")
    for name in ("RECORD", "UPGRADED", "REBOOT"):
        monkeypatch.setattr(module, name, tmp_path / name.lower())
    monkeypatch.setattr(module, "LOOKED", (tmp_path / "lists",))
    monkeypatch.setattr(module, "wait_for_locks", lambda: None)
    (tmp_path / "lists").touch()
    return module


@pytest.fixture(scope="session")
def host_state():
    return load("library/host_state.py")
