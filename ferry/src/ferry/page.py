"""Reports as one HTML page that needs nothing beside it, in light and dark."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --soft: #5b636d; --paper: #fff; --line: #d9dde2;
  --good: #116329; --good-bg: #dafbe1; --bad: #a40e26; --bad-bg: #ffebe9; --warn: #7a4e00;
  --warn-bg: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #9aa4af; --paper: #14171b;
  --line: #343a42; --good: #6fdd8b; --good-bg: #12301b; --bad: #ff9492; --bad-bg: #3c1618;
  --warn: #f2cc60; --warn-bg: #33290c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { overflow-wrap: normal; } td { min-width: 3.5rem; } td:first-child { min-width: 8rem; }
.n { text-align: right; } td.n { font-variant-numeric: tabular-nums; white-space: nowrap; }
code, pre { font: .85em ui-monospace, monospace; } pre { white-space: pre-wrap; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.badge { border-radius: .3rem; padding: .1rem .5rem; font-weight: 600; white-space: nowrap; }
.good { color: var(--good); background: var(--good-bg); }
.bad { color: var(--bad); background: var(--bad-bg); }
.warn { color: var(--warn); background: var(--warn-bg); }
.scroll { overflow-x: auto; }
@media (max-width: 40rem) { .cards-when-narrow thead { display: none; }
  .cards-when-narrow tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  .cards-when-narrow td { display: flex; justify-content: space-between; gap: 1rem; border: 0;
    padding: .1rem 0; white-space: normal; }
  .cards-when-narrow td::before { content: attr(data-head); color: var(--soft); flex: none; } }
"""


