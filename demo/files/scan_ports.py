"""Print the TCP ports that answer on some hosts, one line "HOST PORT PORT …" each.

Usage: scan_ports.py HOST [HOST ...]

Standard library only, because it runs on the stranger's machine. A firewall that drops packets
makes each port wait for the time-out, so many are tried at once. Ports 1-10000 and 40000-50000:
all that a service here might use, in some seconds.
"""

import asyncio
import errno
import resource
import socket
import sys

PORTS = [*range(1, 10_001), *range(40_000, 50_001)]
AT_ONCE = 4_000
SECONDS = 1.5


async def answers(host: str, port: int, gate: asyncio.Semaphore) -> int | None:
    """Return port when a TCP connection to it opens, else None (refused, dropped, unreachable)."""
    # A bare socket, since it is connected in one step: on a busy machine an answer that came in
    # time is seen before the time-out, however late this program gets to run.
    async with gate:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as knock:
            knock.setblocking(False)
            connected = asyncio.get_running_loop().sock_connect(knock, (host, port))
            try:
                await asyncio.wait_for(connected, SECONDS)
            except TimeoutError:
                return None
            except OSError as error:
                if error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                    return None
                raise  # out of file handles, say: no answer is not "closed"
            return port


async def scan(hosts: list[str]) -> None:
    """Print one line for each of hosts."""
    gate = asyncio.Semaphore(AT_ONCE)
    for host in hosts:
        found = await asyncio.gather(*(answers(host, port, gate) for port in PORTS))
        print(host, *(port for port in found if port), flush=True)


if __name__ == "__main__":
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    asyncio.run(scan(sys.argv[1:]))
