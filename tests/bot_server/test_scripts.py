"""The scripts of the role bot_server, which run without Ansible."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROLE = Path(__file__).parents[2] / "roles" / "bot_server"


def load(name: str) -> ModuleType:
    """Import a script of the role."""
    spec = importlib.util.spec_from_file_location(f"bot_server_{name}", ROLE / f"files/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_release = load("build_release")
releases = load("releases")
health_gate = load("health_gate")


def write(root: Path, files: dict[str, str]) -> Path:
    """Make files below a directory."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_defaults_are_those_of_the_argument_specs() -> None:
    specs = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert defaults == {name: spec["default"] for name, spec in specs["main"]["options"].items()}


def test_every_input_is_in_the_readme() -> None:
    readme = (ROLE / "README.md").read_text()
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert [name for name in defaults if f"`{name}`" not in readme] == []


def test_every_script_fits_into_a_pipe() -> None:
    """One that Python reads from its standard input, and cannot, still says why it cannot.

    What fits is written before Python ends; of more the module would only say "Broken pipe".
    """
    capacity = 65_536
    fed = set()
    for path in (ROLE / "tasks").glob("*.yml"):
        for line in re.findall(r"^ *stdin: (.*)$", path.read_text(), re.MULTILINE):
            fed.add(re.search(r"lookup\('ansible\.builtin\.file', '(\w+\.py)'\)", line)[1])
    assert "build_release.py" in fed
    assert [name for name in fed if (ROLE / "files" / name).stat().st_size >= capacity] == []


# -- pack_source


def pack(directory: Path, archive: Path | str = "", **settings: Any) -> dict[str, Any]:
    """Run the script."""
    wanted = {"directory": str(directory), "exclude": ["*.pyc", ".git"], "leave_out": ["logs"]}
    wanted |= {"archive": str(archive)} | settings
    out = subprocess.check_output(
        [sys.executable, ROLE / "files/pack_source.py", json.dumps(wanted)], text=True
    )
    return json.loads(out)


def test_same_contents_give_the_same_archive(tmp_path: Path) -> None:
    files = {"bot/a.py": "1", "bot/Zoë.py": "2", "z": "3"}
    one = write(tmp_path / "one", files)
    two = write(tmp_path / "two", dict(reversed(files.items())))
    os.utime(two / "z", (1, 1))
    (two / "z").chmod(0o600)
    write(two, {"bot/a.pyc": "no", "bot/.git/HEAD": "no", "logs/bot.log": "no"})
    assert pack(one, tmp_path / "1.gz") == pack(two, tmp_path / "2.gz")
    assert (tmp_path / "1.gz").read_bytes() == (tmp_path / "2.gz").read_bytes()


@pytest.mark.parametrize("change", ["text", "name", "executable", "link"])
def test_other_contents_have_another_name(tmp_path: Path, change: str) -> None:
    one = write(tmp_path / "one", {"a": "1", "b": "1"})
    before = pack(one)["digest"]
    if change == "text":
        (one / "a").write_text("2")
    elif change == "name":
        (one / "a").rename(one / "c")
    elif change == "executable":
        (one / "a").chmod(0o755)
    else:
        (one / "a").unlink()
        (one / "a").symlink_to("b")
    assert pack(one)["digest"] != before


# -- import_check


def checked(root: Path, entry: str = "bot/main.py") -> dict[str, list[str]]:
    """Run the script in a source tree and return its sentences by their kind."""
    out = subprocess.check_output(
        [sys.executable, ROLE / "files/import_check.py", entry], cwd=root, text=True
    )
    answer = json.loads(out)
    kinds = ("problems", "failures", "warnings")
    return {kind: [one["text"] for one in answer[kind]] for kind in kinds}


def check(root: Path, entry: str = "bot/main.py") -> list[str]:
    """Run the script in a source tree and return what stops a deploy."""
    answer = checked(root, entry)
    return answer["problems"] or answer["failures"]


