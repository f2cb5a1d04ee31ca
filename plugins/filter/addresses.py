# MIT License, see LICENSE
"""Filter `as_programs_write_it`: an IP address in the one spelling that logs and servers use."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable


def as_programs_write_it(address: object) -> str:
    """Return an address as PostgreSQL, sshd and the kernel write it; nothing if it is none.

    IPv6 has many spellings (2001:DB8:0::1, 2001:db8::1). Who compares one from the inventory with
    what stands in a log or in pg_stat_activity never finds it, and takes silence for proof.
    """
    try:
        return str(ipaddress.ip_address(str(address)))
    except ValueError:
        return ""


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[[object], str]]:
        """Return the filters by name."""
        return {"as_programs_write_it": as_programs_write_it}
