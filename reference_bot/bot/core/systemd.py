"""Telling systemd how the service is doing (the sd_notify protocol)."""

from __future__ import annotations

import os
import socket


def notify(message: str) -> None:
    """Send ``READY=1``, ``STATUS=...`` or the like; does nothing where systemd did not ask for it.

    Raises:
        OSError: ``NOTIFY_SOCKET`` is set, but nobody listens there.

    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect(address)
        channel.send(message.encode())
