"""playbooks/rollback/bar.yml: who asks for the database after it was barred is heard."""

import os
import subprocess

import pytest
import yaml
from support import ansible

TASKS = yaml.safe_load((ansible.ROOT / "playbooks/rollback/bar.yml").read_text())
LISTEN = next(task["ansible.builtin.shell"]["cmd"] for task in TASKS if "asked for" in task["name"])
REFUSED = "login attempt: db=stats user=app tls=TLSv1.3"


def heard(tmp_path, bot, line):
    """Return what of a journal with this one line is taken for the bot server's."""
    journal = tmp_path / "journalctl"
    journal.write_text(f"#!/bin/sh\ncat <<'END'\n{line}\nEND\n")
    journal.chmod(0o755)
    return subprocess.run(
        ["bash", "-c", LISTEN],
        env={**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin", "bot": bot, "cursor": "x"},
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip


@pytest.mark.parametrize(
    ("bot", "line"),
    [
        ("192.0.2.2", "[1] connection received: host=192.0.2.2 port=40001"),
        ("192.0.2.2", f"C-0x5: stats/app@192.0.2.2:40001 {REFUSED}"),
        ("2001:db8::2", "[1] connection received: host=2001:db8::2 port=40001"),
        ("2001:db8::2", f"C-0x5: stats/app@[2001:db8::2]:40001 {REFUSED}"),
    ],
)
def test_a_bot_server_that_lives_is_heard_over_both_protocols(tmp_path, bot, line):
    assert heard(tmp_path, bot, line) == line
    assert heard(tmp_path, "192.0.2.77", line) == ""
