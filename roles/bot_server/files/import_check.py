"""Say what a program would fail to import, without starting it.

    import_check.py ENTRY_POINT

Runs in the release's own interpreter, in the release's directory. The entry point is never run: a
bot without ``if __name__ == "__main__"`` would log in. Instead

1. the files it is made of are read: the entry point, what it imports from its own source, and
   modules that are only named in a text (``load_extension("cogs.stats")``); each has to be Python;
2. every import in them that runs unconditionally has to be there;
3. the entry point's own imports are carried out, which runs those modules as a real start would.

What stands in a ``try`` with an ``except``, or below ``contextlib.suppress``, is optional: the
program goes on without. So is a file that nothing else leads to. What is wrong there is a warning.

Prints JSON: ``problems`` (1 and 2), ``failures`` (3) and ``warnings``, lists of ``file`` and
``text`` (a sentence) that are empty if all is well, and ``checked`` (files read). Standard library
only.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


Imports = ast.Import | ast.ImportFrom
Found = tuple[Imports, bool]


def catches(node: ast.AST) -> bool:
    """Say whether the program goes on when something in the block's body fails."""
    if isinstance(node, ast.Try | ast.TryStar):
        return bool(node.handlers)
    if isinstance(node, ast.With | ast.AsyncWith):
        calls = (item.context_expr for item in node.items)
        return any("suppress" in ast.unparse(c.func) for c in calls if isinstance(c, ast.Call))
    return False


def imports_of(body: Iterable[ast.stmt], *, optional: bool = False) -> Iterator[Found]:
    """Yield the imports that run whenever a module is imported, and whether each may fail."""
    for node in body:
        if isinstance(node, Imports):
            yield node, optional
        elif isinstance(node, ast.Try | ast.TryStar):
            yield from imports_of(node.body, optional=optional or catches(node))
            yield from imports_of(node.orelse, optional=optional or catches(node))
            yield from imports_of(node.finalbody, optional=optional)
        elif isinstance(node, ast.With):
            yield from imports_of(node.body, optional=optional or catches(node))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from imports_of([*node.body, *node.orelse], optional=optional)


def texts_of(node: ast.AST, *, optional: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the texts that may name a module, and whether the program goes on without it."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str) and DOTTED.fullmatch(node.value):
            yield node.value, optional
        return
    within = {*node.body, *getattr(node, "orelse", ())} if catches(node) else set()
    for child in ast.iter_child_nodes(node):
        yield from texts_of(child, optional=optional or child in within)


class Source:
    """The release's own modules, found below the directories that Python would search."""

    def __init__(self, entry_point: Path, root: Path) -> None:
        self.root = root
        self.entry_point = entry_point
        # A program that adds its root to sys.path by itself is common; we do not run that line.
        self.search = [entry_point.parent, root]

    def find(self, module: str) -> Path | None:
        """Return the file of a module or package of this release."""
        relative = Path(*module.split("."))
        for base in self.search:
            for candidate in (base / relative / "__init__.py", base / relative.with_suffix(".py")):
                if candidate.is_file():
                    return candidate
        return None

    def owns(self, module: str) -> bool:
        """Say whether the first part of a module's name is a module or folder of this release."""
        top = module.split(".")[0]
        return any((b / top).is_dir() or (b / f"{top}.py").is_file() for b in self.search)

    def package_of(self, path: Path) -> list[str]:
        """Return the parts of the package that a file belongs to, as seen from the root."""
        return list(path.parent.relative_to(self.root).parts)


class Reader:
    """Reads the files that a program is made of."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.needed: set[Path] = set()  # files that the program cannot do without
        self.read: set[Path] = set()
        self.problems: list[dict[str, str]] = []
        self.warnings: list[dict[str, str]] = []
        self.first: list[Imports] = []  # the entry point's own, that it cannot do without

    def everything(self) -> None:
        """Read from the entry point on, first what is needed, then what is optional."""
        needed, optional = [self.source.entry_point], []
        for path in needed:
            if path not in self.needed:
                self.needed.add(path)
                optional += self.file(path, needed)
        for path in optional:
            if path not in self.needed | self.read:
                optional += self.file(path, optional)

    def file(self, path: Path, queue: list[Path]) -> list[Path]:
        """Read one file; what it needs goes into the queue.

        Returns:
            Files that it can do without.

        """
        self.read.add(path)
        shown = path.relative_to(self.source.root).as_posix()
        must = path in self.needed
        try:
            tree = ast.parse(path.read_bytes(), shown)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", "?")
            self.note(shown, f"line {line}: {error.args[0]}", needed=must)
            return []
        names = list(texts_of(tree))
        for node, may_fail in imports_of(tree.body):
            if must and not may_fail and path == self.source.entry_point:
                self.first.append(node)
            for name in filter(None, self.modules(node, path)):
                names.append((name, may_fail))
                if isinstance(node, ast.ImportFrom):
                    names += [(f"{name}.{alias.name}", may_fail) for alias in node.names]
                top = name.split(".")[0]
                if not self.source.owns(name) and importlib.util.find_spec(top) is None:
                    text = f"line {node.lineno}: no module {top!r}"
                    needed = must and not may_fail
                    hint = "; is it missing in the requirements?" if needed else ""
                    self.note(shown, text + hint, needed=needed)
        found = [(self.source.find(name), may_fail) for name, may_fail in names]
        queue += [other for other, may_fail in found if other and not may_fail]
        return [other for other, may_fail in found if other and may_fail]

    def modules(self, node: Imports, path: Path) -> list[str]:
        """Return the modules that an import names, as seen from the root."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if not node.level:
            return [node.module or ""]
        package = self.source.package_of(path)
        base = package[: len(package) - node.level + 1]
        return [".".join([*base, *(node.module or "").split(".")]).strip(".")]

    def note(self, file: str, text: str, *, needed: bool) -> None:
        """Note what is wrong in a file."""
        problem = {"file": file, "text": f"{file}, {text}"}
        (self.problems if needed else self.warnings).append(problem)


def carry_out(source: Source, imports: list[Imports]) -> Iterator[dict[str, str]]:
    """Carry out the entry point's imports and yield what goes wrong."""
    file = source.entry_point.relative_to(source.root).as_posix()
    for node in imports:
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        try:
            exec(compile(ast.Module([node], []), str(source.entry_point), "exec"), {})  # noqa: S102
        except (Exception, SystemExit) as error:
            text = f"line {node.lineno}: {ast.unparse(node)}: {type(error).__name__}: {error}"
            yield {"file": file, "text": f"{file}, {text}"}


def main() -> None:
    """Check and print."""
    root = Path.cwd()
    source = Source(root / sys.argv[1], root)
    sys.dont_write_bytecode = True
    sys.path[0:1] = [str(source.entry_point.parent)]
    sys.path.append(str(root))
    # What a module prints while it is imported must not be taken for our answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    reader = Reader(source)
    reader.everything()
    result = {
        "problems": reader.problems,
        "failures": list(carry_out(source, reader.first)),
        "warnings": reader.warnings,
        "checked": len(reader.read),
    }
    answer.write(json.dumps(result) + "\n")
    answer.flush()
    # Threads that a module started on import must not keep the check alive.
    os._exit(0)


if __name__ == "__main__":
    main()
