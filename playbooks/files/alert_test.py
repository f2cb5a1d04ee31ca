"""Send one message through each way by which this host tells the operator, and see which arrive.

Usage: alert_test.py JSON, as root on the host:

    {"nonce": "…", "seconds": 60, "webhook": true,
     "ways": [{"name": "backups", "command": ["/usr/local/sbin/postgres-backup-alert", "test"]}, …]}

Each command gets the nonce as a further argument or, with "text", its message on standard input.
Prints a JSON list of objects with ``way``, ``arrived`` (null: it was handed to a command of the
owner's, which alone knows) and ``said``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

TELL = "/usr/local/bin/tell-operator"


def status() -> dict[str, Any]:
    """Ask tell-operator."""
    asked = subprocess.run([TELL, "status"], capture_output=True, text=True, check=True)
    return json.loads(asked.stdout)


def begin(way: dict[str, Any], nonce: str) -> str:
    """Send one; return why it could not be sent, or nothing."""
    text = way.get("text")
    command = way["command"] if text else [*way["command"], nonce]
    try:
        done = subprocess.run(
            command,
            input=f"TEST {nonce}: {text}" if text else "",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        return f"{command[0]} is not there; run site.yml"
    except subprocess.TimeoutExpired:
        return f"{command[0]} took longer than a minute"
    if done.returncode == 0:
        return ""
    return f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-200:]}"


def main(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Send through all ways, wait for all, judge each."""
    results = []
    for number, way in enumerate(asked["ways"]):
        nonce = f"{asked['nonce']}-{number}"
        problem = begin(way, nonce)
        results.append(
            {"way": way["name"], "arrived": not problem, "said": problem, "nonce": nonce}
        )
    if not asked["webhook"]:
        for result in results:
            if result["arrived"]:
                result |= {"arrived": None, "said": "handed to your alert_command, which took it"}
        return results
    until = time.monotonic() + asked["seconds"]
    missing = [result for result in results if result["arrived"]]
    while missing and time.monotonic() < until:
        time.sleep(0.5)
        seen = status()["delivered"]
        for result in list(missing):
            found = [one for one in seen if f"TEST {result['nonce']}" in one["text"]]
            if found:
                result["said"] = f"arrived after {found[-1]['seconds']} s"
                missing.remove(result)
    for result in missing:
        trouble = status()["trouble"] or "tell-operator has not tried it yet"
        result |= {"arrived": False, "said": f"not within {asked['seconds']} s: {trouble}"}
    return results


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
