"""playbooks/files/game_clock.py: clock and zone of a game server that shows no more than files."""

import json
import os
import runpy
import subprocess
import sys
import time
from calendar import timegm
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "playbooks/files/game_clock.py"
HOUR = 3600


def line(dated, named, *, old=False):
    """Return a line of ``ls -lnt``: dated in UTC, named by the server's local time."""
    date = time.strftime("%b %e  %Y" if old else "%b %e %H:%M", time.gmtime(dated))
    name = time.strftime("%Y-%m-%d-%H%M%S", time.gmtime(named))
    return f"-rw-r--r--    1 0        0            5170 {date} {name}-supply-round-1.txt"


def judge(lines, now):
    return runpy.run_path(str(PROGRAM))["judge"](lines, now)


@pytest.mark.parametrize("date", ["2026-12-31 23:55", "2027-01-01 00:01", "2028-02-29 23:59"])
def test_the_turn_of_the_year_and_a_leap_day_are_days_as_any(date):
    now = timegm(time.strptime(date, "%Y-%m-%d %H:%M"))
    files = [now + 600, *(now - hours * HOUR for hours in range(12))]
    said = judge([line(at, at + 2 * HOUR) for at in files], now)
    assert (said["zone"], said["ahead"]) == ("+0200", 600)


def test_a_leap_day_is_of_the_year_that_had_one():
    now = timegm((2028, 3, 1, 0, 30, 0))
    files = [now - hours * HOUR for hours in range(3)]
    assert judge([line(at, at) for at in files], now)["zone"] == "+0000"


@pytest.mark.parametrize("named", ["2026-13-01-000000", "2026-02-30-250000", "0000-00-00-999999"])
def test_a_server_that_names_files_by_no_date_ends_nothing(named):
    now = timegm((2028, 3, 1, 0, 30, 0))
    files = [line(now - hours * HOUR, now - hours * HOUR) for hours in range(3)]
    hostile = line(now, now).replace("2028-03-01-003000", named)
    assert named in hostile
    assert judge([hostile, *files], now)["zone"] == "+0000"


def ask(lines, zone="UTC"):
    done = subprocess.run(
        [sys.executable, PROGRAM, json.dumps(["sftp> cd /stats", "sftp> ls -lnt", *lines])],
        env={**os.environ, "TZ": zone},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("offset", "zone"), [(0, "+0000"), (2, "+0200"), (-5, "-0500"), (5.75, "+0545")]
)
def test_the_zone_is_the_difference_between_name_and_date(offset, zone):
    now = time.time() - 5
    files = [now - hours * HOUR for hours in range(12)]
    said = ask([line(at, at + offset * HOUR - 20) for at in files])
    assert said == {"zone": zone, "here": "+0000", "ahead": 0}


def test_the_zone_here_is_that_of_the_day_of_the_file():
    at = time.time() - 5
    said = ask([line(at, at)], zone="XXX-3")
    assert (said["zone"], said["here"]) == ("+0000", "+0300")


def test_files_that_were_copied_say_nothing():
    now = time.time() - 5
    copied = [line(now, now - 100 * HOUR - minutes * 487) for minutes in range(9)]
    assert ask(copied)["zone"] == ""


def test_old_files_say_nothing_and_an_empty_folder_neither():
    old = time.time() - 300 * 24 * HOUR
    for lines in ([line(old, old + HOUR, old=True)], [], ["d 2026", "drwxr-xr-x 2 0 0 4096 x"]):
        assert ask(lines) == {"zone": "", "here": "", "ahead": 0}


def test_a_file_of_the_future_shows_a_clock_that_is_ahead():
    ahead = time.time() + 600
    said = ask([line(ahead, ahead)])
    assert 500 < said["ahead"] <= 600
    assert said["zone"] == "+0000"
