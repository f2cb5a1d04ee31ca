"""No secret travels in a task's ``environment``.

With ``become`` Ansible writes the environment into sudo's command line, and sudo writes that line
into the journal of the host. What a command needs to know goes to it by ``stdin`` or in a file that
only its user can read.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SECRET = re.compile(r"(password|passphrase|token|secret|webhook|identity)\b", re.IGNORECASE)


class Loader(yaml.SafeLoader):
    """Reads ``!vault`` and the like as nothing."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: "")  # noqa: ARG005 - PyYAML's signature


def environments(node: object) -> Iterator[object]:
    """Yield what stands under each ``environment`` of a playbook or task file."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "environment":
                yield from value.values() if isinstance(value, dict) else [value]
            yield from environments(value)
    elif isinstance(node, list):
        for item in node:
            yield from environments(item)


def test_no_secret_is_in_the_environment_of_a_task():
    files = [
        path
        for folder in ("playbooks", "roles", "demo", "molecule")
        for path in (ROOT / folder).rglob("*.yml")
        if "group_vars" not in path.parts
    ]
    values = [
        (str(path.relative_to(ROOT)), str(value))
        for path in files
        for value in environments(yaml.load(path.read_text(), Loader))  # noqa: S506 - a SafeLoader
    ]
    assert len(values) > 10
    assert not [
        (path, value)
        for path, value in values
        if any(SECRET.search(expression) for expression in re.findall(r"{{(.*?)}}", value))
    ]
