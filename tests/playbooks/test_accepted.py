"""What fails in a rehearsal is told in few words, and what is accepted leaves a warning."""

import base64
import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml
from support import ansible

ROOT = Path(__file__).resolve().parents[2]
FILL = yaml.safe_load((ROOT / "playbooks/migrate/fill.yml").read_text())
STATEMENTS = [
    {"file": "bot/old.py", "line": 3, "verdict": "ok", "message": ""},
    *(
        {"file": "bot/store.py", "line": line, "verdict": "fails", "message": f"no column {line}"}
        for line in range(1, 67)
    ),
]


@pytest.fixture
def play(tmp_path):
    """Run tasks on a bot host that is this machine; return the exit code, the words, its facts."""

    def play(tasks, **settings):
        facts = tmp_path / "facts"
        kept = "[__migration_warnings | default([]), __migration_failure | default({})]"
        shown = f"{{{{ {kept} | to_json }}}}"
        plays = [{"hosts": "bot", "gather_facts": False, "tasks": [
            *tasks, {"copy": {"dest": str(facts), "content": shown, "mode": "0600"}},
        ]}]  # fmt: skip
        (tmp_path / "play.yml").write_text(json.dumps(plays))
        hosts = {
            group: {"hosts": {group: {"ansible_connection": "local", "ansible_become": False,
                    "ansible_python_interpreter": sys.executable}}}
            for group in ("bot", "database", "legacy")
        }  # fmt: skip
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": hosts}}))
        done = ansible.play(
            tmp_path / "play.yml",
            *(f"--extra-vars=@{ROOT}/group_vars/all/{name}.yml" for name in ("migration", "main")),
            f"--extra-vars={json.dumps(settings)}",
            inventory=tmp_path / "hosts.json",
        )
        known = json.loads(facts.read_text()) if facts.exists() else [[], {}]
        return done.returncode, ansible.words(done), *known

    return play


def judged(name):
    """The task of that name, after a report as ferry writes it."""
    report = base64.b64encode(json.dumps({"statements": STATEMENTS}).encode()).decode()
    [task] = [task for task in FILL if task["name"] == name]
    return [
        {"set_fact": {"__audit": {"rc": 3}, "__audit_report": {"content": report},
                      "__migration_warnings": []}},
        task,
    ]  # fmt: skip


def test_refused_statements_are_told_in_few_words_with_what_accepts_them(play):
    code, words, *_ = play(judged("The bot's SQL works on PostgreSQL"), migrate_accept=["clock"])
    assert code != 0
    said = words.split("PLAY RECAP")[1]
    assert "66 of the bot's statements fail on PostgreSQL; players would meet errors." in said
    assert "bot/store.py: 1: no column 1 · bot/store.py: 2: no column 2" in said
    assert "no column 4" not in said
    option = shlex.split(said[said.index("-e '") :])[1]
    assert json.loads(option) == {"migrate_accept": ["clock", "bot-sql"]}


def test_accepted_statements_leave_a_warning(play):
    name = "Keep the statements that were accepted among the warnings"
    code, words, warnings, _ = play(judged(name))
    assert code == 0, words
    [warning] = warnings
    assert warning["text"] == (
        "bot-sql, accepted: 66 of the bot's statements fail on PostgreSQL."
        " The first: bot/store.py: 1: no column 1"
    )
    assert "Statements that are not accepted" in warning["meaning"]


def test_a_failure_is_remembered_in_ten_lines_without_colours(play):
    said = r"printf '\033[31mit fails\033[0m\n' >&2; seq 66 >&2; exit 3"
    tasks = [{
        "block": [{"name": "Try it", "command": {"argv": ["sh", "-c", said]}}],
        "rescue": [{"include_tasks": f"{ROOT}/playbooks/migrate/note_failure.yml",
                    "vars": {"migration_stage_name": "rehearse"}}],
    }]  # fmt: skip
    code, words, _, failure = play(tasks)
    assert code == 0, words
    lines = failure["message"].splitlines()
    assert lines[:2] == ["it fails", "1"]
    assert "…" in lines[2]
    assert lines[3:] == [str(number) for number in range(60, 67)]
    assert (failure["stage"], failure["task"], failure["host"]) == ("rehearse", "Try it", "bot")
