"""List the names that a program reads from its environment, with file and line.

    environment_scan.py SETTINGS

SETTINGS is JSON: ``directory`` (the release), ``known`` (names that are set or need not be).
Nothing is run; the sources are read as Python's syntax tree. Found are ``os.environ["NAME"]``,
``os.environ.get("NAME")``, ``os.getenv("NAME")``, also after ``from os import environ, getenv`` or
``import os as something``. A name that a program puts together or reads in another way is not.

Prints JSON: ``unset``, a list of ``name``, ``file``, ``line`` of the first place, and ``needed``
(no place has a default), those first. Runs in the release's interpreter; standard library only.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {".git", ".venv", "venv", "__pycache__", "node_modules", "site-packages", "tests", "test"}
# What systemd, the unit or every login provides, and what Python and libpq read by themselves.
PROVIDED = {
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM", "PWD",
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "INVOCATION_ID", "JOURNAL_STREAM",
    "STATE_DIRECTORY", "MPLCONFIGDIR", "PYTHONUNBUFFERED", "PYTHONPATH", "VIRTUAL_ENV",
    "NO_COLOR", "CI", "DEBUG",
}  # fmt: skip


def literal(node: ast.expr | None) -> str | None:
    """Return a text that stands in the source as it is."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def is_environ(node: ast.expr) -> bool:
    """Say whether an expression is os.environ."""
    if isinstance(node, ast.Attribute):
        return node.attr == "environ"
    return isinstance(node, ast.Name) and node.id == "environ"


def reads(tree: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Yield name, line, and whether the program goes on without it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_environ(node.value):
            name = literal(node.slice)
            if name and isinstance(node.ctx, ast.Load):
                yield name, node.lineno, False
        elif isinstance(node, ast.Call) and node.args:
            called = node.func
            getenv = (isinstance(called, ast.Attribute) and called.attr == "getenv") or (
                isinstance(called, ast.Name) and called.id == "getenv"
            )
            get = (
                isinstance(called, ast.Attribute)
                and called.attr in ("get", "pop", "setdefault")
                and is_environ(called.value)
            )
            name = literal(node.args[0])
            if name and (getenv or get):
                yield name, node.lineno, len(node.args) > 1 or bool(node.keywords)


def sources(root: Path) -> Iterator[Path]:
    """Yield the Python files of a release in a fixed order, links not followed."""
    for directory, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED)
        yield from (Path(directory) / name for name in sorted(names) if name.endswith(".py"))


def main() -> None:
    """Scan and print."""
    settings = json.loads(sys.argv[1])
    root = Path(settings["directory"])
    known = PROVIDED | set(settings["known"])
    found: dict[str, dict[str, object]] = {}
    for path in sources(root):
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError):
            continue  # whether that matters is the import check's business
        for name, line, optional in reads(tree):
            if name in known:
                continue
            shown = path.relative_to(root).as_posix()
            entry = found.setdefault(
                name, {"name": name, "file": shown, "line": line, "needed": True}
            )
            if optional:
                entry["needed"] = False
    unset = sorted(found.values(), key=lambda entry: (not entry["needed"], entry["name"]))
    print(json.dumps({"unset": unset}))


if __name__ == "__main__":
    main()
