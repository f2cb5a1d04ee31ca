"""List the names that a program reads from its environment, with file and line.

    environment_scan.py SETTINGS

SETTINGS is JSON: ``directory`` (the release), ``known`` (names that are set or need not be).
Nothing is run; the sources are read as Python's syntax tree. Found are ``os.environ["NAME"]``,
``os.environ.get("NAME")``, ``os.getenv("NAME")``, also after ``from os import environ, getenv`` or
``import os as something``, and in a loop over names that stand there as they are.

The same is found with a variable or parameter in the place of ``os.environ``, if the file gives it
the environment: ``values = os.environ``, a copy (``dict(...)``, ``.copy()``, ``{**...}``, ``|``, a
comprehension over ``.items()``), one with ``or`` or ``if``, a parameter's default, or the call of a
function of the same file that returns one of these. Through such a variable only names in capitals
count, and so do those that are handed to a function together with it, as in
``number(values, "PORT")``. A variable counts in the whole file, whatever the scope.
A name that a program puts together, or reads in another file than the one that takes in the
environment, is not found.

Prints JSON: ``unset``, a list of ``name``, ``file``, ``line`` of the first place, and ``needed``
(no place has a default), those first. Runs in the release's interpreter; standard library only.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SKIPPED = {".git", ".venv", "venv", "__pycache__", "node_modules", "site-packages", "tests", "test"}
CAPITALS = re.compile(r"[A-Z][A-Z0-9_]+")
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


def is_mapping(node: ast.expr | None, mappings: set[str]) -> bool:
    """Say whether an expression is the environment or a copy of it.

    Args:
        node: the expression.
        mappings: the file's variables that are known to hold it, and its functions that return it,
            as ``name()``.

    """

    def same(one: ast.expr | None) -> bool:
        return is_mapping(one, mappings)

    if node is None:
        return False
    if is_environ(node) or (isinstance(node, ast.Name) and node.id in mappings):
        return True
    if isinstance(node, ast.Await):
        return same(node.value)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            if node.func.attr in ("copy", "items"):
                return same(node.func.value)
            return ast.unparse(node.func.value) == "self" and f"{node.func.attr}()" in mappings
        if not isinstance(node.func, ast.Name):
            return False
        return f"{node.func.id}()" in mappings or (
            node.func.id == "dict" and any(map(same, node.args))
        )
    if isinstance(node, ast.Dict):
        return any(
            key is None and same(value) for key, value in zip(node.keys, node.values, strict=True)
        )
    if isinstance(node, ast.DictComp):
        return same(node.generators[0].iter)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.BitOr) and (same(node.left) or same(node.right))
    if isinstance(node, ast.BoolOp):
        return any(map(same, node.values))
    return isinstance(node, ast.IfExp) and (same(node.body) or same(node.orelse))


def mappings_of(tree: ast.AST) -> set[str]:
    """Return the names of what holds the environment: variables, parameters, functions."""
    given: list[tuple[str, ast.expr | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            given += [(to.id, node.value) for to in node.targets if isinstance(to, ast.Name)]
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and isinstance(node.target, ast.Name):
            given.append((node.target.id, node.value))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            returned = [one.value for one in ast.walk(node) if isinstance(one, ast.Return)]
            given += [(f"{node.name}()", value) for value in returned]
        elif isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            defaults = [None] * (len(positional) - len(node.defaults)) + node.defaults
            with_defaults = zip(
                positional + node.kwonlyargs, defaults + node.kw_defaults, strict=True
            )
            given += [(argument.arg, default) for argument, default in with_defaults]
    found: set[str] = set()
    while new := {name for name, value in given if is_mapping(value, found)} - found:
        found |= new
    return found


def loops_of(tree: ast.AST) -> Iterator[tuple[ast.AST, str, list[str]]]:
    """Yield each loop over texts that stand there as they are: it, its variable, the texts."""
    for node in ast.walk(tree):
        loops = [node] if isinstance(node, ast.For) else getattr(node, "generators", [])
        for loop in loops:
            if isinstance(loop.target, ast.Name) and isinstance(
                loop.iter, (ast.Tuple, ast.List, ast.Set)
            ):
                yield node, loop.target.id, [text for text in map(literal, loop.iter.elts) if text]


def reads(tree: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Yield name, line, and whether the program goes on without it."""
    mappings = mappings_of(tree)
    variables: dict[int, dict[str, list[str]]] = {}  # by id of a node inside of a loop
    for loop, variable, texts in loops_of(tree):
        for node in ast.walk(loop):
            variables.setdefault(id(node), {})[variable] = texts

    def named(source: ast.expr | None, key: ast.expr) -> list[str]:
        """Return the names that ``key`` can stand for; of a mapping only those in capitals."""
        names = [literal(key)]
        if isinstance(key, ast.Name):
            names = variables.get(id(key), {}).get(key.id, [])
        everything = source is None or is_environ(source)
        return [name for name in names if name and (everything or CAPITALS.fullmatch(name))]

    for node in ast.walk(tree):
        names, optional = [], False
        if isinstance(node, ast.Subscript):
            if isinstance(node.ctx, ast.Load) and is_mapping(node.value, mappings):
                names = named(node.value, node.slice)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func
            if isinstance(called, ast.Attribute) and is_mapping(called.value, mappings):
                if called.attr in ("get", "pop", "setdefault"):
                    names = named(called.value, node.args[0])
                    optional = len(node.args) > 1 or bool(node.keywords)
            elif getattr(called, "attr", getattr(called, "id", "")) == "getenv":
                names = named(None, node.args[0])
                optional = len(node.args) > 1 or bool(node.keywords)
            else:  # what the function does where the name is not set, only it knows
                source = next((one for one in node.args if is_mapping(one, mappings)), None)
                if source is not None:
                    names = [
                        name
                        for one in node.args
                        if (name := literal(one)) and CAPITALS.fullmatch(name)
                    ]
                    optional = True
        for name in names:
            yield name, node.lineno, optional


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
            # What is no name, or would be obeyed by a terminal, nobody can set or read.
            if name in known or not re.fullmatch(r"(?a:[A-Za-z_]\w*)", name):
                continue
            if not path.name.isprintable():
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
