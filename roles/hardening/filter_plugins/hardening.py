# MIT License, see LICENSE
"""Filters that say what is wrong with an input of this role, in words; an empty list is praise."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
RSA_BITS = 3072


def _fields(blob: bytes) -> list[bytes]:
    """Split the inside of a public key into its length-prefixed fields.

    Raises ValueError where the lengths do not add up.
    """
    fields, rest = [], blob
    while rest:
        length = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + length:
            raise ValueError("a field is cut off")
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    return fields


def _key_complaint(line: str) -> str:
    """Return what is wrong with one line of an authorized_keys file, or an empty string."""
    if "PRIVATE KEY" in line:
        return "is a private key; give the public one (the file that ends in .pub)"
    if "\n" in line.strip():
        return "is more than one line; give each key as an item of its own"
    match = re.search(rf"(?:^|\s)({'|'.join(map(re.escape, KEY_TYPES))})\s+(\S+)", line)
    if match is None:
        return "does not begin with a key type that sshd takes here, such as ssh-ed25519"
    kind, body = match.groups()
    try:
        fields = _fields(base64.b64decode(body, validate=True))
    except (binascii.Error, ValueError):
        return "is a placeholder or damaged: what follows the key type is not a key"
    if len(fields) < 2 or fields[0] != kind.encode():
        return "is a placeholder or damaged: what follows the key type is not a key of that type"
    if kind == "ssh-rsa" and int.from_bytes(fields[-1], "big").bit_length() < RSA_BITS:
        return f"is an RSA key of fewer than {RSA_BITS} bits; make a new one: ssh-keygen -t ed25519"
    return ""


def ssh_key_complaints(keys: Iterable[Any]) -> list[str]:
    """Return a sentence for each entry that is not a public key worth trusting."""
    found = []
    for number, key in enumerate(keys, start=1):
        complaint = _key_complaint(str(key).strip())
        if complaint:
            found.append(f'entry {number} ("{str(key).strip()[:40]}…") {complaint}.')
    return found


def address_complaints(addresses: Iterable[Any]) -> list[str]:
    """Return a sentence for each entry that is no IP address or network such as 192.0.2.0/24."""
    found = []
    for address in addresses:
        try:
            ipaddress.ip_network(str(address))
        except ValueError as error:
            found.append(f"{address!s}: {error}.")
    return found


def _ports(port: Any) -> tuple[int, int]:
    """Return first and last port of a number or a range; raises ValueError."""
    first, _, last = str(port).replace("-", ":").partition(":")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= 65535:
        raise ValueError(port)
    return low, high


def firewall_rule_complaints(rules: Iterable[dict[str, Any]], ssh_port: int) -> list[str]:
    """Return a sentence for each rule that ufw would not take or that collides with SSH."""
    found, names = [], set()
    for rule in rules:
        name = str(rule.get("name", ""))
        if not re.fullmatch(r"[\w .,:;()+/-]{1,100}", name):
            found.append(f'The name "{name}" has characters other than letters, digits, .,:;()+/-')
        if name in names:
            found.append(f'Two rules are called "{name}".')
        names.add(name)
        try:
            low, high = _ports(rule.get("port"))
        except ValueError:
            found.append(f'Rule "{name}": {rule.get("port")} is not a port (1-65535) or range.')
        else:
            into_ssh = rule.get("direction", "in") == "in" and rule.get("proto", "tcp") == "tcp"
            if into_ssh and low <= ssh_port <= high:
                found.append(f'Rule "{name}": port {ssh_port} is that of SSH, which has its own.')
        found += [
            f'Rule "{name}": {complaint}'
            for complaint in address_complaints(rule.get("addresses") or [])
        ]
    return found


def sshd_complaints(
    effective: dict[str, dict[str, list[str]]], wanted: dict[str, list[str]]
) -> list[str]:
    """Return a phrase for each setting of sshd that is not as wanted, for any of the users."""
    return sorted(
        {
            f"{setting} is {' and '.join(settings.get(setting, ['unset']))} for {user}"
            for user, settings in effective.items()
            for setting, values in wanted.items()
            if settings.get(setting) != values
        }
    )


def file_mode_complaints(modes: dict[str, Any]) -> list[str]:
    """Return a sentence for each entry that is not an absolute path with an octal mode as text."""
    found = []
    for path, mode in modes.items():
        if not str(path).startswith("/"):
            found.append(f"{path} is no absolute path.")
        if not isinstance(mode, str) or not re.fullmatch(r"0?[0-7]{3}", mode):
            found.append(f'{path}: {mode} is no mode such as "0600", in quotes.')
    return found


def name_complaints(names: Iterable[Any]) -> list[str]:
    """Return a sentence for each entry that is no plain name, as units and modules have."""
    return [
        f'"{name}" is no name of letters, digits, - and _.'
        for name in names
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", str(name))
    ]


class FilterModule:
    """Entry point for Ansible."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Return the filters by name."""
        return {
            "ssh_key_complaints": ssh_key_complaints,
            "address_complaints": address_complaints,
            "file_mode_complaints": file_mode_complaints,
            "name_complaints": name_complaints,
            "firewall_rule_complaints": firewall_rule_complaints,
            "sshd_complaints": sshd_complaints,
        }
