"""A bad release or a bad setting never stays; nothing secret is said about it."""

import io
import json
import os
import signal
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

testinfra_hosts = ["docker://bot_server-bot"]

HELPER = '"""What a release differs in."""\n\n'


def serving(host: Any, service: Any) -> tuple[str, str]:
    """Return the current release and the running process."""
    assert service("ActiveState") == "active"
    return host.check_output("readlink /opt/testbot/current"), service("MainPID")


def test_merge_markers_in_the_requirements(host: Any, deploy: Any, service: Any) -> None:
    before = serving(host, service)
    text = "<<<<<<< HEAD\npython-dotenv==1.0.1\n=======\npython-dotenv==1.0.0\n>>>>>>> main\n"
    source = deploy.source()
    (source / "requirements.txt").write_text(text)
    result = deploy(bot_server_source_directory=str(source))
    assert result.returncode != 0
    assert "requirements.txt, line 1: merge marker '<<<<<<<'" in result.stdout
    assert serving(host, service) == before


def test_undeclared_import_and_broken_extension(host: Any, deploy: Any, service: Any) -> None:
    before = serving(host, service)
    source = deploy.source(bot__helper=HELPER + "import aiofiles\n\nVERSION = 2\n")
    (source / "bot/cogs/greeting.py").write_text("def greet(:\n")
    result = deploy(bot_server_source_directory=str(source))
    assert result.returncode != 0
    assert "bot/helper.py, line 3: no module 'aiofiles'" in result.stdout
    assert "bot/cogs/greeting.py, line 1: invalid syntax" in result.stdout
    assert serving(host, service) == before


# What a package does wherever any of it is run: it notes who it is, in places of root's and in
# those that the bot's user may write to.
MARK = """import os
for place in ("/run", "/etc", "/opt/testbot", "/var/cache/testbot", "/var/lib/testbot/temp"):
    try:
        with open(place + "/hostile", "a") as out:
            out.write(f"{where} {os.getuid()}\\n")
    except OSError:
        pass
"""
# Takes the place of the environment's interpreter, and works like it.
INTERPRETER = """#!/bin/bash
for place in /run /etc /opt/testbot /var/cache/testbot /var/lib/testbot/temp; do
  echo "interpreter $(id -u)" 2>/dev/null >> $place/hostile
done
exec -a "$0" /usr/bin/python3.11 "$@"
"""
# The build of a package from its source, with nothing to download.
BACKEND = """import zipfile
where = "build"
exec(MARK)

def build_wheel(directory, settings=None, metadata=None):
    exec(MARK)
    with zipfile.ZipFile(f"{directory}/source-1-py3-none-any.whl", "w") as wheel:
        for name, text in FILES.items():
            wheel.writestr(name, text)
    return "source-1-py3-none-any.whl"
"""
METADATA = "Metadata-Version: 2.1\nName: {0}\nVersion: 1\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def described(name: str, files: dict[str, str]) -> dict[str, str]:
    """Return the files of a wheel."""
    about = f"{name}-1.dist-info"
    files |= {f"{about}/METADATA": METADATA.format(name), f"{about}/WHEEL": WHEEL}
    return files | {f"{about}/RECORD": "".join(f"{path},,\n" for path in files)}


