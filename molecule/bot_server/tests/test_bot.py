"""What the role left behind, on Debian 12 and Debian 13."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

SCENARIO = Path(__file__).resolve().parent.parent
testinfra_hosts = ["docker://bot_server-bot", "docker://bot_server-trixie"]


def wait_for(condition: Any, seconds: float = 15) -> bool:
    """Poll until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.3)
    return True


@pytest.fixture
def traces(host: Any) -> dict[str, Any]:
    """What the bot wrote about itself."""
    return json.loads(host.file("/var/lib/testbot/temp/traces.json").content_string)


def test_runs_and_starts_with_the_system(host: Any) -> None:
    assert host.service("testbot").is_running
    assert host.service("testbot").is_enabled


def test_environment_is_exactly_the_inventorys(traces: dict[str, Any]) -> None:
    text = (SCENARIO / "inventory/group_vars/all/main.yml").read_text("utf-8")
    wanted = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in yaml.safe_load(text)["hostile_environment"].items()
    }
    seen = traces["environment"]
    assert {name: seen.get(name) for name in wanted} == wanted


def test_writes_only_where_it_may(traces: dict[str, Any]) -> None:
    may = {path for path, possible in traces["may_write"].items() if possible}
    private = {"/tmp/x", "/var/tmp/x"}
    assert may - private == {"temp/x", "/var/lib/testbot/matplotlib/x", "/srv/open/x"}


def test_temporary_files_are_its_own(host: Any, traces: dict[str, Any]) -> None:
    assert traces["may_write"]["/tmp/x"]
    assert not host.file("/tmp/x").exists


def test_its_home_is_a_folder_that_it_may_write_to(traces: dict[str, Any]) -> None:
    home = "/var/lib/testbot/home"
    assert {traces["environment"][name] for name in ("HOME", "STATE_DIRECTORY")} == {home}


def test_its_user_puts_no_link_where_root_works(host: Any) -> None:
    """Nor does it move a folder away to do so."""
    state = "/var/lib/testbot"
    moves = [f"mv -T {state}/{name} {state}/away" for name in ("keys", "logs", "home")]
    for tried in (*moves, f"ln -s /etc {state}/new"):
        assert "Permission denied" in host.run(f"runuser -u testbot -- {tried}").stderr, tried


def test_reaches_no_private_address_but_the_inventorys(traces: dict[str, Any]) -> None:
    """The sshd of each machine answers everybody else."""
    assert traces["reached"] == {
        "169.254.169.254": "PermissionError",
        "10.1.2.3": "PermissionError",
        "172.30.3.10": "PermissionError",
        "172.30.3.11": "PermissionError",
        "172.30.3.12": "connected",
    }


def test_sees_no_other_processes_and_no_disks(traces: dict[str, Any]) -> None:
    assert len(traces["processes"]) == 1
    assert not [name for name in traces["devices"] if name.startswith(("sd", "vd", "nvme", "mem"))]


def test_exposure(host: Any) -> None:
    out = host.check_output("systemd-analyze security testbot --no-pager")
    score = float(out.split("exposure level for testbot.service:")[1].split()[0])
    assert score <= 2.0, out


@pytest.mark.parametrize(
    ("path", "owner", "group", "mode"),
    [
        ("/etc/testbot", "root", "testbot", 0o750),
        ("/etc/testbot/environment", "root", "testbot", 0o640),
        ("/etc/testbot/database-ca.crt", "root", "testbot", 0o640),
        ("/etc/testbot/game_known_hosts", "root", "testbot", 0o640),
        ("/var/lib/testbot", "root", "testbot", 0o750),
        ("/var/lib/testbot/home", "testbot", "testbot", 0o750),
        ("/var/lib/testbot/local_stats", "testbot", "testbot", 0o750),
        ("/var/lib/testbot/logs/bot.log", "testbot", "testbot", 0o640),
        ("/var/lib/testbot/keys", "root", "testbot", 0o750),
        ("/var/lib/testbot/keys/secret.pem", "root", "testbot", 0o640),
        ("/var/lib/testbot/keys/id_ed25519", "testbot", "testbot", 0o600),
        ("/opt/testbot", "root", "root", 0o755),
        ("/opt/testbot/deployed.json", "root", "root", 0o600),
        ("/opt/testbot/last_good", "root", "root", 0o700),
        ("/etc/systemd/system/testbot.service", "root", "root", 0o644),
    ],
)
def test_owner_and_mode(host: Any, path: str, owner: str, group: str, mode: int) -> None:
    facts = host.file(path)
    assert (facts.user, facts.group, oct(facts.mode)) == (owner, group, oct(mode))


