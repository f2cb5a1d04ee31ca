#!/usr/bin/python3 -I
"""Tell when the watch on the other server has fallen silent, and when it is back.

Usage: monitoring-watch SETTINGS.json

SETTINGS: ``beat`` (the file that the other side touches), ``since`` (when this began to look),
``motd``, ``seconds`` (of silence that are too many), ``source`` (name of the other server),
``command`` (shell command that gets a message on its standard input) and ``url`` (asked while all
is well: somebody outside who tells when this server is silent, too; may be empty).
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any


def tell(command: str, message: str) -> bool:
    """Hand a message over."""
    done = subprocess.run(["/bin/sh", "-c", command], input=message, text=True, check=False)
    return done.returncode == 0


def silence(settings: dict[str, Any]) -> float:
    """Return for how many seconds nothing was heard; since the beginning where nothing ever was."""
    since = Path(settings["since"])
    if not since.exists():
        since.write_text("")
    beat = Path(settings["beat"])
    return time.time() - (beat if beat.exists() else since).stat().st_mtime


def main(settings: dict[str, Any]) -> None:
    """Look once."""
    seconds, motd = silence(settings), Path(settings["motd"])
    told, source = motd.exists(), settings["source"]
    host = socket.gethostname()
    if seconds > settings["seconds"]:
        print(f"<4>{source} has been silent for {seconds:.0f} s", flush=True)
        if told:
            return
        message = (
            f"ALERT from {host}, MonitoringSilent: {source} has not said for {seconds / 60:.0f} "
            "minutes that it watches. It is down, cannot be reached, or its monitoring does not "
            f"work.\n  do: ssh to {source}; sudo systemctl status prometheus "
            "prometheus-alertmanager monitoring-heartbeat; else the provider's console"
        )
        motd.parent.mkdir(exist_ok=True)
        if tell(settings["command"], message):
            motd.write_text(message.splitlines()[0] + "\n")
        return
    if told and tell(settings["command"], f"OVER {host}, MonitoringSilent: {source} watches again"):
        motd.unlink()
    if settings["url"]:
        # Its address is as good as a password, and is in no message.
        try:
            urllib.request.urlopen(settings["url"], timeout=10).close()  # noqa: S310 - the owner's
        except (OSError, ValueError) as error:
            print(f"<4>the outside watch was not reached: {type(error).__name__}", flush=True)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
