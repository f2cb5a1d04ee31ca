"""docs/decisions/0001: what the inventory says wins over group_vars/ beside the playbooks."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def variable(tmp_path, inventory_vars, name):
    """Return what Ansible makes of a variable for the host of group database."""
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(
        json.dumps(
            {
                "all": {
                    "children": {
                        "database": {"hosts": {"vps1": {"ansible_host": "192.0.2.1"}}},
                        "bot": {"hosts": {"vps2": {"ansible_host": "192.0.2.2"}}},
                    }
                }
            }
        )
    )
    group_vars = tmp_path / "group_vars"
    group_vars.mkdir()
    (group_vars / "all.yml").write_text(json.dumps(inventory_vars))
    shown = subprocess.run(
        ["ansible-inventory", "-i", str(inventory), "--playbook-dir", str(ROOT), "--host", "vps1"],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(shown.stdout)[name]


def test_without_a_word_of_the_inventory_the_wiring_counts(tmp_path):
    assert variable(tmp_path, {}, "hardening_ssh_port") == 48022


def test_the_inventory_wins(tmp_path):
    assert variable(tmp_path, {"hardening_ssh_port": 2222}, "hardening_ssh_port") == 2222


def test_the_inventory_wins_over_the_wiring_of_a_group_too(tmp_path):
    rules = [{"name": "mine", "port": 1}]
    assert (
        variable(tmp_path, {"hardening_firewall_rules": rules}, "hardening_firewall_rules") == rules
    )
