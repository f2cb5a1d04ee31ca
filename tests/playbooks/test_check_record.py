"""playbooks/tasks/check_record.yml: what a hostile server writes into its record goes nowhere."""

import json
from pathlib import Path

import pytest
from support import ansible

TASKS = Path(__file__).resolve().parents[2] / "playbooks/tasks/check_record.yml"
GOOD = [
    {},
    {"stage": "settled", "kind": "migration", "frozen_at": 1.5, "live_at": None,
     "legacy_database_sha256": "0a" * 32, "legacy_database_mode": "0640",
     "settled_at": "2026-11-28T12:00:00.123456+00:00"},
    {"stage": "handing over", "handing_over": {"mode": "instant", "began_at": 1},
     "cleaned_at": None},
]  # fmt: skip
BAD = [
    [], "x", None, {"stage": "else"}, {"kind": "../x"}, {"frozen_at": "1; id"},
    {"legacy_database_sha256": "/../../x" + "0" * 56}, {"legacy_database_sha256": "0" * 63},
    {"legacy_database_sha256": "0a" * 32 + "\n"}, {"legacy_database_mode": "4755"},
    {"legacy_database_mode": "--reference=/etc/shadow"}, {"legacy_database_mode": "0777"},
    {"handing_over": {"mode": "x"}}, {"handing_over": {"mode": "instant", "began_at": "x"}},
    {"frozen_at": float("nan")}, {"downtime_seconds": float("inf")}, {"live_at": 1e300},
    {"cleaned_at": "never; id"}, {"settled_at": "\x1b[2J"},
]  # fmt: skip


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """Judge all of them in one run; {number: whether it was refused}."""
    place = tmp_path_factory.mktemp("records")
    said = place / "said"
    tasks = [
        {"block": [{"include_tasks": str(TASKS), "vars": {"record_checked": record}}],
         "rescue": [{"shell": f"echo {number} >>{said}", "vars": {
             "ansible_python_interpreter": "{{ ansible_playbook_python }}"}}]}
        for number, record in enumerate(GOOD + BAD)
    ]  # fmt: skip
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks,
            "vars": {"rollback_modes": ["instant", "partial", "restore"], "record_of": "a host",
                     "migration_artifacts": "/nowhere"}}  # fmt: skip
    (place / "play.yml").write_text(json.dumps([play]))
    (place / "hosts.json").write_text('{"all": {}}')
    done = ansible.play(place / "play.yml", inventory=place / "hosts.json")
    assert done.returncode == 0, done.stdout
    return set(map(int, said.read_text().split()))


def test_records_as_we_write_them_are_taken(verdicts):
    assert verdicts.isdisjoint(range(len(GOOD)))


@pytest.mark.parametrize("number", range(len(BAD)))
def test_others_are_refused(verdicts, number):
    assert len(GOOD) + number in verdicts, BAD[number]
