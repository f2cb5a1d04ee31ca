# MIT License, see LICENSE
"""Lookup `ssh_banners`: which ports of a host answer as an SSH server, asked from here."""

from __future__ import annotations

import socket
import time
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: ssh_banners
short_description: Which ports of a host answer as an SSH server
description:
  - Opens a TCP connection to each port from the control machine and waits for C(SSH-2.0-).
  - Asks again until at least one port has answered or the time is over, since a host that boots
    and an sshd that reloads are silent for a moment.
options:
  _terms:
    description: Ports, the preferred one first.
    required: true
  host:
    description: Address or name of the host.
    type: str
    required: true
  patience:
    description: Seconds to go on asking while no port answers.
    type: int
    default: 15
"""

RETURN = """
_raw:
  description: For each port in the given order, C(port), C(ssh) (whether it answered) and C(found),
    what was found there in words.
  type: list
  elements: dict
"""

CONNECT_SECONDS = 3.0


def look_at(host: str, port: int, seconds: float = CONNECT_SECONDS) -> dict[str, Any]:
    """Return what answers on one port; never raises for a host that is silent or unknown."""
    try:
        with socket.create_connection((host, port), timeout=seconds) as connection:
            connection.settimeout(seconds)
            banner = connection.recv(255).decode("ascii", "replace").strip()
    except socket.gaierror as error:
        return {"port": port, "ssh": False, "found": f"the name is unknown ({error.strerror})"}
    except TimeoutError:
        return {"port": port, "ssh": False, "found": "no answer (filtered, or the host is down)"}
    except ConnectionRefusedError:
        return {"port": port, "ssh": False, "found": "closed"}
    except OSError as error:
        return {"port": port, "ssh": False, "found": error.strerror or str(error)}
    if banner.startswith("SSH-2.0-"):
        return {"port": port, "ssh": True, "found": banner}
    return {"port": port, "ssh": False, "found": "open, but not SSH" if banner else "hung up"}


class LookupModule(LookupBase):
    """Entry point for Ansible."""

    def run(
        self, terms: list[int], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[dict[str, Any]]:
        """Return what was found on each of the ports."""
        self.set_options(var_options=variables, direct=kwargs)
        host = self.get_option("host")
        ports = list(dict.fromkeys(int(port) for port in terms))
        give_up = time.monotonic() + self.get_option("patience")
        while True:
            answers = [look_at(host, port) for port in ports]
            if any(answer["ssh"] for answer in answers) or time.monotonic() >= give_up:
                return answers
            time.sleep(1)
