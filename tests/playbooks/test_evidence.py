"""playbooks/files/evidence.py: only what is asked for arrives, as what it should be."""

import base64
import importlib.util
import json
import os
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "playbooks/files/evidence.py"
NAMES = ["migration.json", "verify.json"]


def load():
    spec = importlib.util.spec_from_file_location("evidence", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


evidence = load()


def line(found):
    text = found if isinstance(found, bytes) else json.dumps(found).encode()
    return base64.b64encode(zlib.compress(text)).decode() + "\n"


@pytest.fixture
def here(tmp_path):
    return tmp_path / "artifacts"


def run(*arguments, text=""):
    argv = [sys.executable, "-I", PROGRAM, *map(str, arguments)]
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=True).stdout


def test_what_a_run_leaves_behind_arrives(tmp_path, here):
    there = tmp_path / "ferry"
    there.mkdir()
    (there / "migration.json").write_text('{"stage": "settled"}')
    (there / "other.json").write_text("{}")
    (there / "page.html").write_text("<p>€")
    said = run("collect", there, *NAMES, "page.html")
    names = [*NAMES, "page.html=migration-20261128.html"]
    assert run("store", here, *names, text=said).split() == [
        "migration-20261128.html", "migration.json",
    ]  # fmt: skip
    assert (here / "migration.json").read_text() == '{"stage": "settled"}'
    assert (here / "migration-20261128.html").read_text() == "<p>€"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in here.iterdir()}
    assert (stat.S_IMODE(here.stat().st_mode), modes) == (0o700, {0o600})


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_no_link_is_followed_and_no_pipe_is_waited_for(tmp_path, what):
    place = tmp_path / "verify.json"
    if what == "link":
        place.symlink_to("/etc/passwd")
        with pytest.raises(OSError, match="symbolic"):
            evidence.collect(tmp_path, NAMES)
    elif what == "pipe":
        os.mkfifo(place)
        assert evidence.unpack(evidence.collect(tmp_path, NAMES), NAMES) == {}
    else:
        place.mkdir()
        with pytest.raises(IsADirectoryError):
            evidence.collect(tmp_path, NAMES)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("", "half of it"),
        ("no base64!", "no evidence"),
        (base64.b64encode(b"no zlib").decode(), "no evidence"),
        (line(b"no JSON"), "no evidence"),
        (line([]), "no evidence"),
        (line(b"[" * 100_000), "no evidence"),
        (line({"../../.bashrc": "x"}), "nobody asked for: '../../.bashrc'"),
        (line({"/etc/x": "x"}), "nobody asked for"),
        (line({"migration.json\x1b[2J": "x"}), r"nobody asked for: 'migration.json\x1b[2J'"),
        (line({"group_vars/all.yml": "x"}), "nobody asked for"),
        (line({"migration.json": {"stage": 1}}), "that is no text"),
        (line({"migration.json": "no JSON"}), "that is no JSON"),
        (line({"verify.json": "{}", "x": "x"}), "nobody asked for"),
    ],
)
def test_what_is_no_evidence_is_refused_and_nothing_is_written(here, sent, said):
    with pytest.raises(SystemExit) as refused:
        evidence.store(here, {name: name for name in NAMES}, sent)
    assert said in str(refused.value)
    assert not here.exists()


def test_it_may_be_so_long_and_no_longer(here, monkeypatch):
    monkeypatch.setattr(evidence, "MOST", 100)
    monkeypatch.setattr(evidence, "MOST_OF_ALL", 1000)
    with pytest.raises(SystemExit, match="no text of at most"):
        evidence.store(
            here, {"verify.json": "verify.json"}, line({"verify.json": '"%s"' % ("x" * 200)})
        )
    with pytest.raises(SystemExit, match="more than evidence"):
        evidence.store(here, {"verify.json": "verify.json"}, line({"verify.json": "x" * 9999}))


def test_a_link_on_the_control_machine_is_replaced(here, tmp_path):
    here.mkdir()
    (tmp_path / "victim").write_text("mine")
    (here / "verify.json").symlink_to(tmp_path / "victim")
    evidence.store(here, {"verify.json": "verify.json"}, line({"verify.json": "{}"}))
    assert (tmp_path / "victim").read_text() == "mine"
    assert (here / "verify.json").read_text() == "{}"
