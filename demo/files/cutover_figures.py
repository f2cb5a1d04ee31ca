"""Add a line on the last move to a table of figures, which begins with its heads.

    cutover_figures.py ARTIFACTS TABLE < RECORD

ARTIFACTS holds migration.json and verify.json of that move (docs/evidence.md), RECORD is what the
demo's Discord says of all sessions. Columns: rows of all tables; megabytes of the SQLite file;
seconds without an answer, as migrate.yml counts them and as Discord saw them; seconds of each
stage, of which the last goes on after the new bot answers (health gate); then, outside of the
downtime, filling the database before and comparing every row after.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HEADS = (
    "rows",
    "MB",
    "downtime",
    "on Discord",
    "freeze",
    "sync",
    "go live",
    "fill before",
    "compare after",
)


def line(artifacts: Path, record: dict[str, Any]) -> str:
    """Return the figures of the move whose evidence lies there."""
    evidence = json.loads((artifacts / "migration.json").read_text())
    proof = json.loads((artifacts / "verify.json").read_text())
    tables = proof["tables"]
    took = {
        stage["name"]: f"{stage['ended_at'] - stage['began_at']:.1f}"
        for stage in evidence["stages"]
    }
    cells = [
        f"{sum(table['rows_sqlite'] for table in tables):,}",
        f"{proof['source']['size'] / 1e6:.0f}",
        f"{evidence['downtime_seconds']:.1f}",
        f"{record['silences'][-1]['seconds']:.1f}",
        *(took[name] for name in ("freeze", "sync", "go live", "rehearse", "verify")),
    ]
    return "".join(f"{cell:>14}" for cell in cells)


if __name__ == "__main__":
    table = Path(sys.argv[2])
    if not table.exists():
        table.write_text("".join(f"{head:>14}" for head in HEADS) + "\n")
    with table.open("a") as out:
        out.write(line(Path(sys.argv[1]), json.load(sys.stdin)) + "\n")
