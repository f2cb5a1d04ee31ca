"""One host's failure is that host's: the others do not go into a rescue that speaks of it."""

import json
import sys
from pathlib import Path

import pytest
import yaml
from support import ansible

ROOT = Path(__file__).resolve().parents[2]
# Groups of one host each; playbooks/tasks/check_inventory.yml sees to it.
SINGLE = {"bot", "database", "legacy", "localhost"}


def plays():
    for file in sorted((ROOT / "playbooks").glob("*.yml")):
        for play in yaml.safe_load(file.read_text()):
            if "hosts" in play:
                yield file.name, play


def has_rescue(tasks):
    return any(
        "rescue" in task or any(has_rescue(task.get(part) or []) for part in ("block", "always"))
        for task in tasks
    )


def test_a_play_of_several_hosts_with_a_rescue_lets_each_fail_for_itself():
    with_rescue = [
        (name, play) for name, play in plays() if has_rescue(play.get("tasks") or [])
    ]  # fmt: skip
    assert len(with_rescue) > 10
    wrong = [
        f"{name}: {play['name']}"
        for name, play in with_rescue
        if play["hosts"] not in SINGLE and play.get("any_errors_fatal") is not False
    ]
    assert wrong == []


def everything(tasks, directory):
    """Yield all tasks, with those of the files that are included by a plain name."""
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from everything(task.get(part) or [], directory)
        included = task.get("ansible.builtin.include_tasks") or task.get(
            "ansible.builtin.import_tasks"
        )
        if isinstance(included, dict):
            yield included.get("apply", {})
            included = included["file"]
        file = directory / str(included)
        if included and file.is_file():
            yield from everything(yaml.safe_load(file.read_text()), file.parent)


def test_a_play_that_goes_on_without_a_host_is_not_ended_by_it():
    """any_errors_fatal counts a host that is ignored as unreachable, too."""
    ignoring = [
        (name, play)
        for name, play in plays()
        if play.get("ignore_unreachable")
        or any(
            task.get("ignore_unreachable")
            for task in everything(play.get("tasks") or [], ROOT / "playbooks")
        )
    ]
    assert len(ignoring) > 10
    wrong = [
        f"{name}: {play['name']}"
        for name, play in ignoring
        if play.get("any_errors_fatal") is not False
    ]
    assert wrong == []


SUDO = """#!/bin/sh
echo 'sudo: a password is required' >&2
exit 1
"""


@pytest.fixture
def preflight(tmp_path):
    """Run the preflight's plays that look at the hosts and judge, without the looks themselves."""
    everything = yaml.safe_load((ROOT / "playbooks/preflight.yml").read_text())
    looks, verdict = (
        next(play for play in everything if play.get("name") == f"Preflight · {name}")
        for name in ("hosts", "verdict")
    )
    block = looks["tasks"][0]["block"]
    looks["tasks"][0]["block"] = [
        task for task in block if "ansible.builtin.include_tasks" not in task
    ]
    verdict["tasks"][0]["ansible.builtin.include_tasks"] = str(
        ROOT / "playbooks/preflight/verdict.yml"
    )
    (tmp_path / "play.yml").write_text(yaml.safe_dump([looks, verdict]))
    sudo = tmp_path / "sudo"
    sudo.write_text(SUDO)
    sudo.chmod(0o755)
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}

    def preflight(**old_pc):
        hosts = {
            group: {"hosts": {host: here | {"ansible_become": False} | more}}
            for group, host, more in (
                ("database", "database-vps", {"ansible_host": "192.0.2.1"}),
                ("bot", "bot-vps", {"ansible_host": "192.0.2.2"}),
                ("legacy", "old-pc", old_pc),
            )
        }
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": hosts}}))
        done = ansible.play(
            tmp_path / "play.yml",
            *(f"--extra-vars=@{ROOT}/group_vars/all/{name}.yml" for name in ("migration", "main")),
            inventory=tmp_path / "hosts.json",
            environment={"ANSIBLE_BECOME_ALLOW_SAME_USER": "1"},  # the tests may run as root
            migration_directory=str(tmp_path / "ferry"),
        )
        return done.returncode, ansible.words(done), done.stdout.split("PLAY RECAP")[-1]

    preflight.sudo = str(sudo)
    return preflight


def test_sudo_wants_a_password_on_the_old_pc(preflight):
    code, words, end = preflight(ansible_become=True, ansible_become_exe=preflight.sudo)
    assert code == 2, words
    end = " ".join(end.split())
    assert "1 thing is in the way:" in end, "and not one for each host"
    assert '"Reach the host, and become root there" failed on old-pc:' in end
    assert "Put it in as vault_old_pc_sudo_password (ansible-vault edit " in end
    assert "the old bot serves as before" in end
    assert "undefined" not in end


def test_the_old_pc_does_not_answer(preflight):
    code, words, _ = preflight(
        ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1, ansible_user="nobody"
    )
    assert code == 2
    assert '1 thing is in the way: [question-failed] "Assert that the host was reached"' in words
    assert "failed on old-pc: " in words
    assert "Connection refused" in words
    assert "undefined" not in words