def test_code_belongs_to_root_and_only_root_may_change_it(host: Any) -> None:
    wrong = "-not -type l ! '(' -user root -group root ! -perm /022 ')'"
    found = host.check_output(f"find /opt/testbot/releases /opt/testbot/venvs {wrong}")
    assert found == ""


def test_user_cannot_log_in(host: Any) -> None:
    user = host.user("testbot")
    assert user.shell == "/usr/sbin/nologin"
    assert user.uid < 1000
    assert host.check_output("passwd --status testbot").split()[1] == "L"
    assert host.run("su testbot -c true").rc != 0


def test_state_is_outside_the_release(host: Any) -> None:
    for name in ("local_stats", "logs", "temp"):
        link = host.file(f"/opt/testbot/current/{name}")
        assert link.linked_to == f"/var/lib/testbot/{name}"
    assert host.file("/var/lib/testbot/local_stats/seen.txt").exists
    assert not host.file("/var/lib/testbot/local_stats/README").exists  # came with the source


def test_nothing_from_the_build_is_left(host: Any) -> None:
    assert host.check_output("find /run -maxdepth 1 -name '*.check.environment'") == ""


def test_killed_bot_runs_again(host: Any, service: Any) -> None:
    before = service("MainPID")
    host.check_output(f"kill -9 {before}")
    assert wait_for(
        lambda: service("ActiveState") == "active" and service("MainPID") not in ("0", before)
    )


def test_bot_that_ends_without_an_error_runs_again(host: Any, service: Any) -> None:
    """To systemd SIGTERM is a clean end like exit code 0; on-failure would not restart it."""
    before = service("MainPID")
    host.check_output(f"kill -TERM {before}")
    assert wait_for(
        lambda: service("ActiveState") == "active" and service("MainPID") not in ("0", before)
    )


def test_public_key_fits_the_private_one(host: Any) -> None:
    public = host.file("/var/lib/testbot/keys/id_ed25519.pub").content_string.split()
    private = host.check_output("ssh-keygen -y -f /var/lib/testbot/keys/id_ed25519").split()
    assert public[:2] == private[:2]
    assert public[0] == "ssh-ed25519"


# A bot that ends at once, again and again. Fewer starts than by default, since 100 take long.
LOOP = """[Unit]
StartLimitBurst=4
[Service]
EnvironmentFile=/run/testbot-loop
"""


def test_what_happens_when_systemd_gives_up(host: Any, service: Any) -> None:
    dropin = "/run/systemd/system/testbot.service.d/loop.conf"
    host.check_output("echo BOT_MODE=exit-zero > /run/testbot-loop")
    host.check_output("mkdir -p $(dirname %s) && printf %%s %s > %s", dropin, LOOP, dropin)
    try:
        host.check_output("systemctl daemon-reload")
        host.check_output("kill -9 %s", service("MainPID"))
        assert wait_for(lambda: service("ActiveState") == "failed", seconds=60)
        assert wait_for(lambda: host.file("/run/alerted").exists)
        assert "testbot does not stay up" in host.file("/run/alerted").content_string
        assert "ALERT" in host.file("/run/motd.d/testbot").content_string
        told = "journalctl --identifier=testbot-alert --output=cat --no-pager"
        assert "ALERT" in host.check_output(told)
    finally:
        host.check_output("rm -f /run/alerted %s && systemctl daemon-reload", dropin)
        host.check_output("systemctl reset-failed testbot && systemctl start testbot")
    assert not host.file("/run/motd.d/testbot").exists, "it is over"


def test_the_ceilings_are_in_force(host: Any, service: Any) -> None:
    total = int(host.check_output("awk '/^MemTotal/ {print $2}' /proc/meminfo")) * 1024
    assert int(service("MemoryMax")) == pytest.approx(0.75 * total, rel=0.01)
    assert service("TasksMax") == "512"
    assert (service("LogRateLimitIntervalUSec"), service("LogRateLimitBurst")) == ("30s", "3000")
    assert service("LimitCORE") == "0"


def test_the_pause_between_starts_grows_where_systemd_can(host: Any, service: Any) -> None:
    version = int(host.check_output("systemctl --version").split()[1])
    assert service("StartLimitBurst") == ("20" if version >= 254 else "100")
    if version >= 254:
        assert service("RestartMaxDelayUSec") == "1min"
