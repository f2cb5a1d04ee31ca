"""PgBouncer between bot and database: whose session is seen behind it, and who is banned by it."""

from __future__ import annotations

import json
import time

import pytest
from scenario import ROOT, SETTINGS, VERIFIED

PASSWORD = SETTINGS["vault_postgres_app_password"]
SEEN = (ROOT / "playbooks/files/encrypted_sessions.py").read_text()
OWN_PORTS = """
def own_ports(far):
    rows = [line.split() for line in open("/proc/net/tcp")][1:]
    ends = [(row[1].split(":")[1], row[2].split(":")[1]) for row in rows if row[3] == "01"]
    return [int(near, 16) for near, other in ends if int(other, 16) == far]
"""


@pytest.fixture
def hold():
    """Keep a session of the bot's role open on a machine, until the test is over."""
    machines = []

    def begin(machine, dsn: str) -> None:
        machines.append(machine)
        dsn = f"dbname=etlegacy_stats user=etlegacy_app {dsn}"
        # As asyncpg leaves it when it takes a connection back.
        machine.ok(
            "(echo 'SELECT 1; RESET ALL;'; sleep 60) | PGPASSWORD=%s psql -X %s"
            " >/root/held.log 2>&1 & sleep 3",
            *(PASSWORD, dsn),
        )
        assert machine.run("pgrep -x psql").rc == 0, machine.ok("cat /root/held.log")

    yield begin
    for machine in machines:
        machine.run("pkill -x psql")


def ports_to_pool(machine) -> list[int]:
    """Return the machine's own ports of its connections to PgBouncer."""
    found = machine.ok("python3 -c %s", f"{OWN_PORTS}\nprint(*own_ports(6432))")
    return [int(port) for port in found.split()]


def test_the_bot_s_session_is_seen_through_the_pool_and_no_other(
    hold, database, bots_place
) -> None:
    """Asked as migrate.yml and deploy.yml ask (playbooks/tasks/database_sees_bot.yml)."""

    def seen(address: str, ports: list[int]) -> int:
        wish = {"role": "etlegacy_app", "database": "etlegacy_stats", "address": address}
        wish |= {"ports": ports, "port": 5432, "pgbouncer_port": 6432, "patience": 0}
        answer = json.loads(database.ok("python3 -c %s %s", SEEN, json.dumps(wish)))
        assert answer["error"] == ""
        return answer["sessions"]

    hold(database, "host=localhost sslmode=require")  # beside PgBouncer, with the right password
    assert seen(database.address, list(range(32768, 40000))) == 0
    hold(bots_place, f"host={database.address} port=6432 {VERIFIED}")
    ports = ports_to_pool(bots_place)
    assert len(ports) == 1
    assert seen(bots_place.address, ports) == 1
    assert seen(bots_place.address, [ports[0] - 1]) == 0
    assert seen(database.address, ports) == 0
    # PgBouncer keeps its session with PostgreSQL for the next client.
    bots_place.ok("pkill -x psql; sleep 1")
    assert seen(bots_place.address, ports) == 0


def test_who_guesses_passwords_at_the_pool_is_banned(database, bots_place) -> None:
    """From the bot's address, which alone reaches that port; else it is never banned."""
    jail = "fail2ban-client set postgresql"
    dsn = f"host={database.address} port=6432 dbname=etlegacy_stats user=etlegacy_app {VERIFIED}"

    def banned() -> bool:
        status = database.ok("fail2ban-client status postgresql | tail -1")
        return bots_place.address in status.split()

    database.ok(f"{jail} delignoreip {bots_place.address}")
    try:
        for _ in range(5):
            assert bots_place.run("PGPASSWORD=wrong psql %s -c ''", dsn).rc == 2
        for _ in range(30):
            if banned():
                break
            time.sleep(1)
        assert banned()
        refused = bots_place.run("PGPASSWORD=%s psql %s -c ''", PASSWORD, dsn)
        assert refused.rc == 2
        assert "refused" in refused.stderr or "timeout" in refused.stderr
    finally:
        database.ok(f"{jail} addignoreip {bots_place.address}")
        database.ok(f"{jail} unbanip {bots_place.address}")
    assert bots_place.run("PGPASSWORD=%s psql %s -c ''", PASSWORD, dsn).rc == 0
