"""Makes a release ready that lies unpacked on the bot's host. As root; standard library only.

    build_release.py SETTINGS

SETTINGS is JSON: ``name``, ``opt``, ``etc``, ``state`` (the bot's name and folders), ``release``
(its directory is OPT/releases/RELEASE), ``entry_point``, ``requirements``, ``python``,
``state_directories``, ``environment_file``, ``environment_known`` (names), ``minimum_free_mb``,
``source``, ``accepted`` (shell patterns for files whose problems are warnings),
``denied_addresses`` and ``allowed_addresses`` (networks, see sandboxed).

Makes links to the state, the virtual environment and byte code, and checks what the bot would
import; then the release counts as complete. Changes nothing else; releases.py puts it in use.

What a source or a package brings is run by the bot's user alone, in a sandbox: pip, the packages'
builds, the compiler of byte code, the checks. Root hands the folders over and takes them back,
without following a link, and runs nothing out of them.

Prints JSON: ``venv`` (made or reused), ``warnings`` (sentences), ``unset`` (what
environment_scan.py found), ``seconds``. Exit code 3 is a refusal with its reason.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# A release is complete when this file is in it; it is written last.
COMPLETE = ".release.json"
# Ours in a release; what a source carries under these names goes.
RESERVED = (COMPLETE, f"{COMPLETE}.new", ".failed", ".clone")
TAIL = 30  # lines of a failed program's output that are shown
WIDTH = 500  # characters of each of them


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
            if not self.inside(release, release / self.settings[what]).is_file():
                raise Refused(
                    f"the source has no file {self.settings[what]!r} (bot_server_{what} says so)"
                )
        venv, made = self.virtual_environment(release)
        warnings = self.byte_compile(release)
        # From here on nobody but root can change what is there, so a look at a path holds.
        for name in (*RESERVED, ".venv"):
            remove(release / name)
        (release / ".venv").symlink_to(os.path.relpath(venv, release))
        self.link_state(release)
        warnings += self.check_imports(release)
        unset = self.scan_environment(release)
        origin = {"source": self.settings["source"], "built_at": int(time.time())}
        write_new(release / f"{COMPLETE}.new", json.dumps(origin) + "\n")
        (release / f"{COMPLETE}.new").replace(release / COMPLETE)
        return {
            "venv": "made" if made else "reused",
            "warnings": warnings,
            "unset": unset,
            "seconds": round(time.monotonic() - begin, 1),
        }

    @staticmethod
    def inside(release: Path, path: Path) -> Path:
        """Return a path of the source.

        Raises:
            Refused: it leads out of the source.

        """
        if not path.resolve().is_relative_to(release.resolve()):
            shown = os.path.relpath(path, release)
            raise Refused(f"{shown!r} leads out of the source, to {path.resolve()}")
        return path

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
            for parent in reversed(link.relative_to(release).parents[:-1]):
                if (release / parent).is_symlink():
                    raise Refused(
                        f"the source has a link {str(parent)!r}, below which the bot's state "
                        f"{directory!r} would be (bot_server_state_directories)"
                    )
                (release / parent).mkdir(exist_ok=True)
            remove(link)  # what a source carries there is not the bot's state
            link.symlink_to(self.var / directory)

    def requirement_files(self, release: Path) -> tuple[list[Path], bool]:
        """Return the requirements file with all it includes, and whether one names a local path.

        Raises:
            Refused: a file is missing or is not a requirements file.

        """
        files = [release / self.settings["requirements"]]
        local = False
        for path in files:
            if not self.inside(release, path).is_file():
                raise Refused(f"{path.relative_to(release)} is included, but is not there")
            for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
                if re.match(r"(<{7}|={7}|>{7}|\|{7})( |$)", line):
                    where = f"{path.relative_to(release)}, line {number}"
                    raise Refused(f"{where}: merge marker {line[:7]!r}, a merge was not finished")
                included = re.match(r"\s*(?:-r|-c|--requirement|--constraint)[\s=]*([^\s#]+)", line)
                if included and "://" not in included[1]:
                    other = Path(os.path.normpath(path.parent / included[1]))
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
            [python, "-I", "-c", "import sys; print(sys.version_info[:2], sys.executable)"],
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
        self.cache.mkdir(exist_ok=True)
        self.cache.chmod(0o750)
        # The build of a package that lies in the source writes beside it.
        given = [venv, self.cache, *([release] if local else [])]
        writable = [f"ReadWritePaths={path}" for path in given]
        try:
            for path in given:
                self.hand_over(path)
            make = [python, "-m", "venv", str(venv)]
            self.sandboxed("making the virtual environment", make, release, writable)
            pip = [f"{venv}/bin/python", "-m", "pip", "install", "--quiet", "--no-input"]
            pip += ["--disable-pip-version-check", "--use-pep517", "--compile"]
            pip += ["--cache-dir", f"{self.cache}/pip"]
            pip += ["--requirement", self.settings["requirements"]]
            what = f"pip install -r {self.settings['requirements']}"
            self.sandboxed(what, pip, release, writable)
        finally:
            for path in given:
                if path != self.cache:
                    take_back(path)
            remove(venv / COMPLETE)
        write_new(venv / COMPLETE, "{}\n")
        return venv, True

    def hand_over(self, tree: Path) -> None:
        """Give a tree to the bot's user, the leaves first, so that it cannot change meanwhile.

        Links are given, not followed.
        """
        user = pwd.getpwnam(self.name)
        if tree != self.cache:  # which has been its user's all along
            for _, folders, files, here in os.fwalk(tree, topdown=False):
                for name in (*folders, *files):
                    os.chown(name, user.pw_uid, user.pw_gid, dir_fd=here, follow_symlinks=False)
        os.chown(tree, user.pw_uid, user.pw_gid, follow_symlinks=False)

    def byte_compile(self, release: Path) -> list[str]:
        """Compile the release, since the bot itself may not write there.

        Returns:
            The files that are not Python, as sentences; whether one matters is the import check's
            business.

        """
        # The system's interpreter has the same byte code, and reads nothing of the environment's.
        command = [self.settings["python"], "-I", "-m", "compileall", "-qq", "."]
        try:
            self.hand_over(release)
            self.sandboxed("byte code", command, release, [f"ReadWritePaths={release}"])
        except Refused:
            return ["some files of the source do not compile"]
        finally:
            take_back(release)
        return []

    def check_imports(self, release: Path) -> list[str]:
        """Import what the entry point imports: as the bot, without a network, state thrown away.

        Returns:
            What is wrong in files that the bot can do without or that were accepted, as sentences.

        Raises:
            Refused: it would not start.

        """
        properties = ["PrivateNetwork=yes", f"TemporaryFileSystem={self.var}:mode=0777"]
        if self.settings["environment_file"]:
            properties.append(f"EnvironmentFile={self.settings['environment_file']}")
        command = [str(release / ".venv/bin/python"), str(self.opt / "import_check.py")]
        # The first is there; mkdir wants at least one.
        directories = [str(self.var / name) for name in ["", *self.settings["state_directories"]]]
        script = 'mkdir -p -- "${@:3}" && exec "$1" "$2" "$0"'
        out = self.sandboxed(
            "the import check",
            ["bash", "-c", script, self.settings["entry_point"], *command, *directories],
            release,
            properties,
        )
        answer = read_answer(out, "the import check", "problems", "failures", "warnings")
        optional = [clean(str(one.get("text"))) for one in answer["warnings"]]
        optional = [f"{text} (the source goes on without it)" for text in optional]
        return optional + self.judge(answer["problems"]) + self.judge(answer["failures"])

    def judge(self, problems: list[dict[str, Any]]) -> list[str]:
        """Tell what is accepted from what is not; a problem has ``file`` and ``text``.

        Returns:
            What is accepted, as sentences.

        Raises:
            Refused: a problem is left; the message says how to accept it.

        """
        refused, accepted, files = [], [], []
        for problem in problems:
            file, text = clean(str(problem.get("file"))), clean(str(problem.get("text")))
            if any(fnmatch.fnmatchcase(file, pattern) for pattern in self.settings["accepted"]):
                accepted.append(f"{text} (bot_server_import_accepted)")
            else:
                refused.append(text)
                files.append(file)
        if files:
            accept = json.dumps({"bot_server_import_accepted": list(dict.fromkeys(files))})
            raise Refused(
                "\n  ".join(["it would not start:", *refused])
                + "\nIf the bot does without that, put this into the inventory, or behind -e: "
                f"'{accept}'"
            )
        return accepted

    def scan_environment(self, release: Path) -> list[dict[str, Any]]:
        """Return which names the source reads from its environment and nobody sets.

        The sources are foreign and may be made to break who reads them, so the bot's user does.
        """
        wanted = {"directory": str(release), "known": self.settings["environment_known"]}
        script = str(self.opt / "environment_scan.py")
        command = [self.settings["python"], "-I", script, json.dumps(wanted)]
        out = self.sandboxed("the search for names", command, release, ["PrivateNetwork=yes"])
        return [
            {
                "name": clean(str(entry["name"])),
                "file": clean(str(entry["file"])),
                "line": int(entry["line"]),
                "needed": bool(entry["needed"]),
            }
            for entry in read_answer(out, "the search for names", "unset")["unset"]
        ]

    def sandboxed(self, what: str, argv: list[str], cwd: Path, properties: list[str]) -> str:
        """Run a program as the bot's user, who may write nothing but what ``properties`` opens.

        What a package runs while it is built is foreign code: it sees neither the bot's settings
        nor its state, and reaches no address that the bot may not reach.

        Raises:
            Refused: it failed; the message ends with its last lines.

        """
        rules = ["ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "PrivateDevices=yes"]
        rules += ["NoNewPrivileges=yes", "CapabilityBoundingSet=", "UMask=0022"]
        rules += ["RestrictSUIDSGID=yes", "RuntimeMaxSec=1800"]
        rules += [f"IPAddressDeny={each}" for each in self.settings["denied_addresses"]]
        rules += [f"IPAddressAllow={each}" for each in self.settings["allowed_addresses"]]
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
            errors="replace",
            check=False,
        )
        if result.returncode:
            tail = (result.stderr or result.stdout).strip().splitlines()[-TAIL:]
            failed = f"{what} failed (exit status {result.returncode}):"
            raise Refused("\n  ".join([failed, *map(clean, tail)]))
        return result.stdout


def clean(text: str) -> str:
    """Return a line that others wrote, without what a terminal would obey."""
    return "".join(each if each.isprintable() else " " for each in text[:WIDTH])


def read_answer(out: str, what: str, *lists: str) -> dict[str, Any]:
    """Return the JSON object in the last line of what the bot's user has printed.

    Raises:
        Refused: it is not one with these lists of objects.

    """
    try:
        answer = json.loads(out.splitlines()[-1])
        if all(isinstance(each, dict) for name in lists for each in answer[name]):
            return answer
    except (IndexError, KeyError, TypeError, ValueError):
        pass
    raise Refused(f"{what} gave no answer, but {clean(out[-200:])!r}")


def remove(path: Path) -> None:
    """Remove whatever is there, without following a link; its directory is root's."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet; never through a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o644), "w") as out:
        out.write(text)


def take_back(tree: Path) -> None:
    """Give a tree that belonged to the bot's user to root, who alone may change it from then on.

    Each directory becomes root's before one looks at what is in it: from then on nobody can put a
    link in the place of what was looked at. What is no file, directory or link (a pipe, a socket)
    goes; so do set-user-id and the right to write.
    """
    todo = [tree]
    for directory in todo:
        here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchown(here, 0, 0)
            os.fchmod(here, 0o755)
            for name in os.listdir(here):  # noqa: PTH208 (a path cannot list a descriptor)
                mode = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    todo.append(directory / name)  # all above it is root's by now
                elif stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                    os.chown(name, 0, 0, dir_fd=here, follow_symlinks=False)
                    if stat.S_ISREG(mode):
                        os.chmod(name, 0o644 | mode & 0o111, dir_fd=here)
                else:
                    os.unlink(name, dir_fd=here)
        finally:
            os.close(here)


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
