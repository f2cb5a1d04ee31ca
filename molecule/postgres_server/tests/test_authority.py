"""Another authority, by the steps of docs/certificates.md. Last: all clients change with it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from scenario import ADDRESS, ROOT, SECRETS

pytestmark = pytest.mark.order("last")  # all clients trust another authority after it

STARTED = "SELECT pg_postmaster_start_time()"


def step(name: str) -> str:
    """Take a step of the change and return what is trusted then."""
    command = [sys.executable, ROOT / "scripts/make_secrets.py", "--ca", name, SECRETS.parent]
    subprocess.run(command, check=True, capture_output=True)
    return (SECRETS / "ca/ca.crt").read_text()


def trusts(client, certificates: str) -> bool:
    """Return whether a client that knows these authorities gets in, pooled and not."""
    client.ok("echo %s > /root/known.crt", certificates)
    known = "sslmode=verify-full sslrootcert=/root/known.crt"
    results = [
        client.login("etlegacy_app", "SELECT 1", options=options)
        for options in (known, f"{known} port=6432")
    ]
    for result in results:
        assert result.rc == 0 or "certificate verify failed" in result.stderr
    assert results[0].rc == results[1].rc
    return results[0].rc == 0


def test_nobody_who_was_told_is_cut_off_and_the_former_one_ends(
    converge, database, client, outsider
) -> None:
    assert converge().returncode == 0  # what other tests changed is put right, with a restart
    former = (SECRETS / "ca/ca.crt").read_text()
    started = database.sql(STARTED)

    both = step("begin")
    following = both.removeprefix(former)
    assert converge().returncode == 0
    assert trusts(client, former)
    assert trusts(client, both)
    assert not trusts(client, following)

    both = step("switch")
    assert converge().returncode == 0
    assert trusts(client, both)
    assert trusts(client, following)
    assert not trusts(client, former)

    assert step("finish") == following
    result = converge("--limit=database,database13")
    assert result.returncode == 0, result.stdout
    assert trusts(client, following)
    assert database.ok("grep -c BEGIN /etc/postgresql/tls/ca.crt") == "1"
    assert database.sql(STARTED) == started
    for machine in (client, outsider):
        machine.ok("echo %s > /root/ca.crt", following)
    for server in ADDRESS.keys() & {"database", "database13"}:
        assert client.login("etlegacy_app", "SELECT 1", server).rc == 0
