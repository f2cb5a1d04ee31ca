"""The source in every state, through the commands: read whole and left as it is, or refused."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.sqlite_states import DAMAGES, STATES, spoil

from ferry import load, snapshot

SOURCES = Path(__file__).parents[2] / "ferry/src"


@pytest.fixture
def data(contents_of):
    """Return the hashes of a directory's files, but not of an index that holds no data."""

    def read(directory):
        return {n: h for n, h in contents_of(directory).items() if not n.endswith("-shm")}

    return read


def ask(database, statement):
    with database.connect() as connection:
        return connection.execute(statement).fetchall()


@pytest.mark.parametrize(("mode", "end", "companions", "removed"), STATES)
def test_every_state_is_read_whole_and_left_as_it_is(
    ferry, make_state, database, data, mode, end, companions, removed
):
    path = make_state(mode, end)
    for suffix in removed:
        Path(f"{path}{suffix}").unlink()
    before = data(path.parent)
    assert set(before) == {f"bot.db{s}" for s in ("", *companions) if s != "-shm"}
    rules = path.parent.parent / "rules.toml"
    rules.write_text("[[rename]]\ntable = 't'\nto = 'rows'\n")
    for arguments in (
        ("inspect", path),
        ("schema", path),
        ("copy", path, database.dsn),
        ("verify", path, database.dsn),
        ("sync", path, database.dsn),
        ("sync", path, database.dsn, "--base", path),
        ("copy", path, database.dsn, "--rules", rules, "--schema", "ruled"),
    ):
        run = ferry(*arguments)
        assert run.code == 0, run
        assert data(path.parent) == before
    assert ask(database, "SELECT count(*), min(b), max(b) FROM t") == [
        (1000, "committed", "committed")
    ]


def test_a_link_leads_to_what_lies_beside_the_file(ferry, make_state, database, data, tmp_path):
    path = make_state("WAL", "exit")
    Path(f"{path}-shm").unlink()
    before = data(path.parent)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    assert ferry("snapshot", link, tmp_path / "copy.db").code == 0
    assert ferry("copy", link, database.dsn).code == 0
    assert ask(database, "SELECT count(*), max(b) FROM t") == [(1000, "committed")]
    assert ferry("sync", link, database.dsn, "--base", link).report["outcome"] == "nothing to do"
    assert ferry("verify", tmp_path / "copy.db", database.dsn).code == 0
    assert data(path.parent) == before


@pytest.mark.parametrize("name", ["my db?mode=rw#x%20.db", "ü\"q'o.db", "a;b&c=d.db"])
def test_names_of_files_mean_nothing_but_themselves(
    ferry, make_sqlite, database, contents_of, tmp_path, name
):
    path = make_sqlite("CREATE TABLE t (a); INSERT INTO t VALUES (1)", name=name)
    before = contents_of(tmp_path)
    assert ferry("copy", path, database.dsn).code == 0
    assert ferry("sync", path, database.dsn, "--base", path).code == 0
    assert before.items() <= contents_of(tmp_path).items()
    assert {file.name for file in tmp_path.iterdir() if "report" not in file.name} == {name}


