"""What the role hardening finds wrong with its inputs."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa


def public_line(key):
    """Return the key as in authorized_keys."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )


# Always the same one: it is part of the names of tests, which pytest-xdist compares.
ED25519 = public_line(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)))


@pytest.mark.parametrize(
    "line",
    [
        ED25519,
        f"{ED25519} me@laptop",
        f'from="192.0.2.0/24",no-pty {ED25519} me',
        public_line(ec.generate_private_key(ec.SECP256R1())),
        public_line(rsa.generate_private_key(65537, 3072)),
    ],
)
def test_real_keys_pass(filters, line):
    assert filters.ssh_key_complaints([line]) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "does not begin with a key type"),
        ("your public key here", "does not begin with a key type"),
        ("ssh-ed25519 AAAA… you@laptop", "is a placeholder or damaged"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA you", "is a placeholder or damaged"),
        (ED25519.replace("ssh-ed25519", "ssh-rsa"), "is a placeholder or damaged"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACBAP you", "does not begin with a key type"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc", "is a private key"),
        (f"{ED25519}\n{ED25519}", "is more than one line"),
        (public_line(rsa.generate_private_key(65537, 2048)), "fewer than 3072 bits"),
    ],
)
def test_other_lines_are_refused_with_the_reason(filters, line, complaint):
    (sentence,) = filters.ssh_key_complaints([line])
    assert sentence.startswith("entry 1 ")
    assert complaint in sentence


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"name": "web", "port": "80"}, None),
        ({"name": "game (UDP)", "port": "27960-27970", "proto": "udp"}, None),
        ({"name": "mail", "port": 25, "direction": "out", "addresses": ["2001:db8::/32"]}, None),
        ({"name": "web", "port": "http"}, "http is not a port"),
        ({"name": "web", "port": "0"}, "0 is not a port"),
        ({"name": "web", "port": "90-80"}, "90-80 is not a port"),
        ({"name": "web", "port": "65536"}, "65536 is not a port"),
        ({"name": "web", "port": "80", "addresses": ["db.example"]}, "db.example"),
        ({"name": "web", "port": "80", "addresses": ["192.0.2.1/24"]}, "192.0.2.1/24 has host"),
        ({"name": "it's", "port": "80"}, "characters other than"),
        ({"name": "shell", "port": "48000-48100"}, "port 48022 is that of SSH"),
        ({"name": "shell", "port": "48022", "direction": "out"}, None),
    ],
)
def test_firewall_rules(filters, rule, complaint):
    found = filters.firewall_rule_complaints([rule], 48022)
    if complaint is None:
        assert found == []
    else:
        assert len(found) == 1
        assert complaint in found[0]


def test_two_rules_of_one_name(filters):
    rules = [{"name": "web", "port": "80"}, {"name": "web", "port": "443"}]
    assert filters.firewall_rule_complaints(rules, 22) == ['Two rules are called "web".']


def test_addresses(filters):
    assert filters.address_complaints(["192.0.2.1", "2001:db8::/32"]) == []
    assert len(filters.address_complaints(["laptop", "192.0.2.256"])) == 2


def test_sshd_deviations_name_setting_value_and_user(filters):
    effective = {
        "root": {"port": ["22", "48022"], "permitrootlogin": ["no"]},
        "ops": {"port": ["48022"], "permitrootlogin": ["no"]},
        "nobody": {"port": ["48022"]},
    }
    wanted = {"port": ["48022"], "permitrootlogin": ["no"]}
    assert filters.sshd_complaints(effective, wanted) == [
        "permitrootlogin is unset for nobody",
        "port is 22 and 48022 for root",
    ]
