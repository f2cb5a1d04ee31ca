"""kill -9, a stopped server: the target is as it was, and the same command then completes."""

import os
import signal
import subprocess
import sys
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


def test_killed_at_any_moment_it_leaves_all_or_nothing(larger_database, database, contents_of):
    before = contents_of(larger_database.parent)
    started = time.monotonic()
    process = start("copy", larger_database, database.dsn, "--schema", "measure")
    assert process.wait() == 0, process.stderr.read()
    whole = time.monotonic() - started
    for tenth in (3, 5, 7, 8, 9):
        process = start("copy", larger_database, database.dsn)
        time.sleep(whole * tenth / 10)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_for_the_session_to_end(database)
        if tables(database):
            break  # it was quick enough to finish; the next check is that it is complete
    assert contents_of(larger_database.parent) == before
    process = start("copy", larger_database, database.dsn)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert tables(database) == 7
    process = start("verify", larger_database, database.dsn)
    assert process.wait() == 0, process.stderr.read()


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


def test_a_full_disk_on_the_server(larger_database, database):
    # The nearest to a full disk that needs no file system of its own: no room for the tables.
    with database.connect() as connection:
        connection.execute(f"ALTER DATABASE {database.name} SET temp_file_limit = '64kB'")
        connection.execute(f"ALTER DATABASE {database.name} SET maintenance_work_mem = '1MB'")
    process = start("copy", larger_database, database.dsn)
    _, err = process.communicate()
    assert process.returncode == 5, err
    assert "temp_file_limit" in err
    assert tables(database) == 0


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
