"""playbooks/dev_access.yml from end to end: people, their computers, and what they were given."""

from __future__ import annotations

import re
import stat
import time
from pathlib import Path

import pytest
from scenario import SCENARIO, WORLD, Machine, changed
from support.ansible import words

PLAYBOOK = "playbooks/dev_access.yml"
COUNT = "SELECT count(*) FROM public.rounds"


def given(name: str) -> Path:
    """Return the directory with what a person is handed over."""
    return WORLD / f"artifacts/developers/{name}"


def password_of(name: str) -> str:
    return re.search(r"^DATABASE_PASSWORD=(.*)$", (given(name) / ".env").read_text(), re.M)[1]


def hand_over(name: str, laptop: Machine) -> None:
    """Put the files where the person works."""
    laptop.ok("rm -rf /root/access; mkdir -m 700 /root/access")
    for file in given(name).iterdir():
        laptop.ok("echo %s > /root/access/%s", file.read_text(), file.name)


def line_with(name: str, text: str) -> str:
    """Return the line of connect.txt in which ``text`` stands."""
    lines = (given(name) / "connect.txt").read_text().splitlines()
    return next(line for line in lines if text in line)


def psql(name: str, laptop: Machine, sql: str):
    """Run the psql line of connect.txt."""
    line = line_with(name, 'psql "$')
    return laptop.run(f"cd /root/access; {line} -XAtq -v ON_ERROR_STOP=1 -c %s", sql)


def open_tunnel(name: str, laptop: Machine, *changes: tuple[str, str]) -> None:
    """Start the tunnel of connect.txt in the background."""
    line = line_with(name, "ssh -N")
    for old, new in changes:
        line = line.replace(old, new)
    laptop.ok(f"cd /root/access; nohup {line} -o BatchMode=yes >/root/tunnel.log 2>&1 & sleep 2")


def close_tunnel(laptop: Machine) -> None:
    laptop.run("pkill -x ssh; sleep 0.5")


@pytest.fixture(scope="module")
def anna(play, laptop: Machine, tmp_path_factory) -> None:
    """Reads only, through a tunnel."""
    laptop.ok(
        "test -e /root/.ssh/id_ed25519 || ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519"
    )
    key = tmp_path_factory.mktemp("keys") / "anna.pub"
    key.write_text(laptop.ok("cat /root/.ssh/id_ed25519.pub"))
    result = play(PLAYBOOK, developer="anna", developer_key=str(key))
    assert result.returncode == 0, result.stdout
    assert password_of("anna") not in result.stdout


@pytest.fixture
def tunnel(anna, laptop: Machine):  # noqa: ARG001 - she has to exist
    hand_over("anna", laptop)
    open_tunnel("anna", laptop)
    yield
    close_tunnel(laptop)


