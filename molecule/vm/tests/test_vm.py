"""Two servers on kernels of their own, after a reboot: what a container cannot show."""

import os
import subprocess
from pathlib import Path

import pytest
import testinfra
import yaml

SCENARIO = Path(__file__).parents[1]
ROOT = SCENARIO.parents[1]
CACHE = ROOT / ".cache"
SETTINGS = yaml.safe_load((SCENARIO / "inventory/group_vars/all/main.yml").read_text())
DATABASE, BOT, STRANGER = "172.30.8.10", "172.30.8.20", "172.30.8.50"
ADDRESSES = {"database-vps": DATABASE, "bot-vps": BOT}
both = pytest.mark.parametrize("name", ADDRESSES)


def server(name):
    return testinfra.get_host(
        f"ssh://ops@{ADDRESSES[name]}:48022?sudo=True",
        ssh_identity_file=str(CACHE / "operator_key"),
        ssh_extra_args=f"-o UserKnownHostsFile={CACHE / 'known_hosts.vm'}",
    )


@both
def test_it_has_started_more_than_once_and_remembers(name):
    boots = server(name).check_output("journalctl --list-boots --no-pager")
    assert len(boots.splitlines()) >= 2


@both
def test_everything_came_back_by_itself(name):
    machine = server(name)
    assert machine.check_output("systemctl list-units --failed --plain --no-legend") == ""
    wanted = {"ssh", "fail2ban", "auditd", "apparmor", "systemd-timesyncd"}
    wanted |= {"postgresql@15-main"} if name == "database-vps" else {"etlegacy-bot"}
    for unit in wanted:
        assert machine.service(unit).is_running, unit
    assert "Status: active" in machine.check_output("ufw status")


@both
def test_timers_wait_for_their_hour(name):
    timers = server(name).check_output("systemctl list-timers --no-pager --plain --no-legend")
    assert "apt-daily-upgrade.timer" in timers
    if name == "database-vps":
        assert "backup" in timers


@both
def test_the_kernel_has_the_settings_that_the_file_asks_for(name):
    machine = server(name)
    lines = machine.file("/etc/sysctl.d/60-hardening.conf").content_string.splitlines()
    wanted = dict(line.split(" = ") for line in lines if " = " in line)
    assert any(key.startswith("kernel.") for key in wanted)
    found = {}
    for key in wanted:
        result = machine.run("sysctl -n %s", key)
        found[key] = result.stdout.strip().replace("\t", " ")
    assert found == wanted


@both
def test_the_kernel_watches_by_every_rule_of_the_file(name):
    machine = server(name)
    wanted = machine.file("/etc/audit/rules.d/50-hardening.rules").content_string.splitlines()
    rules = machine.check_output("auditctl -l").splitlines()
    assert len(rules) == len([line for line in wanted if line.startswith("-a ")]) > 10
    machine.check_output("touch /etc/ssh/ssh_config")
    # Without --input-logs it reads its standard input where that is a pipe, as over SSH.
    found = machine.check_output("ausearch --input-logs --key ssh --start recent")
    assert "/etc/ssh/ssh_config" in found


@both
def test_apparmor_has_its_profiles(name):
    machine = server(name)
    assert machine.check_output("cat /sys/module/apparmor/parameters/enabled") == "Y"
    assert "(enforce)" in machine.check_output("cat /sys/kernel/security/apparmor/profiles")


@both
def test_nothing_in_shared_memory_can_be_executed(name):
    options = server(name).check_output("findmnt -no OPTIONS /dev/shm").split(",")
    assert {"noexec", "nosuid", "nodev"} <= set(options)


@both
def test_modules_that_nobody_needs_stay_out(name):
    machine = server(name)
    text = machine.file("/etc/modprobe.d/50-hardening.conf").content_string
    blocked = [line.split()[1] for line in text.splitlines() if line.startswith("install ")]
    assert blocked
    for module in blocked:
        machine.run("modprobe %s", module)
    loaded = machine.check_output("lsmod")
    assert [module for module in blocked if f"\n{module.replace('-', '_')} " in loaded] == []


def test_a_stranger_finds_one_open_port_on_each_server():
    scanner = (ROOT / "demo/files/scan_ports.py").read_text()
    found = testinfra.get_host("docker://vm-stranger").check_output(
        f"python3 - {DATABASE} {BOT} <<'END_OF_SCANNER'\n{scanner}\nEND_OF_SCANNER"
    )
    assert found.splitlines() == [f"{DATABASE} 48022", f"{BOT} 48022"]


def test_the_bot_server_reaches_the_database_with_a_verified_certificate():
    result = server("bot-vps").run(
        "PGPASSWORD=%s /opt/ferry/current/venv/bin/python -c %s",
        SETTINGS["vault_postgres_app_password"],
        "import psycopg; psycopg.connect("
        f"'host={DATABASE} dbname=etlegacy_stats user=etlegacy_app "
        "sslmode=verify-full sslrootcert=/opt/ferry/database-ca.crt').close()",
    )
    assert result.rc == 0, result.stderr


def test_the_bot_came_back_to_the_database_encrypted():
    sessions = server("database-vps").check_output(
        "runuser -u postgres -- psql -Atc %s",
        "SELECT DISTINCT usename, client_addr, ssl "
        "FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) "
        "WHERE datname = 'etlegacy_stats' AND backend_type = 'client backend' "
        "AND client_addr IS NOT NULL",
    )
    assert sessions == f"etlegacy_app|{BOT}|t"


def test_the_bot_server_may_still_not_talk_to_just_anybody():
    attempt = server("bot-vps").run(
        "timeout 10 bash -c %s", f"exec 3<>/dev/tcp/{STRANGER}/22 && head -c 4 <&3"
    )
    assert attempt.rc != 0
    assert "SSH-" not in attempt.stdout


def test_root_cannot_log_in_any_more():
    for address in ADDRESSES.values():
        attempt = subprocess.run(
            ["ssh", "-p", "48022", "-i", CACHE / "operator_key", "-o", "BatchMode=yes",
             "-o", f"UserKnownHostsFile={CACHE / 'known_hosts.vm'}", f"root@{address}", "true"],
            capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        assert "Permission denied" in attempt.stderr
