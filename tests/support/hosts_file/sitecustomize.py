"""A hosts file for one process, with ports: ``TEST_HOSTS="discord.com=127.0.0.1:8443 ..."``.

Tests may neither write /etc/hosts nor listen on port 443. Python imports a module of this name at
its start when its directory is on PYTHONPATH.
"""

import os
import socket

_HOSTS = dict(entry.split("=") for entry in os.environ.get("TEST_HOSTS", "").split())
_getaddrinfo = socket.getaddrinfo


def _with_hosts(host: str, port: int, *arguments: object, **options: object) -> list[tuple]:
    if host in _HOSTS:
        host, _, port = _HOSTS[host].partition(":")
    return _getaddrinfo(host, port, *arguments, **options)


socket.getaddrinfo = _with_hosts
