"""Bad input stops the role hardening before it touches the host, with one message."""

import pytest
from support import ansible

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJD3KTau/C5C6TTmlieUk+0UrjaNaeixX/kHPJ7FXGhF me"
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: { name: hardening }
"""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "missing required arguments: hardening_admin_authorized_keys"),
        ({"hardening_admin_authorized_keys": []}, "authorized_keys is empty: add your public key"),
        (
            {"hardening_admin_authorized_keys": ["ssh-ed25519 AAAA... you@laptop"]},
            'entry 1 ("ssh-ed25519 AAAA... you@laptop…") is a placeholder or damaged',
        ),
        (
            {"hardening_ssh_prot": 48022},
            "hardening_ssh_prot is not a setting of the role hardening; did you mean"
            " hardening_ssh_port?",
        ),
        ({"hardening_ssh_port": 70000}, "hardening_ssh_port is 70000: take a free port"),
        ({"hardening_admin_user": "root"}, "take a name other than root"),
        (
            {"hardening_fail2ban_ignore_addresses": ["my laptop"]},
            "'my laptop' does not appear to be an IPv4 or IPv6 network",
        ),
        (
            {"hardening_firewall_rules": [{"name": "web", "port": "http"}]},
            'Rule "web": http is not a port',
        ),
        (
            {"hardening_firewall_outgoing_policy": "forbid"},
            "must be one of: allow, deny, got: forbid",
        ),
        ({"hardening_umask": "rwx"}, "hardening_umask is rwx: take three octal digits in quotes"),
        (
            {"hardening_file_modes": {"/etc/crontab": "rw"}},
            '/etc/crontab: rw is no mode such as "0600", in quotes.',
        ),
        (
            {"hardening_never_restarted": ["postgresql@15-main.service"]},
            '"postgresql@15-main.service" is no name of letters, digits, - and _. Leave .service',
        ),
        ({"hardening_blocked_modules": ["a; b"]}, 'hardening_blocked_modules: "a; b" is no name'),
        (
            {"hardening_unattended_upgrades_reboot_time": 240},
            'are times of the day such as "04:00", in quotes',
        ),
    ],
)
def test_bad_input_is_refused(tmp_path, settings, message):
    play = tmp_path / "play.yml"
    play.write_text(PLAY)
    if settings:
        settings = {"hardening_admin_authorized_keys": [KEY]} | settings
    done = ansible.play(play, inventory="localhost,", **settings)
    assert done.returncode != 0
    assert message in ansible.words(done)
    assert "changed=0" in done.stdout
    assert "What differs on the host" not in done.stdout
