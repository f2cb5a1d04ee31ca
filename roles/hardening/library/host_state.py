#!/usr/bin/python
# MIT License, see LICENSE
"""Module `host_state`: what differs from the wish, in one read-only call; see DOCUMENTATION."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: host_state
short_description: What differs from the wish, in one read-only call
description:
  - Compares packages, files, services, kernel settings and the SSH server with what is wanted, so
    that the role's tasks only touch what differs. Asks the live system where it can.
options:
  packages: {description: Packages that are wanted., type: list, elements: str, default: []}
  kernel_packages:
    description: Packages that are wanted where the kernel is the host's own (no container).
    type: list
    elements: str
    default: []
  unwanted_packages:
    description: Packages that must not be installed.
    type: list
    elements: str
    default: []
  files:
    description: Files that are wanted, each with path, content, mode and optionally owner.
    type: list
    elements: dict
    default: []
  services:
    description:
      - Units that are wanted enabled and running, each with name and files it reads. With
        C(kernel) true only where the kernel is the host's own.
    type: list
    elements: dict
    default: []
  sysctl: {description: Kernel settings that are wanted., type: dict, default: {}}
  mount_options:
    description: Mount options that are wanted, by path; what is no mount point is skipped.
    type: dict
    default: {}
  user: {description: A user to describe., type: str}
  sshd_users:
    description: Users for whom the effective settings of sshd are asked (Match blocks count).
    type: list
    elements: str
    default: []
"""

RETURN = """
packages: {description: Missing packages., type: list}
unwanted_packages: {description: Installed ones of the unwanted packages., type: list}
files: {description: Paths of files that are missing or differ., type: list}
services: {description: Units that are disabled or down or older than their files., type: list}
absent_services: {description: Units that do not exist., type: list}
sysctl: {description: Settings that differ and can be set on this kernel., type: list}
mounts:
  description: Mounts that lack an option, each with path, src, fstype and the options to have.
  type: list
own_kernel: {description: Whether this is no container., type: bool}
weak_rsa_key: {description: Whether sshd's RSA key is missing or below 4096 bits., type: bool}
weak_moduli: {description: Whether sshd may offer groups of fewer than 3072 bits., type: bool}
audit_stale: {description: Whether the audit rules are newer than the loaded ones., type: bool}
user: {description: Home and groups of the user; empty if there is none., type: dict}
sshd: {description: Effective settings per user as sshd -T prints them., type: dict}
listening: {description: TCP ports that are listened on beyond loopback., type: list}
ssh_socket: {description: Whether systemd listens for sshd (socket activation)., type: bool}
timezone: {description: Name of the time zone., type: str}
connection: {description: SSH_CONNECTION of this session (client and server side)., type: list}
guarded: {description: Whether a timer is set that reverts an unfinished change., type: bool}
security_updates_installed:
  description: Whether this role, or a night that it arranged, has installed security updates.
  type: bool
"""

MOUNTS = Path("/proc/mounts")
MODULI = Path("/etc/ssh/moduli")
UPDATES_LEFT = Path("/var/lib/hardening/security-updates-left")
UPGRADED = Path("/var/lib/apt/periodic/upgrade-stamp")
NIGHT = Path("/etc/systemd/system/apt-daily-upgrade.service.d/50-hardening.conf")


def installed_packages(module: AnsibleModule, names: list[str]) -> list[str]:
    """Return those of the packages that are installed."""
    if not names:
        return []
    query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", *names]
    _, out, _ = module.run_command(query)  # fails where one is unknown to dpkg; so be it
    installed = {line.split()[0] for line in out.splitlines() if line.endswith(" installed")}
    return [name for name in names if name in installed]


def differs(wish: dict) -> bool:
    """Return whether a file is not as wanted."""
    path = Path(wish["path"])
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or oct(status.st_mode & 0o7777) != oct(
            int(wish["mode"], 8)
        ):
            return True
        if pwd.getpwuid(status.st_uid).pw_name != wish.get("owner", "root"):
            return True
        return path.read_bytes() != wish["content"].encode()
    except (OSError, KeyError):
        return True