def test_nothing_of_a_package_or_source_is_run_by_root(host: Any, deploy: Any) -> None:
    """A wheel with a .pth, a sitecustomize and an interpreter of its own, and an sdist's build.

    The source has an optional extension that is broken, and one that the operator accepts.
    """
    extra = 'try:\n    print("cogs.extra"[:0])\nexcept Exception:\n    raise\n'
    text = f"import noted\n\n{extra}\nVERSION = 9 if noted else 0\n"
    source = deploy.source(bot__helper=HELPER + text)
    (source / "bot/cogs/extra.py").write_text("import no_such_extension\n")
    (source / "bot/cogs/greeting.py").write_text("import neither_this\n")
    one_line = f"import os; where = 'pth'; exec({MARK!r})\n"
    hostile = described(
        "hostile",
        {
            "noted.py": f"where = 'module'\n{MARK}",
            "sitecustomize.py": f"where = 'sitecustomize'\n{MARK}",
            "hostile.pth": one_line,
            "hostile-1.data/scripts/python": INTERPRETER,
            "hostile-1.data/scripts/python3": INTERPRETER,
        },
    )
    (source / "packages").mkdir()
    with zipfile.ZipFile(source / "packages/hostile-1-py3-none-any.whl", "w") as wheel:
        for name, text in hostile.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100755 << 16
            wheel.writestr(info, text)
    built = described("source", {"built.py": ""})
    backend = f"MARK = {MARK!r}\nFILES = {built!r}\n{BACKEND}"
    project = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    with tarfile.open(source / "packages/source-1.tar.gz", "w:gz") as sdist:
        for name, text in {"pyproject.toml": project, "backend.py": backend}.items():
            info = tarfile.TarInfo(f"source-1/{name}")
            info.size = len(text.encode())
            sdist.addfile(info, io.BytesIO(text.encode()))
    with (source / "requirements.txt").open("a") as requirements:
        requirements.write("./packages/hostile-1-py3-none-any.whl\n./packages/source-1.tar.gz\n")
    accepted = ["bot/cogs/greeting.py"]
    result = deploy(bot_server_source_directory=str(source), bot_server_import_accepted=accepted)
    assert result.returncode == 0, result.stdout
    assert "version 9" in host.check_output("tail -n 1 /var/lib/testbot/logs/bot.log")
    said = " ".join(result.stdout.split()).replace("''", "'")  # a quote within YAML's quotes
    assert "bot/cogs/extra.py, line 1: no module 'no_such_extension' (the source goes on" in said
    assert "bot/cogs/greeting.py, line 1: no module 'neither_this'" in said
    # It was run, by the bot's user.
    theirs = host.check_output("cat /var/cache/testbot/hostile /var/lib/testbot/temp/hostile")
    noted = {tuple(line.split()) for line in theirs.splitlines()}
    bot = host.check_output("id -u testbot")
    assert noted >= {(where, bot) for where in ("build", "pth", "interpreter", "module")}
    assert {uid for _, uid in noted} == {bot}
    assert host.run("ls /run/hostile /etc/hostile /opt/testbot/hostile").stdout == ""


def test_link_in_the_place_of_a_folder_is_refused_by_name(
    host: Any, deploy: Any, service: Any
) -> None:
    """On a host where the state's folder still is the bot's, which could put it there."""
    before = serving(host, service)
    host.check_output(
        "install -d -o root -m 0700 /srv/victim && cd /var/lib/testbot && chown testbot ."
        " && mv home .away && ln -s /srv/victim home"
    )
    try:
        result = deploy()
        assert result.returncode != 0
        said = " ".join(result.stdout.split())
        assert "/var/lib/testbot/home -> /srv/victim: a symbolic link" in said
        victim = host.file("/srv/victim")
        assert (victim.user, victim.group, oct(victim.mode)) == ("root", "root", "0o700")
        assert serving(host, service) == before
    finally:
        host.check_output("cd /var/lib/testbot && rm home && mv .away home")
    assert deploy().returncode == 0
    assert host.file("/var/lib/testbot").user == "root"


def test_crash_after_the_start(host: Any, deploy: Any, service: Any, command_lines: Any) -> None:
    release, process = serving(host, service)
    source = deploy.source(bot__helper=HELPER + "VERSION = 3\n")
    secret = "s3cret-that-nobody-may-see"
    with command_lines() as seen:
        result = deploy(
            "-vvv",
            "--diff",
            bot_server_source_directory=str(source),
            bot_server_environment={"BOT_TOKEN": secret, "BOT_MODE": "crash-later"},
        )
        assert '"action": "restart"' in seen()  # the recorder saw the health gate at least
        assert secret not in seen()
    assert result.returncode != 0
    assert "is not healthy: it did not stay up" in result.stdout
    assert "lost the gateway, the token was ***" in result.stdout
    assert secret not in result.stdout
    # Release and environment are the old ones, and the bot runs with them.
    after = serving(host, service)
    assert after[0] == release
    assert after[1] != process
    assert secret not in host.file("/etc/testbot/environment").content_string
    traces = json.loads(host.file("/var/lib/testbot/temp/traces.json").content_string)
    assert traces["environment"]["BOT_TOKEN"].startswith("tok3n-")
    bad = host.check_output("ls /opt/testbot/releases/*/.failed")
    assert release.rsplit("/", 1)[1] not in bad


