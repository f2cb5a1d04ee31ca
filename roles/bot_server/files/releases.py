"""The releases of a bot on its host. Runs there as root; standard library only.

    releases.py COMMAND SETTINGS

SETTINGS is JSON and holds ``name``, ``opt``, ``etc``, ``state`` (the bot's name and folders),
``configuration`` (paths of the files that a start reads), ``log`` (of deploys) and what the command
needs; the answer is JSON on standard output.

state     what runs, which release is current, which are complete, which was healthy last, which one
          ``previous`` would go back to, which of ``folders`` (path, owner, group, mode) and
          ``files`` (the same and sha256) are not as they should be, which folders are ``links``,
          and the ``resolvers`` of this host
try       lets the bot's user write, in the unit's own sandbox, wherever the bot wants to, and says
          whether what ``denied_addresses`` close is closed
arm       from now on this host itself goes back in so many ``seconds``, unless disarmed: whoever
          deploys may lose the connection
disarm    takes that back
guard     what is then done: ``revert``, a line in the ``log`` of deploys and a restart, unless the
          current release was found healthy
settle    the current release is healthy: remember it with its configuration, remove old ones; one
          that somebody went back from (``withdrawn``) is marked as failed
revert    go back to what was healthy last, configuration included; mark the other as failed

Root reads and writes by a path only where every directory above it is root's, and through no link.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import hashlib
import ipaddress
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Only one of these works at a time: what a run that was killed has begun goes on here to its end,
# perhaps beside the next run, and the host's own timer may come in between.
ONE_AT_A_TIME = ("settle", "revert", "guard")
# A release is complete when this file is in it (build_release.py).
COMPLETE = ".release.json"
FAILED = ".failed"
HISTORY = 50  # releases that are remembered in the order in which they were healthy
TRY = """for path in "$@"; do
  if [ -f "$path" ]; then [ -w "$path" ] || echo "$path: permission denied"
  elif ! file=$(mktemp -p "$path" .write-test.XXXXXX 2>&1); then echo "${file#mktemp: }"
  else rm -f -- "$file"
  fi
done"""


# What answers there on the servers of most providers knows the host's secrets.
METADATA = "169.254.169.254"
REACH = """import socket, sys
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", (sys.argv[1], 53))
    print("reached")
except OSError:
    pass
"""


class Refused(Exception):
    """The release or its configuration cannot be used; the message says why."""


def is_roots(path: Path) -> bool:
    """Say whether nobody but root, or who we are, can put something else in a path's place."""
    for above in path.parents:
        facts = above.lstat() if above.exists() or above.is_symlink() else None
        if facts and (not stat.S_ISDIR(facts.st_mode) or facts.st_uid not in (0, os.geteuid())):
            return False
    return not path.is_symlink()


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all; mode 0600."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    new.replace(path)


