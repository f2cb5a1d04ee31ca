"""playbooks/files/lock.py: one holder at a time, whoever asks when."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

LOCK = Path(__file__).resolve().parents[2] / "playbooks/files/lock.py"


@pytest.fixture
def lock(tmp_path):
    def ask(action, *arguments):
        argv = [sys.executable, LOCK, action, tmp_path / "lock", *arguments]
        return json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    return ask


def claim(name):
    return json.dumps({"id": name, "purpose": "test"})


def test_the_second_one_is_told_who_holds_it(lock):
    assert lock("take", claim("first"))["mine"]
    answer = lock("take", claim("second"))
    assert not answer["mine"]
    assert answer["holder"]["id"] == "first"
    assert answer["holder"]["since"] > 0


def test_one_of_many_gets_it(lock):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: lock("take", claim(f"run {number}")), range(8)))
    assert sum(answer["mine"] for answer in answers) == 1
    assert len({answer["holder"]["id"] for answer in answers}) == 1


def test_one_of_many_takes_it_from_the_dead(lock):
    lock("take", claim("dead"))
    with ThreadPoolExecutor(8) as pool:
        takes = pool.map(lambda number: lock("take", claim(f"run {number}"), "dead"), range(8))
        assert sum(answer["mine"] for answer in takes) == 1


def test_it_is_free_again_when_its_holder_gives_it_back_and_nobody_else_can(lock):
    lock("take", claim("first"))
    assert lock("release", "second")["holder"]["id"] == "first"
    assert lock("release", "first") == {"mine": False, "holder": None}
    assert lock("release", "first") == {"mine": False, "holder": None}
    assert lock("take", claim("second"))["mine"]


def test_keeping_shows_life_and_tells_who_has_lost_it(lock):
    before = lock("take", claim("first"))["holder"]
    kept = lock("keep", "first")
    assert kept["mine"]
    assert kept["holder"]["seen"] > before["seen"]
    assert kept["holder"]["since"] == before["since"]
    lock("take", claim("second"), "first")
    assert not lock("keep", "first")["mine"]
    assert not lock("release", "first")["mine"]
    assert lock("keep", "second")["mine"]


def test_the_same_run_may_ask_twice(lock):
    lock("take", claim("first"))
    assert lock("take", claim("first"))["mine"]
