"""report with the evidence of an evening: the page for people who were not there."""

import json
import re

import pytest
from support.html_page import check

from ferry import evidence

NOON = 1_795_348_800.0  # 2026-11-22 12:00:00 UTC
STAGES = [
    ("preflight", -100, -40),
    ("rehearse", -40, -2),
    ("freeze", -2, 3),
    ("sync", 3, 6),
    ("verify", 6, 8),
    ("go live", 8, 12),
    ("watch", 12, 13),
]


def a_run(kind="migration", until=7, **more):
    return {
        "schema": 2,
        "kind": kind,
        "stage": "settled",
        "run_by": "alice",
        "run_from": "laptop",
        "stages": [
            {"name": name, "began_at": NOON + began, "ended_at": NOON + ended}
            for name, began, ended in STAGES[:until]
        ],
        "frozen_at": NOON,
        "live_at": NOON + 11.5,
        "downtime_seconds": 11.5,
        "warnings": [],
    } | more


def a_report(command, at=NOON + 5, tables=(("rounds", 243, True),), **more):
    """A report as ferry writes it; docs of its fields: ferry/README.md."""
    return {
        "format": 1, "command": command, "started": "2026-11-22T12:00:03.000Z",
        "finished": evidence._clock(at, "%Y-%m-%dT%H:%M:%S.000Z"), "seconds": 1.0,
        "exit_code": 0, "outcome": "equal", "messages": [], "versions": {"ferry": "1"},
        "source": None, "target": None, "hazards": [], "conversions": [], "not_carried": [],
        "structure": [], "not_compared": [], "timings": {},
        "tables": [
            {"name": name, "rows_sqlite": rows, "rows_postgres": rows if equal else rows - 1,
             "checksum_sqlite": "a" * 64, "checksum_postgres": ("a" if equal else "b") * 64,
             "equal": equal}
            for name, rows, equal in tables
        ],
    } | more  # fmt: skip


@pytest.fixture
def page_of(ferry, tmp_path):
    """What the command makes of documents: the page's text; its HTML is in ``.html``."""

    class Text(str):
        html: str

    def page_of(*documents):
        files = []
        for number, document in enumerate(documents):
            files.append(tmp_path / f"{number}.json")
            files[-1].write_text(json.dumps(document))
        out = tmp_path / "page.html"
        run = ferry("report", *files, "-o", out)
        assert run.code == 0, run
        text = Text(re.sub(r"\s+", " ", check(out)))
        text.html = out.read_text()
        return text

    return page_of


def test_a_move(page_of):
    text = page_of(
        a_run(
            warnings=[{"text": "clock 2 s ahead", "meaning": "new files are found later"}],
            watch={
                "minutes": 10,
                "crossed": [],
                "figures": [{"what": "restarts", "seen": 0, "limit": 0}],
            },
        ),
        a_report("copy", at=NOON - 10),
        a_report("sync", tables=[]),
        a_report("verify", at=NOON + 7, tables=[("rounds", 243, True), ("links", 10, True)]),
    )
    for expected in (
        "The new bot serves, on PostgreSQL.",
        "253 rows in 2 tables compared",
        "11.5 s without a bot",
        "clock 2 s ahead new files are found later",
        "12:00:08 · 4.0 s",
        "ansible-playbook rollback.yml",
        "alice",
        "No limit was crossed",
        "ferry sync",
    ):
        assert expected in text
    assert "NO" not in text.split()


def test_the_bars_show_when_no_bot_answered(page_of):
    html = page_of(a_run()).html
    whole, larger = re.findall(r'<ol class="line">.*?</ol>', html)
    assert len(re.findall("<li>", whole)) == 7
    assert len(re.findall('<i class="away"', whole)) == 4, "freeze, sync, verify, go live"
    # Freeze begins 2 s before the old bot stops: its first piece is of the other colour.
    assert re.search(
        r'freeze</span>.*?<i style="left:86.73%;width:1.77%"></i><i class="away"', whole
    )
    assert len(re.findall("<li>", larger)) == 4
    for left, width in re.findall(r"left:([\d.]+)%;width:([\d.]+)%", html):
        assert float(left) + float(width) <= 100.01


