# MIT License, see LICENSE
"""Lookup `misspelt_settings`: variables that carry a role's prefix but are none of its inputs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: misspelt_settings
short_description: Variables with a role's prefix that are none of its inputs
description:
  - Compares the names of all defined variables that start with C(<role>_) with the options in the
    role's C(meta/argument_specs.yml) and returns a sentence for each that is not among them, with
    the nearest real name.
  - Ansible ignores a misspelt variable without a word; a role asserts that this list is empty.
options:
  _terms:
    description: Name of the role, which is the prefix of its inputs.
    required: true
  renamed:
    description: Settings that had another name once, as a dictionary from the old name to the new.
    type: dict
    default: {}
  role_path:
    description: Directory of the role; the role that is running, if not given.
    type: str
"""

EXAMPLES = """
- name: No setting is misspelt
  ansible.builtin.assert:
    that: __hardening_misspelt | length == 0
    fail_msg: "{{ __hardening_misspelt | join(' ') }}"
    quiet: true
  vars:
    __hardening_misspelt: "{{ query('misspelt_settings', 'hardening') }}"
"""

RETURN = """
_raw:
  description: A sentence for each variable that is none of the role's inputs, sorted by name.
  type: list
  elements: str
"""


def inputs_of(role_path: Path) -> set[str]:
    """Return the names of the inputs in the role's argument specs, all entry points together.

    Raises AnsibleError where the file is missing or is no argument spec.
    """
    path = role_path / "meta" / "argument_specs.yml"
    try:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {name for entry in spec["argument_specs"].values() for name in entry["options"]}
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise AnsibleError(f"{path} is not a readable argument spec: {error!r}") from error


def complaints(
    role: str, defined: Iterable[str], inputs: set[str], renamed: Mapping[str, str]
) -> list[str]:
    """Return a sentence for each defined name that starts with `<role>_` and is no input."""
    sentences = []
    for name in sorted(set(defined)):
        if not name.startswith(f"{role}_") or name in inputs:
            continue
        if name in renamed:
            sentences.append(f"{name} is now called {renamed[name]}: rename it in your inventory.")
            continue
        near = difflib.get_close_matches(name, sorted(inputs), n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"see roles/{role}/README.md."
        sentences.append(f"{name} is not a setting of the role {role}; {hint}")
    return sentences


class LookupModule(LookupBase):
    """Entry point for Ansible."""

    def run(
        self, terms: list[str], variables: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[str]:
        """Return the complaints about each role named in terms."""
        self.set_options(var_options=variables, direct=kwargs)
        defined = variables or {}
        role_path = self.get_option("role_path") or defined.get("role_path")
        if not role_path:
            raise AnsibleError("misspelt_settings: outside of a role, give role_path")
        inputs = inputs_of(Path(str(role_path)))
        renamed = self.get_option("renamed")
        return [text for role in terms for text in complaints(role, defined, inputs, renamed)]
