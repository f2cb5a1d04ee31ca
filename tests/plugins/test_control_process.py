"""The lookup `control_process`: a run is told from all others, and its end is noticed."""

import importlib.util
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def plugin():
    spec = importlib.util.spec_from_file_location(
        "control_process", ROOT / "plugins/lookup/control_process.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_this_run_is_alive(plugin):
    assert plugin.fate(plugin.this_run()) == "alive"


def test_a_worker_describes_the_process_that_started_it(plugin):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    worker = context.Process(target=lambda: answers.put(plugin.this_run()))
    worker.start()
    described = answers.get()
    worker.join()
    assert described == plugin.this_run()
    assert described["pid"] == os.getpid()


def test_a_process_that_has_ended_is_dead(plugin):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = {**plugin.this_run(), "pid": process.pid, "started": plugin.started(process.pid)}
    assert plugin.fate(run) == "alive"
    process.communicate(b"\n")
    assert plugin.fate(run) == "dead"


@pytest.mark.parametrize(
    ("change", "fate"),
    [
        ({"started": "1"}, "dead"),  # the number was given to another process
        ({"boot": "an earlier one"}, "dead"),
        ({"place": "another machine"}, "elsewhere"),
        ({"place": "another machine", "boot": "its own"}, "elsewhere"),
    ],
)
def test_who_can_tell(plugin, change, fate):
    assert plugin.fate({**plugin.this_run(), **change}) == fate


def test_what_is_no_description_is_refused(plugin):
    with pytest.raises(AnsibleError, match="not a description"):
        plugin.LookupModule().run([{"pid": 1}])