def test_a_sound_bot_passes_and_is_not_started(tmp_path: Path) -> None:
    main = """
import sys
from pathlib import Path
from typing import TYPE_CHECKING
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from bot.core import database
from helper import name
try:
    import not_there_but_optional
except ImportError:
    not_there_but_optional = None
if TYPE_CHECKING:
    import only_for_types
print("started")
raise RuntimeError("there is no main guard here")
"""
    core = "print('imported')\nimport json\n\ndef later():\n    import only_when_called\n"
    files = {"bot/main.py": main, "bot/helper.py": "name = 1\n", "bot/core/database.py": core}
    root = write(tmp_path, files | {"old/attic.py": "import gone\nprint 'python 2'\n"})
    (root / "bot/core/__init__.py").touch()
    assert check(root) == []
    assert checked(root)["warnings"] == ["bot/main.py, line 9: no module 'not_there_but_optional'"]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"bot/main.py": "import undeclared\n"}, "bot/main.py, line 1: no module 'undeclared'"),
        (
            {"bot/main.py": "import helper\n", "bot/helper.py": "\nimport undeclared.part\n"},
            "bot/helper.py, line 2: no module 'undeclared'",
        ),
        ({"bot/main.py": "from json import lods\n"}, "ImportError: cannot import name 'lods'"),
        ({"bot/main.py": "def f(:\n"}, "bot/main.py, line 1: invalid syntax"),
        (
            {"bot/main.py": "X = ['cogs.one']\n", "bot/cogs/one.py": "<<<<<<< HEAD\n"},
            "bot/cogs/one.py, line 1: invalid syntax",
        ),
        (
            {"bot/main.py": "X = 'bot.cogs.two'\n", "bot/cogs/two.py": "import undeclared\n"},
            "bot/cogs/two.py, line 1: no module 'undeclared'",
        ),
        (
            {"bot/main.py": "from bot.missing import x\n", "bot/__init__.py": ""},
            "ModuleNotFoundError: No module named 'bot.missing'",
        ),
        (
            {"bot/main.py": "import helper\n", "bot/helper.py": "raise SystemExit('no token')\n"},
            "SystemExit: no token",
        ),
    ],
)
def test_what_would_not_start_is_named(tmp_path: Path, files: dict[str, str], problem: str) -> None:
    problems = check(write(tmp_path, files))
    assert len(problems) == 1
    assert problem in problems[0]


EXTRA = "import undeclared\n\ndef setup(bot): ...\n"
TRIED = {
    "a text in try": "try:\n    bot.load_extension('cogs.extra')\nexcept Exception:\n    pass\n",
    "an import in try": "try:\n    from cogs import extra\nexcept ImportError:\n    extra = None\n",
    "suppress": "import contextlib\nwith contextlib.suppress(Exception):\n    load('cogs.extra')\n",
    "in a function": "async def main():\n    for name in ('cogs.extra',):\n        pass\n",
    "in finally": "try:\n    pass\nexcept OSError:\n    pass\nfinally:\n    load('cogs.extra')\n",
    "in except": "try:\n    pass\nexcept OSError:\n    load('cogs.extra')\n",
    "without except": "try:\n    load('cogs.extra')\nfinally:\n    pass\n",
    "tried, but needed elsewhere": "try:\n    load('cogs.extra')\nexcept Exception:\n    pass\n"
    "NEEDED = 'cogs.other'\n",
}
OPTIONAL = ("a text in try", "an import in try", "suppress")


@pytest.mark.parametrize("how", TRIED)
def test_what_is_tried_is_optional_and_named(tmp_path: Path, how: str) -> None:
    other = "from cogs import extra\n" if "elsewhere" in how else ""
    text = f"def load(name): ...\n{TRIED[how]}"
    files = {"bot/main.py": text, "bot/cogs/extra.py": EXTRA, "bot/cogs/other.py": other}
    answer = checked(write(tmp_path, files))
    named = answer["warnings" if how in OPTIONAL else "problems"]
    assert [text.partition(";")[0] for text in named] == [
        "bot/cogs/extra.py, line 1: no module 'undeclared'"
    ]
    assert answer["problems" if how in OPTIONAL else "warnings"] == []


def test_an_optional_file_that_is_not_python_is_named(tmp_path: Path) -> None:
    files = {"bot/main.py": TRIED["an import in try"], "bot/cogs/extra.py": "<<<<<<< HEAD\n"}
    answer = checked(write(tmp_path, files))
    assert answer["warnings"] == ["bot/cogs/extra.py, line 1: invalid syntax"]
    assert not answer["problems"]


# -- build_release

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
NOBODY = 65534


