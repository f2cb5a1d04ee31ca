"""Start or watch a service and say whether it is healthy. Runs on the bot's host as root.

    health_gate.py SETTINGS

SETTINGS is JSON: ``unit``, ``action`` (``restart``, ``start`` or empty), ``seconds`` (how long it
has to run as one process), ``timeout`` (seconds until it has to be active).

Healthy is: active (with ``Type=notify`` that means READY=1 was received), and then for ``seconds``
the same main process and the same restart counter. "Active" alone proves nothing, since a program
that ends after a moment is active again and again.

Prints JSON: ``healthy``, ``reason`` (a sentence when it is not), ``pid``, ``ready`` (seconds until
it was active), ``serves_since`` (how many seconds ago it said READY=1; 0 where a unit says nothing
of the kind, so that only the watched time proves it), ``waited`` (seconds in all), ``journal``
(text: the unit's last lines, those since this start). The exit code is 0 in both cases.
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import time

PROPERTIES = (
    *("ActiveState", "SubState", "MainPID", "NRestarts", "Result", "ExecMainStatus", "Type"),
    "ActiveEnterTimestampMonotonic",
)
JOURNAL_LINES = 30
POLL = 0.25  # seconds


def run(*argv: str) -> str:
    """Return what a program writes to its standard output, whatever its exit code is."""
    return subprocess.run(
        argv, check=False, capture_output=True, text=True, errors="replace"
    ).stdout


def show(unit: str) -> dict[str, str]:
    """Return the properties of the unit that the judgement needs."""
    out = run("systemctl", "show", unit, "--property", ",".join(PROPERTIES))
    return dict(line.split("=", 1) for line in out.splitlines() if "=" in line)


def last_lines(unit: str, since: float | None) -> str:
    """Return the unit's last lines, of those that were written since then if that is given.

    With ``--since``, journalctl's ``--lines`` means the first ones (up to systemd 253 at least), so
    what is too much is dropped here.
    """
    bound = ["--lines", str(JOURNAL_LINES)] if since is None else ["--since", f"@{int(since)}"]
    argv = ["journalctl", "--unit", unit, "--output", "cat", "--no-pager", *bound]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, errors="replace") as journal:
        kept = collections.deque(journal.stdout or (), maxlen=JOURNAL_LINES)
    return "".join(kept).strip()


def act(unit: str, action: str) -> None:
    """Start or restart the unit and return when systemd has begun with it."""
    run("systemctl", "daemon-reload")
    # A unit that ran into its start limit refuses to start until that is forgotten.
    run("systemctl", "reset-failed", unit)
    before = run("systemctl", "show", unit, "--property", "InvocationID")
    run("systemctl", "--no-block", action, unit)
    # Until then the old process is still there and would be taken for the new one. The stop timeout
    # of a unit is 90 seconds at most here; a start that is refused never begins.
    deadline = time.monotonic() + 100
    while run("systemctl", "show", unit, "--property", "InvocationID") == before:
        if not run("systemctl", "list-jobs", "--no-legend", unit) or time.monotonic() > deadline:
            return
        time.sleep(POLL)


def ended(now: dict[str, str]) -> str:
    """Describe how the program ended, in a few words."""
    return f"result {now['Result']}, exit status {now['ExecMainStatus']}"


def judge(unit: str, seconds: float, timeout: float) -> tuple[str, str]:
    """Watch the unit.

    Returns:
        What is wrong (empty if nothing is) and the main process's id.

    """
    first = show(unit)
    deadline = time.monotonic() + timeout
    now = first
    while now["ActiveState"] != "active":
        if now["ActiveState"] in ("failed", "inactive"):
            return f"is {now['ActiveState']}: {ended(now)}", now["MainPID"]
        if now["SubState"] == "auto-restart" or now["NRestarts"] != first["NRestarts"]:
            return f"ended while it was starting: {ended(now)}", now["MainPID"]
        if time.monotonic() > deadline:
            wish = "say READY=1" if now["Type"].startswith("notify") else "become active"
            return f"did not {wish} within {timeout:g} seconds", now["MainPID"]
        time.sleep(POLL)
        now = show(unit)
    main, restarts = now["MainPID"], now["NRestarts"]
    until = time.monotonic() + seconds
    begin = time.monotonic()
    while time.monotonic() < until:
        time.sleep(min(POLL, max(0.0, until - time.monotonic())))
        now = show(unit)
        if (now["ActiveState"], now["MainPID"], now["NRestarts"]) != ("active", main, restarts):
            after = time.monotonic() - begin
            return f"did not stay up: it ended after {after:.1f} seconds ({ended(now)})", main
    return "", main


def main() -> None:
    """Read the settings, act, judge and print."""
    settings = json.loads(sys.argv[1])
    unit = settings["unit"]
    begin = time.time()
    started = time.monotonic()
    if settings["action"]:
        act(unit, settings["action"])
    reason, pid = judge(unit, float(settings["seconds"]), float(settings["timeout"]))
    waited = time.monotonic() - started
    now = show(unit)
    serves_since = 0.0
    if now["Type"].startswith("notify"):
        serves_since = time.monotonic() - int(now["ActiveEnterTimestampMonotonic"]) / 1e6
    verdict = {
        "healthy": not reason,
        "reason": reason,
        "pid": pid,
        "ready": round(waited - float(settings["seconds"]), 1),
        "serves_since": round(serves_since, 1),
        "waited": round(waited, 1),
        "journal": last_lines(unit, begin if settings["action"] else None),
    }
    print(json.dumps(verdict))


if __name__ == "__main__":
    main()
