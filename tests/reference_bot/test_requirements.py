"""What is imported is required, what is required is imported, and all of it is locked."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2] / "reference_bot"
PACKAGES = {"discord": "discord.py", "dotenv": "python-dotenv"}  # where the names differ


def imported() -> set[str]:
    names = set()
    for path in CHECKOUT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module)
    own = {"bot", "tools", "database_manager"}
    return {name.split(".")[0] for name in names} - own - sys.stdlib_module_names


def required() -> set[str]:
    lines = (CHECKOUT / "requirements.in").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_imports_and_requirements_are_the_same():
    assert {PACKAGES.get(name, name) for name in imported()} == required()


def test_every_locked_package_has_hashes_and_every_requirement_a_version():
    lock = (CHECKOUT / "requirements.txt").read_text()
    packages = re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)
    hashed = re.findall(r"^([\w.-]+)==[^\\]+\\\n    --hash=sha256:", lock, re.MULTILINE)
    assert packages == hashed
    assert {name.replace(".", "-") for name in required()} <= set(packages)
    assert "audioop-lts" in packages  # discord.py needs it from Python 3.13 on
