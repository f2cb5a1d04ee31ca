"""Add a line on a move and the way back from it to a table of figures, which begins with its heads.

    cutover_figures.py MOVE ROLLBACK TABLE

MOVE holds migration.json and verify.json of the move (docs/evidence.md) and sessions.json, what the
demo's Discord said of all sessions after it; ROLLBACK is migration.json after the way back.
Columns: rows of all tables; megabytes of the SQLite file; seconds without an answer, as migrate.yml
counts them and as Discord saw them; seconds of each stage, of which the last goes on after the new
bot answers (health gate); then, outside of the downtime, filling the database before and comparing
every row after; at last the seconds without an answer of the way back.
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
    "way back",
)


def read(path: Path) -> dict[str, Any]:
    """Return what a JSON file holds."""
    return json.loads(path.read_text())


def line(move: Path, rollback: Path) -> str:
    """Return the figures of the move whose evidence lies there."""
    evidence, proof = read(move / "migration.json"), read(move / "verify.json")
    tables = proof["tables"]
    took = {
        stage["name"]: f"{stage['ended_at'] - stage['began_at']:.1f}"
        for stage in evidence["stages"]
    }
    cells = [
        f"{sum(table['rows_sqlite'] for table in tables):,}",
        f"{proof['source']['size'] / 1e6:.0f}",
        f"{evidence['downtime_seconds']:.1f}",
        f"{read(move / 'sessions.json')['silences'][-1]['seconds']:.1f}",
        *(took[name] for name in ("freeze", "sync", "go live", "rehearse", "verify")),
        f"{read(rollback)['rollback_downtime_seconds']:.1f}",
    ]
    return "".join(f"{cell:>14}" for cell in cells)


if __name__ == "__main__":
    table = Path(sys.argv[3])
    if not table.exists():
        table.write_text("".join(f"{head:>14}" for head in HEADS) + "\n")
    with table.open("a") as out:
        out.write(line(Path(sys.argv[1]), Path(sys.argv[2])) + "\n")
