"""bot_connections.py and encrypted_sessions.py: whether the database knows this very process."""

import os
import runpy
import socket
from pathlib import Path

import pytest

FILES = Path(__file__).resolve().parents[2] / "playbooks" / "files"
CONNECTIONS = runpy.run_path(str(FILES / "bot_connections.py"))
SESSIONS = runpy.run_path(str(FILES / "encrypted_sessions.py"))
WANTED = {"role": "app", "database": "stats", "address": "192.0.2.7", "ports": [40001, 40002]}
ROW = {"user": "app", "database": "stats", "addr": "192.0.2.7", "port": "40001", "tls": "TLSv1.3"}


def test_connections_of_a_process_are_found_by_the_other_side():
    found, pid = CONNECTIONS["local_ports"], str(os.getpid())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert found(pid, "127.0.0.1", port) == set()
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert found(pid, "127.0.0.1", port) == {client.getsockname()[1]}
            assert found(str(os.getppid()), "127.0.0.1", port) == set()
            assert found(pid, "127.0.0.1", port + 1) == set()


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("0100007F:1538", ("127.0.0.1", 5432)),
        ("B80D0120000000000000000001000000:1920", ("2001:db8::1", 6432)),
        # asyncio opens such ones where a name has both kinds of addresses.
        ("0000000000000000FFFF00000100007F:1538", ("127.0.0.1", 5432)),
    ],
)
def test_an_end_is_read_as_the_kernel_writes_it(text, end):
    """On a processor that puts the lowest byte first, as all of ours do."""
    assert CONNECTIONS["end"](text) == end


def test_a_process_that_has_ended_has_none():
    assert CONNECTIONS["local_ports"]("4194999", "127.0.0.1", 5432) == set()


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ({}, 1),
        ({"port": "40003"}, 0),  # another process of the same host
        ({"tls": ""}, 0),
        ({"user": "migrator"}, 0),
        ({"addr": "192.0.2.8"}, 0),
        ({"database": "other"}, 0),
    ],
)
def test_a_session_counts_if_it_is_the_processs_own_and_encrypted(changed, counts):
    assert SESSIONS["count"]([ROW | changed], WANTED) == counts
