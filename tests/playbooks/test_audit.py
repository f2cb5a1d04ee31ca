"""The verdict of audit.yml: what was not measured is no pass."""

import json
from pathlib import Path

import pytest
import yaml
from support import ansible

REPOSITORY = Path(__file__).resolve().parents[2]
LEFT = ["libpam0g", "1.5.2-6", "1.5.2-7"]
UPDATES = {"tonight": [], "left": [], "hours_since_night": 25.4, "hours_since_lists": 20}
MEASURED = {
    "__audit_inside": {
        "distribution": "Debian 12",
        "lynis": {"version": "3.0.8", "index": 88, "warnings": [], "suggestions": []},
        "updates": UPDATES,
        "listening": [48022],
        "units": {"ssh.service": 9.6},
    },
    "__audit_ssh": {
        "failures": [],
        "warnings": [],
        "passed": True,
        "policy": "Hardened",
        "deviations": [],
    },
}
ADDRESS = "192.0.2.1"


def tried(*ports):
    said = {"stdout_lines": [" ".join([ADDRESS, *map(str, ports)])]}
    return {"__audit_scanned": said, "__audit_asked_singly": said}


def updates(**found):
    return MEASURED | {"__audit_inside": MEASURED["__audit_inside"] | found}


def complaints(directory, server, stranger):
    """Run the last play of audit.yml on what the ones before it have left; return its words."""
    verdict = yaml.safe_load((REPOSITORY / "playbooks/audit.yml").read_text())[-1]
    (directory / "audit.yml").write_text(json.dumps([verdict]))
    (directory / "templates").symlink_to(REPOSITORY / "playbooks/templates")
    hosts = {
        "database": {
            "database-vps": {"ansible_host": ADDRESS, "hardening_ssh_port": 48022} | server
        },
        "outsider": {"stranger": {"ansible_host": "192.0.2.9"} | stranger},
    }
    groups = {"children": {name: {"hosts": found} for name, found in hosts.items()}}
    (directory / "hosts.json").write_text(json.dumps({"all": groups}))
    settings = {"repository_directory": str(directory), "audit_hosts": "database"}
    done = ansible.play(directory / "audit.yml", inventory=directory / "hosts.json", **settings)
    return done.returncode, ansible.words(done)


def test_nothing_falls_short(tmp_path):
    code, said = complaints(tmp_path, MEASURED, tried(48022))
    assert (code, "Nothing falls short." in said) == (0, True)
    assert "open from stranger: 48022" in (tmp_path / "artifacts/audit.txt").read_text()


def test_an_update_that_waits_for_tonight_is_named_and_passes(tmp_path):
    server = updates(updates=UPDATES | {"tonight": [LEFT]})
    code, said = complaints(tmp_path, server, tried(48022))
    assert (code, "Nothing falls short." in said) == (0, True)
    report = (tmp_path / "artifacts/audit.txt").read_text()
    assert "security updates: 0 left by the last night, 1 wait for tonight" in report
    assert "waits for tonight: libpam0g 1.5.2-6 -> 1.5.2-7" in report


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            UPDATES | {"left": [LEFT]},
            "database-vps: the security update of libpam0g (1.5.2-6 -> 1.5.2-7) was left by the",
        ),
        (
            UPDATES | {"hours_since_night": 49.2},
            "database-vps: the last nightly update was 49.2 hours ago.",
        ),
        (
            UPDATES | {"hours_since_night": None},
            "database-vps: security updates were never installed.",
        ),
        (
            UPDATES | {"hours_since_lists": 80},
            "database-vps: the package lists were read 80 hours ago",
        ),
        (None, "database-vps: pending security updates are not known"),
    ],
    ids=["left by a night", "a night did not run", "no night ever", "old lists", "old release"],
)
def test_an_update_that_a_night_has_left_and_a_night_that_did_not_run_are_complaints(
    tmp_path, found, said
):
    code, words = complaints(tmp_path, updates(updates=found), tried(48022))
    assert code == 2
    assert said in words


@pytest.mark.parametrize(
    ("server", "stranger", "said"),
    [
        (MEASURED, {}, "The ports were not tried: stranger could not be reached."),
        ({}, tried(48022), "database-vps could not be measured."),
        (MEASURED, tried(48022, 5432), "database-vps: port 5432 answers stranger"),
    ],
    ids=["nobody outside", "not measured", "an open port"],
)
def test_what_falls_short_is_named(tmp_path, server, stranger, said):
    code, words = complaints(tmp_path, server, stranger)
    assert code == 2
    assert said in words
