"""Add a line on the last move to a table of figures, which begins with its heads.

    cutover_figures.py ARTIFACTS TABLE

ARTIFACTS holds migration.json and verify.json of that move (docs/evidence.md). Columns: rows of all
tables; seconds without an answer, and of these the seconds of each stage; then, outside of the
downtime, filling the database before and comparing every row after.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HEADS = ("rows", "downtime", "freeze", "sync", "go live", "fill before", "compare after")


def line(artifacts: Path) -> str:
    """Return the figures of the move whose evidence lies there."""
    evidence = json.loads((artifacts / "migration.json").read_text())
    tables = json.loads((artifacts / "verify.json").read_text())["tables"]
    took = {
        stage["name"]: f"{stage['ended_at'] - stage['began_at']:.1f}"
        for stage in evidence["stages"]
    }
    cells = [
        f"{sum(table['rows_sqlite'] for table in tables):,}",
        f"{evidence['downtime_seconds']:.1f}",
        *(took[name] for name in ("freeze", "sync", "go live", "rehearse", "verify")),
    ]
    return "".join(f"{cell:>14}" for cell in cells)


if __name__ == "__main__":
    table = Path(sys.argv[2])
    if not table.exists():
        table.write_text("".join(f"{head:>14}" for head in HEADS) + "\n")
    with table.open("a") as out:
        out.write(line(Path(sys.argv[1])) + "\n")
