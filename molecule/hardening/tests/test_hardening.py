"""The hardened hosts, judged from outside and by their live daemons."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import paramiko
import pytest
from support import ansible

ROOT = Path(__file__).parents[3]
IPV6 = {"server": "fd00:1::10", "trixie": "fd00:1::12", "outsider": "fd00:1::11"}

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
            " --bind :: --directory /var/empty"
        )
    time.sleep(1)
    yield
    server.say("systemctl stop " + " ".join(f"listen-{port}" for port in ports))


@pytest.mark.usefixtures("patient", "services")
def test_outsider_sees_ssh_and_what_the_rules_open_to_it(server, outsider):
    # A database for everybody, if there is one, and on one host a foreign rule, which is kept.
    if server.name == "server":
        expected = [[5432, "open"], [7001, "open"], [7100, "open"], [server.port, "open"]]
    else:
        expected = [[5432, "closed"], [7001, "open"], [server.port, "open"]]
    assert json.loads(outsider.say(f"python3 -c '{SCAN}' {server.address}")) == expected


@pytest.mark.usefixtures("services")
def test_the_same_over_ipv6(server, outsider):
    for machine in (server, outsider):
        machine.say("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0")
        machine.say(f"ip -6 addr replace {IPV6[machine.name]}/64 dev eth0 nodad")
    # The rule for 7001 names the outsider's IPv4 address only.
    if server.name == "server":
        expected = [[5432, "open"], [7100, "open"], [server.port, "open"]]
    else:
        expected = [[5432, "closed"], [server.port, "open"]]
    assert json.loads(outsider.say(f"python3 -c '{SCAN}' {IPV6[server.name]}")) == expected


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
    listening = server.say("ss -Hltnp | grep sshd | awk '{print $4}' | sort -u")
    assert listening.split() == [f"0.0.0.0:{server.port}", f"[::]:{server.port}"]
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
        "persourcemaxstartups 5",
        "persourcenetblocksize 32:64",
    ):
        assert line in lines
    assert [line for line in lines if line.startswith("port ")] == [f"port {server.port}"]


@pytest.mark.parametrize(("unit", "limit"), [("cron", 7.5), ("unattended-upgrades", 3.5)])
def test_units_that_need_no_more_are_in_a_sandbox(server, unit, limit):
    said = server.say(f"systemd-analyze security --no-pager {unit}.service | tail -n 1")
    assert float(said.split("service:")[1].split()[0]) <= limit
    assert server.say(f"systemctl is-active {unit}") == "active"


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


def test_a_rule_of_the_inventory_lets_one_more_connection_out(machines, outsider):
    for port in (7443, 7444):
        outsider.say(
            f"systemd-run --quiet --unit=listen-{port} python3 -m http.server {port}"
            " --directory /var/empty"
        )
    time.sleep(1)
    answers = {
        port: machines["trixie"]
        .host.run(f"timeout 3 bash -c '</dev/tcp/{outsider.address}/{port}'")
        .rc
        == 0
        for port in (7443, 7444)
    }
    open_to_others = machines["server"].host.run(
        f"timeout 3 bash -c '</dev/tcp/{outsider.address}/7444'"
    )
    outsider.say("systemctl stop listen-7443 listen-7444")
    assert open_to_others.rc == 0, "it does listen there"
    assert answers == {7443: True, 7444: False}


def test_nothing_is_left_of_the_change(server):
    assert server.say("ls /var/lib/hardening /etc/ssh/sshd_config.d").split() == [
        "/etc/ssh/sshd_config.d:",
        "00-hardening.conf",
        *(["50-cloud-init.conf"] if server.name == "server" else []),
        "/var/lib/hardening:",
        "security-updates-left",
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
        (f"[3-1] client=198.51.100.7 user=x db=y app=z {WRONG_PASSWORD}", 1),
        ('[3-1] client=2001:db8::7 user=x db=y app=z FATAL:  no pg_hba.conf entry for "x"', 1),
        ("[3-1] client=198.51.100.7 user=x db=y app=z LOG:  connection authorized", 0),
        # Of a name with a line break. tests/plugins/test_fail2ban_filter.py tries more.
        (f"[3-2] client=198.51.100.7 user=x db=y app=z {WRONG_PASSWORD}", 0),
    ],
)
def test_failed_logins_to_postgresql_are_recognised(server, line, matched):
    logged = f"Nov 22 13:00:00 h postgres[7]: {line}"
    shown = server.say(f"fail2ban-regex '{logged}' hardening-postgresql")
    assert f"1 lines, 0 ignored, {matched} matched" in shown


REFUSED = "closing because: SASL authentication failed (age=2s)"


@pytest.mark.parametrize(
    ("line", "matched"),
    [
        (f"etlegacy_stats/etlegacy_app@198.51.100.7:43362 {REFUSED}", 1),
        ("etlegacy_stats/(nouser)@198.51.100.7:48884 closing because: no such user (age=0s)", 1),
        ("(nodb)/etlegacy_app@198.51.100.7:48862 closing because: login rejected (age=0s)", 1),
        ("(nodb)/(nouser)@[2001:db8::7]:48878 closing because: SSL required (age=0s)", 1),
        ("a/b@198.51.100.7:43378 closing because: client close request (age=1s)", 0),
        ("a/b@198.51.100.7:43378 pooler error: login rejected", 0),  # said twice, counted once
        # The stranger's own words would have somebody else banned.
        (f"a/b@192.0.2.1:1 {REFUSED}@198.51.100.7:43362 {REFUSED}", 0),
        (f"a/b@198.51.100.7:1 closing because: unsupported parameter: c@192.0.2.1:1 {REFUSED}", 0),
        (f"a/client=192.0.2.1 {WRONG_PASSWORD}@198.51.100.7:1 closing because: pause failed", 0),
    ],
)
def test_failed_logins_to_pgbouncer_are_recognised(server, line, matched):
    logged = f"Nov 22 13:00:00 h pgbouncer[7]: C-0x55f8e4dcb0a0: {line}"
    shown = server.say(f"fail2ban-regex '{logged}' hardening-postgresql")
    assert f"1 lines, 0 ignored, {matched} matched" in shown


# --- sessions of people ---


def test_a_tunnel_leads_to_the_database_and_nowhere_else(server, outsider):
    key = Path(f"{server.key}.pub").read_text().strip()
    server.say(
        "getent passwd tess || useradd --create-home --groups tunnels tess;"
        " install -d -o tess -g tess /home/tess/.ssh;"
        f" echo '{key}' > /home/tess/.ssh/authorized_keys"
    )
    server.say(f"fail2ban-client set sshd addignoreip {outsider.address}")
    options = "-i /root/right_key -o BatchMode=yes -o StrictHostKeyChecking=accept-new"
    login = f"{options} -p {server.port} tess@{server.address}"
    ways = "-L 5432:127.0.0.1:5432 -L 7001:127.0.0.1:7001"
    outsider.say(f"systemd-run --quiet --unit=tunnel ssh -N {ways} {login}")
    try:
        # On one of the hosts it is the database, on the other something that listens there.
        for port in (5432, 7001):
            server.host.run(
                f"systemd-run --quiet --unit=listen-{port}"
                f" python3 -m http.server {port} --bind 127.0.0.1 -d /var/empty"
            )
        time.sleep(3)
        # An answer of whatever kind, or a connection that sshd closes at once.
        # The bytes are PostgreSQL's question for TLS; to the other one they are nonsense.
        ask = "\\0\\0\\0\\10\\4\\322\\26\\57\\r\\n\\r\\n"
        # Where sshd is quick the connection is closed before the question: that is an answer too.
        question = f'exec 3<>/dev/tcp/127.0.0.1/$1; printf "{ask}" >&3; head -c 1 <&3 | wc -c'
        knock = f'trap "" PIPE; {question}'
        for port, opens in ((5432, True), (7001, False)):
            said = outsider.host.run("timeout 5 bash -c %s knock %s", knock, str(port)).stdout
            assert (int(said or 0) > 0) == opens, port
        assert "not available" in outsider.host.run(f"ssh {login} id").stdout
    finally:
        outsider.host.run("systemctl stop tunnel")
        server.host.run("systemctl stop listen-5432 listen-7001; userdel --remove tess")
        server.say(f"fail2ban-client set sshd delignoreip {outsider.address}")


def test_people_keep_their_files_to_themselves_and_root_serves_services(server):
    assert server.say("su - ops -c umask") == "0027"
    assert server.host.run("umask").stdout.strip() == "0022"  # sudo
    assert server.say("stat -c %a /home/ops") == "750"
    assert server.say("su - ops -c 'echo $TMPDIR'") == "/tmp/user/1000"
    assert server.say("su - ops -c 'echo $TMOUT'") == "3600"


# --- what lies about ---


def test_modes_are_strict_and_dpkg_knows(server):
    shown = server.say("stat -c %a /etc/crontab /etc/cron.d /usr/bin/newgrp /usr/bin/umount")
    assert shown.split() == ["600", "700", "755", "755"]
    kept = server.say("find / -xdev -perm /6000 -type f").split()
    assert {Path(path).name for path in kept} == {
        *("sudo", "su", "passwd", "crontab", "unix_chkpwd", "ssh-agent"),
        *("dbus-daemon-launch-helper", "pam-tmpdir-helper"),
    }
    # An update brings the package's own mode along; dpkg takes what it was told.
    package = server.say("dpkg -S bin/umount").split(":")[0]
    server.say(f"apt-get install -qq -o DPkg::Lock::Timeout=300 --reinstall {package}")
    assert server.say("stat -c %a /usr/bin/umount") == "755"


def test_unneeded_packages_and_modules_are_kept_out(server):
    assert server.host.run("dpkg -s talkd").rc != 0
    assert "install usb_storage /bin/false" in server.say("modprobe --showconfig")


def test_shared_memory_holds_no_programs(server):
    assert "noexec" in server.say("findmnt -no OPTIONS /dev/shm").split(",")


# --- updates ---

LEAKY = "dpkg-query -W -f '${Version}' leaky"


def test_the_first_run_has_installed_pending_security_updates(server):
    assert server.say(LEAKY) == "1.1"
    assert "leaky" not in server.say("cat /var/lib/hardening/security-updates-left")


def test_an_update_restarts_what_it_may_and_not_the_database(machines):
    server = machines["server"]
    pids = "systemctl show -p MainPID --value cron.service postgresql@15-main.service"
    cron, database = server.say(pids).split()
    # As an update does: the same library in another file.
    server.say("f=$(readlink -f /lib/x86_64-linux-gnu/libpam.so.0); cp -a $f $f.new; mv $f.new $f")
    server.say("needrestart -r a")
    after_cron, after_database = server.say(pids).split()
    assert after_cron != cron
    assert after_database == database
    server.say("/usr/local/sbin/hardening-update-report")
    assert "library" in (said := server.say("cat /root/alert.txt"))
    assert "postgresql@15-main.service" in said
    server.say("systemctl restart postgresql@15-main")


def test_failed_and_late_updates_are_told(server):
    server.say("rm -f /root/alert.txt /var/lib/apt/periodic/upgrade-stamp")
    server.say("touch -d '5 days ago' /var/lib/apt/periodic/update-stamp")
    server.say("/usr/local/sbin/hardening-update-report")
    said = server.say("cat /root/alert.txt")
    assert "Security updates failed (last success: never)" in said
    assert "package lists are more than two days old" in said
    assert "updates failed" in server.say("journalctl -t hardening-updates")

    server.say("rm /root/alert.txt; cd /var/lib/apt/periodic; touch update-stamp upgrade-stamp")
    server.say("/usr/local/sbin/hardening-update-report")
    # Nothing, but for what the real archive may have released since the first run.
    said = server.host.run("cat /root/alert.txt").stdout.splitlines()
    assert [line for line in said[1:] if "this night left" not in line] == []


def test_the_report_belongs_to_the_nightly_update(server):
    shown = server.say("systemctl show apt-daily-upgrade.service -p ExecStartPost")
    assert "path=/usr/local/sbin/hardening-update-report" in shown


# --- what others' tools find ---


def test_the_audit_names_what_waits_for_tonight_and_the_night_installs_it(machines):
    for machine in machines.values():
        # As the first run left it, whatever the real archive has released since.
        machine.say("publish-update 1.2 && truncate -s 0 /var/lib/hardening/security-updates-left")
    done = ansible.play(
        "playbooks/audit.yml",
        inventory="molecule/hardening/inventory/hosts.yml",
        audit_hosts="servers",
        audit_open_ports=[5432, 7100],
    )
    assert done.returncode == 0, done.stdout
    report = (ROOT / "artifacts/audit.txt").read_text()
    assert 'policy "Hardened Debian 12 (version 3)": passed' in report
    assert report.count("waits for tonight: leaky 1.1 -> 1.2") == len(machines)
    for machine in machines.values():
        assert machine.host.run("ls -d /var/tmp/audit.*").rc != 0
        assert machine.host.run("dpkg -s lynis").rc != 0
    # ssh-audit looks like an attack, for which sshd 9.8 and later makes a stranger wait.
    exempt = machines["trixie"].say("sshd -T | sed -n 's/^persourcepenaltyexemptlist //p'")
    assert "172.30.1.1" in exempt.split(",")

    # A day later, as apt counts.
    night = "rm -f /var/lib/apt/periodic/upgrade-stamp && systemctl start apt-daily-upgrade.service"
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda machine: machine.say(night), machines.values()))
    for machine in machines.values():
        assert machine.say(LEAKY) == "1.2"
        assert "leaky" not in machine.say("hardening-security-updates status")


def test_what_a_night_leaves_is_told_and_left_to_the_next(machines):
    server = machines["server"]
    server.say("publish-update 1.3 && apt-mark hold leaky && rm -f /root/alert.txt")
    try:
        server.say("systemctl start apt-daily-upgrade.service")
        assert "this night left: leaky 1.2 -> 1.3" in server.say("cat /root/alert.txt")
        status = json.loads(server.say("hardening-security-updates status"))
        assert ["leaky", "1.2", "1.3"] in status["left"]
    finally:
        server.say("apt-mark unhold leaky")


# --- who goes too far; last, since it locks the outsider out ---


def banned(server, jail, address):
    return address in server.say(f"fail2ban-client status {jail} | tail -1").split()


def wait_until(condition, seconds, step=1):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(step)


def test_outsider_is_banned_and_the_other_server_is_not(server, outsider, machines):
    ignored = server.say("fail2ban-client get sshd ignoreip").split()
    assert {"172.30.1.1", "172.30.1.98"} <= set(ignored)
    server.say(f"fail2ban-client unban {outsider.address}")

    friend = machines["trixie" if server.name == "server" else "server"]
    wrong = "-i /root/wrong_key -o IdentitiesOnly=yes"
    friend.say("rm -f /root/wrong_key && ssh-keygen -q -t ed25519 -N '' -f /root/wrong_key")
    for _ in range(7):
        assert "Permission denied" in ssh(friend, server, "ops", wrong).stderr

    # The firewall's limit slows the stranger down, and counts also what it refuses: who is stopped
    # by it and goes on trying is not let through again.
    def knock(key):
        attempt = ssh(outsider, server, "ops", key)
        stopped = attempt.rc != 0 and "Permission denied" not in attempt.stderr
        if stopped and not banned(server, "sshd", outsider.address):
            time.sleep(31)
        return attempt

    def misbehave():
        knock(wrong)
        return banned(server, "sshd", outsider.address)

    wait_until(misbehave, 300)
    assert outsider.address in server.say("nft list ruleset | grep -A3 f2b")
    refused = ssh(outsider, server, "ops", "-i /root/right_key")
    assert refused.rc == 1
    assert "Connection refused" in refused.stderr
    assert not banned(server, "sshd", friend.address)
    assert "Permission denied" in ssh(friend, server, "ops", wrong).stderr

    # The ban ends by itself; who has the key gets in, and the next ban is longer.
    wait_until(lambda: not banned(server, "sshd", outsider.address), 90)
    wait_until(lambda: knock("-i /root/right_key").rc == 0, 200, step=5)
    server.say(f"fail2ban-client set sshd banip {outsider.address}")
    times = server.say("fail2ban-client get sshd banip --with-time")
    ban = next(line for line in times.splitlines() if outsider.address in line)
    assert int(ban.split(" + ")[1].split()[0]) >= 40
    server.say(f"fail2ban-client unban {outsider.address}")


# Logs in to PostgreSQL with a wrong password, and prints what the server says.
LOGIN = """
import socket, struct, sys
def message(kind, body):
    return kind + struct.pack("!i", len(body) + 4) + body
server = socket.create_connection((sys.argv[1], 5432), 3)
start = b"user\\0nobody\\0database\\0postgres\\0\\0"
server.sendall(message(b"", struct.pack("!i", 196608) + start))
server.recv(100)
server.sendall(message(b"p", b"guess\\0"))
print(server.recv(1000))
"""


def test_who_guesses_passwords_of_postgresql_is_cut_off_for_a_while(machines, outsider):
    server, friend = machines["server"], machines["trixie"]
    server.say(f"fail2ban-client unban {outsider.address}")

    def guess(machine):
        return machine.host.run(f"python3 -c '{LOGIN}' {server.address}")

    for _ in range(7):
        assert "password authentication failed" in guess(friend).stdout
    for _ in range(5):
        assert "password authentication failed" in guess(outsider).stdout
    wait_until(lambda: banned(server, "postgresql", outsider.address), 20)
    assert "ConnectionRefusedError" in guess(outsider).stderr
    assert not banned(server, "postgresql", friend.address)
    assert "password authentication failed" in guess(friend).stdout
    wait_until(lambda: "password authentication failed" in guess(outsider).stdout, 60)
    server.say(f"fail2ban-client unban {outsider.address}")
