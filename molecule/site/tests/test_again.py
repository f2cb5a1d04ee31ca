"""site.yml on the finished servers once more, and what strangers' tools say of them."""

import re

from support import ansible


def play(playbook, *arguments, **environment):
    """Run a playbook as a user does; return what it printed. It must succeed."""
    result = ansible.play(
        playbook, *arguments, inventory="molecule/site/inventory", environment=environment
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_mitogen_finds_nothing_to_change():
    said = play("site.yml", ANSIBLE_STRATEGY="mitogen_linear")
    changed = dict(re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", said, re.MULTILINE))
    assert changed == {"bot-vps": "0", "database-vps": "0", "localhost": "0"}


def test_the_audit_finds_nothing_that_falls_short(tmp_path):
    report = tmp_path / "audit.txt"
    play("playbooks/audit.yml", "-e", f"audit_report={report}")
    assert "database-vps" in report.read_text()
    print(report.read_text())