def test_bot_that_never_is_ready(host: Any, deploy: Any, service: Any) -> None:
    release, _ = serving(host, service)
    result = deploy(
        bot_server_environment={"BOT_TOKEN": "f8aeb1-77", "BOT_MODE": "never-ready"},
        bot_server_start_timeout=3,
    )
    assert result.returncode != 0
    assert "is not healthy" in result.stdout
    assert serving(host, service)[0] == release


def test_bot_that_ends_with_0_again_and_again(host: Any, deploy: Any, service: Any) -> None:
    release, _ = serving(host, service)
    result = deploy(bot_server_environment={"BOT_TOKEN": "f8aeb1-77", "BOT_MODE": "exit-zero"})
    assert result.returncode != 0
    assert "is not healthy" in result.stdout
    assert serving(host, service)[0] == release


def test_file_that_the_bot_may_not_read(host: Any, deploy: Any, service: Any) -> None:
    before = serving(host, service)
    text = 'VERSION = 5\nSECRET = open("/root/.ssh/authorized_keys").read()\n'
    result = deploy(bot_server_source_directory=str(deploy.source(bot__helper=HELPER + text)))
    assert result.returncode != 0
    assert "PermissionError" in result.stdout
    assert serving(host, service) == before


def test_path_that_is_not_there(host: Any, deploy: Any, service: Any) -> None:
    """It is found out before the running bot is stopped."""
    before = serving(host, service)
    result = deploy(bot_server_write_paths=["/srv/open", "/srv/nowhere"])
    assert result.returncode != 0
    assert "cannot write where it has to" in result.stdout
    assert "/srv/nowhere" in result.stdout
    assert serving(host, service) == before
    assert "nowhere" not in host.file("/etc/systemd/system/testbot.service").content_string


# It is there, but is root's.
CLOSED = "install -d -o root -g root -m 0755 /srv/closed"


def test_path_that_the_bot_may_not_write_to(host: Any, deploy: Any, service: Any) -> None:
    """Its own user is refused in its own sandbox, before the running bot is stopped."""
    host.check_output(CLOSED)
    before = serving(host, service)
    result = deploy(bot_server_write_paths=["/srv/open", "/srv/closed"])
    assert result.returncode != 0
    assert "cannot write where it has to" in result.stdout
    assert "/srv/closed/.write-test" in result.stdout
    assert "Permission denied" in result.stdout
    assert serving(host, service) == before
    assert "/srv/closed" not in host.file("/etc/systemd/system/testbot.service").content_string


def test_path_that_a_bot_may_not_write_to_at_its_first_start(host: Any, deploy: Any) -> None:
    host.check_output(CLOSED)
    result = deploy(bot_server_name="firstbot", bot_server_write_paths=["/srv/closed"])
    assert result.returncode != 0
    assert "cannot write where it has to" in result.stdout
    assert "/srv/closed/.write-test" in result.stdout
    assert "nothing runs, since no earlier one was healthy" in " ".join(result.stdout.split())
    assert not host.service("firstbot").is_running
    assert not host.service("firstbot").is_enabled
    assert host.check_output("journalctl --unit=firstbot --output=cat --no-pager") == ""


def test_full_disk(host: Any, deploy: Any, service: Any) -> None:
    before = serving(host, service)
    source = deploy.source(bot__helper=HELPER + "VERSION = 6\n")
    host.run("dd if=/dev/zero of=/opt/testbot/ballast bs=1M")
    try:
        result = deploy(bot_server_source_directory=str(source))
    finally:
        host.check_output("rm /opt/testbot/ballast")
    assert result.returncode != 0
    assert "MiB free" in result.stdout or "No space left on device" in result.stdout
    assert serving(host, service) == before