def test_what_is_no_file_is_refused(ferry, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, message in ((tmp_path / "pipe", "no regular file"), (tmp_path, "is a directory")):
        run = ferry("inspect", place)
        assert run.code == 3, run
        assert message in run.err


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None,
    reason="root may write everywhere, and setpriv is not here to take that away",
)
@pytest.mark.parametrize(("mode", "end", "companions", "removed"), STATES[1:5])
def test_a_directory_that_cannot_be_written(
    make_state, database, contents_of, mode, end, companions, removed
):
    path = make_state(mode, end)
    for suffix in removed:
        Path(f"{path}{suffix}").unlink()
    assert len(contents_of(path.parent)) == 1 + len(companions)
    for file in path.parent.iterdir():
        file.chmod(0o444)
    path.parent.chmod(0o555)
    before = contents_of(path.parent)
    # Root passes by the permissions, unless the capability to do so is taken away.
    without = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    run = subprocess.run(
        [*(without if os.geteuid() == 0 else []), sys.executable, "-m", "ferry", "copy", path,
         database.dsn],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    path.parent.chmod(0o755)
    assert run.returncode == 0, run.stderr
    assert contents_of(path.parent) == before
    assert ask(database, "SELECT count(*), max(b) FROM t") == [(1000, "committed")]


@pytest.mark.parametrize(("kind", "message"), DAMAGES.items())
def test_what_is_damaged_is_refused_by_every_command(
    ferry, make_state, database, contents_of, tmp_path, kind, message
):
    path = make_state("DELETE", "close")
    whole = tmp_path / "whole.db"
    whole.write_bytes(path.read_bytes())
    spoil(path, kind)
    before = contents_of(path.parent)
    for arguments in (
        ("inspect", path),
        ("schema", path),
        ("copy", path, database.dsn),
        ("verify", path, database.dsn),
    ):
        run = ferry(*arguments)
        assert run.code == 3, run
        assert message in run.err, run
        assert contents_of(path.parent) == before
    assert ask(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    assert ferry("copy", whole, database.dsn).code == 0
    newer = tmp_path / "newer.db"
    newer.write_bytes(whole.read_bytes())
    with contextlib.closing(sqlite3.connect(newer)) as connection, connection:
        connection.execute("DELETE FROM t WHERE a = 1")
    for arguments in (
        ("verify", path, database.dsn),
        ("sync", path, database.dsn),
        ("sync", newer, database.dsn, "--base", path),
    ):
        run = ferry(*arguments)
        assert run.code == 3, run
        assert contents_of(path.parent) == before
    assert ferry("verify", whole, database.dsn).code == 0


@pytest.fixture
def other_program():
    """A program that has a SQLite file open: yields ``(path) -> run(SQL)``.

    A process of its own: within one, SQLite's locks do not hold.
    """
    program = (
        "import sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    connection.execute(line)\n"
        "    print('done', flush=True)\n"
    )
    processes = []

    def begin(path):
        process = subprocess.Popen(
            [sys.executable, "-c", program, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"

        def run(statement):
            process.stdin.write(statement + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        return run

    yield begin
    for process in processes:
        process.communicate()


def test_a_locked_file_is_refused_after_a_wait(
    ferry, make_state, database, other_program, monkeypatch
):
    monkeypatch.setattr(snapshot, "LOCK_TIMEOUT", 0.2)
    path = make_state("DELETE", "close")
    run_sql = other_program(path)
    run_sql("BEGIN EXCLUSIVE")
    for arguments in (("inspect", path), ("copy", path, database.dsn)):
        run = ferry(*arguments)
        assert run.code == 3, run
        assert "locked by another program" in run.err
    run_sql("ROLLBACK")
    assert ferry("copy", path, database.dsn).code == 0


def test_a_program_that_goes_on_writing_in_wal_mode(
    ferry, make_state, database, other_program, monkeypatch
):
    path = make_state("WAL", "exit")
    run_sql = other_program(path)
    run_sql("UPDATE t SET b = 'committed' WHERE a = 1")
    original = load.create_collations

    def create_collations(*arguments):
        run_sql("INSERT INTO t VALUES (5000, 'meanwhile')")
        run_sql("DELETE FROM t WHERE a < 10")
        return original(*arguments)

    monkeypatch.setattr(load, "create_collations", create_collations)
    run = ferry("copy", path, database.dsn)
    assert run.code == 0, run
    assert ask(database, "SELECT count(*), max(b) FROM t") == [(1000, "committed")]
    assert ferry("verify", path, database.dsn).code == 4
    assert ferry("sync", path, database.dsn).code == 0
    assert ask(database, "SELECT count(*), max(b) FROM t") == [(991, "meanwhile")]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_text_that_is_none_in_every_encoding(ferry, make_sqlite, database, encoding):
    broken = {"UTF-8": "41ff42", "UTF-16le": "410000d84200", "UTF-16be": "0041d8000042"}[encoding]
    path = make_sqlite(
        f"PRAGMA encoding = '{encoding}'; CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b BLOB);"
        f"INSERT INTO t VALUES (1, CAST(x'{broken}' AS TEXT), NULL), (2, 'a' || char(0), x'00'),"
        "(3, 'ž😀', x'ff')"
    )
    run = ferry("copy", path, database.dsn)
    assert run.code == 3, run
    assert {(h["code"], h["count"]) for h in run.report["hazards"]} == {
        ("invalid-utf-8", 1), ("nul-in-text", 1)}  # fmt: skip


def test_values_of_ten_megabytes_on_every_way(ferry, make_sqlite, database, tmp_path):
    script = "CREATE TABLE big (id INTEGER PRIMARY KEY, a TEXT, b BLOB)"
    rows = [
        ("INSERT INTO big VALUES (1, ?, ?)", ("ä\n" * 1_000_000, os.urandom(10_000_000))),
        ("INSERT INTO big VALUES (2, '', x'')", ()),
    ]
    path = make_sqlite(script, *rows)
    assert ferry("copy", path, database.dsn).code == 0
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE big SET a = a || 'ende' WHERE id = 1")
    connection.close()
    assert ferry("verify", path, database.dsn).code == 4
    run = ferry("sync", path, database.dsn)
    assert run.code == 0, run
    assert ferry("verify", path, database.dsn).code == 0
    assert ferry("reverse", database.dsn, tmp_path / "back.db").code == 0
    back = sqlite3.connect(tmp_path / "back.db").execute("SELECT * FROM big").fetchall()
    assert back == sqlite3.connect(path).execute("SELECT * FROM big").fetchall()
