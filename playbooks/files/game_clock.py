"""Say what the game server's stats files tell of its clock and time zone. On the bot server.

    game_clock.py LISTING

LISTING is a JSON list of lines: what ``ls -lnt`` of OpenSSH's sftp prints with ``TZ=UTC``, newest
first. The account may do no more than that. A stats file is named by the server's local time
(``2026-11-22-213005-…``) and dated by its clock, so the difference is its time zone.

Prints JSON: ``zone`` ("+0100"; empty where no file of the last months tells), ``here`` (this host's
zone at the moment of that file) and ``ahead`` (by how many seconds at least its clock is ahead of
this host's, because a file is dated in the future; else 0). Standard library only.
"""

from __future__ import annotations

import json
import re
import sys
import time
from calendar import timegm
from collections import Counter

ENTRY = re.compile(
    r"^-\S+ .* (?P<date>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d) (?:.*/)?"
    r"(?P<name>\d{4}-\d\d-\d\d-\d{6})-\S*$"
)
DAY = 86_400  # seconds
QUARTER = 900  # seconds; time zones differ by so much
SLACK = 150  # seconds between a file's name and its date, which is cut to minutes
ASKED = 9  # files


def latest(text: str, limit: float) -> int | None:
    """Return the latest moment up to a limit that has this date, which says no year."""
    year = time.gmtime(limit).tm_year
    for candidate in range(year, year - 9, -1):  # 29 February may be eight years apart
        try:
            date = timegm(time.strptime(f"{candidate} {text}", "%Y %b %d %H:%M"))
        except ValueError:  # no such day that year
            continue
        if date <= limit:
            return date
    return None


def entries(lines: list[str], now: float) -> list[tuple[int, int]]:
    """Return (name, date) of the newest files, in seconds since 1970 as though both were UTC."""
    found = []
    for line in lines:
        match = ENTRY.match(line.strip())
        if match is None:  # older files are listed with their year and without their time
            continue
        date = latest(match["date"], now + DAY)
        try:
            name = timegm(time.strptime(match["name"], "%Y-%m-%d-%H%M%S"))
        except ValueError:  # the server may name its files as it likes
            continue
        if date is None:
            continue
        found.append((name, date))
        if len(found) == ASKED:
            break
    return found


def zone(seconds: int) -> str:
    """Return an offset as text."""
    hours, minutes = divmod(abs(seconds) // 60, 60)
    return f"{'-' if seconds < 0 else '+'}{hours:02d}{minutes:02d}"


def judge(lines: list[str], now: float) -> dict[str, object]:
    """Say it."""
    found = entries(lines, now)
    told = []
    for name, date in found:
        offset = round((name - date) / QUARTER) * QUARTER
        if abs(name - date - offset) <= SLACK and abs(offset) <= DAY:
            told.append((zone(offset), zone(time.localtime(date).tm_gmtoff)))
    # One file that was copied by hand says nothing.
    (game, here), count = Counter(told).most_common(1)[0] if told else (("", ""), 0)
    if 2 * count <= len(found):
        game = here = ""
    ahead = max([0.0, *(date - now for _, date in found)])
    return {"zone": game, "here": here, "ahead": round(ahead, 1)}


if __name__ == "__main__":
    print(json.dumps(judge(json.loads(sys.argv[1]), time.time())))
