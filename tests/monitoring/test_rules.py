"""Every alert says what to do, and docs/monitoring.md has a line about it."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "roles/monitoring/vars/rules.yml").read_text())["__monitoring_rules"]
ALERTS = [rule for rule in RULES if rule["severity"] != "none"]


def test_every_alert_says_what_is_wrong_and_what_to_do():
    assert len(ALERTS) >= 18
    assert {rule["severity"] for rule in ALERTS} == {"critical", "warning"}
    for rule in ALERTS:
        assert rule["summary"], rule
        assert rule["do"], rule


def test_the_runbook_has_every_alert_with_its_expression():
    page = (ROOT / "docs/monitoring.md").read_text()
    headings = set(re.findall(r"^### (\w+)$", page, re.MULTILINE)) - {"MonitoringSilent"}
    assert headings == {rule["alert"] for rule in ALERTS}
    assert [rule["alert"] for rule in ALERTS if f"`{rule['expr']}`" not in page] == []


def test_every_metric_of_the_rules_is_collected():
    """By host_facts.py, or by node exporter's default collectors."""
    collector = (ROOT / "roles/monitoring/files/host_facts.py").read_text()
    for rule in RULES:
        for name in re.findall(r"\betl_\w+", rule["expr"]):
            short = name.removeprefix("etl_postgres_")
            assert f'"{name}"' in collector or f"'{short}'" in collector, name


def test_every_alert_is_caused_in_the_scenario_or_tried_with_promtool():
    tests = ROOT / "molecule/monitoring/tests"
    cases = yaml.safe_load((tests / "rules_test.yml").read_text())["tests"]
    tried = {one["alertname"] for case in cases for one in case["alert_rule_test"]}
    caused = set(re.findall(r'^        "(\w+)": \(', (tests / "test_watched.py").read_text(), re.M))
    assert len(caused) > 10
    assert {rule["alert"] for rule in ALERTS} - tried - caused == set()
