"""What an operator gives on the command line and must not: refused before any host is asked."""

import json

import pytest
from support import ansible

HOSTS = {
    "all": {
        "children": {
            group: {"hosts": {host: {"ansible_host": f"192.0.2.{number}"}}}
            for number, (group, host) in enumerate(
                [("database", "database-vps"), ("bot", "bot-vps"), ("legacy", "old-pc")], 1
            )
        }
    }
}


@pytest.fixture
def inventory(tmp_path):
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps(HOSTS))
    return path


@pytest.mark.parametrize("playbook", ["migrate", "rehearse", "rollback"])
def test_a_part_of_the_inventory_is_refused(inventory, playbook):
    """The plays of this machine, which judge and put back, would be left out."""
    run = ansible.play(f"playbooks/{playbook}.yml", "--limit", "bot,legacy", inventory=inventory)
    assert run.returncode == 2
    assert "run it without --limit. Nothing was touched." in ansible.words(run)
    assert "unreachable=0" in run.stdout


def test_what_is_accepted_has_to_be_a_list(inventory):
    run = ansible.play("playbooks/migrate.yml", inventory=inventory, migrate_accept="data")
    assert run.returncode == 2
    said = ansible.words(run)
    assert 'migrate_accept is "data" and has to be a list of the names in brackets' in said
    assert "unreachable=0" in run.stdout
