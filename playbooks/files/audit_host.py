"""Measure this host with lynis and systemd-analyze, and print one JSON object.

Usage (as root): audit_host.py [UNIT ...]

lynis comes from the distribution's archive into a temporary directory that is removed at the end;
nothing is installed. Its test of pending security updates (PKGS-7392) is left out, since it cannot
tell an update that waits since yesterday from one that was released a minute ago, as
hardening-security-updates does. The units are those named, and those that /etc/systemd/system
defines or changes: the ones that somebody here made. Standard library only, since it runs on the
server.

    {"distribution": "Debian 12", "listening": [5432], "units": {"etlegacy-bot.service": 1.4},
     "updates": {"tonight": [["libpam0g", "1.5.2-6", "1.5.2-7"]], "left": [],
                 "hours_since_night": 7.0, "hours_since_lists": 3.1},
     "lynis": {"version": "3.0.8", "index": 82, "warnings": [], "suggestions": ["AUTH-9286 …"]}}
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

UNITS = Path("/etc/systemd/system")
CACHE = Path("/var/cache/apt/archives")
UPDATES = Path("/usr/local/sbin/hardening-security-updates")


def run(command: list[str], cwd: Path | None = None, **more: str) -> str:
    """Run a command and return what it prints; raises subprocess.CalledProcessError.

    ``more`` are further variables of its environment.
    """
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TERM": "dumb", **more}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        sys.stderr.write(f"{' '.join(command)}: {done.stderr or done.stdout}\n")
        done.check_returncode()
    return done.stdout


def unpack_lynis(work: Path) -> Path:
    """Put lynis into a directory below work, ready to run from there, and return it."""
    kept = sorted(CACHE.glob("lynis_*.deb"))
    if kept:
        package = kept[-1]
    else:
        # apt drops its privileges for the download, to a user who must be able to write here.
        run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "lynis"], cwd=work)
        package = next(work.glob("lynis_*.deb"))
    run(["dpkg-deb", "--extract", str(package), str(work / "package")])
    place = work / "lynis"
    shutil.copytree(work / "package/usr/share/lynis", place)
    shutil.copytree(work / "package/etc/lynis", place, dirs_exist_ok=True)
    shutil.copy(work / "package/usr/sbin/lynis", place)
    # Without the first the second misses a tool that looks for pending security updates.
    (place / "custom.prf").write_text("skip-test=PKGS-7392\nskip-test=PKGS-7398\n")
    return place


def audit_with_lynis() -> dict:
    """Run lynis and return its version, its index (0-100), warnings and suggestions."""
    # Not below /tmp: that may be a small file system in memory.
    work = Path(tempfile.mkdtemp(prefix="audit.", dir="/var/tmp"))
    try:
        place, report = unpack_lynis(work), work / "report.dat"
        files = ["--report-file", str(report), "--log-file", str(work / "log")]
        # It asks apt whether all is well; while updates hold the lock the answer is no.
        patience = work / "apt.conf"
        patience.write_text('DPkg::Lock::Timeout "900";\n')
        audit = ["./lynis", "audit", "system", "--quick", "--no-colors", *files]
        run(audit, cwd=place, APT_CONFIG=str(patience))
        lines = [line.partition("=") for line in report.read_text().splitlines()]
    finally:
        shutil.rmtree(work)
    values = {name: value for name, _, value in lines}
    found: dict[str, list[str]] = {"warning[]": [], "suggestion[]": []}
    for name, _, value in lines:
        if name in found:
            test, text, *_ = value.split("|")
            found[name].append(f"{test} {text}")
    return {
        "version": values["lynis_version"],
        "index": int(values["hardening_index"]),
        "warnings": found["warning[]"],
        "suggestions": found["suggestion[]"],
    }


def security_updates() -> dict | None:
    """Return the pending security updates and the hours since the last night; None if unknown."""
    return json.loads(run([str(UPDATES), "status"])) if UPDATES.exists() else None


def listening_ports() -> list[int]:
    """Return the TCP ports on which something listens beyond loopback."""
    lines = run(["ss", "--tcp", "--listening", "--numeric", "--no-header"]).splitlines()
    sockets = [line.split()[3] for line in lines]
    beyond = [name for name in sockets if not name.startswith(("127.", "[::1]"))]
    return sorted({int(name.rpartition(":")[2]) for name in beyond})


def own_units(named: list[str]) -> list[str]:
    """Return the running services among those named and those of /etc/systemd/system."""
    names = {path.name for path in UNITS.glob("*.service") if not path.is_symlink()}
    names |= {path.name.removesuffix(".d") for path in UNITS.glob("*.service.d")}
    names |= {"ssh.service", *named}
    listed = run(["systemctl", "list-units", "--plain", "--no-legend", "--type=service", "--all"])
    loaded = [line.split()[0] for line in listed.splitlines()]
    # A template such as postgresql@.service stands for its instances.
    return [
        unit
        for unit in loaded
        if unit in names or ("@" in unit and f"{unit.split('@')[0]}@.service" in names)
    ]


def exposure(unit: str) -> float | None:
    """Return how exposed systemd finds a unit: 0 (not at all) to 10; None where it cannot tell."""
    shown = run(["systemd-analyze", "security", "--no-pager", unit]).strip().splitlines()
    words = shown[-1].split() if shown else []
    return float(words[words.index(f"{unit}:") + 1]) if f"{unit}:" in words else None


def main() -> None:
    """Measure and print."""
    lines = Path("/etc/os-release").read_text().splitlines()
    release = dict(line.replace('"', "").split("=", 1) for line in lines if "=" in line)
    result = {
        "distribution": f"{release['ID'].capitalize()} {release['VERSION_ID']}",
        "listening": listening_ports(),
        "updates": security_updates(),
        "lynis": audit_with_lynis(),
        "units": {unit: exposure(unit) for unit in own_units(sys.argv[1:])},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