def test_a_failed_move_says_so_and_claims_nothing(page_of):
    text = page_of(
        a_run(
            until=4,
            stage="reverted",
            live_at=None,
            downtime_seconds=None,
            failure={"stage": "sync", "host": "bot-vps", "task": "t", "message": "disk full"},
        ),
        a_report("verify", at=NOON - 5000),
    )
    assert "The move did not happen. Stage “sync” failed on bot-vps: disk full" in text
    assert "No table was compared in this run" in text
    assert "from before this run" in text
    assert "compared:" not in text
    assert "To try again, when the cause is gone: ansible-playbook migrate.yml" in text
    assert "serves, on" not in text


def test_a_failed_move_shows_how_long_no_bot_answered(page_of):
    """The old bot was put back: until then the time is red, and counted."""
    text = page_of(
        a_run(
            until=4,
            live_at=None,
            downtime_seconds=None,
            put_back_at=NOON + 4,
            failure={"stage": "sync", "host": "bot-vps", "message": "disk full"},
        )
    )
    assert "4.0 s without a bot" in text
    whole, larger = re.findall(r'<ol class="line">.*?</ol>', text.html)
    assert len(re.findall('<i class="away"', whole)) == 2, "freeze and sync"
    assert larger


def test_a_long_failure_with_colours_is_a_banner_of_ten_lines(page_of):
    message = "\x1b[31m66 statements fail\x1b[0m\n" + "\n".join(f"line {n}" for n in range(66))
    failure = {"stage": "rehearse", "host": "bot-vps", "message": message}
    text = page_of(a_run(kind="rehearsal", until=2, live_at=None, failure=failure))
    assert "Rehearsal of the move" in text
    banner = re.search(r'<div class="verdict bad">.*?</div>', text.html)[0]
    assert "failed on bot-vps: 66 statements fail</p>" in banner
    assert banner.count("<p>") <= 11
    assert "line 65" in banner
    assert "line 30" not in banner
    assert "\x1b" not in text.html


def test_nobody_serves(page_of):
    text = page_of(a_run(live_at=None, failure={"message": "cut off"}, serves="nobody"))
    assert "No bot serves!" in text
    assert "Stage “?” failed on ?: cut off" in text


def test_a_run_that_was_cut_off(page_of):
    run = a_run(until=3, live_at=None, downtime_seconds=None)
    del run["stages"][0]["ended_at"]  # it ended when the next one began
    run["stages"][-1]["ended_at"] = None
    text = page_of(run)
    assert "The move did not reach its end." in text
    assert "which bot serves is not written down" in text
    assert "The old bot serves" not in text
    assert "preflight 11:58:20 · 60.0 s" in text
    assert text.count("not finished") == 1


def test_both_sides_differ(page_of):
    text = page_of(a_run(), a_report("verify", tables=[("rounds", 243, False)]))
    assert "The two sides differ" in text
    assert "aaaaaaaaaaaaaaaa ≠ bbbbbbbbbbbbbbbb" in text
    assert 'class="verdict bad"' in text.html


def test_a_rehearsal(page_of):
    text = page_of(
        a_run(kind="rehearsal", until=2, frozen_at=None, live_at=None, downtime_seconds=None,
              predicted_downtime_seconds="8"),
        a_report("copy", at=NOON),
    )  # fmt: skip
    assert "The old bot went on working meanwhile." in text
    assert "8.0 s without a bot, as rehearsed" in text
    assert "243 rows in 1 table compared" in text
    assert "without a bot, larger" not in text


def test_a_way_back(page_of):
    reverse = a_report("reverse", tables=[("rounds", 245, True), ("links", 3, True)])
    reverse["tables"][0]["since_baseline"] = {"new": 2, "changed": 1, "deleted": 0}
    text = page_of(a_run(kind="rollback"), reverse)
    assert "The old bot serves again" in text
    assert "What came after the move, and was brought back table new changed deleted rounds" in text


