"""The rules of the firewall: ufw's own spelling, and which are ours."""

USER_RULES = """\
*filter
### RULES ###

### tuple ### limit tcp 48022 0.0.0.0/0 any 0.0.0.0/0 in comment=68617264656e696e673a20535348
-A ufw-user-input -p tcp --dport 48022 -j ACCEPT

### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 OpenSSH - in
### tuple ### deny any any 0.0.0.0/0 any 192.0.2.9 in
### tuple ### allow udp 6000:6010 192.0.2.0/24 any 0.0.0.0/0 out
### END RULES ###
"""


def test_rules_are_read_with_their_comment(ufw_rules):
    anywhere = "0.0.0.0/0"
    assert [(rule, comment) for rule, comment, _ in ufw_rules.parse_rules(USER_RULES)] == [
        (("limit", "tcp", "48022", anywhere, anywhere, "in"), "hardening: SSH"),
        (None, ""),  # of an application profile; not ours to understand
        (None, ""),  # deny
        (("allow", "udp", "6000:6010", "192.0.2.0/24", anywhere, "out"), ""),
    ]


def test_wishes_become_rules_of_both_ip_versions(ufw_rules):
    wanted = ufw_rules.wanted_rules([{"name": "SSH", "port": 22, "limit": True}], [4, 6])
    assert list(wanted) == [
        (4, ("limit", "tcp", "22", "0.0.0.0/0", "0.0.0.0/0", "in")),
        (6, ("limit", "tcp", "22", "::/0", "::/0", "in")),
    ]


def test_addresses_decide_the_version_and_the_side(ufw_rules):
    rule = {
        "name": "x",
        "port": "6000-6010",
        "proto": "udp",
        "direction": "out",
        "addresses": ["192.0.2.0/24", "2001:DB8::1/128"],
    }
    assert list(ufw_rules.wanted_rules([rule], [4, 6])) == [
        (4, ("allow", "udp", "6000:6010", "192.0.2.0/24", "0.0.0.0/0", "out")),
        (6, ("allow", "udp", "6000:6010", "2001:db8::1", "::/0", "out")),
    ]


def test_a_wish_for_ipv6_is_dropped_where_ufw_does_without(ufw_rules):
    assert ufw_rules.wanted_rules([{"name": "x", "port": 1, "addresses": ["::1"]}], [4]) == {}


def test_a_rule_becomes_the_words_of_ufw(ufw_rules):
    rule = ("allow", "tcp", "5432", "0.0.0.0/0", "192.0.2.7", "in")
    assert " ".join(ufw_rules.command_of(rule)) == (
        "allow in proto tcp from 192.0.2.7 to any port 5432"
    )
