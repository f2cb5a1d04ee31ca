"""Print which of some TCP ports answer, one line "HOST PORT PORT …" each.

Usage: audit_ports.py HOST PORT[,PORT …] [HOST PORT[,PORT …] …]

Asks one after the other and waits for each, so that a busy machine misses none; the many ports on
which nobody is known to listen are left to demo/files/scan_ports.py. Standard library only, because
it runs on the outsider's machine.
"""

import socket
import sys

SECONDS = 3.0


def answers(host: str, port: int) -> bool:
    """Return whether a TCP connection opens."""
    try:
        with socket.create_connection((host, port), SECONDS):
            return True
    except OSError:
        return False


def main() -> None:
    """Ask and print."""
    for host, ports in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        print(host, *(port for port in map(int, ports.split(",")) if answers(host, port)))


if __name__ == "__main__":
    main()
