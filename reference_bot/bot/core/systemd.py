"""Telling systemd how the service is doing (the sd_notify protocol)."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger("systemd")


def notify(message: str) -> None:
    """Send ``READY=1``, ``STATUS=...`` or the like; nothing where systemd did not ask for it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux's abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(address)
            channel.send(message.encode())
    except OSError as error:
        log.warning("NOTIFY_SOCKET=%s: %s", os.environ["NOTIFY_SOCKET"], error)
