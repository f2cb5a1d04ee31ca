"""watch_bot.py and watch_database.py: what is seen after going live, beside the limits."""

import os
import runpy
import time
from pathlib import Path

import pytest
import yaml

FILES = Path(__file__).resolve().parents[2] / "playbooks" / "files"
WATCH = runpy.run_path(str(FILES / "watch_bot.py"))
DATABASE = runpy.run_path(str(FILES / "watch_database.py"))
LIMITS = {
    "restarts": 0, "errors": 2, "sessions_least": 1, "sessions_most": 40,
    "running_seconds": 60.0, "statement_ms": 500.0, "unread": 0,
}  # fmt: skip
CALM = {"at": 1000.0, "sessions": 5, "running_seconds": 0.1, "running": "", "statement_ms": 12.5,
        "statement": "SELECT 1", "rows": 243}  # fmt: skip
WELL = {"state": "active", "restarts": 0, "errors": []}


@pytest.fixture
def judge(tmp_path):
    def judge(bot=WELL, now=CALM, before=(), first=CALM):
        settings = {"files": f"{tmp_path}/*-round-[12].txt", "grace": 90.0, "limits": LIMITS}
        said = {"first": first, "now": now, "before": {"over": list(before)}}
        return WATCH["judge"](settings, bot, said, time.time())

    return judge


def test_all_is_well(judge):
    found = judge()
    assert (found["over"], found["crossed"]) == ([], [])
    seen = {figure["what"]: figure["seen"] for figure in found["figures"]}
    assert seen["milliseconds of the slowest statement, on average"] == 12.5
    assert len(found["figures"]) == 7


@pytest.mark.parametrize(
    ("bot", "now", "sentence"),
    [
        ({"state": "failed"}, {}, "The bot's unit is failed."),
        ({"restarts": 2}, {}, "The bot was restarted 2 times."),
        ({"errors": ["a", "b", "ERROR c"]}, {}, "has 3 errors, the last one: ERROR c"),
        ({}, {"statement_ms": 812.0}, "takes 812.0 ms on average: SELECT 1"),
    ],
)
def test_what_does_not_go_away_counts_at_once(judge, bot, now, sentence):
    found = judge(WELL | bot, CALM | now)
    assert len(found["crossed"]) == 1
    assert sentence in found["crossed"][0]


JOURNAL = """\
INFO logged in
ERROR import of a.txt failed
Traceback (most recent call last):
  File "bot.py", line 7, in read
    int("x")
ValueError: invalid literal
INFO goes on
Traceback (most recent call last):
  File "bot.py", line 9, in play
    raise KeyError("first")
KeyError: 'first'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "bot.py", line 11, in play
    connect()
OSError: no route to host
CRITICAL it ends
"""


def test_a_traceback_is_one_error_and_told_by_its_last_line():
    pattern = yaml.safe_load((FILES.parents[1] / "group_vars/all/watch.yml").read_text())
    assert WATCH["errors_in"](JOURNAL, pattern["migrate_watch_error_lines"]) == [
        "ERROR import of a.txt failed ValueError: invalid literal",
        "OSError: no route to host",
        "CRITICAL it ends",
    ]
    assert WATCH["errors_in"](JOURNAL, "CRITICAL") == ["CRITICAL it ends"]


@pytest.mark.parametrize(
    "now",
    [
        CALM | {"sessions": 0},
        CALM | {"sessions": 41},
        CALM | {"running_seconds": 61.0, "running": "SELECT 2"},
        {"error": "no route to host"},
    ],
)
def test_what_may_pass_counts_the_second_time(judge, now):
    once = judge(now=now)
    assert once["crossed"] == []
    assert len(once["over"]) == 1
    assert len(judge(now=now, before=once["over"])["crossed"]) == 1
    assert judge(before=once["over"])["over"] == []


def test_a_stats_file_that_is_not_read_in(judge, tmp_path):
    def fetched(name, seconds_ago):
        file = tmp_path / name
        file.touch()
        os.utime(file, (time.time() - seconds_ago,) * 2)

    first = CALM | {"at": time.time() - 600}
    fetched("old-round-1.txt", 700)  # there before the first look
    fetched("new-round-1.txt", 100)
    fetched("new-round-2.txt", 100)
    fetched("fresh-round-1.txt", 10)  # may still be at work on it
    fetched("new-endstats.txt", 100)
    assert judge(first=first, now=CALM | {"rows": 245})["over"] == []
    [sentence] = judge(first=first, now=CALM | {"rows": 244})["crossed"]
    assert sentence == "1 of 2 new stats files are not in the database."
    for nothing in ({"error": "away"}, CALM | {"rows": None}):
        assert judge(first=nothing, now=CALM | {"rows": 244})["over"] == []


def test_what_an_earlier_evening_left_in_the_statistics_is_not_this_ones():
    def ran(**statements):
        return [
            {"id": name, "calls": calls, "ms": ms, "query": name}
            for name, (calls, ms) in statements.items()
        ]

    slowest = DATABASE["slowest"]
    then = {"import": [100, 90_000.0], "lookup": [10, 20.0]}
    nothing_new = ran(**{"import": (100, 90_000.0), "lookup": (10, 20.0)})
    assert slowest(nothing_new, then) == {"statement_ms": 0, "statement": ""}
    now = ran(**{"import": (104, 90_100.0), "lookup": (20, 60.0), "new": (2, 9_000.0)})
    assert slowest(now, then) == {"statement_ms": 25.0, "statement": "import"}
    # Fast for a year, slow tonight: an average over both would hide it.
    year = {"lookup": [1_000_000, 1_000_000.0]}
    tonight = slowest(ran(lookup=(1_000_010, 1_020_000.0)), year)
    assert tonight == {"statement_ms": 2000.0, "statement": "lookup"}


def test_statistics_that_began_anew_count_from_there():
    found = DATABASE["slowest"](
        [{"id": "a", "calls": 4, "ms": 40.0, "query": "SELECT 1"}], {"a": [900, 9_000.0]}
    )
    assert found == {"statement_ms": 10.0, "statement": "SELECT 1"}