class Host:
    """The bot's folders on this host."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.name: str = settings["name"]
        self.opt = Path(settings["opt"])
        self.etc = Path(settings["etc"])
        self.var = Path(settings["state"])
        self.releases = self.opt / "releases"
        self.venvs = self.opt / "venvs"
        self.current = self.opt / "current"
        self.deployed = self.opt / "deployed.json"
        self.last_good = self.opt / "last_good"
        self.configuration = [Path(path) for path in settings["configuration"]]

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nobody else does such a thing; the kernel frees it at our end."""
        with (self.opt / ".verdict").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield

    # -- state

    def state(self) -> dict[str, Any]:
        """Return what is there, without changing anything."""
        wanted = "LoadState,ActiveState,SubState,UnitFileState,MainPID,NRestarts"
        shown = subprocess.run(
            ["systemctl", "show", f"{self.name}.service", "--property", wanted],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        service = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        # Failed and enabled: it is meant to run and gave up; "inactive" is somebody's wish.
        live = service["ActiveState"] not in ("inactive", "failed") or (
            service["ActiveState"] == "failed" and service["UnitFileState"] == "enabled"
        )
        return {
            "service": service,
            "live": live,
            "current": self.current.resolve().name if self.current.is_symlink() else "",
            "complete": self.complete(),
            "previous": self.previous(),
            "fingerprint": self.fingerprint(),
            "folders": [f for f in self.settings.get("folders", []) if not as_it_should_be(f)],
            "links": [
                f"{path} -> {path.readlink()}"
                for path in (Path(f["path"]) for f in self.settings.get("folders", []))
                if path.is_symlink()
            ],
            "resolvers": resolvers(),
            "files": [f["path"] for f in self.settings.get("files", []) if not as_it_should_be(f)],
            "deployed": self.record(),
        }

    def complete(self) -> list[str]:
        """Return the releases that could be started."""
        return sorted(path.parent.name for path in self.releases.glob(f"*/{COMPLETE}"))

    def record(self) -> dict[str, Any]:
        """Return what was healthy last; empty where nothing was yet."""
        return json.loads(self.deployed.read_text()) if self.deployed.exists() else {}

    def history(self) -> list[str]:
        """Return the releases that were healthy, the last one at the end."""
        record = self.record()
        return record.get("history", [record["release"]] if record else [])

    def previous(self) -> str:
        """Return the release that was healthy before the present one; empty where there is none.

        One that has failed since, or that somebody went back from, is passed over.
        """
        history = self.history()
        for name in reversed(history[:-1]):
            path = self.releases / name
            if (path / COMPLETE).exists() and not (path / FAILED).exists():
                return name
        return ""

    def fingerprint(self) -> str:
        """Return a hash over the configuration that a start would use now.

        It differs from the remembered one where a run was cut off between writing and restarting.
        """
        digest = hashlib.sha256()
        for path in sorted(self.present()):
            digest.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def present(self) -> list[Path]:
        """Return the files of the configuration that are there, in directories of root's."""
        return [path for path in self.configuration if is_roots(path) and path.is_file()]

    # -- settle and revert

    def settle(self) -> dict[str, Any]:
        """Remember the current release and its configuration as good; remove what is too old."""
        release = self.current.resolve().name
        (self.releases / release / FAILED).unlink(missing_ok=True)
        withdrawn = self.releases / (self.settings.get("withdrawn") or release)
        if withdrawn.name != release and withdrawn.is_dir():
            write_atomically(withdrawn / FAILED, "somebody went back from it\n")
        keep = self.last_good.with_name(".last_good.new")
        shutil.rmtree(keep, ignore_errors=True)
        keep.mkdir(mode=0o700)
        for path in self.present():
            saved = keep / path.relative_to("/")
            saved.parent.mkdir(parents=True, exist_ok=True)
            copy_with_owner(path, saved)
        shutil.rmtree(self.last_good, ignore_errors=True)
        keep.rename(self.last_good)
        now = int(time.time())
        record = {"release": release, "fingerprint": self.fingerprint(), "at": now}
        others = [name for name in self.history() if name != release]
        record["history"] = [*others, release][-HISTORY:]
        write_atomically(self.deployed, json.dumps(record) + "\n")
        # What the alert wrote for whoever logs in is over.
        Path(f"/run/motd.d/{self.name}-reverted").unlink(missing_ok=True)
        return {"release": release, "removed": self.prune(release)}

    def prune(self, current: str) -> list[str]:
        """Remove all but the last good releases, and environments that none of them uses."""
        history = self.history()

        def age(path: Path) -> tuple[bool, int, float]:
            complete = path / COMPLETE
            built = complete.stat().st_mtime if complete.exists() else 0.0
            place = history.index(path.name) if path.name in history else -1
            return (path / FAILED).exists(), -place, -built

        others = sorted((p for p in self.releases.iterdir() if p.name != current), key=age)
        surplus = others[max(0, self.settings["kept"] - 1) :]
        for path in surplus:
            shutil.rmtree(path)
        used = {(path / ".venv").resolve() for path in self.releases.iterdir()}
        for venv in self.venvs.iterdir():
            if venv.resolve() not in used:
                shutil.rmtree(venv)
        return [path.name for path in surplus]

    def revert(self) -> dict[str, Any]:
        """Make current what was healthy last.

        Returns:
            ``release``, empty where nothing was healthy yet.

        """
        bad = self.current.resolve()
        good = self.record().get("release", "")
        if not good or not (self.releases / good / COMPLETE).exists():
            return {"release": ""}
        for saved in (path for path in self.last_good.rglob("*") if path.is_file()):
            path = Path("/") / saved.relative_to(self.last_good)
            if not is_roots(path):
                continue
            new = path.with_name(f".{path.name}.new")
            new.unlink(missing_ok=True)
            copy_with_owner(saved, new)
            new.replace(path)
        link = self.opt / ".current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(self.releases / good)
        link.replace(self.current)
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        if bad.name != good and bad.is_dir():
            with contextlib.suppress(OSError):  # a full disk must not keep us from going back
                write_atomically(bad / FAILED, "it was not healthy\n")
        return {"release": good}

    # -- the host goes back by itself

    def arm(self) -> dict[str, Any]:
        """Let systemd call ``guard`` in ``seconds`` from now, not when it was told before."""
        self.disarm()
        keys = ("name", "opt", "etc", "state", "log", "configuration")
        settings = {key: self.settings[key] for key in keys}
        command = ["systemd-run", "--quiet", f"--unit={self.name}-guard", "--collect"]
        command += [f"--on-active={self.settings['seconds']}", "--timer-property=AccuracySec=1s"]
        releases = str(self.opt / "releases.py")
        script = [sys.executable, "-I", releases, "guard", json.dumps(settings)]
        subprocess.run([*command, "--", *script], check=True)
        return {"seconds": self.settings["seconds"]}

    def disarm(self) -> dict[str, Any]:
        """Stop the timer, whether it is there or not."""
        subprocess.run(
            ["systemctl", "stop", f"{self.name}-guard.timer"], check=False, capture_output=True
        )
        return {}

    def guard(self) -> dict[str, Any]:
        """Go back and restart, unless release and configuration are those found healthy."""
        record = self.record()
        if (record.get("release"), record.get("fingerprint")) == (
            self.current.resolve().name,
            self.fingerprint(),
        ):
            return {"release": ""}
        bad = self.current.resolve().name
        reverted = self.revert()
        if reverted["release"]:
            self.note(bad, reverted["release"])
            subprocess.run(["systemctl", "reset-failed", f"{self.name}.service"], check=False)
            subprocess.run(["systemctl", "restart", f"{self.name}.service"], check=True)
            # Last, and whatever becomes of it: the bot is back.
            with contextlib.suppress(OSError):
                alert = [f"/usr/local/sbin/{self.name}-alert", "reverted", bad, reverted["release"]]
                subprocess.run(alert, check=False)
        return reverted

    def note(self, bad: str, good: str) -> None:
        """Add a line to the log of deploys, in the words of those that a deploy adds itself."""
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "who": f"{self.name}-guard on {os.uname().nodename}",
            "result": "reverted",
            "from": bad,
            "to": good,
            "cause": "the run that brought it was cut off before the bot was found healthy",
        }
        # A full disk must not keep us from going back.
        with contextlib.suppress(OSError):
            out = os.open(self.settings["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            with os.fdopen(out, "a") as log:
                log.write(json.dumps(line) + "\n")

    # -- try

    def sandbox_test(self) -> dict[str, Any]:
        """Write where the bot wants to write, as its user and in its unit's sandbox.

        The unit's own text is used, but for what it runs: what it forbids is forbidden here.

        Raises:
            Refused: some path cannot be written to; the message names it.

        """
        wanted = [str(self.current / name) for name in self.settings["state_directories"]]
        wanted += [str(self.var / name) for name in ("home", "matplotlib")]
        wanted += self.settings["write_paths"]
        # With one that is missing systemd makes no sandbox at all, and says so in its own words.
        problems = [f"{path}: is not there" for path in wanted if not Path(path).exists()]
        closed = any(is_in(METADATA, network) for network in self.settings["denied_addresses"])
        reached = False
        if not problems:
            problems = self.write_in_sandbox(wanted)
            reached = problems[-1:] == ["reached"]
            problems = problems[:-1] if reached else problems
        if problems:
            raise Refused(
                f"{self.name} cannot write where it has to (bot_server_state_directories, "
                "bot_server_write_paths):\n  " + "\n  ".join(problems)
            )
        return {"tried": wanted, "open": METADATA if closed and reached else ""}

    def write_in_sandbox(self, wanted: list[str]) -> list[str]:
        """Return what goes wrong, as sentences."""
        unit = f"{self.name}-write-test.service"
        out = Path("/run") / f"{self.name}.write-test"
        text = Path(f"/etc/systemd/system/{self.name}.service").read_text()
        dropped = (
            r"(?m)^(Exec\w+|Type|Restart\w*|OnFailure|StartLimit\w+|Timeout\w+|Watchdog\w+)=.*\n"
        )
        ours = "[Service]\nType=oneshot\nTimeoutStartSec=60\n"
        # Each ExecStart opens it anew, so "truncate" would drop what the one before has said.
        ours += f"StandardOutput=append:{out}\nStandardError=inherit\n"
        # In a unit "%" and "$" have a meaning, in both kinds of quotes.
        quoted = [json.dumps(word).replace("$", "$$").replace("%", "%%") for word in (TRY, *wanted)]
        ours += f"ExecStart=/bin/sh -c {quoted[0]} sh {' '.join(quoted[1:])}\n"
        ours += f"ExecStart=-{sys.executable} -I -c {json.dumps(REACH)} {METADATA}\n"
        text = re.sub(dropped, "", text).replace("[Service]\n", ours, 1)
        path = Path("/run/systemd/system") / unit
        out.unlink(missing_ok=True)
        path.write_text(text)
        try:
            subprocess.run(["systemctl", "daemon-reload"], check=True)
            done = subprocess.run(["systemctl", "start", unit], check=False, capture_output=True)
            problems = out.read_text().splitlines() if out.exists() else []
            if done.returncode and not problems:
                asked = ["journalctl", "--unit", unit, "--lines=5", "--output=cat", "--no-pager"]
                said = subprocess.run(asked, check=False, capture_output=True, text=True).stdout
                problems = said.strip().splitlines()
        finally:
            for left in (path, out):
                left.unlink(missing_ok=True)
            subprocess.run(["systemctl", "reset-failed", unit], check=False, capture_output=True)
            subprocess.run(["systemctl", "daemon-reload"], check=True)
        return problems


def is_in(address: str, network: str) -> bool:
    """Say whether an address is in a network; systemd's own words for networks are none here."""
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def resolvers() -> list[str]:
    """Return the name servers that the programs of this host ask directly."""
    try:
        text = Path("/etc/resolv.conf").read_text()
    except OSError:
        return []
    found = re.findall(r"(?m)^nameserver\s+([0-9a-fA-F.:]+)", text)
    return [address for address in found if is_in(address, address) and not is_loopback(address)]


def is_loopback(address: str) -> bool:
    """Say whether an address is this host's own."""
    return ipaddress.ip_address(address).is_loopback


def as_it_should_be(folder: dict[str, str]) -> bool:
    """Say whether a folder, or a file with ``sha256``, has its owner, group and mode (octal)."""
    path = Path(folder["path"])
    if path.is_symlink() or not (path.is_file() if "sha256" in folder else path.is_dir()):
        return False
    if "sha256" in folder and hashlib.sha256(path.read_bytes()).hexdigest() != folder["sha256"]:
        return False
    facts = path.stat()
    try:
        owner, group = pwd.getpwnam(folder["owner"]).pw_uid, grp.getgrnam(folder["group"]).gr_gid
    except KeyError:
        return False
    have = (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode))
    return have == (owner, group, int(folder["mode"], 8))


def copy_with_owner(source: str | Path, target: str | Path) -> None:
    """Copy a file with its mode, times and owner."""
    shutil.copy2(source, target)
    facts = Path(source).stat()
    os.chown(target, facts.st_uid, facts.st_gid)


def main() -> None:
    """Carry out the command and print its answer; exit code 3 is a refusal with its reason."""
    host = Host(json.loads(sys.argv[2]))
    command = {"try": "sandbox_test"}.get(sys.argv[1], sys.argv[1])
    try:
        with host.alone() if command in ONE_AT_A_TIME else contextlib.nullcontext():
            print(json.dumps(getattr(host, command)()))
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        raise SystemExit(3) from None


if __name__ == "__main__":
    main()
