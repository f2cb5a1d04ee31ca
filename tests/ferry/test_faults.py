"""Whatever is cut, killed, stopped or full: the target is as it was, and a second run completes."""

import contextlib
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.postgres import Cluster

SOURCE = Path(__file__).parents[2] / "ferry/src"


@pytest.fixture(scope="module")
def cluster():
    """A server of this module's own, to be stopped."""
    with Cluster.of_major() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def larger_database(bench, tmp_path_factory):
    path = tmp_path_factory.mktemp("larger") / "bot.db"
    bench.generate(path, weapons=25_000)
    return path


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "ferry", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def tables(database):
    with database.connect() as connection:
        return connection.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone()[0]


def wait_for_the_copy_to_begin(database):
    with database.connect() as connection:
        for _ in range(2000):
            (busy,) = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%' "
                "AND datname = current_database()"
            ).fetchone()
            if busy:
                return
            time.sleep(0.01)
    pytest.fail("the copy never began")


def kill_after(seconds, database, *command):
    """Kill a ferry that has run for so long, and wait until the server knows."""
    process = start(*command)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for_the_session_to_end(database)


def wait_for_the_session_to_end(database):
    with database.connect() as connection:
        for _ in range(100):
            (sessions,) = connection.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE application_name = 'ferry' AND datname = current_database()"
            ).fetchone()
            if not sessions:
                return
            time.sleep(0.05)
    pytest.fail("the server still runs the killed ferry's session")


def test_killed_at_any_moment_it_leaves_all_or_nothing(bot_database, database, contents_of):
    before = contents_of(bot_database.parent)
    started = time.monotonic()
    process = start("copy", bot_database, database.dsn, "--schema", "measure")
    assert process.wait() == 0, process.stderr.read()
    whole = time.monotonic() - started
    for part in (0.4, 0.6, 0.7, 0.8, 0.9):
        kill_after(whole * part, database, "copy", bot_database, database.dsn)
        if tables(database):
            break  # it was quick enough to finish; the next check is that it is complete
    assert contents_of(bot_database.parent) == before
    process = start("copy", bot_database, database.dsn)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert tables(database) == 7
    process = start("verify", bot_database, database.dsn)
    assert process.wait() == 0, process.stderr.read()


def test_a_sync_killed_at_any_moment_can_be_repeated(
    ferry, bot_database, own_bot_database, database
):
    assert ferry("copy", bot_database, database.dsn).code == 0
    connection = sqlite3.connect(own_bot_database, isolation_level=None)
    connection.execute("UPDATE weapon_comprehensive_stats SET kills = kills + 1")
    connection.execute("DELETE FROM processed_files WHERE id % 2")
    connection.close()
    command = ("sync", own_bot_database, database.dsn, "--base", bot_database)
    started = time.monotonic()
    process = start("verify", bot_database, database.dsn)
    assert process.wait() == 0, process.stderr.read()
    whole = time.monotonic() - started
    for part in (0.7, 0.9, 1.1):
        kill_after(whole * part, database, *command)
        codes = [
            ferry("verify", path, database.dsn).code for path in (bot_database, own_bot_database)
        ]
        assert sorted(codes) == [0, 4], "neither the old nor the new state"
    run = ferry(*command[:3])
    assert run.code == 0, run
    assert ferry("verify", own_bot_database, database.dsn).code == 0


def test_two_ferries_at_once(ferry, larger_database, database):
    process = start("copy", larger_database, database.dsn)
    wait_for_the_copy_to_begin(database)
    run = ferry("copy", larger_database, database.dsn)
    assert run.code == 3, run
    assert "another ferry" in run.err
    assert process.wait() == 0, process.stderr.read()
    assert ferry("copy", larger_database, database.dsn).report["outcome"] == "nothing to do"


