# MIT License, see LICENSE
"""Lookup `misspelt_names`: names that are unknown and nearly those of something known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: misspelt_names
short_description: Names that are unknown and nearly those of something known
description:
  - Returns a sentence for each name that is not known, but so near to a known one that it must be
    meant. What is far from all of them is the owner's own and is left alone.
  - For the variables and groups of an inventory that no role checks (see C(misspelt_settings)).
options:
  _terms:
    description: The names to look at.
    required: true
  known:
    description: Names that there are.
    type: list
    elements: str
    default: []
  files:
    description: YAML files, as shell patterns, whose keys on the first level are known too.
    type: list
    elements: str
    default: []
"""

EXAMPLES = """
- name: No group is misspelt
  ansible.builtin.assert:
    that: __misspelt | length == 0
    fail_msg: "{{ __misspelt | join(' ') }}"
  vars:
    __misspelt: "{{ query('misspelt_names', *groups, known=['database', 'bot', 'all']) }}"
"""

RETURN = """
_raw:
  description: A sentence for each name that seems misspelt, sorted by name.
  type: list
  elements: str
"""

# 0 to 1, of difflib: one or two letters of a name of ten may differ.
NEARNESS = 0.82


def keys_of(patterns: Iterable[str]) -> set[str]:
    """Return the first-level keys of all YAML files that match the absolute shell patterns.

    Raises AnsibleError where one is no YAML dictionary.
    """
    names: set[str] = set()
    for pattern in patterns:
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            try:
                names |= set(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
            except (OSError, yaml.YAMLError, TypeError) as error:
                raise AnsibleError(f"{path} is not readable: {error!r}") from error
    return names


def complaints(names: Iterable[str], known: set[str]) -> list[str]:
    """Return a sentence for each name that is not known but near to one that is."""
    sentences = []
    for name in sorted(set(names) - known):
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=NEARNESS)
        if near:
            sentences.append(f"There is no {name}; did you mean {near[0]}?")
    return sentences


class LookupModule(LookupBase):
    """Entry point for Ansible."""

    def run(
        self, terms: list[str], variables: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[str]:
        """Return the complaints about the names in terms."""
        self.set_options(var_options=variables, direct=kwargs)
        known = {*self.get_option("known"), *keys_of(self.get_option("files"))}
        return complaints(map(str, terms), known)
