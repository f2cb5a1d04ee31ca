"""Say by which of its TCP connections a service speaks to another host. As root on the bot server.

    bot_connections.py SETTINGS

SETTINGS is JSON: ``unit``, ``pid`` (of its main process), ``address`` (an IP address) and ``port``
of the other side, ``patience`` (seconds to wait for a connection).

Prints JSON: ``ports`` (the connections' local ports, in order; empty if there were none within
the patience) and ``alive`` (the unit still runs with that main process; if not, nothing is waited
for). Standard library only.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
import time
from pathlib import Path

ESTABLISHED = "01"
POLL = 0.25  # seconds


def is_alive(unit: str, pid: str) -> bool:
    """Say whether the unit runs, and with this main process."""
    shown = subprocess.run(
        ["systemctl", "show", unit, "--property=ActiveState,MainPID"],
        check=False,
        capture_output=True,
        text=True,
    ).stdout
    return set(shown.split()) == {"ActiveState=active", f"MainPID={pid}"}


def processes(unit: str) -> list[str]:
    """Return the ids of the unit's processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            groups = path.read_text().splitlines()
        except OSError:  # it has ended meanwhile
            continue
        if any(group.endswith(f"/{unit}") for group in groups):
            found.append(path.parent.name)
    return found


def sockets(pid: str) -> set[str]:
    """Return the inodes of the sockets that a process has open."""
    found = set()
    try:
        for path in Path(f"/proc/{pid}/fd").iterdir():
            kind, _, inode = str(path.readlink()).partition(":")
            if kind == "socket":
                found.add(inode.strip("[]"))
    except OSError:  # it, or the file, is gone meanwhile
        pass
    return found


def end(text: str) -> tuple[str, int]:
    """Return address and port of one end, as the kernel writes it: words in the host's order."""
    address, port = text.split(":")
    packed = b"".join(
        int(address[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(address), 8)
    )
    found = ipaddress.ip_address(packed)
    return str(getattr(found, "ipv4_mapped", None) or found), int(port, 16)


def local_ports(pid: str, address: str, port: int) -> set[int]:
    """Return the local ports of a process's connections to the other side."""
    inodes = sockets(pid)
    wanted = (str(ipaddress.ip_address(address)), port)
    found = set()
    for table in ("tcp", "tcp6"):
        path = Path(f"/proc/{pid}/net/{table}")
        try:
            lines = path.read_text().splitlines()[1:]
        except OSError:  # it has ended meanwhile, or the kernel has no IPv6
            continue
        for line in lines:
            local, remote, state, *rest = line.split()[1:]
            if state == ESTABLISHED and rest[5] in inodes and end(remote) == wanted:
                found.add(end(local)[1])
    return found


def main() -> None:
    """Wait for a connection and print."""
    settings = json.loads(sys.argv[1])
    deadline = time.monotonic() + float(settings["patience"])
    while True:
        alive = is_alive(settings["unit"], settings["pid"])
        ports: set[int] = set()
        for pid in processes(settings["unit"]):
            ports |= local_ports(pid, settings["address"], int(settings["port"]))
        if ports or not alive or time.monotonic() > deadline:
            break
        time.sleep(POLL)
    print(json.dumps({"ports": sorted(ports), "alive": alive}))


if __name__ == "__main__":
    main()
