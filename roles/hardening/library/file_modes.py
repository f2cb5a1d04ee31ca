#!/usr/bin/python
# MIT License, see LICENSE
"""Module `file_modes`: stricter modes that outlive updates, in one call; see DOCUMENTATION."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: file_modes
short_description: Stricter modes that outlive updates, in one call
description:
  - Gives files and directories a mode, takes set-user-ID and set-group-ID bits away, and leaves
    programs to one group. What a package brings is told to dpkg (C(dpkg-statoverride)), so that an
    update does not undo it. Paths that do not exist are skipped.
  - Remembers how a path was before, and puts it back when it is no longer in the lists.
options:
  modes:
    description: Paths with their mode (an octal string); owner and group stay.
    type: dict
    default: {}
  without_set_id:
    description: Programs that need neither bit.
    type: list
    elements: str
    default: []
  only_for_group:
    description: Patterns of programs that only root and the members of C(group) may run.
    type: list
    elements: str
    default: []
  group: {description: See C(only_for_group)., type: str, default: root}
"""

RETURN = """
paths: {description: Paths that were changed or put back., type: list}
"""

RECORD = Path("/var/lib/hardening-modes.json")
OVERRIDES = Path("/var/lib/dpkg/statoverride")
PACKAGES = Path("/var/lib/dpkg/info")

# Owner, group and mode as dpkg-statoverride spells them.
State = tuple[str, str, str]


def state_of(path: Path) -> State:
    """Return owner, group and mode of a path; raises OSError or KeyError."""
    status = path.stat()
    owner, group = pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    return owner, group, f"{stat.S_IMODE(status.st_mode):04o}"


def wanted_states(params: dict) -> dict[str, State]:
    """Return for each existing path of the lists the state it shall have."""
    wanted: dict[str, State] = {}
    for name, mode in params["modes"].items():
        path = Path(name)
        if path.exists():
            owner, group, _ = state_of(path)
            wanted[str(path.resolve())] = (owner, group, f"{int(mode, 8):04o}")
    for name in params["without_set_id"]:
        path = Path(name)
        if path.exists():
            owner, group, mode = state_of(path)
            wanted[str(path.resolve())] = (owner, group, f"{int(mode, 8) & 0o1777:04o}")
    for pattern in params["only_for_group"]:
        for path in Path("/").glob(pattern.lstrip("/")):
            if path.exists():
                wanted[str(path.resolve())] = ("root", params["group"], "0750")
    return wanted


def name_in_dpkg(path: str) -> str:
    """Return the name by which a package brings this path, or an empty string.

    On Debian 12 packages still say /bin for what lies in /usr/bin.
    """
    names = {path.encode(): path, path.removeprefix("/usr").encode(): path.removeprefix("/usr")}
    for listing in PACKAGES.glob("*.list"):
        for name in names.keys() & set(listing.read_bytes().splitlines()):
            return names[name]
    return ""


def overrides() -> dict[str, State]:
    """Return what dpkg was told, by path."""
    lines = OVERRIDES.read_text().splitlines() if OVERRIDES.exists() else []
    words = [line.split(maxsplit=3) for line in lines]
    return {path: (owner, group, f"{int(mode, 8):04o}") for owner, group, mode, path in words}


class Modes:
    """The modes on this host, and the commands that change them."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.told = overrides()

    def tell_dpkg(self, *words: str) -> None:
        """Run dpkg-statoverride; fail the task where it fails."""
        command = ["dpkg-statoverride", *words]
        code, _, err = self.module.run_command(command)
        if code != 0:
            self.module.fail_json(msg=f"{' '.join(command)}: {err.strip()}")

    def give(self, path: str, state: State) -> None:
        """Give a path its state now."""
        owner, group, mode = state
        os.chown(path, pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid)
        Path(path).chmod(int(mode, 8))

    def set(self, path: str, state: State, name: str) -> None:
        """Give a path its state, also after updates of the package that calls it name."""
        if name and self.told.get(name) != state:
            self.tell_dpkg("--force-statoverride-add", "--add", *state, name)
        self.give(path, state)

    def restore(self, path: str, state: State, name: str) -> None:
        """Give a path the state back that it had before this module, and forget it."""
        if name and name in self.told:
            self.tell_dpkg("--remove", name)
        if Path(path).exists():
            self.give(path, state)


def main() -> None:
    """Entry point for Ansible."""
    module = AnsibleModule(
        argument_spec={
            "modes": {"type": "dict", "default": {}},
            "without_set_id": {"type": "list", "elements": "str", "default": []},
            "only_for_group": {"type": "list", "elements": "str", "default": []},
            "group": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    # By path: how it was before, and its name in dpkg.
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    known = dict(record)
    modes = Modes(module)
    wanted = wanted_states(module.params)
    changed = []
    for path, state in wanted.items():
        if path not in known:
            known[path] = {"before": state_of(Path(path)), "name": name_in_dpkg(path)}
        name = known[path]["name"]
        if state_of(Path(path)) != state or (name and modes.told.get(name) != state):
            changed.append(path)
            if not module.check_mode:
                modes.set(path, state, name)
    for path in [path for path in known if path not in wanted]:
        changed.append(path)
        entry = known.pop(path)
        if not module.check_mode:
            modes.restore(path, tuple(entry["before"]), entry["name"])
    if known != record and not module.check_mode:
        temporary = Path(module.tmpdir) / RECORD.name
        temporary.write_text(json.dumps(known, indent=1) + "\n")
        module.atomic_move(str(temporary), str(RECORD))
    module.exit_json(changed=bool(changed), paths=changed)


if __name__ == "__main__":
    main()
