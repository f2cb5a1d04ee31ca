"""The report of verify.yml: table, JSON and page of what the places answered."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPORT = Path(__file__).parents[2] / "playbooks/verify/report.py"
FINE = {"id": "pool", "check": "The connection pool works", "ok": True, "said": "5 sessions"}
BAD = {"id": "secrets", "check": "Files are closed", "ok": False, "said": "<b>0644</b>"}
UNASKED = {"id": "replication", "check": "Every standby follows", "ok": None, "said": "none"}


@pytest.fixture
def report(tmp_path):
    def make(results, lines=("192.0.2.1 48022", "192.0.2.1")):
        given = {
            "inventory": "test",
            "results": results,
            "ports": {"place": "stranger", "servers": ["192.0.2.1"], "ssh": 48022,
                      "lines": list(lines)},
        }  # fmt: skip
        target = tmp_path / "out" / "verify"
        done = subprocess.run(
            [sys.executable, REPORT, target],
            input=json.dumps(given), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        written = json.loads((tmp_path / "out/verify.json").read_text())
        return done.returncode, done.stdout, written, (tmp_path / "out/verify.html").read_text()

    return make


def test_all_is_well_when_nothing_failed(report):
    code, screen, written, page = report({"bot-vps": [FINE, UNASKED]})
    assert code == 0
    assert written["failed"] == 0
    assert "2 checks passed, 0 failed, 1 could not be asked" in screen
    assert "2 checks passed, 0 failed, 1 could not be asked." in page


def test_what_failed_comes_first_and_ends_in_a_failure(report):
    code, screen, written, page = report({"bot-vps": [FINE, BAD]})
    assert code == 1
    assert screen.startswith("FAILED")
    assert written["results"][0]["id"] == "secrets"
    assert written["results"][0]["place"] == "bot-vps"
    assert "&lt;b&gt;0644" in page
    assert "<b>0644" not in page


def test_a_port_besides_ssh_is_a_failure(report):
    code, _, written, _ = report({"bot-vps": [FINE]}, ("192.0.2.1 48022", "192.0.2.1 5432"))
    assert code == 1
    assert written["results"][0] == {
        "id": "ports",
        "part": "safety",
        "place": "stranger",
        "check": "Nothing but SSH answers at 192.0.2.1",
        "ok": False,
        "said": "open: 5432, 48022",
    }


def test_a_scan_that_broke_proves_nothing(report):
    code, _, written, _ = report({"bot-vps": [FINE]}, ["192.0.2.1 48022"])
    assert code == 1
    assert written["results"][0]["said"] == "the ports could not be tried"


@pytest.mark.parametrize("line", ["", "192.0.2.1 x", "192.0.2.1  48022", "192.0.2.1 480222"])
def test_a_scan_of_another_form_proves_nothing(report, line):
    code, _, written, _ = report({"bot-vps": [FINE]}, ["192.0.2.1 48022", line])
    assert code == 1
    assert written["results"][0]["said"] == "the ports could not be tried"


def test_a_result_may_come_from_another_place_than_its_host(report):
    _, _, written, _ = report({"bot-vps": [FINE | {"place": "control machine"}]})
    assert "control machine" in {result["place"] for result in written["results"]}


def test_the_page_needs_nothing_beside_it(report):
    page = report({"bot-vps": [FINE]})[3]
    for outside in ("http://", "https://", "<script", "<link", "<img", "@import", "url("):
        assert outside not in page
