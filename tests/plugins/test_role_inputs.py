"""meta/argument_specs.yml is the single source of a role's inputs; the others agree with it."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def inputs(role):
    spec = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())
    return {
        name: option
        for entry in spec["argument_specs"].values()
        for name, option in entry["options"].items()
    }


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_of_the_spec(role):
    defaults = yaml.safe_load((ROOT / "roles" / role / "defaults" / "main.yml").read_text())
    assert defaults == {
        name: option["default"] for name, option in inputs(role).items() if "default" in option
    }


@pytest.mark.parametrize("role", ROLES)
def test_every_input_is_described_and_named_after_the_role(role):
    for name, option in inputs(role).items():
        assert name.startswith(f"{role}_")
        assert option["description"]
        assert option.get("required") or "default" in option, f"{name} is neither"


@pytest.mark.parametrize("role", ROLES)
def test_readme_has_a_line_for_every_input(role):
    readme = (ROOT / "roles" / role / "README.md").read_text()
    missing = [name for name in inputs(role) if f"| `{name}` |" not in readme]
    assert not missing
