"""plugins/callback/plain_terminal.py: a hostile host's output is text on the operator's screen."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from support import ansible

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\rover\x9b6n\u202eback"


@pytest.fixture(scope="module")
def plain():
    path = ROOT / "plugins/callback/plain_terminal.py"
    spec = importlib.util.spec_from_file_location("plain_terminal", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.plain


def test_control_characters_are_spelled_out(plain):
    assert plain(HOSTILE) == r"\x1b]0;owned\x07\x1b[2J\x1b[31mred\rover\x9b6n\u202eback"
    assert plain("a\tb\nü → 字\r\n") == "a\tb\nü → 字\n"
    for colour in ("\x1b[0;32m", "\x1b[1;31m", "\x1b[0m"):
        assert plain(f"{colour}ok") == f"{colour}ok"
    for trick in ("\x1b[0;30m", "\x1b[8m", "\x1b[0;32;8m", "\x1b[0;3\x1b[0m2m"):
        assert "\x1b" not in plain(trick).replace("\x1b[0m", "")


@pytest.mark.parametrize("more", [{}, {"ANSIBLE_STDOUT_CALLBACK": "default"}], ids=["ours", "any"])
def test_nothing_of_a_host_reaches_the_terminal_raw(tmp_path, more):
    """By standard output and error, by a message, by an error, by a name."""
    speaks = f"import sys; t = {HOSTILE!a}; sys.stdout.write(t); sys.exit(t)"
    tasks = [
        {
            "command": {"argv": [sys.executable, "-c", speaks]},
            "environment": {"PYTHONIOENCODING": "utf-8"},
            "register": "said",
            "ignore_errors": True,
        },
        {"debug": {"msg": "{{ said.stdout }}"}},
        {"debug": {"msg": "{{ [said.stderr, said.stdout_lines] }}"}},
        {"name": "{{ said.stdout }}", "fail": {"msg": "{{ said.stdout }}\n{{ said.stderr }}"}},
    ]
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    (tmp_path / "hosts.json").write_text('{"all": {}}')
    environment = {"ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks", **more}
    done = ansible.play(
        tmp_path / "play.yml", inventory=tmp_path / "hosts.json", environment=environment
    )
    assert "owned" in done.stdout
    assert [char for char in done.stdout if char in "\x1b\x07\r\x9b\u202e"] == []
