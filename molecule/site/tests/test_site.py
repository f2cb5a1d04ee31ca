"""Two servers built by site.yml, looked at from the network and from inside."""

from pathlib import Path

import pytest
import testinfra
import yaml

SCENARIO = Path(__file__).parents[1]
ROOT = SCENARIO.parents[1]
SETTINGS = yaml.safe_load((SCENARIO / "inventory/group_vars/all/main.yml").read_text())
DATABASE, BOT, STRANGER = "172.30.4.10", "172.30.4.20", "172.30.4.50"


def machine(name):
    return testinfra.get_host(f"docker://site-{name}")


def login(machine_name, role, **settings):
    """Log in to PostgreSQL from a machine by ferry's libpq; return None or what it complains of."""
    given = {
        "host": DATABASE,
        "dbname": "etlegacy_stats",
        "user": f"etlegacy_{role}",
        "sslmode": "verify-full",
        "sslrootcert": "/opt/ferry/database-ca.crt",
        "connect_timeout": "5",
    } | settings
    result = machine(machine_name).run(
        "PGPASSWORD=%s /opt/ferry/current/venv/bin/python -c %s %s",
        SETTINGS[f"vault_postgres_{role}_password"],
        "import psycopg, sys; psycopg.connect(sys.argv[1]).close()",
        " ".join(f"{name}={value}" for name, value in given.items()),
    )
    return None if result.rc == 0 else result.stderr


def test_a_stranger_finds_one_open_port_on_each_server():
    scanner = (ROOT / "demo/files/scan_ports.py").read_text()
    found = machine("stranger").check_output(
        f"python3 - {DATABASE} {BOT} <<'END_OF_SCANNER'\n{scanner}\nEND_OF_SCANNER"
    )
    assert found.splitlines() == [f"{DATABASE} 48022", f"{BOT} 48022"]


@pytest.mark.parametrize("role", ["app", "migrator"])
def test_the_bot_server_reaches_the_database_with_a_verified_certificate(role):
    assert login("bot-vps", role) is None


def test_the_database_takes_no_plain_connection():
    assert "no pg_hba.conf entry" in login("bot-vps", "app", sslmode="disable")


def test_a_certificate_of_another_authority_is_refused():
    error = login("bot-vps", "app", sslrootcert="/etc/ssl/certs/ca-certificates.crt")
    assert "certificate verify failed" in error


def test_the_developers_role_cannot_come_from_the_bot_server():
    assert "no pg_hba.conf entry" in login("bot-vps", "readonly")


def test_the_bot_waits_for_the_migration():
    bot = machine("bot-vps").service("etlegacy-bot")
    assert not bot.is_running
    assert not bot.is_enabled


def test_a_release_is_ready_and_belongs_to_root():
    bot = machine("bot-vps")
    assert bot.file("/opt/etlegacy-bot/current").is_symlink
    assert bot.file("/opt/etlegacy-bot/current/").user == "root"
    assert bot.run("runuser -u etlegacy-bot -- touch /opt/etlegacy-bot/current/x").rc != 0


def test_the_bot_s_settings_are_its_own():
    environment = machine("bot-vps").file("/etc/etlegacy-bot/environment")
    assert (environment.user, environment.group, environment.mode) == (
        "root",
        "etlegacy-bot",
        0o640,
    )


def test_the_bot_server_may_not_talk_to_just_anybody():
    knock = f"timeout 4 bash -c '</dev/tcp/{STRANGER}/22'"
    assert machine("database-vps").run(knock).rc == 0, "the stranger's sshd does not answer anybody"
    assert machine("bot-vps").run(knock).rc != 0


def test_wrong_passwords_for_the_database_are_counted():
    status = machine("database-vps").run("fail2ban-client status postgresql")
    assert status.rc == 0, status.stderr


def test_the_lock_was_taken_and_given_back():
    lock = machine("bot-vps").file("/var/lib/etlegacy-bot-lock")
    assert lock.listdir() == ["guard"]


def test_ferry_runs_as_nobody_s_friend():
    bot = machine("bot-vps")
    assert bot.check_output("ferry --version")
    assert bot.user("ferry").shell == "/usr/sbin/nologin"
    assert bot.file("/var/lib/ferry").mode == 0o700


@pytest.mark.parametrize("name", ["database-vps", "bot-vps"])
def test_no_secret_of_the_control_machine_is_on_a_server(name):
    everywhere = "/etc /opt /var /root /home /srv /usr/local"
    server = machine(name)
    assert server.run(f"grep -rqsI 'AGE-SECRET-KEY-' {everywhere}").rc == 1
    assert server.run(f"find {everywhere} -name ca.key").stdout == ""


@pytest.mark.parametrize("name", ["database-vps", "bot-vps"])
def test_both_servers_agree_on_the_time_zone(name):
    assert machine(name).check_output("date +%Z") == "UTC"