def _cell(head: str, value: Any) -> str:
    # Where a row is too wide, its cells stand below each other, each with its head.
    begin = f'<td data-head="{escape(head)}"'
    if value is True:
        return f'{begin}><span class="badge good">yes</span></td>'
    if value is False:
        return f'{begin}><span class="badge bad">NO</span></td>'
    if isinstance(value, int | float):
        return f'{begin} class="n">{value:,}</td>'
    return f"{begin}>{escape('' if value is None else str(value))}</td>"


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a titled table; nothing if there are no rows."""
    lines = list(rows)
    if not lines:
        return ""
    head = "".join(
        f'<th class="n">{escape(name)}</th>'
        if type(value) in (int, float)
        else f"<th>{escape(name)}</th>"
        for name, value in zip(heads, lines[0], strict=True)
    )
    body = "".join("<tr>" + "".join(map(_cell, heads, row)) + "</tr>" for row in lines)
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return (
        f'{heading}<div class="scroll"><table class="cards-when-narrow">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts(title: str, known: dict[str, Any] | None) -> str:
    """Return a titled list of names and values, without those that are None."""
    if not known:
        return ""
    items = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in known.items()
        if value is not None
    )
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return f"{heading}<dl>{items}</dl>"


def _differences(report: dict[str, Any]) -> str:
    rows = []
    for entry in report["tables"]:
        for found in entry.get("differences", []):
            if "only" in found:
                rows.append((entry["name"], found["row"], f"only in {found['only']}", "", ""))
                continue
            for column, values in found["columns"].items():
                rows.append(
                    (entry["name"], found["row"], column, values["sqlite"], values["postgres"])
                )
    return table("First differences", ("table", "row", "column", "SQLite", "PostgreSQL"), rows)


def section(report: dict[str, Any]) -> str:
    """Return all of one report as HTML; raises KeyError or TypeError for anything else."""
    code = report["exit_code"]
    badge = "good" if code == 0 else "bad"
    parts = [
        f"<h2><code>ferry {escape(report['command'])}</code> "
        f'<span class="badge {badge}">{escape(str(report["outcome"]))}, exit {code}</span></h2>',
        facts(
            "Run",
            {
                "started": report["started"],
                "finished": report["finished"],
                "seconds": report["seconds"],
                **{f"{name} s": seconds for name, seconds in report["timings"].items()},
                **{f"version of {name}": text for name, text in report["versions"].items()},
            },
        ),
        facts("Source", report["source"]),
        facts("Base", report.get("base")),
        facts("Target", report["target"]),
    ]
    parts += [
        f'<p><span class="badge {"bad" if message["level"] == "error" else "warn"}">'
        f"{escape(message['level'])}</span></p><pre>{escape(message['text'])}</pre>"
        for message in report["messages"]
    ]
    tables = report["tables"]
    parts.append(
        table(
            "Tables",
            ("table", "rows SQLite", "rows PostgreSQL", "checksum SQLite", "checksum PostgreSQL",
             "equal"),
            (
                (t["name"], t["rows_sqlite"], t["rows_postgres"], t["checksum_sqlite"],
                 t["checksum_postgres"], t["equal"])
                for t in tables
            ),
        )
    )  # fmt: skip
    parts.append(_differences(report))
    parts.append(
        table(
            "Carried since the copy",
            ("table", "inserted", "changed", "deleted"),
            ((t["name"], *t["delta"].values()) for t in tables if t.get("delta")),
        )
    )
    parts.append(
        table(
            "Since the baseline",
            ("table", "new", "changed", "deleted"),
            (
                (t["name"], s["new"], s["changed"], s["deleted"])
                for t in tables
                if (s := t.get("since_baseline"))
            ),
        )
    )
    parts.append(
        table(
            "Hazards",
            ("table", "column", "hazard", "how many", "first rows", "way out"),
            (
                (h["table"], h["column"], h["code"], h["count"],
                 ", ".join(f"{s['row']}: {s['value']}" for s in h["samples"]), h["remedy"])
                for h in report["hazards"]
            ),
        )
    )  # fmt: skip
    parts.append(
        table(
            "What the rules did",
            ("table", "column", "hazard", "action", "values", "first rows"),
            (
                (r["table"], r["column"], r["hazard"], r["action"], r["count"],
                 ", ".join(f"{s['row']}: {s['value']}" for s in r["samples"]))
                for r in report.get("rules", [])
            ),
        )
    )  # fmt: skip
    aside = report.get("quarantine") or {"file": "", "rows": {}}
    parts.append(
        table(
            "Rows set aside",
            ("table", "rows", "file"),
            ((table, rows, aside["file"]) for table, rows in aside["rows"].items()),
        )
    )
    parts.append(table("Renamed", ("in SQLite", "in PostgreSQL"), _renames(tables)))
    parts.append(table("Structure that differs", ("what",), ((x,) for x in report["structure"])))
    parts.append(
        table(
            "Not carried",
            ("what", "name", "reason", "SQL"),
            ((n["what"], n["name"], n["reason"], n["sql"]) for n in report["not_carried"]),
        )
    )
    parts.append(table("Not compared", ("what",), ((x,) for x in report["not_compared"])))
    parts.append(
        table(
            "Converted",
            ("table", "column", "rule", "values"),
            ((c["table"], c["column"], c["rule"], c["count"]) for c in report["conversions"]),
        )
    )
    parts.append(
        table(
            "Statements that are not accepted",
            ("where", "verdict", "message", "instead", "SQL"),
            (
                (f"{s['file']}:{s['line']}", s["verdict"], s["message"], s["instead"], s["sql"])
                for s in report.get("statements", [])
                if s["verdict"] not in ("ok", "excluded")
            ),
        )
    )
    parts.append(
        table(
            "Columns",
            ("table", "column", "declared", "becomes", "NULLs"),
            (
                (t["name"], c["name"], c["declared"], c["type"], c["nulls"])
                for t in tables
                for c in t.get("columns", [])
            ),
        )
    )
    return "\n".join(part for part in parts if part)


def _renames(tables: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for entry in tables:
        renamed = entry.get("renamed")
        if renamed is None:
            continue
        if renamed["table"] != entry["name"]:
            yield renamed["table"], entry["name"]
        for old, new in renamed["columns"].items():
            yield f"{renamed['table']}.{old}", f"{table['name']}.{new}"


def document(title: str, body: str, more_style: str = "") -> str:
    """Return a whole page; ``title`` is text, ``body`` is HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{more_style}</style></head>"
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def render(reports: Sequence[dict[str, Any]]) -> str:
    """Return the page for one or more reports; raises KeyError or TypeError for anything else."""
    return document("ferry report", "\n".join(map(section, reports)))
