"""A bot as a watch sees one: it hears Discord each second and keeps a session in the database."""

import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import psycopg


def notify(message: str) -> None:
    """Tell systemd, where it listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), address.replace("@", "\0", 1))


def hear() -> None:
    """Hear something of Discord each second, over one connection."""
    discord = http.client.HTTPSConnection("discord.com", timeout=300)
    while True:
        discord.request("GET", "/api/v10/gateway")
        discord.getresponse().read()
        time.sleep(1)


def ask() -> None:
    """Ask the database each second, in one session."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        while True:
            session.execute("SELECT 1")
            time.sleep(1)


def for_ever(work: Callable[[], None]) -> None:
    """Begin again whenever it breaks; that is no error yet."""
    while True:
        try:
            work()
        except (OSError, http.client.HTTPException, psycopg.Error) as error:
            print(f"WARNING {work.__name__}: {type(error).__name__}")
        time.sleep(1)


def complain(*_: object) -> None:
    """Write what a bot writes that cannot do its work."""
    for number in range(6):
        print(f"ERROR bot: statement {number} failed: relation does not exist")


def main() -> None:
    """Run until it is stopped."""
    signal.signal(signal.SIGUSR1, complain)
    for work in (hear, ask):
        threading.Thread(target=for_ever, args=(work,), daemon=True).start()
    notify("READY=1")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