def test_problems_are_refused_with_the_setting_that_accepts_them(builder: Any) -> None:
    problem = {"file": "bot/cogs/extra.py", "text": "bot/cogs/extra.py, line 1: \x1b[31mred\n"}
    with pytest.raises(build_release.Refused) as refusal:
        builder.judge([problem, problem])
    said = str(refusal.value)
    assert "\x1b" not in said
    advised = re.search(r"'(\{.*\})'$", said)[1]
    assert json.loads(advised) == {"bot_server_import_accepted": ["bot/cogs/extra.py"]}
    builder.settings["accepted"] = json.loads(advised)["bot_server_import_accepted"]
    assert len(builder.judge([problem])) == 1
    builder.settings["accepted"] = ["bot/cogs/*.py"]
    assert builder.judge([problem])
    builder.settings["accepted"] = ["other.py"]
    with pytest.raises(build_release.Refused):
        builder.judge([problem])


@pytest.mark.parametrize(
    "out", ["", "no JSON", "[]", "{}", '{"problems": 1}', '{"problems": ["text"]}', "null"]
)
def test_an_answer_that_is_none_is_refused(out: str) -> None:
    with pytest.raises(build_release.Refused, match="the check gave no answer"):
        build_release.read_answer(out, "the check", "problems")
    assert build_release.read_answer('noise\n{"problems": []}', "the check", "problems")


@pytest.mark.parametrize("where", ["requirements.txt", "more.txt"])
def test_requirements_outside_of_the_source_are_refused(
    builder: Any, tmp_path: Path, where: str
) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("a==1\n")
    root = write(tmp_path / "r", {"requirements.txt": "-r more.txt\n", "more.txt": ""})
    (root / where).unlink()
    (root / where).symlink_to(outside)
    with pytest.raises(build_release.Refused, match=f"'{where}' leads out of the source"):
        builder.requirement_files(root)
    (root / where).unlink()
    write(root, {"requirements.txt": "-r ../outside.txt\n"})
    with pytest.raises(build_release.Refused, match=r"'\.\./outside.txt' leads out of the source"):
        builder.requirement_files(root)


def test_state_below_a_link_of_the_source_is_refused(builder: Any, tmp_path: Path) -> None:
    root, outside = write(tmp_path / "r", {"a": ""}), write(tmp_path / "out", {"stats/kept": "1"})
    (root / "data").symlink_to(outside)
    builder.settings["state_directories"] = ["data/stats"]
    with pytest.raises(build_release.Refused, match="the source has a link 'data'"):
        builder.link_state(root)
    assert (outside / "stats/kept").exists()
    (root / "data").unlink()
    builder.link_state(root)
    assert (root / "data/stats").readlink() == builder.var / "data/stats"


def built(builder: Any, monkeypatch: pytest.MonkeyPatch, root: Path) -> list[list[str]]:
    """Build a release with programs that only answer; returns them with their properties."""
    called = []

    def sandboxed(what: str, argv: list[str], _: Path, properties: list[str]) -> str:
        called.append([what, *argv, *properties])
        return '{"problems": [], "failures": [], "warnings": [], "unset": []}'

    monkeypatch.setattr(builder, "sandboxed", sandboxed)
    monkeypatch.setattr(builder, "hand_over", lambda _: None)
    monkeypatch.setattr(build_release, "take_back", lambda _: None)
    builder.cache = builder.opt / "cache"
    builder.settings |= {"release": root.name, "minimum_free_mb": 0, "entry_point": "main.py"}
    builder.settings |= {"python": sys.executable, "state_directories": ["logs"], "accepted": []}
    builder.settings |= {"environment_file": "", "environment_known": [], "source": "here"}
    builder.build()
    return called


