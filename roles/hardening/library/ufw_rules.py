#!/usr/bin/python
# MIT License, see LICENSE
"""Module `ufw_rules`: own firewall rules, all in one call; see DOCUMENTATION."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: ufw_rules
short_description: Own firewall rules, all in one call
description:
  - Makes ufw's rules that carry C(<owner>:) in their comment equal to the list. Such a rule that is
    not in the list is deleted. Rules without that comment are foreign; they are kept and returned.
  - A rule that exists under a foreign comment counts as present.
  - First adds what is missing, then enables ufw, then deletes what is not wanted, so that nothing
    that stays wanted is closed on the way.
options:
  owner:
    description: First word of the comment of own rules.
    type: str
    required: true
  rules:
    description:
      - The rules. C(first) puts a rule before all others, for an exception from a limit.
    type: list
    elements: dict
    required: true
  incoming:
    description: What happens to incoming connections without a rule.
    type: str
    default: deny
  outgoing:
    description: What happens to outgoing connections without a rule.
    type: str
    default: allow
  only_while:
    description: A path that must exist, else the task fails and changes nothing.
    type: path
"""

RETURN = """
differs:
  description: The same as C(changed), for tasks that only ask and report C(changed) otherwise.
  type: bool
foreign:
  description: Rules of others, as ufw's files spell them.
  type: list
added:
  description: Own rules that were missing.
  type: list
removed:
  description: Own rules that were no longer wanted.
  type: list
"""

ANY = {4: "0.0.0.0/0", 6: "::/0"}
POLICY = {"deny": "DROP", "allow": "ACCEPT", "reject": "REJECT"}
FILES = {4: Path("/etc/ufw/user.rules"), 6: Path("/etc/ufw/user6.rules")}
SETTINGS = Path("/etc/default/ufw")

# A rule in the form of ufw's files: action, protocol, port, destination, source, direction.
Rule = tuple[str, str, str, str, str, str]


def address_of(text: str) -> tuple[int, str]:
    """Return the IP version and ufw's spelling of an address or network."""
    network = ipaddress.ip_network(text)
    single = network.num_addresses == 1
    return network.version, str(network.network_address if single else network)


def wanted_rules(rules: list[dict], versions: list[int]) -> dict[tuple[int, Rule], dict]:
    """Return IP version and rule for each wanted rule, in the given order, with its entry.

    rules: entries with name, port and optionally direction, proto, addresses, limit, first.
    """
    wanted = {}
    for entry in rules:
        outgoing = entry.get("direction", "in") == "out"
        port = str(entry["port"]).replace("-", ":")
        action = "limit" if entry.get("limit") else "allow"
        addresses = [address_of(str(text)) for text in entry.get("addresses") or []]
        for version, address in addresses or [(version, ANY[version]) for version in versions]:
            if version not in versions:
                continue
            source, destination = (ANY[version], address) if outgoing else (address, ANY[version])
            direction = "out" if outgoing else "in"
            rule = (action, entry.get("proto", "tcp"), port, destination, source, direction)
            wanted[version, rule] = entry
    return wanted


def parse_rules(text: str) -> list[tuple[Rule | None, str, str]]:
    """Return each rule of a ufw file with its comment and its original line.

    The rule is None where it is of a kind that this module never makes (application profiles,
    interfaces, source ports, logging, deny, …).
    """
    found = []
    for line in text.splitlines():
        if not line.startswith("### tuple ### "):
            continue
        words, _, comment = line.removeprefix("### tuple ### ").partition(" comment=")
        fields = words.split()
        plain = len(fields) == 7 and fields[4] == "any" and fields[0] in ("allow", "limit")
        rule = (*fields[:4], *fields[5:]) if plain else None
        found.append((rule, bytes.fromhex(comment.strip()).decode("utf-8", "replace"), words))
    return found


def command_of(rule: Rule) -> list[str]:
    """Return the words of ufw's long syntax for a rule."""
    action, protocol, port, destination, source, direction = rule
    target = "any" if destination in ANY.values() else destination
    origin = "any" if source in ANY.values() else source
    words = [action, direction, "proto", protocol]
    return [*words, "from", origin, "to", target, "port", port]