class Wire:
    """A TCP connection to the server that is cut after so many bytes have gone to it."""

    def __init__(self, database, length):
        self.database = database
        self.left = length
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        client, _ = self.listener.accept()
        server = socket.create_connection((self.database.host, self.database.port))
        back = threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True)
        back.start()
        self._pass_on(client, server, True)
        # Cut hard, as a router that restarts would: no farewell, a reset.
        for end in (client, server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RDWR)
        back.join()
        client.close()
        server.close()
        self.listener.close()

    def _pass_on(self, source, target, counted):
        with contextlib.suppress(OSError):
            while block := source.recv(8192):
                if counted:
                    self.left -= len(block)
                    if self.left < 0:
                        return
                target.sendall(block)


def test_a_connection_cut_at_any_moment(ferry, bot_database, database, monkeypatch):
    for name, value in database.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PGSSLMODE", "disable")
    monkeypatch.setenv("PGGSSENCMODE", "disable")
    for length in (20, 2_000, 20_000, 100_000, 200_000):
        monkeypatch.setenv("PGPORT", str(Wire(database, length).port))
        run = ferry("copy", bot_database, "")
        assert run.code == 5, run
        assert "Traceback" not in run.text
        wait_for_the_session_to_end(database)
        assert tables(database) == 0
    monkeypatch.setenv("PGPORT", str(database.port))
    assert ferry("copy", bot_database, "").code == 0
    monkeypatch.setenv("PGPORT", str(Wire(database, 3_000).port))
    run = ferry("verify", bot_database, "")
    assert run.code == 5, run


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_server_that_goes_away_in_the_middle(larger_database, cluster, how):
    with cluster.fresh_database() as database:
        process = start("copy", larger_database, database.dsn)
        wait_for_the_copy_to_begin(database)
        cluster.stop(how)
        _, err = process.communicate()
        cluster.start()
        assert process.returncode == 5, err
        assert "ferry: server:" in err
        assert "Traceback" not in err
        assert tables(database) == 0
        process = start("copy", larger_database, database.dsn)
        assert process.wait() == 0, process.stderr.read()


@pytest.fixture
def small_disk(cluster):
    """A file system of 11 MB for the server: yields a tablespace on it, and a way to enlarge it."""
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    place = cluster.directory / "small"
    place.mkdir()

    def mount(*options):
        subprocess.run(
            [*as_root, "mount", "-t", "tmpfs", *options, "ferry-test", place],
            check=True,
            capture_output=True,
        )

    owner = (cluster.directory / "data").stat()
    try:
        mount("-o", f"size=11M,mode=700,uid={owner.st_uid},gid={owner.st_gid}")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no file system can be mounted here: {error.stderr!r}")
    try:
        with cluster.database("postgres").connect() as admin:
            admin.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
        yield "small", lambda: mount("-o", "remount,size=100M")
        with cluster.database("postgres").connect() as admin:
            admin.execute("DROP TABLESPACE small")
    finally:
        subprocess.run([*as_root, "umount", place], check=True)


def test_a_full_disk_on_the_server(ferry, larger_database, cluster, small_disk):
    tablespace, enlarge = small_disk
    with cluster.fresh_database() as database:
        with cluster.database("postgres").connect() as admin:
            admin.execute(f"ALTER DATABASE {database.name} SET TABLESPACE {tablespace}")
        run = ferry("copy", larger_database, database.dsn)
        assert run.code == 5, run
        assert "No space left on device" in run.err
        assert tables(database) == 0
        enlarge()
        assert ferry("copy", larger_database, database.dsn).code == 0


def test_interrupted_by_the_user(larger_database, database):
    process = start("copy", larger_database, database.dsn)
    wait_for_the_copy_to_begin(database)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "nothing was written" in err
    assert "Traceback" not in err
    wait_for_the_session_to_end(database)
    assert tables(database) == 0


def test_a_reader_that_leaves_does_not_stop_a_copy(larger_database, database):
    process = start("copy", larger_database, database.dsn)
    process.stdout.close()
    assert process.wait() == 0, process.stderr.read()
    assert tables(database) == 7
