"""Ask ssh-audit about one SSH server, and print one JSON object.

Usage: audit_ssh.py HOST PORT DISTRIBUTION      (such as "Debian 12")

Besides the audit itself the built-in policy for the distribution is tried, where there is one.
Debian 13's wants post-quantum key exchanges only, which paramiko does not speak; there further key
exchanges are tolerated, and said.

    {"failures": [], "warnings": ["curve25519-sha256: …"],
     "policy": "Hardened Debian 12 (version 3)", "passed": true, "deviations": []}
"""

import json
import subprocess
import sys
from pathlib import Path

POLICIES = {
    "Debian 12": "Hardened Debian 12 (version 3)",
    "Debian 13": "Hardened Debian 13 (version 1)",
    "Ubuntu 22.04": "Hardened Ubuntu Server 22.04 LTS (version 6)",
    "Ubuntu 24.04": "Hardened Ubuntu Server 24.04 LTS (version 2)",
}
TOLERATED = {"Debian 13": "Key exchanges"}
# Beside the interpreter: ssh-audit is in the same virtual environment.
SSH_AUDIT = Path(sys.executable).with_name("ssh-audit")


def ask(host: str, port: str, *options: str) -> dict:
    """Run ssh-audit and return what it found; raises SystemExit where there is no SSH server."""
    # Its test of how many connections a second one may make would have us banned.
    command = [SSH_AUDIT, "--json", "--skip-rate-test", *options, "-p", port, host]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        sys.exit(f"ssh-audit could not ask {host}:{port}: {(done.stdout + done.stderr).strip()}")


def main() -> None:
    """Ask and print."""
    host, port, distribution = sys.argv[1:]
    audit = ask(host, port)
    found: dict[str, list[str]] = {"fail": [], "warn": []}
    for kind in ("kex", "key", "enc", "mac"):
        for algorithm in audit[kind]:
            for level, texts in found.items():
                notes = algorithm.get("notes", {}).get(level, [])
                texts += [f"{algorithm['algorithm']}: {note}" for note in notes]
    found["fail"] += [str(cve) for cve in audit.get("cves", [])]
    policy = POLICIES.get(distribution, "")
    errors = ask(host, port, "--policy", policy)["errors"] if policy else []
    deviations = [error["mismatched_field"] for error in errors]
    result = {
        "failures": found["fail"],
        "warnings": found["warn"],
        "policy": policy,
        "deviations": deviations,
        "passed": set(deviations) <= {TOLERATED.get(distribution)},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