@pytest.mark.parametrize(
    ("mode", "serves", "undo"),
    [
        ("partial", "from the old PC, on PostgreSQL", "playbooks/return.yml"),
        ("restore", "as it was before the move", "ansible-playbook migrate.yml"),
    ],
)
def test_another_way_back(page_of, mode, serves, undo):
    text = page_of(a_run(kind="rollback", rollback_mode=mode))
    assert serves in text
    assert undo in text


def test_the_old_world_is_gone(page_of):
    text = page_of(a_run(cleaned_at="2026-12-01T10:00:00+00:00"))
    assert "removed on 2026-12-01T10:00:00+00:00" in text
    assert "playbooks/restore.yml" in text


def test_the_watch_of_an_earlier_run_is_not_shown(page_of):
    seen = {"minutes": 10, "crossed": [], "figures": []}
    assert "The first 10 minutes" in page_of(a_run(watch=seen))
    assert "The first 10 minutes" not in page_of(a_run(watch=seen, until=5, live_at=None))


def test_only_the_kind_is_known(page_of):
    assert "The move did not happen." in page_of({"schema": 2, "kind": "migration"})


EVIL = "</title><script>alert('1')</script>\"'><img src=x onerror=1>&amp;"


def poison(value):
    """The same document with every text made hostile, but for what the renderer chooses by."""
    if isinstance(value, dict):
        keep = ("kind", "command", "finished", "level")
        return {key: one if key in keep else poison(one) for key, one in value.items()}
    if isinstance(value, list):
        return [poison(one) for one in value]
    return EVIL if isinstance(value, str) else value


def test_hostile_texts_stay_texts(page_of):
    run = a_run(
        warnings=[{"text": "t", "meaning": "m"}],
        failure={"stage": "s", "host": "h", "message": "m"},
        watch={"minutes": 1, "crossed": ["c"], "figures": [{"what": "w", "seen": "s", "limit": 1}]},
        cleaned_at="c", legacy="l", legacy_database="d", legacy_database_sha256="s", serves="s",
    )  # fmt: skip
    hazard = {"table": "t", "column": "c", "code": "h", "count": 1, "remedy": "r",
              "samples": [{"row": "r", "value": "v"}]}  # fmt: skip
    report = a_report("verify", hazards=[hazard], messages=[{"level": "error", "text": "t"}])
    for document in (run, run | {"failure": None}):
        text = page_of(poison(document), poison(report))
        assert "<script" not in text.html
        assert "<img" not in text.html
        assert text.count("<script>alert('1')") >= 8, "shown as text, not dropped"


def test_what_is_no_evidence_is_a_usage_error(ferry, tmp_path):
    out = tmp_path / "page.html"
    for documents in (
        [a_run(), a_run()],
        [a_run(kind="picnic")],
        [a_run(), {"neither": 1}],
        [a_run(stages=[1])],
    ):
        files = []
        for number, document in enumerate(documents):
            files.append(tmp_path / f"{number}.json")
            files[-1].write_text(json.dumps(document))
        assert ferry("report", *files, "-o", out).code == 2
    assert not out.exists()


def test_with_the_reports_of_a_real_move(ferry, make_sqlite, database, page_of):
    source = make_sqlite('CREATE TABLE "<b>t&" (id INTEGER PRIMARY KEY, v TEXT);'
                         "INSERT INTO \"<b>t&\" VALUES (1, '<i>')")  # fmt: skip
    reports = [
        ferry("inspect", source).report,
        ferry("copy", source, database.dsn).report,
        ferry("sync", source, database.dsn).report,
        ferry("verify", source, database.dsn).report,
    ]
    text = page_of(a_run(), *reports)
    assert "1 row in 1 table compared: both sides hold the same" in text
    assert "<b>t&" in text