def test_a_build_writes_through_no_link_of_the_source(
    builder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    root = builder.releases / "one"
    write(root, {"main.py": "", "requirements.txt": "", ".release.json": "{}"})
    links = [".release.json.new", ".failed", ".venv", "logs"]
    for name in links:
        (root / name).symlink_to(victim)
    built(builder, monkeypatch, root)
    assert not victim.exists()
    assert "built_at" in (root / ".release.json").read_text()
    assert (root / ".venv").resolve().parent == builder.venvs
    assert not (root / ".failed").is_symlink()


def test_root_itself_runs_nothing_of_a_release(
    builder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is in the sandbox, but for the system's interpreter that says its version."""
    root = write(builder.releases / "one", {"main.py": "", "requirements.txt": ""})
    alone = []
    run = subprocess.run

    def noted(argv: list[str], **more: Any) -> Any:
        alone.append(argv)
        return run(argv, **more)

    monkeypatch.setattr(build_release.subprocess, "run", noted)
    called = built(builder, monkeypatch, root)
    assert [argv[:3] for argv in alone] == [[sys.executable, "-I", "-c"]]
    what = [words[0] for words in called]
    assert what[1:] == [
        "pip install -r requirements.txt", "byte code", "the import check", "the search for names",
    ]  # fmt: skip
    # The system's interpreter, so that not even the bot's user runs a package for these two.
    assert [called[place][1:3] for place in (2, 4)] == [[sys.executable, "-I"]] * 2


def test_a_sandbox_closes_what_the_bot_may_not_reach(
    builder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.settings |= {"denied_addresses": ["10.0.0.0/8"], "allowed_addresses": ["10.0.0.5"]}
    ran = []
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(build_release.subprocess, "run", lambda argv, **_: ran.append(argv) or done)
    builder.sandboxed("a test", ["true"], Path("/"), [])
    assert {"IPAddressDeny=10.0.0.0/8", "IPAddressAllow=10.0.0.5", "--uid=testbot"} <= {*ran[0]}


@ROOT_ONLY
def test_a_tree_is_given_and_taken_back_without_following_a_link(
    builder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = write(tmp_path / "victim", {"inner/file": "1"})
    tree = write(tmp_path / "tree", {"a/b/c.py": "", "tool": ""})
    (tree / "link").symlink_to(victim)
    (tree / "a/b/up").symlink_to("/etc")
    nobody = build_release.pwd.getpwuid(NOBODY)
    monkeypatch.setattr(build_release.pwd, "getpwnam", lambda _: nobody)

    builder.hand_over(tree)
    inside = [tree, *tree.rglob("*")]
    assert {path.lstat().st_uid for path in inside} == {NOBODY}
    assert {path.lstat().st_uid for path in (victim, *victim.rglob("*"), Path("/etc"))} == {0}

    # What a hostile build leaves.
    (tree / "tool").chmod(0o6777)
    (tree / "a/b").chmod(0o777)
    os.mkfifo(tree / "a/pipe")
    os.mknod(tree / "a/socket", 0o600 | build_release.stat.S_IFSOCK)
    build_release.take_back(tree)
    inside = [tree, *tree.rglob("*")]
    assert {path.lstat().st_uid for path in inside} == {0}
    assert not [path for path in inside if not path.is_symlink() and path.stat().st_mode & 0o7022]
    assert {path.name for path in (tree / "a").iterdir()} == {"b"}
    assert (tree / "tool").stat().st_mode & 0o777 == 0o755
    assert (tree / "a/b/c.py").stat().st_mode & 0o777 == 0o644
    assert (victim / "inner/file").stat().st_mode & 0o777 != 0o755


# -- releases


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """A bot's folders in a temporary directory."""
    place = {name: str(tmp_path / name) for name in ("opt", "etc", "state")}
    for path in (*place.values(), place["opt"] + "/releases", place["opt"] + "/venvs"):
        Path(path).mkdir()
    unit = tmp_path / "testbot.service"
    unit.write_text("[Service]\n")
    settings = {"name": "testbot", "requirements": "requirements.txt", "kept": 2} | place
    settings["configuration"] = [str(unit), place["etc"] + "/environment", "/no/such/file"]
    settings["log"] = str(tmp_path / "deploys.log")
    settings["accepted"] = []
    return settings


@pytest.fixture
def builder(settings: dict[str, Any]) -> Any:
    return build_release.Builder(settings)


@pytest.fixture
def bot(settings: dict[str, Any]) -> Any:
    return releases.Host(settings)


def release(bot: Any, name: str, age: int) -> Path:
    """Make a complete release of a given age, seconds, with an environment of its own."""
    path = bot.releases / name
    path.mkdir()
    (path / releases.COMPLETE).write_text("{}")
    os.utime(path / releases.COMPLETE, (1_000_000 - age, 1_000_000 - age))
    (bot.venvs / name).mkdir()
    (path / ".venv").symlink_to(bot.venvs / name)
    return path


def make_current(bot: Any, path: Path) -> None:
    """Switch the link."""
    bot.current.unlink(missing_ok=True)
    bot.current.symlink_to(path)


def test_merge_markers_are_refused_with_their_line(builder: Any, tmp_path: Path) -> None:
    root = write(tmp_path / "r", {"requirements.txt": "a==1\n<<<<<<< HEAD\nb==1\n"})
    with pytest.raises(
        build_release.Refused, match=r"requirements.txt, line 2: merge marker '<<<<<<<'"
    ):
        builder.requirement_files(root)


def test_included_files_count_and_have_to_be_there(builder: Any, tmp_path: Path) -> None:
    files = {"requirements.txt": "-r more/base.txt\n", "more/base.txt": "-c pins.txt\nb\n"}
    root = write(tmp_path / "r", files)
    with pytest.raises(build_release.Refused, match=r"more/pins.txt is included, but is not there"):
        builder.requirement_files(root)
    write(root, {"more/pins.txt": "b==1\n"})
    found, local = builder.requirement_files(root)
    assert [path.name for path in found] == ["requirements.txt", "base.txt", "pins.txt"]
    assert not local


@pytest.mark.parametrize("line", ["-e .", ".", "./wheels/a.whl", "a @ file:///x", "--editable lib"])
def test_local_paths_are_noticed(builder: Any, tmp_path: Path, line: str) -> None:
    assert builder.requirement_files(write(tmp_path / "r", {"requirements.txt": line + "\n"}))[1]


def test_old_and_failed_releases_go_but_never_the_current(bot: Any) -> None:
    current = release(bot, "current", age=500)
    release(bot, "oldest", age=400)
    release(bot, "newer", age=300)
    (release(bot, "newest-but-failed", age=100) / releases.FAILED).touch()
    make_current(bot, current)
    answer = bot.settle()
    assert sorted(answer["removed"]) == ["newest-but-failed", "oldest"]
    assert {path.name for path in bot.releases.iterdir()} == {"current", "newer"}
    assert {path.name for path in bot.venvs.iterdir()} == {"current", "newer"}


def test_going_back_restores_release_and_configuration(
    bot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = release(bot, "good", age=100), release(bot, "bad", age=0)
    environment = bot.etc / "environment"
    environment.write_text("A=1\n")
    environment.chmod(0o640)
    make_current(bot, good)
    bot.settle()
    remembered = bot.fingerprint()

    environment.write_text("A=2\n")
    (tmp_path / "testbot.service").write_text("[Service]\nRestart=no\n")
    (bot.etc / "of-somebody-else").write_text("1")
    make_current(bot, bad)
    assert bot.fingerprint() != remembered

    called = []
    monkeypatch.setattr(releases.subprocess, "run", lambda argv, **_: called.append(argv))
    assert bot.revert() == {"release": "good"}
    assert called == [["systemctl", "daemon-reload"]]
    assert bot.current.resolve() == good
    assert environment.read_text() == "A=1\n"
    assert (tmp_path / "testbot.service").read_text() == "[Service]\n"
    assert environment.stat().st_mode & 0o777 == 0o640
    assert bot.fingerprint() == remembered
    assert (bad / releases.FAILED).exists()
    assert not (good / releases.FAILED).exists()


def test_going_back_where_nothing_was_healthy_changes_nothing(bot: Any) -> None:
    make_current(bot, release(bot, "first", age=0))
    assert bot.revert() == {"release": ""}
    assert bot.current.resolve().name == "first"


def deployed(bot: Any, *names: str) -> None:
    """Let releases be found healthy one after the other."""
    for name in names:
        path = bot.releases / name
        make_current(bot, path if path.exists() else release(bot, name, age=0))
        bot.settle()


def test_previous_is_what_was_healthy_before_and_not_what_was_built_before(bot: Any) -> None:
    bot.settings["kept"] = 5
    assert bot.previous() == ""
    deployed(bot, "a", "b")
    release(bot, "never-started", age=0)
    assert bot.previous() == "a"
    deployed(bot, "a")
    assert bot.previous() == "b"


def test_what_somebody_went_back_from_is_never_gone_back_to(bot: Any) -> None:
    bot.settings["kept"] = 5
    deployed(bot, "a", "b", "c")
    bot.settings["withdrawn"] = "c"
    deployed(bot, bot.previous())
    assert bot.current.resolve().name == "b"
    assert bot.previous() == "a"
    del bot.settings["withdrawn"]
    deployed(bot, "c")  # deployed again and healthy: it counts again
    assert bot.previous() == "b"


def test_a_record_of_before_the_history_is_understood(bot: Any) -> None:
    release(bot, "a", age=0)
    bot.deployed.write_text('{"release": "a", "fingerprint": "", "at": 1}')
    assert bot.previous() == ""
    deployed(bot, "b")
    assert bot.previous() == "a"


def test_the_last_healthy_ones_stay_however_old_their_build_is(bot: Any) -> None:
    deployed(bot, "a", "b", "a")
    os.utime(bot.releases / "a" / releases.COMPLETE, (1, 1))
    deployed(bot, "c")
    assert {path.name for path in bot.releases.iterdir()} == {"a", "c"}


def test_nothing_is_built_on_a_full_disk(builder: Any) -> None:
    with pytest.raises(
        build_release.Refused, match=r"opt has \d+ MiB free, and bot_server_minimum_free"
    ):
        builder.check_room(10**9)
    builder.check_room(0)


def test_marks_are_written_through_no_link(
    bot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    monkeypatch.setattr(releases.subprocess, "run", lambda *_, **__: None)
    for name in ("a", "b"):
        (release(bot, name, age=0) / releases.FAILED).symlink_to(victim)
    make_current(bot, bot.releases / "b")
    bot.settings |= {"kept": 5, "withdrawn": "a"}
    bot.settle()
    assert not victim.exists()
    assert (bot.releases / "a" / releases.FAILED).read_text()
    (bot.releases / "a" / releases.FAILED).unlink()
    (bot.releases / "a" / releases.FAILED).symlink_to(victim)
    make_current(bot, bot.releases / "a")
    bot.revert()
    assert not victim.exists()


@ROOT_ONLY
def test_configuration_below_somebody_elses_folder_is_left_alone(
    bot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bot had its folder of keys in a folder of its own and has put a link in its place."""
    monkeypatch.setattr(releases.subprocess, "run", lambda *_, **__: None)
    secret = write(tmp_path / "secret", {"key.pem": "root's"})
    os.chown(bot.var, NOBODY, NOBODY)
    (bot.var / "keys").symlink_to(secret)
    bot.configuration.append(bot.var / "keys/key.pem")
    before = bot.fingerprint()
    make_current(bot, release(bot, "a", age=0))
    bot.settle()
    assert not [path for path in bot.last_good.rglob("*") if path.name == "key.pem"]
    (secret / "key.pem").write_text("changed")
    assert bot.fingerprint() == before
    write(bot.last_good, {str(bot.var / "keys/key.pem")[1:]: "from before"})
    bot.revert()
    assert (secret / "key.pem").read_text() == "changed"


def test_links_in_the_place_of_folders_are_named(bot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (bot.var / "logs").symlink_to("/etc/ssh")
    bot.settings["folders"] = [
        {"path": str(bot.var / name), "owner": "root", "group": "root", "mode": "0750"}
        for name in ("logs", "temp")
    ]
    shown = "".join(f"{name}=\n" for name in ("ActiveState", "UnitFileState"))
    done = subprocess.CompletedProcess([], 0, shown, "")
    monkeypatch.setattr(releases.subprocess, "run", lambda *_, **__: done)
    assert bot.state()["links"] == [f"{bot.var}/logs -> /etc/ssh"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 127.0.0.53\nnameserver ::1\n", []),
        (
            "# nameserver 10.0.0.9\nnameserver 10.0.0.2\nnameserver fd00::1\n",
            ["10.0.0.2", "fd00::1"],
        ),
        ("nameserver 169.254.169.253 # AWS\nnameserver 1.2\n", ["169.254.169.253"]),
    ],
)
def test_the_name_servers_that_programs_ask_are_found(
    monkeypatch: pytest.MonkeyPatch, text: str, found: list[str]
) -> None:
    monkeypatch.setattr(releases.Path, "read_text", lambda _: text)
    assert releases.resolvers() == found


@pytest.mark.parametrize("judged", ["healthy", "never"])
def test_the_host_goes_back_by_itself_only_without_a_verdict(
    bot: Any, monkeypatch: pytest.MonkeyPatch, judged: str
) -> None:
    deployed(bot, "good")
    make_current(bot, release(bot, "new", age=0))
    if judged == "healthy":
        bot.settle()
    called = []
    monkeypatch.setattr(releases.subprocess, "run", lambda argv, **_: called.append(argv[:2]))
    bot.guard()
    gone_back = ["systemctl", "restart"] in called
    assert gone_back == (judged == "never")
    assert bot.current.resolve().name == ("good" if gone_back else "new")
    log = Path(bot.settings["log"])
    noted = json.loads(log.read_text()) if log.exists() else {}
    assert (noted.get("from"), noted.get("to")) == (("new", "good") if gone_back else (None, None))


# -- environment_scan


def test_names_read_from_the_environment_are_found_with_their_place(tmp_path: Path) -> None:
    source = """
import os
from os import environ, getenv
import os as system
A = os.environ["NEEDED"]
B = os.getenv("WITH_DEFAULT", "x")
C = environ.get("SET")
D = system.environ.get("MISSING")
E = getenv("KNOWN")
os.environ["WRITTEN"] = "1"
name = "BUILT"
F = os.environ[name]
G = {}.get("NOT_ENVIRONMENT")
H = os.environ.get("NEEDED", "here with a default")
"""
    root = write(
        tmp_path,
        {"bot/main.py": source, "bot/broken.py": "def (", "tests/t.py": "os.getenv('IN_TESTS')"},
    )
    settings = {"directory": str(root), "known": ["SET", "KNOWN"]}
    out = subprocess.check_output(
        [sys.executable, ROLE / "files/environment_scan.py", json.dumps(settings)], text=True
    )
    assert json.loads(out)["unset"] == [
        {"name": "MISSING", "file": "bot/main.py", "line": 8, "needed": True},
        {"name": "NEEDED", "file": "bot/main.py", "line": 5, "needed": False},
        {"name": "WITH_DEFAULT", "file": "bot/main.py", "line": 6, "needed": False},
    ]


def names_in(root: Path) -> dict[str, dict[str, Any]]:
    """Scan a release and return what was found by name."""
    settings = json.dumps({"directory": str(root), "known": []})
    out = subprocess.check_output(
        [sys.executable, ROLE / "files/environment_scan.py", settings], text=True
    )
    return {entry.pop("name"): entry for entry in json.loads(out)["unset"]}


def test_names_read_through_a_mapping_are_found(tmp_path: Path) -> None:
    source = """
import os
def load(env=os.environ, *, other=None):
    values = {key: text.strip() for key, text in env.items() if text}
    host = values["DB_HOST"]
    port = number(values, "DB_PORT", 5432)
    for name in ("SSH_USER", "SSH_KEY"):
        print(values.get(name))
    return [os.environ[name] for name in ("ALPHA", "beta")]
copied = dict(os.environ)
TOKEN = copied.get("TOKEN", "")
merged: dict = {"A": "1"} | os.environ
LEVEL = {**merged}["LEVEL"]
answer = copied.get("TOKEN", "").upper()
"""
    others = """
import os
config = {"HOST": 1}
print(config["HOST"], config.get("PORT"), read(config, "PATH_OF"))
text = os.environ.get("ONE", "x")
print(text["NOT_A_MAPPING"], number(text, "NOR_THIS"))
copied = dict(os.environ)
print(copied["lower"], copied.get("Mixed"), shown("NO_MAPPING_HERE"))
copied["WRITTEN"] = "1"
"""
    found = names_in(write(tmp_path, {"bot/main.py": source, "bot/others.py": others}))
    assert {name: entry["line"] for name, entry in found.items()} == {
        "DB_HOST": 5, "DB_PORT": 6, "SSH_USER": 8, "SSH_KEY": 8, "ALPHA": 9, "beta": 9,
        "TOKEN": 11, "LEVEL": 13, "ONE": 5,
    }  # fmt: skip
    assert {name for name, entry in found.items() if not entry["needed"]} == {
        "DB_PORT", "TOKEN", "ONE",
    }  # fmt: skip
    assert found["ONE"]["file"] == "bot/others.py"


def test_names_read_through_what_a_function_returns_are_found(tmp_path: Path) -> None:
    """As the awkward bot does, which reads its own .env first."""
    source = """
import os
def settings():
    return {**read(".env"), **os.environ}
def other():
    return {"OTHER": 1}
class Bot:
    async def values(self):
        return os.environ.copy()
    async def run(self):
        print((await self.values())["CHANNEL"], other()["OTHER"], self.other()["NOT_THIS"])
values = settings()
print(values.get("GREETING", "nowhere"), settings()["TOKEN"])
"""
    found = names_in(write(tmp_path, {"bot/main.py": source}))
    assert {name: entry["line"] for name, entry in found.items()} == {
        "CHANNEL": 11, "GREETING": 13, "TOKEN": 13,
    }  # fmt: skip
    awkward = names_in(ROLE.parents[1] / "tests/awkward_bot")
    assert {"AWKWARD_TOKEN", "AWKWARD_GREETING", "AWKWARD_CHANNEL"} <= awkward.keys()


def test_every_setting_of_the_reference_bot_is_found() -> None:
    root = ROLE.parents[1] / "reference_bot"
    example = (root / ".env.example").read_text()
    documented = set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", example, re.MULTILINE))
    found = names_in(root)
    # libpq's own are read too, and named in the text of the example.
    assert found.keys() - documented == {"PGSSLMODE", "PGSSLROOTCERT"}
    assert documented - found.keys() == set()
    assert found["LOG_LEVEL"]["file"] == "bot/core/settings.py"
    assert found["DATABASE_POOL_MAX"]["file"] == "bot/core/database.py"
    for name, entry in found.items():
        line = (
            (root / entry["file"]).read_text().splitlines()[entry["line"] - 1 : entry["line"] + 3]
        )
        assert name in "\n".join(line) or name in ("SSH_KEY_PATH", "SSH_KNOWN_HOSTS")


# -- health_gate


@pytest.mark.parametrize("since", [1000.5, None])
def test_the_last_lines_are_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: float | None
) -> None:
    """Up to systemd 253, --lines with --since gives the first ones."""
    words = tmp_path / "words"
    fake = f"""#!/bin/sh
echo "$@" > {words}
case "$*" in
  *--lines*--since*|*--since*--lines*) seq 1 30 ;;
  *--lines*) seq 71 100 ;;
  *) seq 1 100 ;;
esac
"""
    (tmp_path / "journalctl").write_text(fake)
    (tmp_path / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lines = health_gate.last_lines("testbot.service", since).splitlines()
    assert lines == [str(number) for number in range(71, 101)]
    assert ("--since @1000" in words.read_text()) == (since is not None)


def looks(*changes: dict[str, str]) -> Any:
    """Return a `show` that gives one state after the other and stays at the last."""
    state = {"ActiveState": "active", "SubState": "running", "MainPID": "10", "NRestarts": "0"}
    state |= {"Result": "success", "ExecMainStatus": "0", "Type": "notify"}
    states = [state | change for change in changes]
    return lambda _: states.pop(0) if len(states) > 1 else states[0]


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ([{}], ""),
        ([{"ActiveState": "activating"}, {}], ""),
        ([{}, {"MainPID": "11", "NRestarts": "1"}], "did not stay up"),
        ([{}, {"NRestarts": "1"}], "did not stay up"),
        ([{}, {"ActiveState": "activating", "SubState": "auto-restart"}], "did not stay up"),
        ([{"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "2"}], "is failed: "),
        (
            [{"ActiveState": "activating", "SubState": "auto-restart"}],
            "ended while it was starting",
        ),
        ([{"ActiveState": "activating"}], "did not say READY=1 within 0.4 seconds"),
        ([{"ActiveState": "inactive"}], "is inactive"),
    ],
)
def test_verdict(
    monkeypatch: pytest.MonkeyPatch, states: list[dict[str, str]], reason: str
) -> None:
    monkeypatch.setattr(health_gate, "show", looks(*states))
    monkeypatch.setattr(health_gate, "POLL", 0.02)
    verdict, _ = health_gate.judge("testbot.service", seconds=0.1, timeout=0.4)
    assert verdict.startswith(reason) if reason else verdict == ""


@pytest.mark.parametrize(("kind", "since"), [("notify", 7), ("notify-reload", 7), ("exec", 0)])
def test_since_when_it_serves_is_its_own_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, since: float
) -> None:
    ready = str(int((time.monotonic() - 7) * 1e6))
    state = {"Type": kind, "ActiveEnterTimestampMonotonic": ready}
    monkeypatch.setattr(health_gate, "show", looks(state))
    monkeypatch.setattr(health_gate, "run", lambda *_: "")
    monkeypatch.setattr(health_gate, "last_lines", lambda *_: "")
    settings = {"unit": "testbot.service", "action": "", "seconds": 0.1, "timeout": 1}
    monkeypatch.setattr(sys, "argv", ["health_gate.py", json.dumps(settings)])
    health_gate.main()
    assert since <= json.loads(capsys.readouterr().out)["serves_since"] <= since * 1.1
