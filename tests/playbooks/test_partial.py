"""rollback_mode=partial, with an old PC that is this machine."""

import json
import sys
import time
from pathlib import Path

import pytest
from support import ansible

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "systemctl": 'cat "$(dirname "$0")/unit"',
    "runuser": 'echo "$*" | head -n 1 >"$(dirname "$0")/as"; shift 3; exec "$@"',
    "psql": "cat >/dev/null; echo 0",
}
SETTINGS = {"DATABASE_HOST": "127.0.0.1", "DATABASE_PORT": "1", "DATABASE_USER": "bot",
            "DATABASE_PASSWORD": "not-to-be-told", "DATABASE_NAME": "stats",
            "PGSSLROOTCERT": "/nonexistent"}  # fmt: skip


@pytest.fixture
def old_pc(tmp_path):
    """Run tasks of the rollback on the old PC; return the exit code and what was said last."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    checkout = tmp_path / "old bot"
    checkout.mkdir()
    (checkout / "bot.py").write_text("import asyncpg, os\nos.environ['DATABASE_HOST']\n")
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable,
            "ansible_become": False}  # fmt: skip
    hosts = {
        group: {"hosts": {host: here | {"ansible_host": "192.0.2.1"}}}
        for group, host in (("database", "database-vps"), ("bot", "bot-vps"), ("legacy", "old-pc"))
    }
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": hosts}}))
    (tmp_path / "ca.crt").write_text("authority\n")

    def run(file, unit="", **settings):
        (programs / "unit").write_text(unit)
        play = [
            {"hosts": "bot", "gather_facts": False, "tasks": [
                {"set_fact": {"__rollback_database_settings": SETTINGS}},
            ]},
            {"hosts": "legacy", "gather_facts": False, "tasks": [
                {"include_tasks": f"{ROOT}/playbooks/rollback/{file}.yml"},
            ]},
        ]  # fmt: skip
        (tmp_path / "play.yml").write_text(json.dumps(play))
        files = (f"{ROOT}/group_vars/all/{name}.yml" for name in ("migration", "main"))
        given = {
            "legacy_checkout": str(checkout),
            "legacy_database": str(checkout / "production.db"),
            "legacy_service": "old-bot.service",
            "legacy_address": "192.0.2.3",
            "legacy_python": "",
            "database_ca_certificate": str(tmp_path / "ca.crt"),
            "rollback_partial_directory": str(tmp_path / "partial"),
            "rollback_partial_dropin": str(tmp_path / "units/old-bot.service.d/10-postgresql.conf"),
        }
        done = ansible.play(
            tmp_path / "play.yml",
            *(f"--extra-vars=@{file}" for file in files),
            f"--extra-vars={json.dumps(given | settings)}",
            inventory=tmp_path / "hosts.json",
            environment={"PATH": f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin"},
        )
        assert "not-to-be-told" not in done.stdout
        return done.returncode, " ".join(done.stdout.split("PLAY RECAP")[-1].split())

    run.directory = tmp_path
    return run


def unit(words):
    return (
        f"User=player\nExecStart={{ path={words.split()[0]} ; argv[]={words} ; ignore_errors=no ;"
        " start_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }\n"
    )


def test_the_old_bots_python_is_the_one_that_its_unit_starts(old_pc):
    code, said = old_pc("try_partial", unit(f"{sys.executable} bot.py --no-python"))
    assert code == 2, "no database answers at port 1"
    assert f"The old bot's Python ({sys.executable}, setting legacy_python) on old-pc" in said
    assert (old_pc.directory / "programs/as").read_text().startswith("-u player --")
    # A unit that was made after the move has no drop-ins; the new bot still works at this time.
    assert (old_pc.directory / "units/old-bot.service.d").is_dir()


@pytest.mark.parametrize(
    ("words", "python"),
    [
        ("/usr/bin/env -S python3 bot.py", "python3"),
        ("/home/player/start.sh --fast", "{checkout}/.venv/bin/python"),
    ],
)
def test_other_ways_to_start_it(old_pc, words, python):
    _, said = old_pc("try_partial", unit(words))
    assert f"The old bot's Python ({python.format(checkout=old_pc.directory / 'old bot')}," in said


@pytest.mark.parametrize(
    "said",
    ["[]", '{"adapter": "{{ 1 }}", "setting": true, "error": ""}', "\x1b]0;x\x07",
     '{"adapter": true, "setting": true, "error": NaN}', '{"adapter": true, "setting": true}'],
)  # fmt: skip
def test_what_a_hostile_old_pc_says_of_its_bot_is_no_proof(old_pc, said):
    hostile = old_pc.directory / "hostile"
    hostile.write_text(f"#!/bin/sh\ncat >/dev/null\ncat {hostile}.says\n")
    hostile.chmod(0o755)
    (old_pc.directory / "hostile.says").write_text(said)
    code, words = old_pc("try_partial", unit("/usr/bin/python3 bot.py"), legacy_python=str(hostile))
    assert code == 2
    assert "old-pc gave an answer that no program of this repository gives (trial of the" in words
    assert "Traceback" not in words
    assert "\x1b" not in words


def test_a_unit_of_a_hostile_old_pc_holds_nobody_up(old_pc):
    begun = time.monotonic()
    words = "ExecStart=" + "argv[]=" * 20_000 + " /" * 20_000 + "python"
    code, _ = old_pc("try_partial", f"User=player\n{words}\n")
    assert code == 2
    assert time.monotonic() - begun < 60, "20,000 took more than two minutes"


def test_an_old_bot_that_stays_on_sqlite_is_named_within_its_time(old_pc):
    database = old_pc.directory / "old bot/production.db"
    database.write_text("")
    with database.open():
        code, said = old_pc("database_sees", seen_address="192.0.2.3", seen_seconds=1)
    assert code == 2
    assert "saw no encrypted session of etlegacy_app from 192.0.2.3" in said
    assert "within 1 seconds. It works on the SQLite file (" in said
    assert "name it in rollback_partial_environment" in said
    assert "could not change directory" not in said
