#!/usr/bin/python3
"""Security updates of this host. Installed by Ansible (role hardening).

hardening-security-updates pending   print what is not installed: package, installed, candidate
hardening-security-updates record    print it, and keep it as what the night left
hardening-security-updates status    print as JSON what waits for the night, what a night left,
                                     and how many hours ago updates were installed and looked for
hardening-security-updates install   do now what the night does, record what is left, and print
                                     as JSON what was installed and what waits for a restart;
                                     a further argument is the pattern of units to look for
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import apt_pkg

# What the last night, or the first run of the role, left; its time is when that ended.
RECORD = Path("/var/lib/hardening/security-updates-left")
# apt leaves this one where unattended-upgrade succeeded.
UPGRADED = Path("/var/lib/apt/periodic/upgrade-stamp")
LOOKED = (Path("/var/lib/apt/periodic/update-stamp"), Path("/var/lib/apt/lists"))
REBOOT = Path("/run/reboot-required")
LOG = "/var/log/unattended-upgrades/unattended-upgrades.log"
LOCKS = ("/run/unattended-upgrades.lock", "/var/lib/dpkg/lock-frontend")
PATIENCE = 600  # seconds to wait for somebody else's apt
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"}

Update = tuple[str, str, str]  # package, installed version, candidate


def pending() -> list[Update]:
    """Return the packages for which a security archive has a newer version than is installed.

    The lists are asked and not apt's plan: that leaves out what somebody holds or pins, and what
    the next point release has in a version of its own.
    """
    apt_pkg.init()
    found = []
    for package in apt_pkg.Cache(None).packages:
        installed = package.current_ver
        if not installed:
            continue
        newer = [
            version.ver_str
            for version in package.version_list
            if apt_pkg.version_compare(version.ver_str, installed.ver_str) > 0
            and any(
                name.endswith("-security")
                for file, _ in version.file_list
                for name in (file.archive, file.codename)
            )
        ]
        if newer:  # version_list has the newest first
            found.append((package.get_fullname(True), installed.ver_str, newer[0]))
    return sorted(found)


def record(updates: list[Update]) -> None:
    """Keep what is pending as what the night left."""
    RECORD.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = RECORD.with_suffix(".new")
    fresh.write_text("".join(f"{' '.join(update)}\n" for update in updates))
    fresh.chmod(0o644)
    fresh.replace(RECORD)


def hours_since(*paths: Path) -> float | None:
    """Return how long ago the latest of the files was written, or None if there is none."""
    times = [path.stat().st_mtime for path in paths if path.exists()]
    return round((time.time() - max(times)) / 3600, 1) if times else None


def status() -> dict:
    """Return what is pending, by whether a night has already left it, and the hours since."""
    lines = RECORD.read_text().splitlines() if RECORD.exists() else []
    # Who was left and is still as it was; a newer candidate makes that no better.
    left = {tuple(line.split()[:2]) for line in lines}
    updates = pending()
    return {
        "tonight": [update for update in updates if update[:2] not in left],
        "left": [update for update in updates if update[:2] in left],
        "hours_since_night": hours_since(RECORD, UPGRADED),
        "hours_since_lists": hours_since(*LOOKED),
    }


def run(command: list[str]) -> subprocess.CompletedProcess:
    """Run a command to its end; its output is text."""
    return subprocess.run(
        command,
        env={**ENVIRONMENT, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def wait_for_locks() -> None:
    """Wait until nobody else installs, as after a boot or when the connection of a run was cut."""
    deadline = time.monotonic() + PATIENCE
    for path in LOCKS:
        while (lock := apt_pkg.get_lock(path)) < 0 and time.monotonic() < deadline:
            time.sleep(2)
        if lock >= 0:
            os.close(lock)


def upgrade() -> None:
    """Do what the night does. Ends the program where that fails."""
    wait_for_locks()  # unattended-upgrade itself gives up at once
    # What an interrupted run left half-way; does nothing elsewhere.
    run(["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"])
    done = run(["unattended-upgrade"])
    if done.returncode != 0:
        sys.exit(
            f"unattended-upgrade failed ({done.returncode}) on {os.uname().nodename}: "
            f"{' '.join(done.stdout.split()) or 'it said nothing'}. Security updates are still "
            f"pending; the other settings of this host are in place. The reason is in {LOG}. The "
            "next run tries again; hardening_first_updates_enabled: false leaves them to the night."
        )


def waiting_units(pattern: str) -> list[str]:
    """Return the units that match and still run with a replaced library, as needrestart sees it."""
    if not pattern:
        return []
    lines = run(["needrestart", "-b", "-l", "-r", "l"]).stdout.splitlines()
    units = [line.removeprefix("NEEDRESTART-SVC: ") for line in lines if "-SVC: " in line]
    return [unit for unit in units if re.match(pattern, unit)]


def install(pattern: str) -> dict:
    """Install what is pending, record what is left and return both and what needs a restart."""
    # The role looks for packages before, unless it was interrupted and nothing is missing.
    if (hours_since(*LOOKED) or 0) > 1:
        looked = run(["apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={PATIENCE}", "update"])
        if looked.returncode != 0:
            sys.exit(f"apt-get update failed: {' '.join(looked.stdout.split())}")
    before = pending()
    if before:
        upgrade()
    left = pending()
    record(left)
    still = {update[:2] for update in left}
    packages = REBOOT.with_suffix(".pkgs")
    return {
        "installed": [update for update in before if update[:2] not in still],
        "left": left,
        "restarts": waiting_units(pattern) if before else [],
        "reboot": REBOOT.exists(),
        "reboot_for": sorted(set(packages.read_text().split())) if packages.exists() else [],
    }


def main() -> None:
    """Do what the first argument says."""
    verb, *rest = sys.argv[1:] or [""]
    if verb in ("pending", "record"):
        updates = pending()
        if verb == "record":
            record(updates)
        for update in updates:
            print(*update)
    elif verb == "status":
        print(json.dumps(status()))
    elif verb == "install":
        print(json.dumps(install(*rest[:1] or [""])))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
