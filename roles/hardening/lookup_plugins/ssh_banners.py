# MIT License, see LICENSE
"""Lookup `ssh_banners`: which port of a host answers as an SSH server, asked from here."""

from __future__ import annotations

import socket
import time
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: ssh_banners
short_description: Which port of a host answers as an SSH server
description:
  - Opens a TCP connection from the control machine to one port after the other and waits for
    C(SSH-2.0-), until one has answered.
  - Asks again until the time is over, since a host that boots and an sshd that reloads are silent
    for a moment.
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
  description: For each port that was asked, C(port), C(ssh) (whether it answered) and C(found),
    what was found there in words; only the last one can have answered.
  type: list
  elements: dict
"""

CONNECT_SECONDS = 3.0
# A firewall that limits connections (six within 30 seconds) never lets in who asks more often.
PAUSE_SECONDS = 7.0


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
        """Return what was found on the ports up to the first that answered."""
        self.set_options(var_options=variables, direct=kwargs)
        host = self.get_option("host")
        ports = list(dict.fromkeys(int(port) for port in terms))
        give_up = time.monotonic() + self.get_option("patience")
        while True:
            answers = []
            for port in ports:
                answers.append(look_at(host, port))
                if answers[-1]["ssh"]:
                    return answers
            if time.monotonic() >= give_up:
                return answers
            time.sleep(PAUSE_SECONDS)
