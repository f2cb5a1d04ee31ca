"""The hardened hosts, judged from outside and by their live daemons."""

import asyncio
import json
import time

import asyncssh
import paramiko
import pytest

# Asks many ports at once from where it runs; a port that is filtered does not answer at all.
SCAN = """
import asyncio, json, sys
async def look(port, gate):
    async with gate:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(sys.argv[1], port), 1)
            writer.close()
            return port, "open"
        except ConnectionRefusedError:
            return port, "closed"
        except (TimeoutError, asyncio.TimeoutError, OSError):
            return port, "filtered"
async def scan(ports):
    gate = asyncio.Semaphore(1000)
    return await asyncio.gather(*(look(port, gate) for port in ports))
ports = [*range(1, 1025), 2222, 3306, 5432, 6432, *range(7000, 7101), 8080, *range(48000, 48102)]
print(json.dumps([result for result in asyncio.run(scan(ports)) if result[1] != "filtered"]))
"""


def ssh(outsider, server, user, *options):
    """Try to log in from the outsider and return the finished command; it fails with 1."""
    words = " ".join(options)
    return outsider.host.run(
        f"ssh -v -p {server.port} -o BatchMode=yes -o ConnectTimeout=5"
        f" -o StrictHostKeyChecking=accept-new {words} {user}@{server.address}"
        " sudo -n id -u || exit 1"
    )


# --- what an outsider sees ---


@pytest.fixture
def services(server):
    """Something that would answer on the ports of the rules, and on one without a rule."""
    ports = (7001, 7002, 7050, 7100)
    for port in ports:
        server.say(
            f"systemd-run --quiet --unit=listen-{port} python3 -m http.server {port}"
            " --directory /var/empty"
        )
    time.sleep(1)
    yield
    server.say("systemctl stop " + " ".join(f"listen-{port}" for port in ports))


@pytest.mark.usefixtures("patient", "services")
def test_outsider_sees_ssh_and_what_the_rules_open_to_it(server, outsider):
    expected = [[7001, "open"], [server.port, "open"]]
    if server.name == "server":
        expected.insert(1, [7100, "open"])  # the foreign rule is kept
    assert json.loads(outsider.say(f"python3 -c '{SCAN}' {server.address}")) == expected


@pytest.mark.usefixtures("patient")
def test_only_the_right_key_of_the_admin_gets_in(server, outsider):
    right = ssh(outsider, server, "ops", "-i /root/right_key")
    assert right.stdout.strip() == "0"

    for user, options in {
        "ops": "-i /root/wrong_key -o IdentitiesOnly=yes",
        "root": "-i /root/right_key",
    }.items():
        refused = ssh(outsider, server, user, options)
        assert refused.rc == 1
        assert "Permission denied (publickey)" in refused.stderr


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("user", ["ops", "root"])
def test_passwords_are_not_even_offered(server, outsider, user):
    refused = ssh(outsider, server, user, "-o PreferredAuthentications=password")
    offered = [line for line in refused.stderr.splitlines() if "that can continue" in line]
    assert {line.split(": ")[-1] for line in offered} == {"publickey"}


# --- clients of bots, from the operator's address ---


def test_paramiko_and_asyncssh_speak_with_the_hardened_sshd(server):
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - a test machine
    client.connect(
        server.address, server.port, "ops", key_filename=server.key, look_for_keys=False, timeout=10
    )
    assert client.open_sftp().stat("/etc/hostname").st_size
    client.close()

    async def asked():
        async with asyncssh.connect(
            server.address, server.port, username="ops", client_keys=[server.key], known_hosts=None
        ) as connection:
            return (await connection.run("id -un", check=True)).stdout.strip()

    assert asyncio.run(asked()) == "ops"


# --- the live daemons ---


def test_sshd_listens_by_itself_on_one_port(server):
    assert server.say("ss -Hltn '! src 127.0.0.0/8' | awk '{print $4}' | sort -u").split() == [
        f"0.0.0.0:{server.port}",
        f"[::]:{server.port}",
    ]
    assert server.host.run("systemctl is-enabled ssh.socket").stdout.strip() == "disabled"
    assert server.host.service("ssh").is_enabled


@pytest.mark.parametrize("user", ["root", "ops", "anybody"])
def test_sshd_says_keys_only(server, user):
    lines = server.say(f"sshd -T -C user={user},host=x,addr=203.0.113.9").splitlines()
    for line in (
        f"port {server.port}",
        "permitrootlogin no",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "authenticationmethods publickey",
        "allowtcpforwarding no",
        "x11forwarding no",
    ):
        assert line in lines
    assert [line for line in lines if line.startswith("port ")] == [f"port {server.port}"]


