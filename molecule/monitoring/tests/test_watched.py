"""What breaks on either server is told with what to do, and so is its end; no port opens."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ansible

SCENARIO = Path(__file__).parents[1]
ROLE = SCENARIO.parents[1] / "roles/monitoring"

SQL = "runuser -u postgres -- psql -Xqd postgres -c"
CERTIFICATE = "/etc/postgresql/tls/server.crt"
SHORT = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=short"
    " -days 10 -keyout /dev/null -out /root/short.crt 2>/dev/null;"
    f" cat /root/short.crt > {CERTIFICATE}"
)
# alert → machine, how it is caused, how it is mended. Those of a group are caused together.
FAULTS = {
    "servers": {
        "BotDown": ("bot", "systemctl stop etlegacy-bot", "systemctl start etlegacy-bot"),
        "FirewallOff": ("bot", "ufw disable", "ufw --force enable"),
        "NewListener": (
            "bot",
            "systemd-run --unit=intruder python3 -m http.server 4444",
            "systemctl stop intruder",
        ),
        "PostgresDown": (
            "database",
            "systemctl stop postgresql@15-main",
            "systemctl start postgresql@15-main",
        ),
        "UnitFailed": (
            "database",
            "systemd-run --unit=broken false; sleep 1",  # it returns before the unit has failed
            "systemctl reset-failed broken",
        ),
        "NamesDoNotResolve": (
            "database",
            "cp /etc/resolv.conf /root; echo nameserver 127.0.0.9 > /etc/resolv.conf",
            "cat /root/resolv.conf > /etc/resolv.conf; rm /root/resolv.conf",
        ),
    },
    "bot": {
        # Nothing of Discord arrives any more; the connection stays established.
        "BotDeaf": (
            "bot",
            "iptables -t raw -A PREROUTING -p tcp --sport 443 -j DROP",
            "iptables -t raw -D PREROUTING -p tcp --sport 443 -j DROP",
        ),
        "BotErrors": ("bot", "systemctl kill --kill-whom=main --signal=USR1 etlegacy-bot", "true"),
        "BotNotInDatabase": (
            "database",
            f"{SQL} 'ALTER ROLE etlegacy_app NOLOGIN'; {SQL} \"SELECT pg_terminate_backend(pid)"
            " FROM pg_stat_activity WHERE usename = 'etlegacy_app'\"",
            f"{SQL} 'ALTER ROLE etlegacy_app LOGIN'",
        ),
        "SessionsNearlyUsedUp": (
            "database",
            "systemd-run --unit=crowd --property=User=postgres sh -c"
            " 'for i in $(seq 85); do psql -Xqc \"SELECT pg_sleep(600)\" & done; wait'",
            # Their sessions would sleep on without them.
            f'systemctl stop crowd; {SQL} "SELECT pg_terminate_backend(pid)'
            " FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'\"",
        ),
        "CertificateEnds": (
            "database",
            f"cp -p {CERTIFICATE} /root/server.crt; {SHORT}",
            f"cat /root/server.crt > {CERTIFICATE}; rm /root/server.crt /root/short.crt",
        ),
    },
}


def docker(*command: str) -> None:
    subprocess.run(["docker", *command], check=True, capture_output=True)


def prometheus(database: Any, path: str) -> Any:
    """Ask Prometheus on its loopback."""
    program = (
        "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode())"
    )
    url = f"http://127.0.0.1:9090/api/v1/{path}"
    return json.loads(database.check_output("python3 -c %s %s", program, url))["data"]


def firing(database: Any) -> set[str]:
    """Return the names of the alerts that fire, but Watchdog."""
    alerts = prometheus(database, "alerts")["alerts"]
    names = {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}
    return names - {"Watchdog", "WorkInProgress"}


def test_both_servers_answer_and_nothing_is_wrong(database) -> None:
    until = time.monotonic() + 120
    while True:
        targets = prometheus(database, "targets")["activeTargets"]
        health = {
            (one["labels"]["job"], one["labels"]["instance"]): one["health"] for one in targets
        }
        if set(health.values()) == {"up"} and not firing(database):
            break
        assert time.monotonic() < until, (health, prometheus(database, "alerts"))
        time.sleep(1)
    assert {("hosts", "database-vps"), ("hosts", "bot-vps")} < set(health)
    # As verify.yml asks it.
    assert "4 targets answer" in database.check_output("monitoring-heartbeat --check")
    loaded = {one["name"] for one in prometheus(database, "rules")["groups"][0]["rules"]}
    rules = yaml.safe_load((ROLE / "vars/rules.yml").read_text())["__monitoring_rules"]
    settings = yaml.safe_load((SCENARIO / "inventory/group_vars/all/main.yml").read_text())
    assert loaded == {rule["alert"] for rule in rules} - set(settings["monitoring_alerts_off"])


def test_limits_and_times_of_the_rules(database, tmp_path) -> None:
    """At production patience; rules_test.yml says when each may fire and when not yet."""
    rules = tmp_path / "rules.yml"
    done = ansible.play(
        SCENARIO / "rules.yml", inventory=SCENARIO / "inventory", rules_file=str(rules)
    )
    assert done.returncode == 0, done.stdout
    for path in (rules, SCENARIO / "tests/rules_test.yml"):
        docker("cp", str(path), f"monitoring-database-vps:/root/{path.name}")
    database.check_output("cd /root && promtool test rules rules_test.yml && rm rules*.yml")


@pytest.mark.parametrize("name", ["database", "bot"])
def test_no_port_opens(name, request) -> None:
    host = request.getfixturevalue(name)
    for line in host.check_output("ss -Htln").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        if port.startswith("9"):
            assert address == "127.0.0.1", line


def test_the_tunnel_reaches_node_exporter_and_nothing_else(database) -> None:
    ssh = (
        "ssh -F /dev/null -i /etc/monitoring/id_ed25519 -p 48022 -o BatchMode=yes"
        " -o UserKnownHostsFile=/etc/monitoring/known_hosts"
    )
    account = "monitoring-tunnel@172.30.8.20"
    assert database.run(f"{ssh} -W 127.0.0.1:9100 {account} </dev/null").rc == 0
    refused = database.run(f"{ssh} -W 127.0.0.1:48022 {account} </dev/null")
    assert refused.rc != 0
    assert "administratively prohibited" in refused.stderr
    assert database.run(f"{ssh} {account} id").rc != 0
    for shell in ("id", "cat /etc/passwd"):
        done = database.run(f"{ssh} monitoring-heartbeat@172.30.8.20 {shell}")
        assert done.stdout == "", "whatever is asked for, the file is touched"
    for option in ("-W 127.0.0.1:9100", "-R 7777:127.0.0.1:22 -N -o ExitOnForwardFailure=yes"):
        assert database.run(
            f"timeout 5 {ssh} {option} monitoring-heartbeat@172.30.8.20 </dev/null"
        ).rc


@pytest.mark.parametrize(
    ("name", "unit", "most"),
    [
        ("database", "prometheus", 3.0),
        ("database", "prometheus-alertmanager", 3.0),
        ("database", "monitoring-receiver", 3.5),
        ("database", "monitoring-tunnel@bot-vps", 2.5),
        ("database", "prometheus-node-exporter", 3.0),
        ("bot", "prometheus-node-exporter", 3.0),
        ("bot", "monitoring-watch", 5.0),
    ],
)
def test_everything_is_in_a_sandbox(name, unit, most, request) -> None:
    host = request.getfixturevalue(name)
    shown = host.check_output("systemd-analyze security --no-pager %s.service", unit)
    assert float(re.search(r"exposure level for \S+: ([\d.]+)", shown)[1]) <= most, shown


def test_monitoring_is_the_first_to_go_when_memory_runs_out(database) -> None:
    for unit in ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter"):
        pid = database.check_output("systemctl show %s -P MainPID", unit)
        assert database.check_output("cat /proc/%s/oom_score_adj", pid) == "500"
        assert database.check_output("systemctl show %s -P MemoryMax", unit) != "infinity"


@pytest.mark.parametrize("group", FAULTS)
def test_each_fault_is_told_with_what_to_do_and_its_end(group, database, bot, channel) -> None:
    machines = {"database": database, "bot": bot}
    after, faults = len(channel.messages()), FAULTS[group]
    began = time.monotonic()
    for name, cause, _ in faults.values():
        machines[name].check_output(cause)
    try:
        for alert, (name, _, _) in faults.items():
            _, text = channel.wait_for(f" from {name}-vps, {alert}: ", seconds=120, after=after)
            lines = text.splitlines()
            told = next(at for at, line in enumerate(lines) if f", {alert}: " in line)
            assert lines[told + 1].startswith("  do: "), text
            assert lines[told + 2].startswith("  more: docs/monitoring.md#"), text
            print(f"{alert} read after {time.monotonic() - began:.0f} s")
    finally:
        mended = [machines[name].run(mend) for name, _, mend in faults.values()]
    assert [one for one in mended if one.rc != 0] == []
    for alert, (name, _, _) in faults.items():
        channel.wait_for(f"OVER {name}-vps, {alert}: ", seconds=150, after=after)
    assert firing(database) == set()


def test_a_dead_host_is_one_message(channel) -> None:
    after = len(channel.messages())
    docker("pause", "monitoring-bot-vps")
    try:
        channel.wait_for("HostSilent: it does not answer", seconds=150, after=after)
        time.sleep(5)
        said = "\n".join(text for _, text in channel.messages()[after:])
        assert said.count(" from bot-vps, ") == 1, said
    finally:
        docker("unpause", "monitoring-bot-vps")
    channel.wait_for("OVER bot-vps, HostSilent", seconds=150, after=after)


def test_a_watch_that_has_stopped_is_told_by_the_other_server(database, channel) -> None:
    after = len(channel.messages())
    database.check_output("systemctl stop prometheus")
    try:
        sender, _ = channel.wait_for("bot-vps, MonitoringSilent", seconds=150, after=after)
        assert sender == "172.30.8.20"
        asked = database.run("monitoring-heartbeat --check")
        assert (asked.rc, asked.stdout[:29]) == (1, "Prometheus does not answer: <")
    finally:
        database.check_output("systemctl start prometheus")
    channel.wait_for("database-vps watches again", seconds=150, after=after)


def test_switched_off_nothing_of_it_is_left(play, database, bot) -> None:
    code, said = play("site.yml", monitoring_enabled=False)
    assert code == 0, said
    units = "'monitoring-*' 'host-facts*' 'prometheus*'"
    for host in (database, bot):
        listening = host.check_output("ss -Htln").splitlines()
        assert not [line for line in listening if re.search(r":9\d{3}$", line.split()[3])]
        assert host.run("ls /etc/monitoring /var/lib/monitoring").stdout == ""
        assert host.check_output(f"systemctl list-units --all --plain --no-legend {units}") == ""
        assert host.run("getent passwd | grep ^monitoring").stdout == ""
        assert host.check_output("systemctl --failed --plain --no-legend") == ""
        assert json.loads(host.check_output("tell-operator status"))["open"] == []
    assert "monitoring" not in bot.check_output("sshd -T | grep -i ^allowgroups")
