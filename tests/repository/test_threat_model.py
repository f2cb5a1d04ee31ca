"""docs/threat-model.md: every file and every test that it names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.\w+)(?:::(\w+))?`", PAGE)))


@pytest.mark.parametrize(("file", "function"), NAMED)
def test_what_the_threat_model_names_is_there(file, function):
    text = (ROOT / file).read_text()
    assert not function or f"def {function}(" in text


def test_every_rule_of_the_threat_model_names_its_test():
    crossings = PAGE.partition("## Crossings")[2]
    rules = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", crossings, re.MULTILINE)
    rules = [row for row in rules if row[0] != "rule" and not set(row[0]) <= set("- ")]
    assert rules
    assert [row for row in rules if not re.search(r"`(tests|molecule)/", row[2])] == []
