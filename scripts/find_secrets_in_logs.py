"""Fail when a secret of the test worlds stands in a log.

Usage: find_secrets_in_logs.py DIRECTORY

The secrets: each variable of the scenarios' inventories whose name ends in "password", "token" or
"webhook" and has a plain value, and what every private key begins with. A log that shows one of
them would show the owner's.
"""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
KEY_MARKS = ["PRIVATE KEY-----", "AGE-SECRET-KEY-1"]


def secrets() -> set[str]:
    """Return the plain secrets of all scenarios' inventories."""
    found = set()
    for path in ROOT.glob("molecule/*/inventory/group_vars/**/*.yml"):
        for name, value in (yaml.safe_load(path.read_text()) or {}).items():
            if (
                re.search(r"(password|token|webhook)$", name)
                and isinstance(value, str)
                and "{{" not in value
            ):
                found.add(value)
    return found


def main(directory: Path) -> int:
    """Print each log line that shows a secret, the secret itself masked; return the exit code."""
    wanted = secrets()
    if not wanted:
        print("No secrets were found to search for: the search itself is broken.")
        return 1
    pattern = re.compile("|".join(map(re.escape, sorted(wanted) + KEY_MARKS)))
    hits = 0
    logs = sorted(directory.glob("*.log"))
    for path in logs:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if pattern.search(line):
                hits += 1
                print(f"{path}:{number}: {pattern.sub('<SECRET>', line)[:200]}")
    print(f"{len(logs)} logs searched for {len(wanted)} secrets: {hits} lines show one")
    return 1 if hits else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
