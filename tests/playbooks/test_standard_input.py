"""What a program that is fed through its standard input says when it fails is what the run says.

Ansible writes all of it before it reads the answer. A program that ends earlier leaves only
"[Errno 32] Broken pipe". So a program that Python reads from there fits into a pipe, and one that
gets data reads them before it does anything that can fail.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CAPACITY = 65_536  # of a pipe
PROGRAMS = {
    "parcel_program": ROOT / "playbooks/files/parcel.py",
    "evidence_program": ROOT / "playbooks/files/evidence.py",
}
LOOKUP = re.compile(
    r"lookup\('ansible\.builtin\.file', (?:repository_directory ~ )?'/?([\w/]+\.py)'\)"
)
# More than any of these is given, in the form that it wants; there is nothing else of use in it.
MUCH = '{"x": "' + 4 * CAPACITY * "x" + '"}'


def fed_tasks(path: Path, node: object):
    """Yield each command of a file that has something on its standard input."""
    if isinstance(node, list):
        for one in node:
            yield from fed_tasks(path, one)
    elif isinstance(node, dict):
        for module in ("ansible.builtin.command", "ansible.builtin.shell"):
            if isinstance(node.get(module), dict) and "stdin" in node[module]:
                yield path, node[module]
        for one in node.values():
            if isinstance(one, list):
                yield from fed_tasks(path, one)


FED = [
    found
    for path in [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]
    for found in fed_tasks(path, yaml.safe_load(path.read_text()))
]


def program(path: Path, text: str) -> Path | None:
    """Return the program that an expression stands for."""
    if named := re.fullmatch(r"\{\{ (\w+) \}\}", text.strip()):
        return PROGRAMS.get(named[1])
    if not (found := LOOKUP.search(text)):
        return None
    places = (ROOT, path.parent, path.parents[1] / "files")
    return next(place / found[1] for place in places if (place / found[1]).exists())


def test_every_program_that_python_reads_from_there_fits_into_a_pipe():
    fed = {found for path, task in FED if (found := program(path, task["stdin"]))}
    assert {"parcel.py", "build_release.py", "database.py"} <= {path.name for path in fed}
    assert [path.name for path in fed if path.stat().st_size >= CAPACITY] == []


# What it gets is short (a directory), or was printed by the same program on the same server.
NOT_TRIED = ("playbooks/preflight/bot.yml", "roles/postgres_server/tasks/restore_backup.yml")
READERS = {
    name: (path, task["argv"])
    for path, task in FED
    if not program(path, task["stdin"])
    and (name := path.relative_to(ROOT).as_posix()) not in NOT_TRIED
}


@pytest.fixture
def tools(tmp_path):
    """The programs that are run as files, in one folder as on the old PC."""
    for name in ("freeze.py", "parcel.py", "open_files.py", "announce.py"):
        shutil.copy(ROOT / "playbooks/files" / name, tmp_path)
    shutil.copy(ROOT / "playbooks/verify/report.py", tmp_path)
    shutil.copy(ROOT / "ferry/src/ferry/snapshot.py", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", READERS)
def test_every_program_that_gets_data_reads_them_before_it_fails(name, tools):
    path, words = READERS[name]
    if isinstance(words, str):  # one expression that makes the list, of more than is wanted here
        assert "evidence_program, 'store'" in words
        words = ["-c", "{{ evidence_program }}", "store", "{{ migration_artifacts }}", "copy.json"]
    if "-c" in words:
        place = words.index("-c") + 1
        found = program(path, words[place])
        command = ["-c", found.read_text() if found else words[place]]
    else:
        [place] = [number for number, word in enumerate(words) if word.endswith(".py")]
        command = [tools / Path(words[place]).name]
    # Whatever it is to work on is not there.
    rest = [tools / "nowhere/x" if "{{" in word else word for word in words[place + 1 :]]
    with (tools / "said").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *command, *rest],
            stdin=subprocess.PIPE, stdout=said, stderr=said, cwd=tools,
            env={"PGHOST": str(tools), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        # BrokenPipeError, where it did not wait for the end.
        process.stdin.write(MUCH.encode())
        process.stdin.close()
        process.wait(30)
        said.seek(0)
        assert re.search(r"Error|not found|such", said.read())
