"""Say what a program would fail to import, without starting it.

    import_check.py ENTRY_POINT

Runs in the release's own interpreter, in the release's directory. The entry point is never run: a
bot without ``if __name__ == "__main__"`` would log in. Instead

1. the files it is made of are read: the entry point, what it imports from its own source, and
   modules that are only named in a text (``load_extension("cogs.stats")``); each has to be Python;
2. every import in them that runs unconditionally has to be there;
3. the entry point's own imports are carried out, which runs those modules as a real start would.

Prints JSON: ``problems`` (sentences; empty if all is well) and ``checked`` (files read). Standard
library only.
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


def optional(node: ast.If | ast.Try) -> bool:
    """Say whether the block's imports may fail or do not happen at run time."""
    if isinstance(node, ast.Try):
        return bool(node.handlers)
    return "TYPE_CHECKING" in ast.unparse(node.test)


def certain_imports(body: Iterable[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports of a module that run whenever it is imported."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If | ast.Try) and not optional(node):
            yield from certain_imports([*node.body, *node.orelse])


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


def read(source: Source) -> tuple[list[str], list[Path], list[ast.Import | ast.ImportFrom]]:
    """Read all files the program is made of.

    Returns:
        Problems, the files, the entry point's imports.

    """
    problems: list[str] = []
    first: list[ast.Import | ast.ImportFrom] = []
    queue, seen = [source.entry_point], {source.entry_point}
    for path in queue:
        shown = path.relative_to(source.root)
        try:
            tree = ast.parse(path.read_bytes(), str(shown))
        except (SyntaxError, ValueError) as error:
            problems.append(f"{shown}, line {getattr(error, 'lineno', '?')}: {error.args[0]}")
            continue
        imports = list(certain_imports(tree.body))
        if path == source.entry_point:
            first = imports
        names: list[str] = []
        for node in imports:
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif node.level:
                package = source.package_of(path)
                base = package[: len(package) - node.level + 1]
                wanted = [".".join([*base, *(node.module or "").split(".")]).strip(".")]
            else:
                wanted = [node.module or ""]
            for name in filter(None, wanted):
                names.append(name)
                if isinstance(node, ast.ImportFrom):
                    names += [f"{name}.{alias.name}" for alias in node.names]
                top = name.split(".")[0]
                if not source.owns(name) and importlib.util.find_spec(top) is None:
                    problems.append(
                        f"{shown}, line {node.lineno}: no module {top!r}; "
                        "is it missing in the requirements?"
                    )
        names += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and DOTTED.fullmatch(node.value)
        ]
        for name in names:
            found = source.find(name)
            if found and found not in seen:
                seen.add(found)
                queue.append(found)
    return problems, queue, first


def carry_out(source: Source, imports: list[ast.Import | ast.ImportFrom]) -> Iterator[str]:
    """Carry out the entry point's imports and yield what goes wrong."""
    for node in imports:
        statement = ast.unparse(node)
        where = f"{source.entry_point.relative_to(source.root)}, line {node.lineno}: {statement}"
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            continue
        try:
            exec(compile(ast.Module([node], []), str(source.entry_point), "exec"), {})  # noqa: S102
        except (Exception, SystemExit) as error:
            yield f"{where}: {type(error).__name__}: {error}"


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
    problems, files, imports = read(source)
    if not problems:
        problems = list(carry_out(source, imports))
    answer.write(json.dumps({"problems": problems, "checked": len(files)}) + "\n")
    answer.flush()
    # Threads that a module started on import must not keep the check alive.
    os._exit(0)


if __name__ == "__main__":
    main()
