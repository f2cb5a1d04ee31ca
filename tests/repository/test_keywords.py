"""Keywords of Ansible that do more than they say, kept out of plays and tasks."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SECRET = re.compile(r"(password|passphrase|token|secret|webhook|identity)\b", re.IGNORECASE)


class Loader(yaml.SafeLoader):
    """Reads ``!vault`` and the like as nothing."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: "")  # noqa: ARG005 - PyYAML's signature


def values_of(keyword: str, node: object) -> Iterator[object]:
    """Yield what stands under a keyword anywhere in a playbook or task file."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == keyword:
                yield value
            yield from values_of(keyword, value)
    elif isinstance(node, list):
        for item in node:
            yield from values_of(keyword, item)


@pytest.fixture(scope="module")
def files() -> dict[str, object]:
    """Return {path: contents} of all playbooks and task files."""
    return {
        str(path.relative_to(ROOT)): yaml.load(path.read_text(), Loader)  # noqa: S506 - a SafeLoader
        for folder in ("playbooks", "roles", "demo", "molecule")
        for path in (ROOT / folder).rglob("*.yml")
        if "group_vars" not in path.parts
    }


def test_no_secret_is_in_the_environment_of_a_task(files):
    # With `become` Ansible writes the environment into sudo's command line, and sudo writes that
    # line into the host's journal. A command gets it by `stdin` or in a file of its own user.
    values = [
        (path, str(value))
        for path, contents in files.items()
        for environment in values_of("environment", contents)
        for value in (environment.values() if isinstance(environment, dict) else [environment])
    ]
    assert len(values) > 10
    assert not [
        (path, value)
        for path, value in values
        if any(SECRET.search(expression) for expression in re.findall(r"{{(.*?)}}", value))
    ]


def test_no_play_with_a_local_connection_delegates(files):
    # The keyword of a play wins over the other host's own connection: what is delegated would be
    # done here. `hosts: localhost` is local without it.
    plays = [
        (path, play)
        for path, contents in files.items()
        for play in (contents if isinstance(contents, list) else [])
        if isinstance(play, dict) and play.get("connection") == "local" and "hosts" in play
    ]
    assert len(plays) > 10
    assert not [
        (path, play["name"])
        for path, play in plays
        if any(host != "localhost" for host in values_of("delegate_to", play))
    ]
