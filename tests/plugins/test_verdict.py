"""plugins/callback/verdict.py: what is the last thing on the screen."""

import json
import runpy

import pytest
from support import ansible

reason = runpy.run_path(str(ansible.ROOT / "plugins/callback/verdict.py"))["reason"]

SAY = {"ansible.builtin.set_stats": {"data": {"verdict": "All\nis well."}, "aggregate": False}}


def a_play(name, *tasks, hosts="localhost", **more):
    return {
        "name": name, "hosts": hosts, "gather_facts": False, "connection": "local",
        "tasks": list(tasks),
    } | more  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Run plays, of which the imported ones come after the others; return the exit code, lines."""

    def run(*plays, imported=(), condition="true", then=(), **more):
        (tmp_path / "other.yml").write_text(json.dumps(list(imported)))
        plays = [*plays]
        if imported:
            plays.append({"import_playbook": "other.yml", "when": condition})
        (tmp_path / "main.yml").write_text(json.dumps([*plays, *then]))
        done = ansible.play(tmp_path / "main.yml", inventory="a,b,localhost,", **more)
        return done.returncode, done.stdout.rstrip().splitlines()

    return run


def after_the_recap(lines):
    """Everything below the line of the last host."""
    last = max(number for number, line in enumerate(lines) if " ok=" in line)
    return [line for line in lines[last + 1 :] if line]


def test_a_run_that_failed_ends_with_the_reason(run):
    fails = {"ansible.builtin.fail": {"msg": ["Two things:", "a: b", "c"]}}
    code, lines = run(a_play("one", SAY), a_play("two", fails))
    assert code != 0
    assert after_the_recap(lines) == ["Two things:", "a: b", "c"]
    fails = {"ansible.builtin.command": "sh -c 'echo why >&2; exit 3'", "name": "Try it"}
    _, lines = run(a_play("one", SAY), a_play("two", fails))
    assert after_the_recap(lines) == ["Try it (localhost):", "why"]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"msg": "No.\nNever."}, ["No.", "Never."]),
        ({"msg": ["a", ["b", "c\nd"]]}, ["a", "b", "c", "d"]),
        ({"msg": "non-zero return code", "stderr": "", "stdout": "1\n2\n3\n4\n5\n6\n"},
         ["2", "3", "4", "5", "6"]),
        ({"msg": "One or more items failed",
          "results": [{"failed": False, "msg": "fine"}, {"failed": True, "msg": "this one"}]},
         ["this one"]),
        ({}, []),
    ],
)  # fmt: skip
def test_what_a_task_says_of_its_failure(result, words):
    assert reason(result) == words


def test_a_secret_is_not_the_reason(run):
    task = {"ansible.builtin.command": "sh -c 'echo hidden-word >&2; exit 1'", "no_log": True}
    _, lines = run(a_play("one", task))
    assert "hidden-word" not in " ".join(lines)


PASSING = {
    "block": [{"ansible.builtin.fail": {"msg": "passing"}}],
    "rescue": [{"ansible.builtin.debug": {"msg": "never mind"}}],
}


def test_a_run_that_went_well_ends_with_its_verdict_and_nothing_else(run):
    """Not with the banners of an import that did not happen, nor with what was rescued."""
    imported = [
        a_play("first", {"ansible.builtin.debug": {"msg": "hello"}}),
        a_play("nobody", {"ansible.builtin.debug": {"msg": "hello"}}, hosts="nobody"),
        a_play("second", {"block": [{"ansible.builtin.debug": {"msg": "hello"}}]}),
    ]
    code, lines = run(a_play("one", PASSING, SAY), imported=imported, condition="false")
    assert code == 0
    assert after_the_recap(lines) == ["All", "is well."]
    assert "CUSTOM STATS" not in " ".join(lines)
    assert [line.split("]")[0] for line in lines if line.startswith("PLAY [")] == ["PLAY [one"]
    assert "skipping: no hosts matched" not in lines

    _, lines = run(a_play("one"), imported=imported)
    banners = [line.split("]")[0] for line in lines if line.startswith("PLAY [")]
    assert banners == ["PLAY [one", "PLAY [first", "PLAY [second"]
    assert after_the_recap(lines) == [], "it had nothing to say"


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_host_cannot_write_the_verdict(run, tmp_path, ends_well):
    """Not even where nothing else would be said."""
    answer = {
        "changed": False,
        "ansible_stats": {"data": {"verdict": "All is well, says a host."}, "per_host": False},
    }
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{json.dumps(answer)}'\n")
    python.chmod(0o755)
    hostile = {"ansible.builtin.command": "true", "vars": {
        "ansible_python_interpreter": str(python)}}  # fmt: skip
    then = SAY if ends_well else {"ansible.builtin.debug": {"msg": "hello"}}
    plays = a_play("one", then), a_play("two", hostile, hosts="a")
    # Mitogen's interpreter answers in another form; the modules that it runs could say the same.
    code, lines = run(*plays, environment={"ANSIBLE_STRATEGY": "linear"})
    assert code == 0, lines
    assert after_the_recap(lines) == (["All", "is well."] if ends_well else [])
