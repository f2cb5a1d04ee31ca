"""The machines of this scenario, and playbooks that are run on them."""

import json
import os
from pathlib import Path

import testinfra
import yaml
from support import ansible

NAME = os.environ["MOLECULE_SCENARIO_NAME"]
INVENTORY = ansible.ROOT / "molecule" / NAME / "inventory"
NETWORK = yaml.safe_load((INVENTORY / "group_vars/all/world.yml").read_text())["machines_network"]
WORLD = Path(os.environ["ETL_CACHE"]) / f"world.{NAME}"
ARTIFACTS = WORLD / "artifacts"


def machine(name):
    return testinfra.get_host(f"docker://{NAME}-{name}")


def play(playbook, *options):
    """Run a playbook on the scenario's machines; return its exit code and what it printed."""
    done = ansible.play(playbook, *options, inventory=INVENTORY)
    return done.returncode, done.stdout


def sql(query):
    result = machine("database-vps").run(
        "runuser -u postgres -- psql -X -At -d etlegacy_stats -c %s", query
    )
    assert result.rc == 0, result.stderr
    return result.stdout.strip()


def discord(path, body=None):
    """Ask the control port of the Discord that the stranger plays."""
    program = (
        "import sys, urllib.request as r;"
        " print(r.urlopen('http://127.0.0.1:8480' + sys.argv[1],"
        " sys.argv[2].encode() or None, timeout=30).read().decode())"
    )
    said = machine("stranger").check_output(
        "python3 -c %s %s %s", program, path, json.dumps(body) if body else ""
    )
    return json.loads(said)
