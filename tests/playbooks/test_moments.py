"""Moments that playbooks note: seconds since 1970, wherever the control machine is."""

import json
import re
from pathlib import Path

import pytest
from support import ansible

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns"])
def test_a_host_with_the_same_clock_is_not_ahead_of_a_control_machine_elsewhere(tmp_path, zone):
    tasks = [
        {"include_tasks": f"{REPOSITORY}/playbooks/preflight/host.yml"},
        {"debug": {"msg": "ahead={{ __preflight_ahead | map('float') | map('abs') | max | int }}"}},
    ]
    play = [{"hosts": "here", "gather_facts": False, "tasks": tasks}]
    (tmp_path / "play.json").write_text(json.dumps(play))
    here = {"here": {"ansible_connection": "local", "ansible_host": "127.0.0.1"}}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": here}}))
    done = ansible.play(
        tmp_path / "play.json", inventory=tmp_path / "hosts.json", environment={"TZ": zone}
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"ahead=(\d+)", done.stdout)[1]) < 60


def test_no_playbook_takes_the_time_of_utc_for_that_of_here():
    """Ansible's now(utc=true) names no zone, so its timestamp() would take it for local time."""
    folders = ("playbooks", "roles", "group_vars", "demo", "molecule")
    texts = [
        path
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in (".yml", ".j2")
    ]
    assert len(texts) > 100
    wrong = [
        path.name
        for path in texts
        if re.search(r"now\((utc=)?true[^)]*\)\s*\.timestamp", path.read_text(), re.I)
    ]
    assert wrong == []