@pytest.fixture(scope="module")
def bob(play, laptop: Machine) -> None:
    """Has a schema, and comes from an address of his own."""
    result = play(
        PLAYBOOK,
        developer="bob",
        developer_access="own_schema",
        developer_addresses=laptop.address,
        developer_days=7,
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.usefixtures("anna")
def test_what_is_handed_over_is_private_and_the_record_holds_no_secret() -> None:
    assert {file.name for file in given("anna").iterdir()} == {
        ".env",
        "ca.crt",
        "connect.txt",
        "known_hosts",
    }
    for file in given("anna").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    record = (SCENARIO / "inventory/group_vars/all/developers.yml").read_text()
    assert password_of("anna") not in record


@pytest.mark.usefixtures("tunnel", "rounds")
class TestTunnel:
    def test_she_reads_over_verified_tls(self, laptop) -> None:
        result = psql("anna", laptop, COUNT)
        assert result.stdout.strip() == "1000", result.stderr
        tls = psql("anna", laptop, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert tls.stdout.strip() == "t"

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM public.rounds",
            "CREATE TABLE public.mine (id int)",
            "CREATE TEMPORARY TABLE mine (id int)",
            "CREATE SCHEMA mine",
            "SET ROLE etlegacy_app",
        ],
    )
    def test_she_writes_nothing(self, laptop, sql) -> None:
        for before in ("", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE;"):
            result = psql("anna", laptop, before + sql)
            assert result.rc != 0
            assert re.search("permission denied|read-only transaction", result.stderr)

    def test_her_statements_and_her_access_end(self, laptop, database) -> None:
        assert psql("anna", laptop, "SHOW statement_timeout").stdout.strip() == "1min"
        assert psql("anna", laptop, "SHOW idle_session_timeout").stdout.strip() == "8h"
        days = "SELECT round(extract(epoch FROM rolvaliduntil - now()) / 86400) FROM pg_roles"
        assert 88 <= int(database.sql(f"{days} WHERE rolname = 'dev_anna'")) <= 90
        assert "never" not in database.ok("chage -l dev_anna | grep 'Account expires'")
        until = database.sql("SELECT rolvaliduntil FROM pg_roles WHERE rolname = 'dev_anna'")
        database.sql("ALTER ROLE dev_anna VALID UNTIL 'yesterday'")
        try:
            assert psql("anna", laptop, "SELECT 1").rc == 2
        finally:
            database.sql(f"ALTER ROLE dev_anna VALID UNTIL '{until}'")

    def test_she_logs_in_from_nowhere_else(self, laptop, bots_place, database) -> None:
        direct = f"host={database.address} dbname=etlegacy_stats user=dev_anna connect_timeout=3"
        for machine in (laptop, bots_place):
            result = machine.run("PGPASSWORD=%s psql %s -c ''", password_of("anna"), direct)
            assert result.rc == 2
            assert re.search("no pg_hba.conf entry|timeout expired", result.stderr)


@pytest.mark.usefixtures("anna")
class TestKey:
    """What else the key of the tunnel opens: nothing."""

    @pytest.mark.parametrize("target", ["127.0.0.1:48022", "127.0.0.1:6432", "172.30.7.11:22"])
    def test_no_other_port(self, laptop, target) -> None:
        hand_over("anna", laptop)
        open_tunnel("anna", laptop, ("127.0.0.1:5432", target))
        try:
            answer = laptop.run(
                "timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/15432; head -c 3 <&3'"
            )
            assert answer.stdout == ""
            assert "administratively prohibited" in laptop.ok("cat /root/tunnel.log")
        finally:
            close_tunnel(laptop)

    def test_no_shell_no_files_no_way_back(self, laptop) -> None:
        hand_over("anna", laptop)
        ssh = line_with("anna", "ssh -N").replace(" -N", "").replace("-L 15432:127.0.0.1:5432 ", "")
        shell = laptop.run(f"cd /root/access; {ssh} -o BatchMode=yes id")
        assert "uid=" not in shell.stdout
        assert shell.rc != 0
        back = ssh.replace("ssh ", "ssh -N -R 9999:127.0.0.1:22 -o ExitOnForwardFailure=yes ", 1)
        assert laptop.run(f"cd /root/access; timeout 10 {back} -o BatchMode=yes").rc not in (0, 124)


@pytest.mark.usefixtures("bob", "rounds")
class TestOwnSchema:
    def test_he_reads_everything_and_writes_his_own(self, laptop) -> None:
        hand_over("bob", laptop)
        result = psql(
            "bob",
            laptop,
            f"CREATE TABLE mine AS {COUNT}; SELECT count FROM dev_bob.mine",
        )
        assert result.stdout.strip() == "1000", result.stderr
        assert "permission denied" in psql("bob", laptop, "DELETE FROM public.rounds").stderr

    def test_only_from_his_address(self, bots_place, database) -> None:
        direct = f"host={database.address} dbname=etlegacy_stats user=dev_bob connect_timeout=3"
        result = bots_place.run("PGPASSWORD=%s psql %s -c ''", password_of("bob"), direct)
        assert result.rc == 2
        assert "no pg_hba.conf entry" in result.stderr  # that address may come, but not as him

    def test_nobody_else_sees_it(self, bots_place, database) -> None:
        result = bots_place.login(database, "app", "SELECT * FROM dev_bob.mine", 6432)
        assert "permission denied for schema dev_bob" in result.stderr


@pytest.mark.usefixtures("bob", "anna", "rounds")
class TestEnd:
    """In this order."""

    def test_removed_her_open_tunnel_and_session_end_at_once(self, play, laptop, database) -> None:
        hand_over("anna", laptop)
        secret = password_of("anna")
        open_tunnel("anna", laptop)
        line = line_with("anna", 'psql "$')
        laptop.ok(
            "cd /root/access; nohup sh -c %s >/root/session.log 2>&1 & sleep 1",
            f"{line} -c 'SELECT pg_sleep(600)'",
        )
        assert (
            database.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'dev_anna'") == "1"
        )
        result = play(PLAYBOOK, developer="anna", developer_state="absent")
        assert result.returncode == 0, result.stdout
        time.sleep(1)
        assert laptop.run("pgrep -x ssh").rc == 1
        assert re.search("terminating|closed", laptop.ok("cat /root/session.log"))
        assert not given("anna").exists()
        assert database.run("getent passwd dev_anna").rc == 2
        assert database.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'dev_anna'") == "0"
        ssh = "timeout 10 ssh -N -p 48022 -o BatchMode=yes -o StrictHostKeyChecking=no dev_anna@%s"
        assert "Permission denied" in laptop.run(ssh, database.address).stderr
        local = "host=localhost dbname=etlegacy_stats user=dev_anna sslmode=require"
        refused = database.run("PGPASSWORD=%s psql %s -c ''", secret, local)
        assert re.search("no pg_hba.conf entry|authentication failed", refused.stderr)

    def test_the_next_site_yml_removes_nobody_and_brings_nobody_back(
        self, play, laptop, database
    ) -> None:
        assert changed(play("site.yml")) == 0
        hand_over("bob", laptop)
        assert psql("bob", laptop, COUNT).stdout.strip() == "1000"
        assert database.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'dev_anna'") == "0"

    def test_what_he_made_is_not_dropped_by_accident(self, play, laptop) -> None:
        result = play(PLAYBOOK, developer="bob", developer_state="absent")
        assert result.returncode != 0
        assert "-e developer_drop_schema=dev_bob. Nothing was changed." in words(result)
        hand_over("bob", laptop)
        assert psql("bob", laptop, "SELECT count FROM mine").stdout.strip() == "1000"

    def test_removed_for_good_the_firewall_closes_too(self, play, laptop, database) -> None:
        result = play(
            PLAYBOOK,
            developer="bob",
            developer_state="absent",
            developer_drop_schema="dev_bob",
        )
        assert result.returncode == 0, result.stdout
        assert laptop.address not in database.ok("ufw status | grep 5432")
        assert "dev_bob" not in database.ok("cat /etc/postgresql/15/main/pg_hba.conf")
        schemas = database.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'dev_bob'")
        assert schemas == "0"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "Say who"),
        ({"developer": "Anna; DROP"}, "Say who"),
        ({"developer": "eve"}, "Say how eve comes in"),
        ({"developer": "eve", "developer_addresses": "0.0.0.0/0"}, "no larger than /24"),
        (
            {"developer": "eve", "developer_addresses": "10.0.0.1", "developer_days": 4000},
            "1 to 366",
        ),
        ({"developer": "eve", "developer_key": "ansible.cfg"}, "does not hold one public SSH key"),
        ({"developer": "eve", "developer_access": "everything"}, "read_only or own_schema"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_a_request_that_makes_no_sense_is_refused(play, variables, message) -> None:
    result = play(PLAYBOOK, **variables)
    assert result.returncode != 0
    assert message in words(result)
