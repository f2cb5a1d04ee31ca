"""host_facts.py: what alerts depend on, from what the systems really print."""

import json
import re
import subprocess
import time

import psycopg
import pytest

SETTINGS = {
    "units": [], "bot": "", "bot_has_token": False, "error_lines": "x", "error_seconds": 600,
    "heard_seconds": 90, "lock": "", "app_role": "",
    "bot_addresses": [], "postgres_port": 5432, "certificates": [], "names": [], "ports": [],
}  # fmt: skip
# `ss -H -O -tinp state established dport = :443`, iproute2 6.1 (Debian 12): a bot that hears, one
# whose connection a frozen host's kernel completed, and a browser of somebody else.
HEARS = """\
0 0 10.0.0.2:50110 162.159.135.234:443 users:(("python",pid=4711,fd=7)) cubic wscale:7,7 rto:204 \
bytes_sent:2110 bytes_acked:2111 bytes_received:5632 lastsnd:12304 lastrcv:12200 lastack:12200
"""
DEAF = """\
0 0 10.0.0.2:50112 162.159.135.234:443 users:(("python",pid=4711,fd=7)) cubic wscale:7,7 rto:204 \
bytes_sent:517 bytes_acked:518 segs_out:4 segs_in:3 lastsnd:3304 lastrcv:184004 lastack:3200
0 0 10.0.0.2:50110 162.159.135.234:443 users:(("python",pid=4711,fd=9)) cubic \
bytes_received:5632 lastsnd:12304 lastrcv:91000 lastack:12200
"""
FOREIGN = HEARS.replace("pid=4711", "pid=99")
# `ss -Htln`, the same.
LISTENS = """\
LISTEN 0 128 0.0.0.0:48022 0.0.0.0:*
LISTEN 0 200 127.0.0.1:5432 0.0.0.0:*
LISTEN 0 4096 127.0.0.53%lo:53 0.0.0.0:*
LISTEN 0 4096 *:9100 *:*
LISTEN 0 128 [::]:48022 [::]:*
LISTEN 0 200 [::1]:5432 [::]:*
LISTEN 0 5 [::ffff:127.0.0.1]:9999 *:*
LISTEN 0 1 10.0.0.2:4444 0.0.0.0:*
"""


@pytest.fixture
def facts(program):
    return program("host_facts")


@pytest.mark.parametrize(
    ("listed", "hears"),
    [(HEARS, True), (DEAF, False), (FOREIGN, False), (DEAF + HEARS, True), ("", False)],
)
def test_established_is_not_heard(facts, listed, hears):
    assert facts.heard(listed, lambda pid: pid == "4711", 90) is hears


def test_a_listener_is_unexpected_where_others_reach_it(facts):
    assert facts.unexpected(LISTENS, {48022}) == {9100, 4444}


def test_one_family_that_breaks_leaves_the_others(facts, monkeypatch, tmp_path):
    (tmp_path / "holder.json").write_text(json.dumps({"since": time.time() - 60}))

    def broken(_):
        raise ValueError("no")

    def units(_):
        yield "etl_unit_failed", {"unit": facts.clean('x"}\nevil{a="\\x2d')}, 1.0

    monkeypatch.setattr(facts, "FAMILIES", (broken, units, facts.lock))
    lines = facts.collect(SETTINGS | {"lock": str(tmp_path)})
    assert 'etl_collector_failed{family="broken"} 1.0' in lines
    assert 'etl_collector_failed{family="lock"} 0.0' in lines
    assert "etl_work_in_progress 1.0" in lines
    form = re.compile(r'# (HELP|TYPE) .*|etl_\w+(\{\w+="[^"\n]*"(,\w+="[^"\n]*")*\})? [-\d.e+]+')
    assert all(form.fullmatch(line) for line in lines), lines
    assert 'etl_unit_failed{unit="x???evil?a??\\\\x2d"} 1.0' in lines


@pytest.mark.parametrize(
    ("holder", "at_work"),
    [(None, 0.0), ("{}", 0.0), ("half", 0.0), ('{"since": 5}', 0.0)],
)
def test_a_lock_silences_for_an_hour_at_most(facts, tmp_path, holder, at_work):
    if holder is not None:
        (tmp_path / "holder.json").write_text(holder)
    assert list(facts.lock({"lock": str(tmp_path)})) == [("etl_work_in_progress", {}, at_work)]


def test_the_end_of_a_certificate(facts, tmp_path):
    path = tmp_path / "server.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-subj", "/CN=x", "-days", "10", "-keyout", tmp_path / "key", "-out", path],
        check=True,
        capture_output=True,
    )  # fmt: skip
    [(name, labels, end)] = facts.certificates({"certificates": [str(path)]})
    assert (name, labels) == ("etl_certificate_end_seconds", {"path": str(path)})
    assert abs(end - time.time() - 10 * 86400) < 120


def test_names(facts):
    found = {labels["name"]: value for _, labels, value in facts.names(
        {"names": ["localhost", "no-such-host.invalid"]}
    )}  # fmt: skip
    assert found == {"localhost": 1.0, "no-such-host.invalid": 0.0}


def test_what_postgresql_says(facts, database, monkeypatch):
    """The statement itself, on a real server, with a bot that left a transaction open."""
    asked = []

    def psql(*command):
        asked.append(command)
        with psycopg.connect(database.dsn) as connection:
            rows = connection.execute(command[-1]).fetchall()
        return "".join(f"{name}={value}\n" for name, value in rows)

    monkeypatch.setattr(facts, "run", psql)
    with psycopg.connect(database.dsn) as connection:
        [app] = connection.execute("SELECT session_user").fetchone()
        settings = SETTINGS | {"app_role": app, "bot_addresses": ["192.0.2.7"]}
        found = {name: value for name, _, value in facts.postgres(settings)}
    assert asked[0][:4] == ("runuser", "-u", "postgres", "--")
    assert found["etl_postgres_up"] == 1
    assert found["etl_postgres_app_sessions"] >= 2
    assert found["etl_postgres_idle_in_transaction_seconds"] >= 0
    assert found["etl_postgres_sessions"] <= found["etl_postgres_sessions_max"]
    assert found["etl_postgres_xid_age"] > 0
    assert found["etl_postgres_lock_wait_seconds"] == found["etl_postgres_checksum_failures"] == 0
    assert set(found) >= {"etl_postgres_app_sessions_elsewhere", "etl_postgres_slot_kept_bytes"}


def test_a_postgresql_that_does_not_answer_is_a_fact(facts, monkeypatch):
    def psql(*_):
        raise subprocess.CalledProcessError(2, "psql")

    monkeypatch.setattr(facts, "run", psql)
    assert list(facts.postgres(SETTINGS | {"app_role": "app"})) == [("etl_postgres_up", {}, 0.0)]
