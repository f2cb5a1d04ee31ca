"""Runs that end in the middle of a change of port; the next one ends well, whatever was done."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import ansible

SCENARIO = Path(__file__).parents[1]
PORTS = (48022, 48055)


def run(machine, port, kill_before="", occurrence=1, **settings):
    """Run converge.yml for one host towards a port; return the exit code and what was printed."""
    settings = {"hardening_ssh_port": port, "hardening_initial_ports": [*PORTS]} | settings
    environment = {}
    if kill_before:
        environment = {
            "ANSIBLE_CALLBACK_PLUGINS": f"{SCENARIO / 'files'}:{ansible.ROOT}/plugins/callback",
            "ANSIBLE_CALLBACKS_ENABLED": "kill_before",
            "KILL_BEFORE": kill_before,
            "KILL_OCCURRENCE": str(occurrence),
        }
    done = ansible.play(
        SCENARIO / "converge.yml",
        f"--limit={machine.name}",
        inventory=SCENARIO / "inventory/hosts.yml",
        environment=environment,
        **settings,
    )
    return done.returncode, done.stdout


def assert_settled(machine, port):
    """Nothing but this port is open for SSH, and nothing waits to be put back."""
    say = machine.inside
    assert f"\nport {port}\n" in f"\n{say('sshd -T')}"
    assert say("ss -Hltn | grep -oE ':480(22|55) ' | sort -u").strip() == f":{port}"
    rules = say("ufw status | grep -E 'hardening: SSH( from trusted addresses| on .*)?$'")
    assert f"{port}/tcp" in rules
    assert str(sum(PORTS) - port) not in rules
    assert say("ls -A /var/lib/hardening") == "security-updates-left"
    assert "0 timers" in say("systemctl list-timers --all hardening-revert.timer")


def assert_killed_then_finished(machine, port, task, occurrence=1):
    code, out = run(machine, port, task, occurrence)
    assert code == -signal.SIGKILL, f"not killed before {task}:\n{out}"
    code, out = run(machine, port)
    assert code == 0, f"after a run killed before {task}:\n{out}"
    assert_settled(machine, port)


def assert_cut_off_and_reverted(machine, port, former):
    """The network drops everything of the control machine once the new settings are written."""
    machine.inside(
        "systemd-run --quiet --collect --unit=cutter bash -c 'cd /etc/ssh/sshd_config.d;"
        f' until grep -qs "^Port {port}" 00-hardening.conf; do sleep .1; done;'
        " nft add table inet cutter;"
        ' nft "add chain inet cutter in { type filter hook input priority -300; }";'
        " nft add rule inet cutter in ip saddr 172.30.1.1 drop;"
        " sleep 80; nft delete table inet cutter'"
    )
    code, out = run(machine, port, hardening_revert_after=60)
    assert code != 0
    assert "UNREACHABLE" in out or "The former SSH settings" in " ".join(out.split()), out
    while "inet cutter" in machine.inside("nft list tables"):
        time.sleep(1)
    assert_settled(machine, former)
    said = machine.inside("journalctl -t hardening")
    assert "was not finished; the former state is restored" in said


def assert_late_run_closes_nothing(machine, port, former):
    """A run so slow that the host has put everything back before it closes the former way."""
    machine.inside(
        "systemd-run --quiet --collect --unit=hurry bash -c '"
        "until systemctl is-active --quiet hardening-revert.timer; do sleep .1; done;"
        " until grep -qs Port /etc/ssh/sshd_config.d/00-hardening-opening.conf; do sleep .1; done;"
        " /var/lib/hardening/access-guard revert'"
    )
    code, out = run(machine, port)
    assert code != 0
    assert "The former SSH settings and firewall are in place again" in " ".join(out.split()), out
    assert_settled(machine, former)


def assert_drop_in_noticed(machine, port):
    """Somebody's file that sshd reads first and that turns passwords on."""
    early = "/etc/ssh/sshd_config.d/00-early.conf"
    machine.inside(f"echo 'PasswordAuthentication yes' > {early}")
    code, out = run(machine, port)
    machine.inside(f"rm {early}")
    assert code != 0
    assert "passwordauthentication is yes for ops" in " ".join(out.split())
    assert "former SSH settings and firewall are in place again" in " ".join(out.split())


def assert_first_updates_are_made_good(machine, port):
    """A first run that was killed before its updates were finished; the next one installs them."""
    machine.inside("publish-update 2.0 && rm /var/lib/hardening/security-updates-left")
    machine.inside("rm -f /var/lib/apt/periodic/upgrade-stamp")
    assert_killed_then_finished(machine, port, "Nothing has to be put back")
    assert machine.inside("dpkg-query -W -f '${Version}' leaky") == "2.0"


def change_ports_of_first(machine):
    """Cut off; killed after closing and before it."""
    first, second = PORTS
    assert_cut_off_and_reverted(machine, second, first)
    assert_first_updates_are_made_good(machine, second)
    assert_killed_then_finished(
        machine, first, "The host still has a way back, and waits its full time again"
    )


def change_ports_of_second(machine):
    """Late, misled, killed before the proof and in the middle of closing."""
    first, second = PORTS
    assert_late_run_closes_nothing(machine, second, first)
    assert_drop_in_noticed(machine, second)
    assert_killed_then_finished(machine, second, "Log in afresh")
    assert_killed_then_finished(machine, first, "Sshd runs with it", occurrence=2)


@pytest.mark.timeout(1800)
def test_whatever_interrupts_a_change_the_next_run_ends_well(machines):
    with ThreadPoolExecutor() as pool:
        work = [
            pool.submit(change_ports_of_first, machines["server"]),
            pool.submit(change_ports_of_second, machines["trixie"]),
        ]
    failures = [done.exception() for done in work if done.exception()]
    if failures:
        raise ExceptionGroup("a change did not end well", failures)


def test_afterwards_nothing_is_left_to_change(machines):
    for name in ("server", "trixie"):
        code, out = run(machines[name], PORTS[0])
        assert code == 0
        assert "changed=0" in out
