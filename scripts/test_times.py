"""Where the time of the tests goes: seconds per check, and per phase of each Molecule scenario.

    … | test_times.py record FILE     passes its input on, and writes the phases in it to FILE
    test_times.py table DIRECTORY     prints a table of all *.times in a directory, longest first

A file has a line per phase: seconds, a blank, name. The table is for people, and for CI to keep
(.cache/test-logs/times.txt); nothing is judged by it, since machines are noisy.
"""

import re
import sys
import time
from pathlib import Path
from typing import BinaryIO

COLOURS = re.compile(rb"\x1b\[[0-9;]*m")
# "INFO  replica ➜ converge: Executing", and the same again for a phase that comes twice; where the
# locale knows no arrow, "INFO  [replica > converge] Executing".
BEGUN = re.compile(r"(?:➜ (\w+):|> (\w+)\]) Executing\s*$".encode())


def record(source: BinaryIO, target: BinaryIO, path: Path) -> None:
    """Copy source to target line by line, and write the seconds of each phase to path."""
    phases: list[tuple[str, float]] = []
    for line in iter(source.readline, b""):
        target.write(line)
        target.flush()
        if begun := BEGUN.search(COLOURS.sub(b"", line)):
            phases.append(((begun[1] or begun[2]).decode(), time.monotonic()))
    ends = [*(begin for _, begin in phases), time.monotonic()][1:]
    lines = [f"{end - begin:.0f} {name}\n" for (name, begin), end in zip(phases, ends, strict=True)]
    path.write_text("".join(lines))


def table(directory: Path) -> str:
    """Return the table: a line per check with its seconds, then those of its phases."""
    checks = []
    for path in directory.glob("*.times"):
        pairs = [line.split(" ", 1) for line in path.read_text().splitlines()]
        seconds = (directory / f"{path.stem}.seconds").read_text().strip()
        phases = [f"{name} {int(spent)}" for spent, name in pairs if int(spent)]
        checks.append((int(seconds), path.stem, " · ".join(phases)))
    lines = [
        f"{seconds:>6} s  {name:<28} {phases}".rstrip()
        for seconds, name, phases in sorted(checks, reverse=True)
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run one of the two; returns the exit code."""
    match arguments:
        case ["record", path]:
            record(sys.stdin.buffer, sys.stdout.buffer, Path(path))
        case ["table", directory]:
            print(table(Path(directory)))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
