"""Makes a release ready that lies unpacked on the bot's host. As root; standard library only.

    build_release.py SETTINGS

SETTINGS is JSON: ``name``, ``opt``, ``etc``, ``state`` (the bot's name and folders), ``release``
(its directory is OPT/releases/RELEASE), ``entry_point``, ``requirements``, ``python``,
``state_directories``, ``environment_file``, ``minimum_free_mb``, ``source``.

Makes links to the state, the virtual environment and byte code, and checks what the bot would
import; then the release counts as complete. Changes nothing else; releases.py puts it in use.

Prints JSON: ``venv`` (made or reused), ``warnings`` (sentences), ``seconds``. Exit code 3 is a
refusal with its reason.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# A release is complete when this file is in it; it is written last.
COMPLETE = ".release.json"
TAIL = 30  # lines of a failed program's output that are shown


class Refused(Exception):
    """The release cannot be used; the message says why."""


class Builder:
    """Builds below the bot's folders."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.name: str = settings["name"]
        self.opt = Path(settings["opt"])
        self.etc = Path(settings["etc"])
        self.var = Path(settings["state"])
        self.releases = self.opt / "releases"
        self.venvs = self.opt / "venvs"
        self.cache = Path("/var/cache") / self.name

    def build(self) -> dict[str, Any]:
        """Make an unpacked release complete.

        Raises:
            Refused: it lacks something or would not start.

        """
        begin = time.monotonic()
        release = self.releases / self.settings["release"]
        self.check_room(self.settings["minimum_free_mb"])
        for what in ("entry_point", "requirements"):
            if not (release / self.settings[what]).is_file():
                raise Refused(
                    f"the source has no file {self.settings[what]!r} (bot_server_{what} says so)"
                )
        self.link_state(release)
        venv, made = self.virtual_environment(release)
        link = release / ".venv"
        if link.is_symlink() or link.is_file():
            link.unlink()
        elif link.exists():
            shutil.rmtree(link)
        link.symlink_to(os.path.relpath(venv, release))
        warnings = self.byte_compile(release)
        self.check_imports(release)
        origin = {"source": self.settings["source"], "built_at": int(time.time())}
        (release / f"{COMPLETE}.new").write_text(json.dumps(origin) + "\n")
        (release / f"{COMPLETE}.new").replace(release / COMPLETE)
        return {
            "venv": "made" if made else "reused",
            "warnings": warnings,
            "seconds": round(time.monotonic() - begin, 1),
        }

    def check_room(self, wanted: int) -> None:
        """Make sure that a build and what follows it do not fill a disk.

        Raises:
            Refused: less than so many MiB are left somewhere.

        """
        for path in (self.opt, self.var, self.etc):
            free = shutil.disk_usage(path).free // 2**20
            if free < wanted:
                raise Refused(
                    f"{path} has {free} MiB free, and bot_server_minimum_free_mb wants {wanted}: "
                    "make room (journalctl --vacuum-size, apt-get clean), or keep fewer releases"
                )

    def link_state(self, release: Path) -> None:
        """Put links to the state where the bot expects the directories it writes to."""
        for directory in self.settings["state_directories"]:
            link = release / directory
            if link.is_dir() and not link.is_symlink():
                shutil.rmtree(link)  # what a source carries there is not the bot's state
            link.unlink(missing_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self.var / directory)

    def requirement_files(self, release: Path) -> tuple[list[Path], bool]:
        """Return the requirements file with all it includes, and whether one names a local path.

        Raises:
            Refused: a file is missing or is not a requirements file.

        """
        files = [release / self.settings["requirements"]]
        local = False
        for path in files:
            if not path.is_file():
                raise Refused(f"{path.relative_to(release)} is included, but is not there")
            for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
                if re.match(r"(<{7}|={7}|>{7}|\|{7})( |$)", line):
                    where = f"{path.relative_to(release)}, line {number}"
                    raise Refused(f"{where}: merge marker {line[:7]!r}, a merge was not finished")
                included = re.match(r"\s*(?:-r|-c|--requirement|--constraint)[\s=]*([^\s#]+)", line)
                if included and "://" not in included[1]:
                    other = (path.parent / included[1]).resolve()
                    if other not in files:
                        files.append(other)
                local |= bool(re.match(r"\s*(-e\b|--editable\b|\.{0,2}/|\.\s*$|.*@\s*file:)", line))
        return files, local

    def virtual_environment(self, release: Path) -> tuple[Path, bool]:
        """Return the environment for the release's requirements and whether it had to be made.

        It is named by the interpreter and the text of the requirements, so releases with the same
        ones share it, and a build that was cut off is made anew.
        """
        files, local = self.requirement_files(release)
        python = self.settings["python"]
        version = subprocess.run(
            [python, "-c", "import sys; print(sys.version_info[:2], sys.executable)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        key = hashlib.sha256(version.encode())
        for path in files:
            key.update(path.read_bytes() + b"\0")
        if local:
            key.update(release.name.encode())
        venv = self.venvs / key.hexdigest()[:12]
        if (venv / COMPLETE).exists():
            return venv, False
        shutil.rmtree(venv, ignore_errors=True)
        venv.mkdir(parents=True)
        user = pwd.getpwnam(self.name)
        os.chown(venv, user.pw_uid, user.pw_gid)
        self.cache.mkdir(exist_ok=True)
        self.cache.chmod(0o750)
        os.chown(self.cache, user.pw_uid, user.pw_gid)
        writable = [f"ReadWritePaths={venv}", f"ReadWritePaths={self.cache}"]
        if local:  # a build leaves files beside its source
            for path in (release, *release.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
            writable.append(f"ReadWritePaths={release}")
        make = [python, "-m", "venv", str(venv)]
        self.sandboxed("making the virtual environment", make, release, writable)
        pip = [f"{venv}/bin/python", "-m", "pip", "install", "--quiet", "--no-input"]
        pip += ["--disable-pip-version-check", "--use-pep517", "--cache-dir", f"{self.cache}/pip"]
        pip += ["--requirement", self.settings["requirements"]]
        self.sandboxed(f"pip install -r {self.settings['requirements']}", pip, release, writable)
        for path in [*(release.rglob("*") if local else ()), release, *venv.rglob("*"), venv]:
            os.chown(path, 0, 0, follow_symlinks=False)
        (venv / COMPLETE).write_text("{}\n")
        return venv, True

    def byte_compile(self, release: Path) -> list[str]:
        """Compile the release, since the bot itself may not write there.

        Returns:
            The files that are not Python, as sentences; whether one matters is the import check's
            business.

        """
        result = subprocess.run(
            [str(release / ".venv/bin/python"), "-m", "compileall", "-qq", "-x", r"/\.venv/", "."],
            cwd=release,
            capture_output=True,
            text=True,
            check=False,
        )
        return [] if result.returncode == 0 else ["some files of the source do not compile"]

    def check_imports(self, release: Path) -> None:
        """Import what the entry point imports: as the bot, without a network, state thrown away.

        Raises:
            Refused: it would not start.

        """
        properties = ["PrivateNetwork=yes", f"TemporaryFileSystem={self.var}:mode=0777"]
        if self.settings["environment_file"]:
            properties.append(f"EnvironmentFile={self.settings['environment_file']}")
        command = [str(release / ".venv/bin/python"), str(release / ".import_check.py")]
        # The first is there; mkdir wants at least one.
        directories = [str(self.var / name) for name in ["", *self.settings["state_directories"]]]
        script = 'mkdir -p -- "${@:3}" && exec "$1" "$2" "$0"'
        out = self.sandboxed(
            "the import check",
            ["bash", "-c", script, self.settings["entry_point"], *command, *directories],
            release,
            properties,
        )
        problems = json.loads(out.splitlines()[-1])["problems"]
        if problems:
            raise Refused("it would not start:\n  " + "\n  ".join(problems))

    def sandboxed(self, what: str, argv: list[str], cwd: Path, properties: list[str]) -> str:
        """Run a program as the bot's user, who may write nothing but what ``properties`` opens.

        What a package runs while it is built is foreign code: it sees neither the bot's settings
        nor its state.

        Raises:
            Refused: it failed; the message ends with its last lines.

        """
        rules = ["ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes"]
        rules += ["NoNewPrivileges=yes", "CapabilityBoundingSet=", "UMask=0022"]
        rules += ["RuntimeMaxSec=1800"]
        if not any(rule.startswith("TemporaryFileSystem=") for rule in properties):
            rules += [f"InaccessiblePaths={self.etc}", f"InaccessiblePaths={self.var}"]
        command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--service-type=exec"]
        command += [f"--uid={self.name}", f"--gid={self.name}", f"--working-directory={cwd}"]
        command += [item for rule in (*rules, *properties) for item in ("--property", rule)]
        result = subprocess.run(
            [*command, "--", *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            tail = (result.stderr or result.stdout).strip().splitlines()[-TAIL:]
            failed = f"{what} failed (exit status {result.returncode}):"
            raise Refused("\n  ".join([failed, *tail]))
        return result.stdout


def main() -> None:
    """Build and print."""
    builder = Builder(json.loads(sys.argv[1]))
    try:
        # What a run that was killed has begun goes on here to its end, perhaps beside the next run.
        with (builder.opt / ".build").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            print(json.dumps(builder.build()))
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        raise SystemExit(3) from None


if __name__ == "__main__":
    main()
