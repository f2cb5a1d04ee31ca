"""Every command that a message prints works when it is pasted: each is run here as printed.

Expressions in a command are given awkward values, so one that is not quoted falls apart. Programs
are played by a script that notes what it was called with.
"""

import ast
import itertools
import json
import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("ansible-playbook", "ansible-vault", "make", "rm", "mv", "chmod", "chown", "systemctl",
            "journalctl", "timedatectl", "python", "ssh")  # fmt: skip
AWKWARD = "an odd;name $(with) 'all'"
# Names that a check or a program restricts to letters, digits, - and _.
PLAIN = re.compile(
    r"\b(bot_host|bot_server_name|postgres_server_database|promote_primary|hardening_\w+|ansible_host"
    r"|database_address|postgres_server_developer_role|holder\.id|mode|age|__postgres_server_\w+"
    r"|rollback_mode|legacy_start)\b"
)
EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.S)
OPTION = r"(?: -(?:e|i) (?:'[^']*'|[^\s'\"`]+)| --(?:check|diff|limit [\w,-]+)| -K\b)"
COMMANDS = re.compile(
    rf"ansible-playbook (?!PLAYBOOK)[\w./-]+\.yml{OPTION}*"
    rf"|(?<![\w-])-e (?:'[^']*'|[^\s'\"`]+)"
    r"|ansible-vault edit (?:'[^']*(?:'\"'\"'[^']*)*'|[\w./-]+)"
    r"|make secrets INVENTORY=(?:'[^']*(?:'\"'\"'[^']*)*'|[\w./-]+)"
    r"|mv -f (?:'[^']*(?:'\"'\"'[^']*)*' ?){2}"
    r"|chown root: (?:'[^']*(?:'\"'\"'[^']*)*'|\S+)"
    r"|(?:rm -f|chmod u\+w) (?!--)(?:'[^']*(?:'\"'\"'[^']*)*'|\S+)"
    r"|systemctl (?:enable|disable) --now [\w.@-]+"
    r"|journalctl (?:-u|-t) [\w.@-]+"
)
# How Jinja's filter "quote" (shlex.quote) writes that value.
QUOTED = "'an odd;name $(with) '\"'\"'all'\"'\"''"


def texts(node: object, key: str = "") -> Iterator[str]:
    """Yield the texts that are shown to people, whatever they are called in the task."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name not in (
                "argv",
                "cmd",
                "stdin",
                "content",
                "ansible.builtin.shell",
                "environment",
            ):
                yield from texts(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from texts(value, key)
    elif isinstance(node, str) and key not in ("name", "that", "when"):
        yield node


def rendered(text: str) -> str:
    """Fill in the expressions of a message; text in them stays."""

    def value(found: re.Match[str]) -> str:
        inside = found[1].strip()
        shown = " ".join(
            part.replace("\\'", "'") for part in re.findall(r"'((?:\\'|[^'])*)'", inside)
        )
        accept = re.search(r"\b(migrate|deploy)_accept\b", inside)
        if accept and inside.endswith("| quote"):
            return f"""'{{"{accept[0]}": ["time-zone"]}}'"""
        if any(f"{program} " in shown for program in PROGRAMS) or " -e " in f" {shown}":
            # A whole message in an expression: its texts, with what is put between them.
            pieces = re.split(r"'((?:\\'|[^'])*)'", inside)
            return "".join(
                piece.replace("\\'", "'") if number % 2
                else (QUOTED if "quote" in piece else "plain" if PLAIN.search(piece) else AWKWARD)
                if "~" in piece and piece.strip(" ~()") else " "
                for number, piece in enumerate(pieces)
            )  # fmt: skip
        if inside.endswith("quote") or "map('quote')" in inside:
            return QUOTED
        return "plain" if PLAIN.search(inside) else AWKWARD

    return " ".join(EXPRESSION.sub(value, re.sub(r"\{%.*?%\}", " ", text)).split())


def sources() -> Iterator[tuple[str, str]]:
    """Yield file and text of each message of playbooks, roles, plugins and ferry."""
    for folder in ("playbooks", "roles", "group_vars"):
        for file in sorted((ROOT / folder).rglob("*.yml")):
            for document in yaml.load_all(file.read_text(), yaml.CSafeLoader):
                yield from ((file.relative_to(ROOT).as_posix(), text) for text in texts(document))
        for file in sorted((ROOT / folder).rglob("*.j2")):
            if file.suffixes == [".txt", ".j2"]:
                yield from (
                    (file.relative_to(ROOT).as_posix(), line)
                    for line in file.read_text().splitlines()
                )
    for folder in ("playbooks", "roles", "plugins", "ferry/src", "scripts"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    text = "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "{{ age }}"
                        for part in node.values
                    )
                    yield file.relative_to(ROOT).as_posix(), text
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield file.relative_to(ROOT).as_posix(), node.value


@cache
def commands() -> list[tuple[str, str]]:
    found = {
        (file, command[0].rstrip(".,:; "))
        for file, text in sources()
        for command in COMMANDS.finditer(rendered(text))
    }
    return sorted(found)


@pytest.fixture(scope="module")
def paste(tmp_path_factory):
    """Run a command in a shell whose programs only note their arguments."""
    directory = tmp_path_factory.mktemp("programs")
    noted = directory / "noted"
    for name in PROGRAMS:
        program = directory / name
        program.write_text(f"#!/bin/sh\nprintf '%s\\0' {name} \"$@\" >'{noted}'\n")
        program.chmod(0o755)

    def paste(command):
        noted.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "-euc", command],
            env=os.environ | {"PATH": f"{directory}:{os.environ['PATH']}"},
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return noted.read_text().split("\0")[:-1]

    return paste


@pytest.fixture(scope="module")
def settings():
    """Every word of the playbooks, to find the names of settings in."""
    return {
        word
        for folder in ("playbooks", "roles", "group_vars")
        for file in (ROOT / folder).rglob("*.yml")
        for word in re.findall(r"\w+", file.read_text())
    }


@pytest.mark.parametrize(("file", "command"), commands())
def test_a_printed_command_works_as_printed(file, command, paste, settings):  # noqa: ARG001
    whole = f"ansible-playbook site.yml {command}" if command.startswith("-e ") else command
    program, *words = paste(whole)
    assert program in PROGRAMS
    for word in words:
        assert "{" not in word or "'" in command, "unquoted braces are the shell's"
    if program != "ansible-playbook":
        assert AWKWARD.split()[0] not in words, "a path with a space fell apart"
        return
    assert (ROOT / words[0]).is_file(), f"no such playbook: {words[0]}"
    for option, value in itertools.pairwise(words):
        if option != "-e":
            continue
        given = json.loads(value) if value.startswith("{") else dict([value.split("=", 1)])
        assert set(given) <= settings


def test_there_are_commands_to_test():
    found = [command for _, command in commands()]
    assert len(found) > 40
    accept = """-e '{"migrate_accept": ["time-zone"]}'"""
    assert sum(accept in command for command in found) >= 3, "those of the preflight and of the SQL"
