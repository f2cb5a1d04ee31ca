#!/usr/bin/python
# MIT License, see LICENSE
"""Module `text_files`: many small files in one call; see DOCUMENTATION."""

from __future__ import annotations

import os
import pwd
import stat
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: text_files
short_description: Many small text files in one call
description:
  - Writes each file whole, atomically, with owner root, and makes missing directories. A template
    or copy task costs five connections a file; this costs one for all.
options:
  files:
    description: The files, each with C(path), C(content) and C(mode) (an octal string).
    type: list
    elements: dict
    required: true
  settings:
    description:
      - Files of others in which only some settings are ours, each with C(path), C(values) (name to
        value) and C(separator), which is a tab for white space as in login.defs where it is not
        given. A line that is a comment stays one, a file that does not exist is left so.
    type: list
    elements: dict
    default: []
  absent:
    description: Paths of files that must not exist.
    type: list
    elements: str
    default: []
"""

RETURN = """
paths: {description: Paths that were changed or removed., type: list}
"""


def describe(path: Path) -> tuple[str | None, str | None]:
    """Return content and mode of a file; None where there is no plain file of root's."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return None, None
        owner = pwd.getpwuid(status.st_uid).pw_name
        mode = f"{status.st_mode & 0o7777:04o}" if owner == "root" else None
        return path.read_text(errors="replace"), mode
    except (OSError, KeyError):
        return None, None


def write(module: AnsibleModule, path: Path, content: str, mode: str) -> None:
    """Put a file in place in one step, so that no program ever reads half of it."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w") as stream:
        stream.write(content)
    Path(temporary).chmod(int(mode, 8))
    module.atomic_move(temporary, str(path), keep_dest_attrs=False)
    path.chmod(int(mode, 8))  # a new file got the umask's


def with_settings(content: str, values: dict[str, object], separator: str = "\t") -> str:
    """Return the text with these settings; one that was not there is added at the end."""
    divider = separator.strip() or None  # None: any white space
    lines = content.splitlines()
    for name, value in values.items():
        wanted = f"{name}{separator}{value}"
        found = [at for at, line in enumerate(lines) if line.split(divider)[:1] == [name]]
        if not found:
            lines.append(wanted)
        elif len(found) > 1 or lines[found[0]].split(divider) != wanted.split(divider):
            lines[found[0]] = wanted
            for at in reversed(found[1:]):
                del lines[at]
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Entry point for Ansible."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True},
            "settings": {"type": "list", "elements": "dict", "default": []},
            "absent": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    changed, diffs = [], []
    wishes = list(module.params["files"])
    for entry in module.params["settings"]:
        content, mode = describe(Path(entry["path"]))
        if content is not None:
            text = with_settings(content, entry["values"], entry.get("separator", "\t"))
            wishes.append({"path": entry["path"], "content": text, "mode": mode or "0644"})
    for wish in wishes:
        path = Path(wish["path"])
        content, mode = describe(path)
        if (content, mode) == (wish["content"], wish["mode"]):
            continue
        changed.append(str(path))
        diffs.append(
            {
                "before_header": f"{path} (mode {mode or 'none'})",
                "after_header": f"{path} (mode {wish['mode']})",
                "before": content or "",
                "after": wish["content"],
            }
        )
        if not module.check_mode:
            write(module, path, wish["content"], wish["mode"])
    for name in module.params["absent"]:
        path = Path(name)
        if path.exists():
            changed.append(name)
            diffs.append({"before_header": name, "before": describe(path)[0] or "", "after": ""})
            if not module.check_mode:
                path.unlink()
    module.exit_json(changed=bool(changed), paths=changed, diff=diffs)


if __name__ == "__main__":
    main()
