"""The programs of the role monitoring as modules."""

import importlib.util
from pathlib import Path

import pytest

FILES = Path(__file__).parents[2] / "roles/monitoring/files"


@pytest.fixture
def program():
    """Return a fresh module of the role by its name."""

    def load(name):
        spec = importlib.util.spec_from_file_location(f"monitoring_{name}", FILES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
