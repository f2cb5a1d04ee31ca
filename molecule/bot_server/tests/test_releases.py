"""A bad release or a bad setting never stays; nothing secret is said about it."""

import json
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


def test_cut_off_run_is_finished_by_the_next(host: Any, deploy: Any, service: Any) -> None:
    """The files were written, but the operator's connection broke before the restart."""
    release, process = serving(host, service)
    host.check_output('sed -i \'s/"fingerprint": "/&0/\' /opt/testbot/deployed.json')
    result = deploy()
    assert result.returncode == 0, result.stdout
    assert serving(host, service)[0] == release
    assert serving(host, service)[1] != process


def test_new_release_runs_and_old_ones_go(host: Any, deploy: Any, service: Any) -> None:
    before, _ = serving(host, service)
    source = deploy.source(bot__helper=HELPER + "VERSION = 4\n")
    result = deploy(bot_server_source_directory=str(source), bot_server_releases_kept=1)
    assert result.returncode == 0, result.stdout
    assert serving(host, service)[0] != before
    assert "version 4" in host.check_output("tail -n 1 /var/lib/testbot/logs/bot.log")
    assert len(host.file("/opt/testbot/releases").listdir()) == 1
    assert len(host.file("/opt/testbot/venvs").listdir()) == 1
