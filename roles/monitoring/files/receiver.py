#!/usr/bin/python3 -I
"""Turn Alertmanager's notifications into messages for the operator.

Usage: monitoring-receiver COMMAND

Listens on 127.0.0.1:9096. Each notification becomes one message on the standard input of COMMAND
(a shell command, as in the other alerts of this repository); 200 only when that has taken it, so
that Alertmanager tries again otherwise. What fires is written for whoever logs in
(/run/motd.d/monitoring), too. What a notification says is data: one line a text, no controls.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

PORT = 9096
ALERTS = "http://127.0.0.1:9093/api/v2/alerts?silenced=false&inhibited=false"
MOTD = Path("/run/motd.d/monitoring")
LARGEST = 1_000_000
MOST = 12


def plain(text: object) -> str:
    """Return a text as one line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())[:300]


def line_of(alert: dict[str, Any]) -> str:
    """Return what is wrong, where."""
    labels, notes = alert.get("labels", {}), alert.get("annotations", {})
    where, name = plain(labels.get("instance", "?")), plain(labels.get("alertname", "?"))
    return f"{where}, {name}: {plain(notes.get('summary', ''))}"


def message_of(notification: dict[str, Any]) -> str:
    """Return the message: what fires with what to do, then what is over."""
    alerts = notification.get("alerts", [])
    lines = []
    for alert in alerts[:MOST]:
        if alert.get("status") == "resolved":
            lines.append(f"OVER {line_of(alert)}")
            continue
        notes = alert.get("annotations", {})
        word = "ALERT" if alert.get("labels", {}).get("severity") == "critical" else "WARNING"
        lines.append(f"{word} from {line_of(alert)}")
        lines += [f"  do: {plain(notes['do'])}"] if notes.get("do") else []
        lines += [f"  more: {plain(notes['runbook'])}"] if notes.get("runbook") else []
    if len(alerts) > MOST:
        lines.append(f"… and {len(alerts) - MOST} more")
    return "\n".join(lines)


def note_for_the_login() -> None:
    """Write what fires now for whoever logs in."""
    try:
        with urllib.request.urlopen(ALERTS, timeout=5) as answer:
            alerts = json.loads(answer.read(LARGEST))
    except (OSError, ValueError):
        return
    hidden = ("none", None)
    lines = [
        f"ALERT from {line_of(alert)}"
        for alert in alerts
        if alert.get("labels", {}).get("severity") not in hidden
    ]
    MOTD.parent.mkdir(exist_ok=True)
    if lines:
        new = MOTD.with_name(".monitoring.new")
        new.write_text("\n".join(sorted(lines)) + "\n")
        new.replace(MOTD)
    else:
        MOTD.unlink(missing_ok=True)


class Handler(BaseHTTPRequestHandler):
    """One notification."""

    shell_command = ""

    def do_POST(self) -> None:
        """Hand it over."""
        try:
            length = int(self.headers.get("Content-Length", ""))
            if not 0 < length <= LARGEST:
                raise ValueError(length)
            message = message_of(json.loads(self.rfile.read(length)))
            done = subprocess.run(
                ["/bin/sh", "-c", self.shell_command],
                input=message, text=True, timeout=30, check=False, capture_output=True,
            )  # fmt: skip
            status = 200 if done.returncode == 0 else 503
            if status != 200:
                print(f"<3>the command ended with {done.returncode}: {message}", flush=True)
        except (ValueError, AttributeError, TypeError):
            status = 400
        except (OSError, subprocess.SubprocessError) as error:
            print(f"<3>not handed over: {error}", flush=True)
            status = 503
        note_for_the_login()
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Alertmanager logs what fails."""


def main() -> None:
    """Listen for ever."""
    Handler.shell_command = sys.argv[1]
    Handler.timeout = 15
    HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()