def unfit_services(module: AnsibleModule, wishes: list[dict]) -> tuple[list[str], list[str]]:
    """Return the units that are disabled, down, or older than a file that they read.

    The second list is of those that do not exist at all.
    """
    unfit, absent = [], []
    booted = time.time() - time.monotonic()  # systemd counts microseconds from there
    properties = (
        "LoadState",
        "ActiveState",
        "ActiveEnterTimestampMonotonic",
        "ConditionResult",
        "ConditionTimestampMonotonic",
        "UnitFileState",
        "NeedDaemonReload",
    )
    for wish in wishes:
        command = ["systemctl", "show", wish["name"], f"--property={','.join(properties)}"]
        _, out, _ = module.run_command(command)
        unit = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        enabled = unit.get("UnitFileState") in ("enabled", "static", "alias", "indirect")
        # Some units refuse to run in containers; that is their own condition and no fault.
        asked = unit.get("ConditionTimestampMonotonic", "0") != "0"
        excused = asked and unit.get("ConditionResult") == "no"
        running = unit.get("ActiveState") == "active"
        started = booted + int(unit.get("ActiveEnterTimestampMonotonic") or 0) / 1_000_000
        files = [Path(name) for name in wish["files"]]
        newest = max((path.stat().st_mtime for path in files if path.exists()), default=0.0)
        outdated = newest > started
        reload = unit.get("NeedDaemonReload") == "yes"
        if not enabled or reload or (not excused and (not running or outdated)):
            unfit.append(wish["name"])
        if unit.get("LoadState") == "not-found":
            absent.append(wish["name"])
    return unfit, absent


def differing_sysctl(wishes: dict) -> list[str]:
    """Return the names of kernel settings that differ and that this host may set."""
    found = []
    for name, value in wishes.items():
        path = Path("/proc/sys") / name.replace(".", "/")
        if not path.exists() or os.statvfs(path).f_flag & os.ST_RDONLY:
            continue
        if path.read_text().split() != str(value).split():
            found.append(name)
    return sorted(found)


def lacking_mounts(wishes: dict) -> list[dict]:
    """Return the mounts on one of the paths that lack an option, with all options to have."""
    found = {}
    for line in MOUNTS.read_text().splitlines():
        source, path, kind, options = line.split()[:4]
        lacking = [name for name in wishes.get(path, []) if name not in options.split(",")]
        # What is mounted last on a path is what one sees there.
        found.pop(path, None)
        if lacking:
            wanted = ",".join([options, *lacking])
            found[path] = {"path": path, "src": source, "fstype": kind, "opts": wanted}
    return list(found.values())


def weak_rsa_key(module: AnsibleModule) -> bool:
    """Return whether sshd's RSA host key is missing or has fewer than 4096 bits."""
    key = "/etc/ssh/ssh_host_rsa_key.pub"
    code, out, _ = module.run_command(["ssh-keygen", "-l", "-f", key])
    return code != 0 or int(out.split()[0]) < 4096


def weak_moduli() -> bool:
    """Return whether sshd's list of Diffie-Hellman groups holds small ones."""
    if not MODULI.exists():
        return False
    # Date, type, tests, tries, size in bits less one, generator, modulus.
    lines = (line.split(maxsplit=5) for line in MODULI.read_text().splitlines())
    return any(int(line[4]) < 3071 for line in lines if line and line[0].isdigit())


def audit_stale() -> bool:
    """Return whether the audit rules were written after they were last put together."""
    loaded, rules = Path("/etc/audit/audit.rules"), Path("/etc/audit/rules.d/50-hardening.rules")
    if not rules.exists():
        return False
    return not loaded.exists() or loaded.stat().st_mtime < rules.stat().st_mtime


def described_user(name: str | None) -> dict:
    """Return home, shell and groups of a user, or nothing."""
    try:
        user = pwd.getpwnam(name or "")
    except KeyError:
        return {}
    groups = [group.gr_name for group in grp.getgrall() if name in group.gr_mem]
    return {"home": user.pw_dir, "shell": user.pw_shell, "groups": groups}


