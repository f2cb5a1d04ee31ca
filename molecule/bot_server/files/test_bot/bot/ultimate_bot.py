"""A bot to test the role with: a real process that writes its state and can be told to go wrong."""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from dotenv import dotenv_values
from helper import VERSION

MODE = os.environ.get("BOT_MODE", "well")
ADDRESSES = ["169.254.169.254", "10.1.2.3", "172.30.3.10", "172.30.3.11", "172.30.3.12"]
EXTENSIONS = ["cogs.greeting"]  # named in a text only, as discord.py's load_extension takes it


def notify(message: str) -> None:
    """Tell systemd, where it listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), address.replace("@", "\0", 1))


def may_write(path: str) -> bool:
    """Try to make a file."""
    try:
        Path(path).write_text("")
    except OSError:
        return False
    return True


def reach(address: str) -> str:
    """Try to send something, and to reach the machine's sshd."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            out.sendto(b"", (address, 53))
        with socket.create_connection((address, 22), timeout=0.5):
            return "connected"
    except OSError as error:
        return type(error).__name__


def main() -> None:
    """Leave traces for the tests, then wait or go wrong."""
    settings = len(dotenv_values(".env"))
    print(f"version {VERSION}, mode {MODE}, {settings} settings from a file")
    with Path("logs/bot.log").open("a") as log:
        log.write(f"start {time.time()} version {VERSION}\n")
    Path("local_stats/seen.txt").write_text("a file from the game server\n")
    tried = ["etlegacy_production.db", "bot/x", "/etc/testbot/x", "/opt/testbot/x", "/root/x"]
    tried += ["/tmp/x", "/var/tmp/x", "/var/lib/x", "/var/lib/testbot/matplotlib/x"]
    tried += ["temp/x", "/srv/open/x"]
    traces = {
        "environment": dict(os.environ),
        "may_write": {path: may_write(path) for path in tried},
        "reached": {address: reach(address) for address in ADDRESSES},
        "devices": sorted(path.name for path in Path("/dev").iterdir()),
        "processes": [path.name for path in Path("/proc").iterdir() if path.name.isdigit()],
    }
    Path("temp/traces.json").write_text(json.dumps(traces))
    if MODE == "exit-zero":
        print("no such token:", os.environ.get("BOT_TOKEN"))
        sys.exit(0)
    if MODE == "never-ready":
        time.sleep(3600)
    notify("READY=1")
    if MODE == "crash-later":
        time.sleep(2)
        raise SystemExit(f"lost the gateway, the token was {os.environ.get('BOT_TOKEN')}")
    signal.pause()


if __name__ == "__main__":
    main()
