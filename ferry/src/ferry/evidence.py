"""The page of a rehearsal, a move or a way back, for people who were not there.

Made of the evidence that the playbooks write (migration.json, see docs/evidence.md) and of ferry's
own reports of the same evening. Any of both may be missing or half written: a page about a failure
is wanted most.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ferry import page

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Json = dict[str, Any]

_STYLE = """
:root { --bar: #3b6fb6; --away: #c2571a; --panel: #f4f6f8; }
@media (prefers-color-scheme: dark) { :root { --bar: #6ea3e8; --away: #f0955a; --panel: #1c2127; } }
.verdict { border-radius: .5rem; padding: .8rem 1rem; font-size: 1.1rem; overflow-wrap: anywhere; }
.verdict p { margin: .2rem 0; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem;
  margin: 1rem 0; }
.figures div { background: var(--panel); border-radius: .5rem; padding: .6rem .9rem; }
.figures b { display: block; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
.figures span, .soft { color: var(--soft); font-size: .9rem; }
.line { list-style: none; padding: 0; margin: .5rem 0 1rem; }
.line li { display: grid; grid-template-columns: 9rem 9.5rem 1fr; gap: .1rem .75rem;
  align-items: center; padding: .2rem 0; border-bottom: 1px solid var(--line); }
.line .name { overflow-wrap: anywhere; } .line .when { color: var(--soft); font-size: .85rem;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.track { position: relative; height: .9rem; background: var(--panel); border-radius: .2rem; }
.track i { position: absolute; top: 0; bottom: 0; border-radius: .2rem; background: var(--bar);
  min-width: 3px; } .track i.away { background: var(--away); }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem;
  background: var(--bar); vertical-align: -.1rem; margin: 0 .3rem 0 .8rem; }
.key i.away { background: var(--away); } .key i:first-child { margin-left: 0; }
.cards { padding: 0; list-style: none; } .cards li { border-left: .25rem solid var(--warn);
  background: var(--panel); border-radius: .2rem; padding: .5rem .9rem; margin: .5rem 0;
  overflow-wrap: anywhere; } .cards p { margin: .2rem 0; }
pre.do { background: var(--panel); border-radius: .3rem; padding: .5rem .8rem; }
details { margin-top: 2.5rem; } summary { cursor: pointer; font-weight: 600; }
@media (max-width: 40rem) { body { margin: 1rem auto; } .verdict { font-size: 1rem; }
  .line li { grid-template-columns: 1fr auto; } .track { grid-column: 1 / -1; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; } }
@media print { .track, .key i, .figures div, .verdict { print-color-adjust: exact; } }
"""

_TITLES = {
    "rehearsal": "Rehearsal of the move",
    "migration": "The bot's move to PostgreSQL",
    "rollback": "The bot's way back to the old PC",
}

_BACK = {  # by rollback_mode
    "instant": "The old bot serves again, with what players did meanwhile.",
    "partial": "The old bot serves again, from the old PC, on PostgreSQL.",
    "restore": "The old bot serves again, with the SQLite file as it was before the move.",
}


# What programs print to colour a terminal; evidence of an older version may hold it.
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_BANNER_LINES = 10


def is_evidence(document: object) -> bool:
    """Tell the evidence of a run from a report of ferry."""
    return isinstance(document, dict) and "kind" in document and "command" not in document


def render(documents: Sequence[Json]) -> str:
    """Return the page for the one evidence among documents and for the reports beside it.

    Raises ValueError for more than one evidence, and KeyError, TypeError or AttributeError for a
    document that is neither.
    """
    runs = [document for document in documents if is_evidence(document)]
    if len(runs) > 1:
        raise ValueError("more than one evidence")
    run = _Run(runs[0], [document for document in documents if not is_evidence(document)])
    parts = [
        run.verdict(),
        run.figures(),
        run.timeline(),
        run.tables(),
        run.warnings(),
        run.watch(),
        run.way_back(),
        run.origin(),
        run.details(),
    ]
    return page.document(_TITLES[run.kind], "\n".join(filter(None, parts)), _STYLE)


def _number(value: object) -> float | None:
    """Return a number; templates make texts of some."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _clock(moment: float | None, form: str = "%H:%M:%S") -> str:
    return "" if moment is None else datetime.fromtimestamp(moment, UTC).strftime(form)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _span(seconds: float) -> str:
    """Return a span of time as people say it."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _stages(told: Sequence[Json]) -> list[tuple[str, float, float | None]]:
    """Return name, begin and end of each stage; one without an end lasted until the next began."""
    known = [
        (str(stage.get("name")), began, _number(stage.get("ended_at")))
        for stage in told
        if (began := _number(stage.get("began_at"))) is not None
    ]
    following = [began for _, began, _ in known[1:]]
    return [
        (name, began, following[place] if ended is None and place < len(following) else ended)
        for place, (name, began, ended) in enumerate(known)
    ]


def _ended(report: Json) -> float:
    """Return when a report was written, as seconds since 1970."""
    return datetime.fromisoformat(report["finished"]).timestamp()


class _Run:
    """What the evidence and the reports say, as sections of HTML."""

    def __init__(self, evidence: Json, reports: Sequence[Json]) -> None:
        self.evidence = evidence
        self.kind = evidence["kind"]
        if self.kind not in _TITLES:
            raise ValueError(f"no such kind of run: {self.kind}")
        self.stages = _stages(evidence.get("stages") or [])
        self.frozen = _number(evidence.get("frozen_at"))
        self.live = _number(evidence.get("live_at"))
        # When a bot answered again: the new one, or after a failure the old one.
        self.back = self.live if self.live is not None else _number(evidence.get("put_back_at"))
        self.failure: Json = evidence.get("failure") or {}
        # Reports stay where they are from evening to evening; the comparison of another one proves
        # nothing about this one.
        self.begun = min((began for _, began, _ in self.stages), default=None)
        self.reports = sorted(reports, key=_ended)
        self.own = [
            report for report in self.reports if self.begun is None or _ended(report) >= self.begun
        ]

    @property
    def done(self) -> bool:
        """Whether the run reached its end."""
        if self.failure:
            return False
        return self.kind == "rehearsal" or self.live is not None

    @property
    def old_bot_serves(self) -> bool:
        """Whether a move that was not finished is known to have left the old bot at work."""
        return bool(self.failure) or self.frozen is None

    def _report(self, *commands: str) -> Json | None:
        """Return the newest report of this run that one of the commands made."""
        found = [report for report in self.own if report["command"] in commands]
        return found[-1] if found else None

    def _proof(self) -> Json | None:
        """Return the report with the counts and checksums of both sides."""
        for command in ("verify", "sync", "copy", "reverse"):
            report = self._report(command)
            if report and any(entry["equal"] is not None for entry in report["tables"]):
                return report
        return None

    def _downtime(self) -> float | None:
        said = _number(self.evidence.get("downtime_seconds"))
        if said is None and self.frozen is not None and self.back is not None:
            return self.back - self.frozen
        return said

    # ---------------------------------------------------------------------------------- sections

    def verdict(self) -> str:
        """Say in two sentences how it ended."""
        proof = self._proof()
        equal = proof is not None and all(entry["equal"] for entry in proof["tables"])
        if not self.done:
            tone = "bad" if self.failure else "warn"
            lines = [
                {
                    "rehearsal": "The rehearsal did not go through. The old bot was not touched.",
                    "migration": "The move did not happen."
                    if self.old_bot_serves
                    else "The move did not reach its end.",
                    "rollback": "The way back was not finished.",
                }[self.kind],
            ]
            if self.failure:
                told = {"stage": "?", "host": "?", "message": "?"} | self.failure
                message = _COLOURS.sub("", str(told.pop("message"))).strip().splitlines() or ["?"]
                lines.append("Stage “{stage}” failed on {host}: ".format_map(told) + message[0])
                if len(message) > _BANNER_LINES:
                    message = [message[0], "…", *message[2 - _BANNER_LINES :]]
                lines += message[1:]
            return _verdict(tone, lines)
        lines = [
            {
                "rehearsal": "The rehearsal went well. The old bot went on working meanwhile.",
                "migration": "The new bot serves, on PostgreSQL.",
                "rollback": _BACK[str(self.evidence.get("rollback_mode") or "instant")],
            }[self.kind]
        ]
        if proof is None:
            lines.append("No comparison of both sides is at hand.")
        elif equal:
            rows = sum(entry["rows_sqlite"] or 0 for entry in proof["tables"])
            lines.append(
                f"{_count(rows, 'row')} in {_count(len(proof['tables']), 'table')} compared: "
                "both sides hold the same, value by value."
            )
        else:
            lines.append("The two sides differ; see the tables below.")
        return _verdict("good" if equal else "bad" if proof else "warn", lines)

    def figures(self) -> str:
        """Show the few numbers that everybody asks for."""
        found: list[tuple[str, str]] = []
        downtime = self._downtime()
        if downtime is not None:
            found.append((_span(downtime), "without a bot"))
        predicted = _number(self.evidence.get("predicted_downtime_seconds"))
        if predicted is not None and self.kind == "rehearsal":
            found.append((_span(predicted), "without a bot, as rehearsed"))
        if proof := self._proof():
            rows = sum(entry["rows_postgres"] or 0 for entry in proof["tables"])
            found += [(f"{rows:,}", "rows"), (str(len(proof["tables"])), "tables")]
        found.append((str(len(self.evidence.get("warnings") or [])), "warnings"))
        tiles = "".join(
            f"<div><b>{escape(value)}</b><span>{escape(what)}</span></div>" for value, what in found
        )
        return f'<div class="figures">{tiles}</div>'

    def timeline(self) -> str:
        """Draw the stages over time, and the seconds without a bot again, larger."""
        if not self.stages:
            return ""
        last = max(ended or began for _, began, ended in self.stages)
        first = self.begun or 0.0
        date = _clock(first, "%Y-%m-%d")
        key = '<i></i>the bot answers<i class="away"></i>no bot answers · '
        parts = [
            "<h2>When</h2>",
            f'<p class="key soft">{"" if self.frozen is None else key}'
            f"{escape(date)}, times in UTC · {escape(_span(last - first))} in all</p>",
            self._line(self.stages, first, last),
        ]
        if self.frozen is not None:
            until = self.back if self.back is not None else last
            away = [
                (name, began, ended)
                for name, began, ended in self.stages
                if began < until and (ended is None or ended > self.frozen)
            ]
            if away and len(away) < len(self.stages) and until > self.frozen:
                parts += [
                    "<h3>The time without a bot, larger</h3>",
                    self._line(away, self.frozen, until),
                ]
        return "\n".join(parts)

    def _line(
        self, stages: Iterable[tuple[str, float, float | None]], first: float, last: float
    ) -> str:
        whole = max(last - first, 0.001)
        items = []
        for name, began, ended in stages:
            end = last if ended is None else ended
            bars = []
            for start, stop, away in self._pieces(began, end):
                left, right = max(start, first), min(stop, last)
                if right < left:
                    continue
                place = 100 * (left - first) / whole
                width = 100 * (right - left) / whole
                kind = ' class="away"' if away else ""
                bars.append(
                    f'<i{kind} style="left:{min(place, 99.5):.2f}%;width:{width:.2f}%"></i>'
                )
            length = "not finished" if ended is None else _span(end - began)
            items.append(
                f'<li><span class="name">{escape(name)}</span>'
                f'<span class="when">{_clock(began)} · {length}</span>'
                f'<span class="track">{"".join(bars)}</span></li>'
            )
        return f'<ol class="line">{"".join(items)}</ol>'

    def _pieces(self, began: float, ended: float) -> list[tuple[float, float, bool]]:
        """Cut a stage where the bot went and where it came back."""
        if self.frozen is None:
            return [(began, ended, False)]
        back = self.back if self.back is not None else float("inf")
        edges = [began, *(edge for edge in (self.frozen, back) if began < edge < ended), ended]
        return [
            (start, stop, self.frozen <= (start + stop) / 2 < back)
            for start, stop in pairwise(edges)
        ]

    def tables(self) -> str:
        """Show what moved: rows and checksums of both sides, and what came since."""
        title = "What was copied" if self.kind == "rehearsal" else "What moved"
        proof = self._proof()
        if proof is None:
            return f"<h2>{title}</h2><p>No table was compared in this run.</p>"
        name, moment = proof["command"], _clock(_ended(proof), "%Y-%m-%d %H:%M:%S UTC")
        when = (
            f'<p class="soft">Compared by <code>ferry {escape(name)}</code> at {escape(moment)}. '
            "A checksum covers every value of a table; equal checksums mean equal contents. "
            "Here are the first 16 of their letters.</p>"
        )
        parts = [
            f"<h2>{title}</h2>",
            when,
            page.table(
                "",
                ("table", "rows in SQLite", "rows in PostgreSQL", "equal", "checksum"),
                (
                    (entry["name"], entry["rows_sqlite"], entry["rows_postgres"], entry["equal"],
                     _checksums(entry))
                    for entry in proof["tables"]
                ),
            ),
        ]  # fmt: skip
        sync = self._report("sync")
        parts.append(
            page.table(
                "Carried since the rehearsal",
                ("table", "new", "changed", "deleted"),
                (
                    (
                        entry["name"],
                        *(entry["delta"][k] for k in ("inserted", "changed", "deleted")),
                    )
                    for entry in (sync["tables"] if sync else [])
                    if any((entry.get("delta") or {}).values())
                ),
            )
        )
        reverse = self._report("reverse")
        parts.append(
            page.table(
                "What came after the move, and was brought back",
                ("table", "new", "changed", "deleted"),
                (
                    (entry["name"], since["new"], since["changed"], since["deleted"])
                    for entry in (reverse["tables"] if reverse else [])
                    if (since := entry.get("since_baseline"))
                ),
            )
        )
        return "\n".join(filter(None, parts))

    def warnings(self) -> str:
        """List what somebody should know, and what it means."""
        cards = [
            (str(warning.get("text", "")), str(warning.get("meaning") or ""))
            for warning in self.evidence.get("warnings") or []
        ]
        if not cards:
            return ""
        return "<h2>Warnings</h2>" + _cards(cards)

    def watch(self) -> str:
        """Show what was seen in the first minutes after going live."""
        seen = self.evidence.get("watch")
        if not seen or "watch" not in (name for name, *_ in self.stages):
            return ""  # nothing, or of an earlier run
        crossed = [(str(text), "") for text in seen.get("crossed") or []]
        minutes = _number(seen.get("minutes")) or 0
        word = "A limit was crossed." if crossed else "No limit was crossed."
        return (
            f"<h2>The first {minutes:g} minutes</h2><p>{word}</p>"
            + (_cards(crossed) if crossed else "")
            + page.table("", ("what", "seen", "limit"), map(_figure, seen.get("figures") or []))
        )

    def way_back(self) -> str:
        """Say how to undo what was done."""
        safe = "The old bot serves; nothing has to be undone."
        if self.evidence.get("serves") == "nobody":
            text, command = "No bot serves! Do what the run's last message says, then:", self._verb
        elif self.kind == "rehearsal":
            text, command = f"{safe} When you are ready for the move:", "migrate.yml"
        elif self.kind == "migration" and not self.done and not self.old_bot_serves:
            text, command = (
                "This run was cut off, and which bot serves is not written down. The run's last "
                "message says it; when nothing is at work any more, go on with:",
                "migrate.yml",
            )
        elif self.kind == "migration" and not self.done:
            text, command = f"{safe} To try again, when the cause is gone:", "migrate.yml"
        elif self.kind == "migration" and (cleaned := self.evidence.get("cleaned_at")):
            return (
                f"<h2>The way back</h2><p>The old world was removed on {escape(str(cleaned))}, so "
                "there is no way back to SQLite any more. What the database held on an earlier day "
                "can be restored:</p>"
                '<pre class="do">ansible-playbook playbooks/restore.yml</pre>'
            )
        elif self.kind == "migration":
            text, command = (
                "The old bot can serve again within seconds, with every row that was written since "
                "the move. This works until cleanup.yml removes the old world, a week after the "
                "move at the earliest:",
                "rollback.yml",
            )
        elif self.done and self.evidence.get("rollback_mode") == "partial":
            text, command = "The bot can return to the bot server:", "playbooks/return.yml"
        elif self.done:
            text, command = "The move can be made again:", "migrate.yml"
        else:
            text, command = "The new bot serves. To try again, when the cause is gone:", self._verb
        return (
            f"<h2>The way back</h2><p>{escape(text)}</p>"
            f'<pre class="do">ansible-playbook {command}</pre>'
        )

    @property
    def _verb(self) -> str:
        return "rollback.yml" if self.kind == "rollback" else "migrate.yml"

    def origin(self) -> str:
        """Say who did it, from where, and with what."""
        known: Json = {
            "run by": self.evidence.get("run_by"),
            "from": self.evidence.get("run_from"),
            "stage": self.evidence.get("stage"),
            "old PC": self.evidence.get("legacy"),
            "SQLite file": self.evidence.get("legacy_database"),
            "SHA-256 of that file": self.evidence.get("legacy_database_sha256"),
        }
        proof = self._proof()
        if proof:
            known |= {f"version of {name}": version for name, version in proof["versions"].items()}
        return "<h2>Who and what</h2>" + page.facts("", known)

    def details(self) -> str:
        """Append everything that ferry reported, for those who want to look closely."""
        if not self.reports:
            return ""
        sections = []
        for report in self.reports:
            if report not in self.own:
                sections.append('<p><span class="badge warn">from before this run</span></p>')
            sections.append(page.section(report))
        return (
            "<details><summary>Everything that ferry reported</summary>"
            + "\n".join(sections)
            + "</details>"
        )


def _verdict(tone: str, lines: Iterable[str]) -> str:
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="verdict {tone}">{text}</div>'


def _cards(cards: Iterable[tuple[str, str]]) -> str:
    items = "".join(
        f"<li><p><strong>{escape(text)}</strong></p>"
        + (f"<p>{escape(meaning)}</p>" if meaning else "")
        + "</li>"
        for text, meaning in cards
    )
    return f'<ul class="cards">{items}</ul>'


def _checksums(entry: Json) -> str:
    both = (entry["checksum_sqlite"] or "", entry["checksum_postgres"] or "")
    short = [checksum[:16] for checksum in both]
    return short[0] if entry["equal"] else " ≠ ".join(short)


def _figure(figure: Json) -> tuple[object, object, object]:
    return figure.get("what"), figure.get("seen"), figure.get("limit")