def effective_sshd(module: AnsibleModule, users: list[str]) -> dict[str, dict[str, list[str]]]:
    """Return the effective settings of sshd for each user, from any address."""
    sshd = module.get_bin_path("sshd", opt_dirs=["/usr/sbin"])
    if not sshd:
        return {}
    # sshd refuses to speak without this directory, which only exists while it runs.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    settings: dict[str, dict[str, list[str]]] = {}
    for user in users:
        where = f"user={user},host=anywhere.example,addr=192.0.2.1"
        code, out, err = module.run_command([sshd, "-T", "-C", where])
        if code != 0:
            return {user: {"error": [err.strip()]}}
        lines: dict[str, list[str]] = {}
        for line in out.splitlines():
            key, _, value = line.partition(" ")
            lines.setdefault(key, []).append(value)
        settings[user] = lines
    return settings


def security_updates_installed() -> bool:
    """Return whether the first run's updates were finished, or a night of ours has done the same.

    The nights of hosts that an earlier release of this role built have left no record at first.
    """
    if UPDATES_LEFT.exists():
        return True
    arranged = NIGHT.exists() and UPGRADED.exists()
    return arranged and UPGRADED.stat().st_mtime > NIGHT.stat().st_mtime


def listening_ports() -> list[int]:
    """Return the TCP ports on which something listens beyond loopback."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, port = local.partition(":")
            loopback = re.fullmatch(r"[0-9A-F]{6}7F|0{24}01000000", address)
            if state == "0A" and not loopback:
                ports.add(int(port, 16))
    return sorted(ports)


def ssh_connection() -> list[str]:
    """Return SSH_CONNECTION of the session this runs in, split; empty where there is none.

    sudo forgets the variable, so the parents are asked.
    """
    process = os.getpid()
    while process > 1:
        base = Path("/proc") / str(process)
        try:
            for pair in (base / "environ").read_bytes().split(b"\0"):
                if pair.startswith(b"SSH_CONNECTION="):
                    return pair.decode().partition("=")[2].split()
            # The command's name, in parentheses, may itself hold spaces.
            process = int((base / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return []
    return []


def main() -> None:
    """Entry point for Ansible."""
    options = {
        "packages": {"type": "list", "elements": "str", "default": []},
        "kernel_packages": {"type": "list", "elements": "str", "default": []},
        "unwanted_packages": {"type": "list", "elements": "str", "default": []},
        "files": {"type": "list", "elements": "dict", "default": []},
        "services": {"type": "list", "elements": "dict", "default": []},
        "sysctl": {"type": "dict", "default": {}},
        "mount_options": {"type": "dict", "default": {}},
        "user": {"type": "str"},
        "sshd_users": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    wish = module.params
    code, _, _ = module.run_command(["systemd-detect-virt", "--quiet", "--container"])
    own_kernel = code != 0
    packages = wish["packages"] + (wish["kernel_packages"] if own_kernel else [])
    installed = installed_packages(module, packages + wish["unwanted_packages"])
    services = [entry for entry in wish["services"] if own_kernel or not entry.get("kernel")]
    unfit, absent = unfit_services(module, services)
    _, zone, _ = module.run_command(["readlink", "-f", "/etc/localtime"])
    code, _, _ = module.run_command(["systemctl", "is-active", "--quiet", "ssh.socket"])
    module.exit_json(
        changed=False,
        packages=[name for name in packages if name not in installed],
        unwanted_packages=[name for name in wish["unwanted_packages"] if name in installed],
        files=[entry["path"] for entry in wish["files"] if differs(entry)],
        services=unfit,
        absent_services=absent,
        sysctl=differing_sysctl(wish["sysctl"]),
        mounts=lacking_mounts(wish["mount_options"]),
        own_kernel=own_kernel,
        weak_rsa_key=weak_rsa_key(module),
        weak_moduli=weak_moduli(),
        audit_stale=own_kernel and audit_stale(),
        user=described_user(wish["user"]),
        sshd=effective_sshd(module, wish["sshd_users"]),
        listening=listening_ports(),
        ssh_socket=code == 0,
        timezone=zone.strip().removeprefix("/usr/share/zoneinfo/"),
        connection=ssh_connection(),
        guarded=Path("/var/lib/hardening/before.tar").exists(),
        security_updates_installed=security_updates_installed(),
    )


if __name__ == "__main__":
    main()