def test_cut_off_after_the_switch(host: Any, deploy: Any, service: Any) -> None:
    """Nobody is there to judge the new release; the host's own timer goes back."""
    release, _ = serving(host, service)
    mute = "import os\n\nVERSION = 7\nos.environ.pop('NOTIFY_SOCKET', None)\n"
    source = deploy.source(bot__helper=HELPER + mute)
    run = deploy.begin(bot_server_source_directory=str(source))
    while (
        host.check_output("readlink /opt/testbot/current") == release
        or service("ActiveState") != "activating"
    ):
        assert run.poll() is None
        time.sleep(0.2)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert "testbot-guard.timer" in host.check_output("systemctl list-timers --no-pager")
    host.check_output("systemctl start testbot-guard.service")  # as the timer does, minutes later
    deadline = time.monotonic() + 120
    while host.check_output("readlink /opt/testbot/current") != release or (
        service("ActiveState") != "active"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_cut_off_run_is_finished_by_the_next(host: Any, deploy: Any, service: Any) -> None:
    """The files were written, but the operator's connection broke before the restart."""
    release, process = serving(host, service)
    host.check_output('sed -i \'s/"fingerprint": "/&0/\' /opt/testbot/deployed.json')
    result = deploy()
    assert result.returncode == 0, result.stdout
    assert serving(host, service)[0] == release
    assert serving(host, service)[1] != process


SETUP = """from setuptools import Extension, setup

setup(name="swift", version="1", ext_modules=[Extension("swift", ["swift.c"])])
"""
SWIFT = """#include <Python.h>

static struct PyModuleDef swift = {PyModuleDef_HEAD_INIT, "swift"};

PyMODINIT_FUNC PyInit_swift(void) { return PyModule_Create(&swift); }
"""


def test_packages_for_the_build_are_removed_again(host: Any, deploy: Any) -> None:
    """A package of the requirements is written in C, and the host has no compiler."""
    packages = ["gcc", "libc6-dev", "python3-dev"]
    installed = "dpkg-query --show --showformat '${Package} ${Status}\\n' | grep 'ok installed'"
    before = host.check_output(installed)
    assert "gcc " not in before
    source = deploy.source(bot__helper="import swift\n\nVERSION = 8 if swift else 0\n")
    (source / "swift").mkdir()
    (source / "swift/setup.py").write_text(SETUP)
    (source / "swift/swift.c").write_text(SWIFT)
    with (source / "requirements.txt").open("a") as requirements:
        requirements.write("./swift\n")
    settings = {"bot_server_build_packages": packages, "bot_server_build_packages_removed": True}
    result = deploy(bot_server_source_directory=str(source), **settings)
    assert result.returncode == 0, result.stdout
    assert "version 8" in host.check_output("tail -n 1 /var/lib/testbot/logs/bot.log")
    assert host.check_output(installed) == before


def test_new_release_runs_and_old_ones_go(host: Any, deploy: Any, service: Any) -> None:
    """With an interpreter that the inventory names."""
    before, _ = serving(host, service)
    source = deploy.source(bot__helper=HELPER + "VERSION = 4\n")
    named = "/usr/local/bin/python-of-the-inventory"
    host.check_output("ln -sf /usr/bin/python3.11 %s", named)
    result = deploy(
        bot_server_source_directory=str(source),
        bot_server_releases_kept=1,
        bot_server_python=named,
    )
    assert result.returncode == 0, result.stdout
    assert serving(host, service)[0] != before
    assert "version 4" in host.check_output("tail -n 1 /var/lib/testbot/logs/bot.log")
    interpreter = host.check_output("readlink /opt/testbot/current/.venv/bin/python")
    assert Path(interpreter).name == Path(named).name
    assert len(host.file("/opt/testbot/releases").listdir()) == 1
    assert len(host.file("/opt/testbot/venvs").listdir()) == 1
