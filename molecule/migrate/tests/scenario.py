"""The machines of this scenario, and playbooks that are run on them."""

import os
from pathlib import Path

import testinfra
from support import ansible

WORLD = Path(os.environ["ETL_CACHE"]) / "world.migrate"
ARTIFACTS = WORLD / "artifacts"


def machine(name):
    return testinfra.get_host(f"docker://migrate-{name}")


def play(playbook, *options):
    """Run a playbook on the scenario's machines; return its exit code and what it printed."""
    done = ansible.play(playbook, *options, inventory="molecule/migrate/inventory")
    return done.returncode, done.stdout
