"""Look how the new bot does, and judge it with what the database server has said. As root there.

Usage: watch_bot.py SETTINGS SAID

Both are JSON. SETTINGS: ``unit``, ``since`` (of the journal, seconds since 1970), ``errors`` (a
regular expression: these lines are errors), ``files`` (a glob: what the bot fetched from the game
server), ``grace`` (seconds that reading such a file may take) and ``limits``. SAID: ``first`` and
``now`` are what watch_database.py printed at the beginning and now, ``{"error": "…"}`` where it
could not; ``before`` is what this program printed the last time, or ``{}``.

    {"figures": [{"what": "restarts of the bot", "seen": 0, "limit": 0}, …],
     "over": ["sessions_least"], "crossed": ["…"]}

``crossed`` are sentences. What can come and go by itself (sessions, a long statement, a server that
does not answer) counts when it was over its limit the last time too. Standard library only.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

PASSING = ("database", "sessions_least", "sessions_most", "running_seconds")


def run(*command: str) -> str:
    """Return what a command prints; raises subprocess.CalledProcessError."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=True)
    return done.stdout


def look_at_bot(settings: dict) -> dict:
    """Ask systemd, the journal and the folder of stats files."""
    shown = run("systemctl", "show", "--property=ActiveState,NRestarts", settings["unit"])
    unit = dict(line.split("=", 1) for line in shown.splitlines())
    journal = run(
        "journalctl", "--unit", settings["unit"], "--since", f"@{int(settings['since'])}",
        "--output=cat", "--no-pager", "--quiet",
    )  # fmt: skip
    return {
        "state": unit["ActiveState"],
        "restarts": int(unit["NRestarts"]),
        "errors": errors_in(journal, settings["errors"]),
    }


def errors_in(journal: str, pattern: str) -> list[str]:
    """Return the lines that are errors; for a traceback its last one, which says what went wrong.

    A traceback below a line that is an error already, as Python's logging writes it, is part of
    that one, and one that another exception led to is part of the same.
    """
    wrong = re.compile(pattern)
    errors: list[str] = []
    head = ""  # the line above a traceback, where that is an error itself
    counts = inside = follows = False
    for line in journal.splitlines():
        if line.startswith("Traceback "):
            if not follows:
                counts = bool(head or wrong.search(line))
                if counts and not head:
                    errors.append(line)
            inside, follows = True, False
        elif inside:
            if line and not line[0].isspace():
                inside = False
                if counts:
                    errors[-1] = f"{head[:80]} {line}".strip()
        elif line.startswith(("During handling of the above", "The above exception was")):
            follows = True
        elif line:
            head = line if wrong.search(line) else ""
            follows = False
            errors += [head] if head else []
    return errors


def count_files(pattern: str, begin: float, end: float) -> int:
    """Return how many files came between two moments."""
    files = Path(pattern).parent.glob(Path(pattern).name)
    return sum(begin < file.stat().st_mtime <= end for file in files)


def judge(settings: dict, bot: dict, said: dict, now: float) -> dict:
    """Lay what was seen beside the limits."""
    limits, first, database = settings["limits"], said["first"], said["now"]
    figures, over = [], {}

    def compare(name: str, what: str, seen: float, text: str, *, least: bool = False) -> None:
        limit = limits[name]
        figures.append({"what": what, "seen": seen, "limit": limit})
        if seen < limit if least else seen > limit:
            over[name] = text

    if bot["state"] != "active":
        over["state"] = f"The bot's unit is {bot['state']}."
    seen = bot["restarts"]
    compare("restarts", "restarts of the bot", seen, f"The bot was restarted {seen} times.")
    errors = bot["errors"]
    text = f"The bot's journal has {len(errors)} errors, the last one: {''.join(errors[-1:])[:200]}"
    compare("errors", "errors in the bot's journal", len(errors), text)
    if "error" in database:
        over["database"] = f"The database could not be asked: {database['error']}"
    else:
        seen = database["sessions"]
        text = f"The bot has {seen} sessions at the database."
        compare("sessions_least", "sessions of the bot, at least", seen, text, least=True)
        compare("sessions_most", "sessions of the bot, at most", seen, text)
        seen = database["running_seconds"]
        text = f"A statement has been working for {seen} s: {database['running']}"
        compare("running_seconds", "seconds of the longest statement", seen, text)
        seen = database["statement_ms"]
        text = f"A statement takes {seen} ms on average: {database['statement']}"
        compare("statement_ms", "milliseconds of the slowest statement, on average", seen, text)
    if None not in (first.get("rows"), database.get("rows")):
        came = count_files(settings["files"], first["at"], now - settings["grace"])
        seen = max(0, came - (database["rows"] - first["rows"]))
        text = f"{seen} of {came} new stats files are not in the database."
        compare("unread", "new stats files that are not in the database", seen, text)
    last = said["before"].get("over", [])
    crossed = [text for name, text in over.items() if name not in PASSING or name in last]
    return {"figures": figures, "over": sorted(over), "crossed": crossed}


def main() -> None:
    """Look, judge and print."""
    settings, said = map(json.loads, sys.argv[1:])
    print(json.dumps(judge(settings, look_at_bot(settings), said, time.time())))


if __name__ == "__main__":
    main()
