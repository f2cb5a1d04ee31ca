"""Mistakes of the first evening: site.yml names each in the first second, and asks no server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import ansible

ROOT = Path(__file__).parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJD3KTau/C5C6TTmlieUk+0UrjaNaeixX/kHPJ7FXGhF"
HOSTS = {"database": "vps1", "bot": "vps2", "legacy": "old-pc", "game": "gameserver"}


class Inventory:
    """inventories/example as somebody copies it and fills it in."""

    def __init__(self, directory):
        self.directory = directory
        self.hosts = yaml.safe_load((directory / "hosts.yml").read_text())
        self.settings = yaml.safe_load((directory / "group_vars/all/main.yml").read_text())
        for number, group in enumerate(HOSTS):
            self.host(group)["ansible_host"] = f"192.0.2.{number + 1}"
        self.host("game")["game_host_key"] = KEY
        self.settings["hardening_admin_authorized_keys"] = [KEY]
        self.settings["bot_server_repository"] = "https://git.invalid/bot.git"

    @property
    def groups(self):
        return self.hosts["all"]["children"]

    def host(self, group):
        return self.groups[group]["hosts"][HOSTS[group]]

    def run(self, playbook="site.yml", **settings):
        """Run the play of a playbook that asks nobody; return its exit code and its words."""
        (self.directory / "hosts.yml").write_text(yaml.safe_dump(self.hosts))
        (self.directory / "group_vars/all/main.yml").write_text(yaml.safe_dump(self.settings))
        options = ["-i", "localhost,", "--limit", "localhost"]
        done = ansible.play(playbook, *options, inventory=self.directory, **settings)
        return done.returncode, ansible.words(done)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A copied inventory after `make secrets`."""
    directory = tmp_path_factory.mktemp("evening") / "production"
    shutil.copytree(ROOT / "inventories/example", directory)
    subprocess.run([sys.executable, ROOT / "scripts/make_secrets.py", directory], check=True)
    return directory


@pytest.fixture
def inventory(made, tmp_path):
    return Inventory(shutil.copytree(made, tmp_path / "production"))


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/game_access.yml"])
def test_a_good_inventory_passes(inventory, playbook):
    # What is the owner's own is nobody's business.
    inventory.settings |= {"bot_environment": {"X": "y"}, "my_port": 1, "vault_alert_topic": "x"}
    inventory.groups["servers"] = {"children": {"database": {}, "bot": {}}}
    code, said = inventory.run(playbook)
    assert code == 0, said


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            lambda i: i.groups.update(legcay=i.groups.pop("legacy")),
            "There is no legcay; did you mean legacy?",
        ),
        (lambda i: i.groups.pop("bot"), 'and one in the group "bot"; found 1 and 0.'),
        (
            lambda i: (
                i.settings.update(bot_enviroment={}, hardning_timezone="UTC"),
                i.host("game").update(game_sshport=1),
            ),
            "There is no bot_enviroment; did you mean bot_environment?"
            " There is no game_sshport; did you mean game_ssh_port?"
            " There is no hardning_timezone; did you mean hardening_timezone?",
        ),
        (
            lambda i: (
                i.host("database").update(ansible_host="203.0.113.10"),
                i.settings.update(bot_server_repository="https://github.com/you/your-bot"),
            ),
            "This is still the example's, put in your own: ansible_host of vps1,"
            " bot_server_repository",
        ),
        (
            lambda i: i.host("bot").update(ansible_host="bot.example.org"),
            'ansible_host of vps2 is "bot.example.org". It must be an IP address',
        ),
        (
            lambda i: i.host("bot").update(ansible_host="2001:DB8:0::2"),
            'ansible_host of vps2 is "2001:DB8:0::2", and logs, firewall and database write that'
            ' address as "2001:db8::2".',
        ),
        (
            lambda i: (
                i.host("game").update(game_host_key="ssh-ed25519 AAAA..."),
                i.host("game").pop("game_ssh_port"),
            ),
            "Missing or malformed: game_ssh_port, game_host_key.",
        ),
        (
            lambda i: i.settings.update(
                hardening_admin_authorized_keys=[
                    "{{ lookup('ansible.builtin.file', '/nowhere/id.pub') }}"
                ]
            ),
            "TASK [Your public key, hardening_admin_authorized_keys, can be read]",
        ),
        (
            lambda i: i.settings.update(backups_alert_command="cat"),
            "The inventory sets backups_alert_command, which is now called alert_command",
        ),
        (
            lambda i: i.settings.update(vault_alert_webhook="discord.com/api/webhooks/1/x"),
            "vault_alert_webhook is no complete https:// address.",
        ),
        (
            lambda i: shutil.rmtree(i.directory / "secrets"),
            "secrets/vault_password, which opens it, is not: take it from your copy.",
        ),
        (
            lambda i: (i.directory / "group_vars/all/vault.yml").unlink(),
            "has to hold vault_postgres_app_password",
        ),
    ],
)
def test_a_mistake_is_named(inventory, mistake, message):
    mistake(inventory)
    code, said = inventory.run()
    assert code != 0
    assert message in said


def test_a_bot_of_strangers_needs_no_setting_that_a_newcomer_is_not_shown():
    """What the scenario stranger sets for tests/awkward_bot stands in README, example or vault."""
    inventory = ROOT / "molecule/stranger/inventory"
    settings = yaml.safe_load((inventory / "group_vars/all/main.yml").read_text())
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())["all"]["children"]
    names = set(settings) | {
        name for group in hosts.values() for host in group["hosts"].values() for name in host
    }
    files = [
        ROOT / "README.md",
        ROOT / "group_vars/all/vault.yml.example",
        *(path for path in (ROOT / "inventories/example").rglob("*") if path.is_file()),
    ]
    shown = set(re.findall(r"\w+", " ".join(path.read_text() for path in files)))
    # The first one says how fast the test's machine is made.
    assert names - {"machine_prepared"} - shown == set()
    assert "bot_server_repository" in names & shown


def test_an_inventory_without_secrets_is_told_how_to_make_them(inventory):
    shutil.rmtree(inventory.directory / "secrets")
    (inventory.directory / "group_vars/all/vault.yml").unlink()
    code, said = inventory.run()
    assert code != 0
    assert f"Run: make secrets INVENTORY={inventory.directory}" in said


def test_names_that_the_documents_give_to_e_are_no_misspellings(inventory):
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("playbooks/*.yml")]
    names = {name for page in pages for name in re.findall(r"-e (\w+)=", page.read_text())}
    assert {"version", "game_access_state", "rollback_mode"} <= names
    code, said = inventory.run(**dict.fromkeys(names - {"game_managed"}, "x"))
    assert code == 0, said


def test_every_input_of_a_role_is_known(inventory):
    specs = [yaml.safe_load(p.read_text()) for p in ROOT.glob("roles/*/meta/argument_specs.yml")]
    entries = [entry for spec in specs for entry in spec["argument_specs"].values()]
    # Only whether the names are known is asked, so no value has to be right.
    inventory.settings |= {name: "x" for entry in entries for name in entry["options"]}
    _, said = inventory.run()
    assert "did you mean" not in said


@pytest.mark.parametrize(
    "command",
    ["-i {inventory}", "--inventory={inventory}/hosts.yml", "-i localhost, -i {inventory}"],
)
def test_the_vault_of_the_named_inventory_is_opened_from_anywhere(inventory, command):
    shown = subprocess.run(
        ["ansible-inventory", *command.format(inventory="production").split(), "--host", "vps1"],
        cwd=inventory.directory.parent,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "vault_postgres_app_password" in shown.stdout
