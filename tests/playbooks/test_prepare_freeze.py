"""migrate/prepare_freeze.yml: whatever the old PC says, the record can be read by the next run."""

import json

import pytest
import yaml
from support import ansible

TASKS = yaml.safe_load((ansible.ROOT / "playbooks/migrate/prepare_freeze.yml").read_text())
CHECK = next(task for task in TASKS if task["name"].startswith("Assert that the old PC says"))
RECORD = next(task for task in TASKS if "about to stop" in task["name"])
MODES = {  # what stat says, and what is recorded; None: refused
    "0644": "0644", "0600": "0600", "0664": "0664", "0777": "0666", "0755": "0644", "2750": "0640",
    "0644\n": None, "644; id": None, "--reference=/etc/shadow": None, "u+s": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Ask for all of them in one run: each mode is an old PC."""
    place = tmp_path_factory.mktemp("modes")
    stat = {"wusr": True}
    hosts = {
        f"pc{number}": {"__legacy_database": {"stat": stat | {"mode": mode}},
                        "legacy_database": "/bot.db", "legacy_host": f"pc{number}"}
        for number, mode in enumerate(MODES)
    }  # fmt: skip
    given = RECORD["vars"]
    tasks = [
        CHECK,
        {
            "include_tasks": str(ansible.ROOT / "playbooks/tasks/check_record.yml"),
            "vars": {name: value for name, value in given.items() if name.startswith("__")}
            | {"record_of": "a host", "record_checked": {
                "legacy_database_mode": given["migration_changes"]["legacy_database_mode"]}},
        },
        {"debug": {"msg": f"MODE={given['migration_changes']['legacy_database_mode']}="},
         "vars": {name: value for name, value in given.items() if name.startswith("__")}},
    ]  # fmt: skip
    play = {"hosts": "all", "gather_facts": False, "any_errors_fatal": False, "tasks": tasks,
            "vars": {"rollback_modes": ["instant"], "migration_artifacts": "/nowhere"}}  # fmt: skip
    (place / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (place / "play.json").write_text(json.dumps([play]))
    said = ansible.words(ansible.play(place / "play.json", inventory=place / "hosts.json"))
    found = {}
    for number, mode in enumerate(MODES):
        part = said.partition(f"ok: [pc{number}] => msg: MODE=")[2]
        found[mode] = part.partition("=")[0] or None
    return found, said


@pytest.mark.parametrize("mode", MODES)
def test_the_mode_that_is_recorded_is_one_of_a_data_file(recorded, mode):
    found, said = recorded
    assert found[mode] == MODES[mode], said
