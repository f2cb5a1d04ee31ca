"""The machines of this scenario, and playbooks that are run on them."""

import os
import subprocess
from pathlib import Path

import testinfra

ROOT = Path(__file__).parents[3]
WORLD = Path(os.environ["ETL_CACHE"]) / "world.migrate"
ARTIFACTS = WORLD / "artifacts"


def machine(name):
    return testinfra.get_host(f"docker://migrate-{name}")


def play(playbook, *options):
    """Run a playbook on the scenario's machines; return its exit code and what it printed."""
    done = subprocess.run(
        ["ansible-playbook", "-i", ROOT / "molecule/migrate/inventory", ROOT / playbook, *options],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr
