"""Gather the results of verify.yml: print a table, write a JSON file and an HTML page.

Usage: report.py REPORT < JSON

REPORT.json and REPORT.html are written. Standard input:

    {"inventory": "demo", "results": {"HOST": [{"id": …, "check": …, "ok": …, "said": …}, …]},
     "ports": {"place": "stranger", "servers": ["192.0.2.1"], "ssh": 48022,
               "lines": ["192.0.2.1 48022", "192.0.2.1"]}}

A result may say by "place" that it was asked from somewhere else than from HOST. ports: the lines
of both port scans, an address and what answered there. Exit code: 0 all is well, 1 a check has
failed.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
from collections import Counter
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "ferry/src"))

from ferry import page

# What is about safety; everything else is about working.
SAFETY = {
    "admin-login", "app-role", "backup-encrypted", "certificate", "control-git", "control-secrets",
    "fail2ban", "firewall", "forbidden", "foreign-refused", "journal", "passwords", "pg-hba",
    "plain-refused", "ports", "public", "root-login", "secrets", "ssh-policy", "superusers", "tls",
    "updates", "verified",
}  # fmt: skip
WORDS = {True: "ok", False: "FAILED", None: "not asked"}
COLOURS = {True: "good", False: "bad", None: "warn"}
STYLE = """
.verdict { border-radius: .5rem; padding: .8rem 1rem; font-size: 1.1rem; }
td:first-child { min-width: 5.5rem; } td { min-width: 6rem; }
@media (max-width: 40rem) { body { margin: 1rem auto; } thead { display: none; }
  tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  td { display: block; border: 0; padding: .1rem 0; } }
"""
Result = dict[str, object]
ANSWER = re.compile(r"\S+( \d{1,5})*")  # a line of a scan; another is none, and proves nothing


def ports(scanned: dict) -> list[Result]:
    """Judge what answers a stranger; SSH may be silent too, to one whom fail2ban knows."""
    results = []
    answers = [line.split() for line in scanned["lines"] if ANSWER.fullmatch(line)]
    for server in scanned["servers"]:
        lines = [answer[1:] for answer in answers if answer[0] == server]
        found = sorted({int(port) for line in lines for port in line})
        extra = [port for port in found if port != scanned["ssh"]]
        both = len(lines) == 2
        results.append(
            {
                "id": "ports",
                "place": scanned["place"],
                "check": f"Nothing but SSH answers at {server}",
                "ok": both and not extra,
                "said": f"open: {', '.join(map(str, found)) or 'nothing'}"
                if both
                else "the ports could not be tried",
            }
        )
    return results


def gathered(by_host: dict[str, list[Result]]) -> list[Result]:
    """Return all results in one list, each with its place and part, failures first."""
    results = [
        {"place": host, "part": "safety" if result["id"] in SAFETY else "work"} | result
        for host, several in by_host.items()
        for result in several
    ]
    return sorted(results, key=lambda one: (one["ok"] is not False, one["part"] == "safety"))


def sentence(results: list[Result]) -> str:
    """Return the outcome in a sentence."""
    counts = Counter(result["ok"] for result in results)
    return (
        f"{counts[True]} checks passed, {counts[False]} failed, {counts[None]} could not be asked"
    )


def screen(results: list[Result]) -> str:
    """Return the table for the terminal."""
    width = max(len(str(result["check"])) for result in results)
    places = max(len(str(result["place"])) for result in results)
    return "\n".join(
        f"{WORDS[result['ok']]:9}  {result['check']:{width}}  {result['place']:{places}}  "
        f"{result['said']}"
        for result in results
    )


def table(results: list[Result]) -> str:
    """Return the table for the page."""
    heads = "".join(f"<th>{name}</th>" for name in ("result", "check", "asked from", "answer"))
    rows = "".join(
        f'<tr><td><span class="badge {COLOURS[result["ok"]]}">{WORDS[result["ok"]]}</span></td>'
        + "".join(f"<td>{escape(str(result[key]))}</td>" for key in ("check", "place", "said"))
        + "</tr>"
        for result in results
    )
    inside = f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody>"
    return f'<div class="scroll"><table>{inside}</table></div>'


def render(report: dict[str, object]) -> str:
    """Return the whole page, in the look of ferry's pages."""
    results = report["results"]
    colour = "bad" if report["failed"] else "good"
    parts = [
        f'<p class="verdict {colour}">{escape(sentence(results))}.</p>',
        page.facts("", {"inventory": report["inventory"], "asked at": report["at"]}),
    ]
    for title, part in (("Does it work?", "work"), ("Is it safe?", "safety")):
        chosen = [result for result in results if result["part"] == part]
        if chosen:
            parts += [f"<h2>{title}</h2>", table(chosen)]
    return page.document("How the servers stand", "\n".join(parts), STYLE)


def main(target: Path, given: dict) -> int:
    """Write both files and print; return the exit code."""
    scanned = given["ports"]
    results = gathered({**given["results"], scanned["place"]: ports(scanned)})
    report = {
        "schema": 1,
        "inventory": given["inventory"],
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "failed": sum(result["ok"] is False for result in results),
        "results": results,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name(f"{target.name}.json").write_text(json.dumps(report, indent=2) + "\n")
    target.with_name(f"{target.name}.html").write_text(render(report))
    print(f"{screen(results)}\n{sentence(results)}")
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.load(sys.stdin)))