class Firewall:
    """ufw on this host: what it has and the commands that change it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.ufw = module.get_bin_path("ufw", opt_dirs=["/usr/sbin"])
        settings = SETTINGS.read_text() if SETTINGS.exists() else ""
        self.settings = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', settings, re.MULTILINE))
        self.versions = [4, 6] if self.settings.get("IPV6") == "yes" else [4]
        self.active = bool(self.ufw) and "Status: active" in self.run("status")
        self.rules = {
            version: parse_rules(FILES[version].read_text()) if FILES[version].exists() else []
            for version in self.versions
        }

    def run(self, *words: str) -> str:
        """Run ufw and return what it says; fail the task where it fails."""
        code, out, err = self.module.run_command([self.ufw, *words])
        if code != 0:
            self.module.fail_json(msg=f"ufw {' '.join(words)}: {(err or out).strip()}")
        return out


def main() -> None:
    """Entry point for Ansible."""
    module = AnsibleModule(
        argument_spec={
            "owner": {"type": "str", "required": True},
            "rules": {"type": "list", "elements": "dict", "required": True},
            "incoming": {"type": "str", "choices": list(POLICY), "default": "deny"},
            "outgoing": {"type": "str", "choices": list(POLICY), "default": "allow"},
            "only_while": {"type": "path"},
        },
        supports_check_mode=True,
    )
    firewall = Firewall(module)
    mark = f"{module.params['owner']}: "
    versions = firewall.versions if firewall.ufw else [4, 6]
    wanted = wanted_rules(module.params["rules"], versions)

    present, own, foreign = set(), {}, []
    for version, rules in firewall.rules.items():
        for rule, comment, line in rules:
            if rule is not None:
                present.add((version, rule))
            if comment.startswith(mark):
                own[version, rule] = comment
            else:
                foreign.append(line + (f"  # {comment}" if comment else ""))

    missing = {
        key: entry
        for key, entry in wanted.items()
        if key not in present or (key in own and own[key] != mark + entry["name"])
    }
    surplus = {key: comment for key, comment in own.items() if key not in wanted}
    policies = {
        "incoming": ("DEFAULT_INPUT_POLICY", module.params["incoming"]),
        "outgoing": ("DEFAULT_OUTPUT_POLICY", module.params["outgoing"]),
    }
    defaults = {
        direction: value
        for direction, (setting, value) in policies.items()
        if firewall.settings.get(setting) != POLICY[value]
    }
    changed = bool(missing or surplus or defaults or not firewall.active)

    def described(rules: dict, names: dict) -> list[str]:
        return [f"IPv{v} {' '.join(rule)}  # {names[v, rule]}" for v, rule in rules]

    names = {**own, **{key: mark + entry["name"] for key, entry in wanted.items()}}
    after = {key: None for key in own if key in wanted} | dict.fromkeys(missing)
    result = {
        "changed": changed,
        "differs": changed,
        "foreign": foreign,
        "added": described(missing, names),
        "removed": described(surplus, own),
        "diff": {
            "before": "\n".join(sorted(described(own, own))) + "\n",
            "after": "\n".join(sorted(described(after, names))) + "\n",
        },
    }
    if module.check_mode or not changed:
        module.exit_json(**result)
    if not firewall.ufw:
        module.fail_json(msg="ufw is not installed")
    only_while = module.params["only_while"]
    if only_while and not Path(only_while).exists():
        module.fail_json(msg=f"{only_while} is gone, so there is no way back; nothing was changed")

    # One command makes the rule for both IP versions where it names no address. Rules that come
    # first are put there in reverse, so that they stand in the order of the list.
    def commands(first: bool) -> dict[tuple[str, ...], None]:
        return {
            (*command_of(rule), "comment", mark + entry["name"]): None
            for (_, rule), entry in missing.items()
            if bool(entry.get("first")) is first
        }

    for words in commands(first=False):
        firewall.run(*words)
    for words in reversed(commands(first=True)):
        firewall.run("prepend", *words)
    for direction, value in defaults.items():
        firewall.run("default", value, direction)
    if not firewall.active:
        firewall.run("--force", "enable")
    for words in {tuple(command_of(rule)): None for _, rule in surplus}:
        firewall.run("--force", "delete", *words)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
