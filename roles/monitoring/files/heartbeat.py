#!/usr/bin/python3 -I
"""Beat on the other server, only while the watch works and what it said was delivered.

Usage: monitoring-heartbeat SSH-ARGUMENT…
       monitoring-heartbeat --check

Asks Prometheus whether the rules are evaluated (Watchdog fires), Alertmanager whether it has heard
of that, and tell-operator, where it is installed, whether no message waits for long. Only then is
ssh called, as the user of the tunnels, whose forced command on the other side notes the beat. Ends
with 1 and the reason otherwise; the other side tells after some minutes of silence. --check only
says, in words, and also which targets do not answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

PROMETHEUS = "http://127.0.0.1:9090/api/v1/alerts"
TARGETS = "http://127.0.0.1:9090/api/v1/targets?state=active"
ALERTMANAGER = "http://127.0.0.1:9093/api/v2/alerts"
TELL = Path("/usr/local/bin/tell-operator")
WAITS_SECONDS = 300
USER = "monitoring"


def ask(url: str) -> Any:
    """Return an answer's JSON."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a constant
        return json.loads(answer.read(5_000_000))


def problem() -> str:
    """Return why the watch does not work, or nothing."""
    try:
        fires = ask(PROMETHEUS)["data"]["alerts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"Prometheus does not answer: {error}"
    if "Watchdog" not in {one["labels"]["alertname"] for one in fires}:
        return "Prometheus evaluates no rules"
    try:
        known = ask(ALERTMANAGER)
    except (OSError, ValueError) as error:
        return f"Alertmanager does not answer: {error}"
    if "Watchdog" not in {one["labels"].get("alertname") for one in known}:
        return "Alertmanager hears nothing of Prometheus"
    if TELL.exists():
        asked = subprocess.run([TELL, "status"], capture_output=True, text=True, check=False)
        if asked.returncode != 0:
            return "tell-operator does not answer"
        late = [
            one for one in json.loads(asked.stdout)["waiting"] if one["seconds"] > WAITS_SECONDS
        ]
        if late:
            return f"{len(late)} messages are not delivered"
    return ""


def targets() -> tuple[list[str], int]:
    """Return which targets do not answer, and how many there are."""
    known = ask(TARGETS)["data"]["activeTargets"]
    away = [one["labels"]["instance"] for one in known if one["health"] != "up"]
    return away, len(known)


def check() -> int:
    """Say how it stands."""
    reason, said = problem(), ""
    if not reason:
        away, number = targets()
        reason = f"no answer from {', '.join(away)}" if away else ""
        said = f"{number} targets answer, the rules are evaluated, every message was delivered"
    print(reason or said)
    return 1 if reason else 0


def main() -> int:
    """Ask, then beat."""
    if sys.argv[1:] == ["--check"]:
        return check()
    if reason := problem():
        print(f"<4>no heartbeat: {reason}", flush=True)
        return 1
    beat = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *sys.argv[1:]]
    as_user = {"user": USER, "group": USER, "extra_groups": []} if USER else {}
    done = subprocess.run(beat, stdin=subprocess.DEVNULL, check=False, timeout=40, **as_user)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
