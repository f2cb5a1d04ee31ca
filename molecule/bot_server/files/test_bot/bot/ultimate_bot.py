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


def notify(message: str) -> None:
    address = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(message.encode(), address.replace("@", "\0", 1))


def main() -> None:
    print(f"version {VERSION}, mode {MODE}, {len(dotenv_values('.env'))} settings from a file")
    Path("logs/bot.log").open("a").write(f"start {time.time()} {VERSION}\n")
    Path("local_stats/seen.txt").write_text("a file from the game server\n")
    Path("temp/environment.json").write_text(json.dumps(dict(os.environ)))
    if MODE == "exit-zero":
        print("no token, token is", os.environ.get("BOT_TOKEN"))
        sys.exit(0)
    if MODE == "never-ready":
        time.sleep(3600)
    if "NOTIFY_SOCKET" in os.environ:
        notify("READY=1")
    if MODE == "crash-later":
        time.sleep(3)
        raise SystemExit(f"lost the gateway, token was {os.environ.get('BOT_TOKEN')}")
    signal.pause()


if __name__ == "__main__":
    main()