def test_firewall_lists_its_own_rules_and_keeps_the_foreign_one(server):
    shown = server.say("ufw status verbose")
    outgoing = "deny" if server.name == "trixie" else "allow"
    assert f"Default: deny (incoming), {outgoing} (outgoing)" in shown
    assert "hardening: a service for somebody else" in shown
    assert ("hardening: DNS" in shown) == (outgoing == "deny")
    assert "for a while" not in shown
    assert "former port" not in shown
    assert ("of somebody else" in shown) == (server.name == "server")


def test_outgoing_policy_holds_back_all_but_the_list(server, outsider):
    reach = f"timeout 2 bash -c '</dev/tcp/{outsider.address}/22'"
    assert (server.host.run(reach).rc == 0) == (server.name == "server")
    assert server.host.run("getent hosts deb.debian.org").rc == 0


def test_nothing_is_left_of_the_change(server):
    assert server.say("ls /var/lib/hardening /etc/ssh/sshd_config.d").split() == [
        "/etc/ssh/sshd_config.d:",
        "00-hardening.conf",
        *(["50-cloud-init.conf"] if server.name == "server" else []),
        "/var/lib/hardening:",
    ]
    assert server.host.run("systemctl cat hardening-revert.timer").rc != 0


def test_updates_are_for_security_only(server):
    shown = server.say("unattended-upgrade --dry-run --debug 2>&1")
    allowed = next(line for line in shown.splitlines() if line.startswith("Allowed origins are"))
    assert allowed.count("origin=") == allowed.count("label=Debian-Security") > 0
    assert "04:00:00" in server.say("systemctl show apt-daily-upgrade.timer -p TimersCalendar")


def test_time_journal_and_core_dumps(server):
    assert server.say("readlink -f /etc/localtime") == "/usr/share/zoneinfo/Etc/UTC"
    assert server.host.service("systemd-timesyncd").is_enabled
    assert server.say("journalctl --header | grep -c '^File path: /var/log/journal'") != "0"
    assert "SystemMaxUse=500M" in server.say("systemd-analyze cat-config systemd/journald.conf")
    assert server.say("su ops -c 'ulimit -H -c'") == "0"


def test_kernel_settings_of_the_network_are_live(server):
    shown = server.say("sysctl net.ipv4.conf.all.accept_redirects net.ipv4.tcp_syncookies")
    assert shown.splitlines() == [
        "net.ipv4.conf.all.accept_redirects = 0",
        "net.ipv4.tcp_syncookies = 1",
    ]


WRONG_PASSWORD = 'FATAL:  password authentication failed for user "x"'


@pytest.mark.parametrize(
    ("line", "matched"),
    [
        (f"app=z client=198.51.100.7 {WRONG_PASSWORD}", 1),
        ('app=z client=2001:db8::7 FATAL:  no pg_hba.conf entry for host "2001:db8::7"', 1),
        ("app=z client=198.51.100.7 LOG:  connection authorized", 0),
        # The stranger's own words would have somebody else banned.
        (f"app=client=192.0.2.1 {WRONG_PASSWORD} client=198.51.100.7 {WRONG_PASSWORD}", 0),
    ],
)
def test_failed_logins_to_postgresql_are_recognised(server, line, matched):
    logged = f"Nov 22 13:00:00 h postgres[7]: [3-1] user=x db=y {line}"
    shown = server.say(f"fail2ban-regex '{logged}' hardening-postgresql")
    assert f"1 lines, 0 ignored, {matched} matched" in shown


# --- who goes too far; last, since it locks the outsider out ---


def test_outsider_is_banned_and_the_operator_is_not(server, outsider):
    ignored = server.say("fail2ban-client get sshd ignoreip")
    assert {"172.30.1.1", "172.30.1.98"} <= set(ignored.split())
    server.say(f"fail2ban-client set sshd unbanip {outsider.address}")
    # The firewall's limit and sshd's own penalties slow the stranger down, so it takes a while.
    deadline = time.monotonic() + 120
    while outsider.address not in server.say("fail2ban-client status sshd | tail -1"):
        assert time.monotonic() < deadline, server.say("fail2ban-client status sshd")
        ssh(outsider, server, "ops", "-i /root/wrong_key -o IdentitiesOnly=yes")
        time.sleep(2)
    refused = ssh(outsider, server, "ops", "-i /root/right_key")
    assert refused.rc == 1
    assert "Connection refused" in refused.stderr
    assert outsider.address in server.say("nft list ruleset | grep -A3 f2b")

    server.say(f"fail2ban-client set sshd unbanip {outsider.address}")
    assert outsider.address not in server.say("fail2ban-client status sshd | tail -1")
