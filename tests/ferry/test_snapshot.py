"""snapshot.py: consistent copies of files in every state, and the source untouched."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.sqlite_states import DAMAGES, STATES, spoil

from ferry import snapshot

PROGRAM = Path(__file__).parents[2] / "ferry/src/ferry/snapshot.py"


def rows_of(path):
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT count(*), count(DISTINCT b), max(b) FROM t").fetchone()
    connection.close()
    return rows


@pytest.mark.parametrize(("mode", "end", "companions", "removed"), STATES)
def test_every_state_gives_what_was_committed(
    make_state, tmp_path, contents_of, mode, end, companions, removed
):
    path = make_state(mode, end)
    for suffix in removed:
        Path(f"{path}{suffix}").unlink()
    assert sorted(contents_of(path.parent)) == sorted(
        ["bot.db", *(f"bot.db{s}" for s in companions)]
    )
    before = contents_of(path.parent)
    out = tmp_path / "out.db"

    result = snapshot.take(str(path), str(out))

    assert rows_of(out) == (1000, 1, "committed")
    after = contents_of(path.parent)
    # The -shm is an index that every reader of a live WAL file takes its locks in; it is no data.
    before.pop("bot.db-shm", None)
    after.pop("bot.db-shm", None)
    assert after == before
    assert result["integrity"] == "ok"
    assert result["size"] == out.stat().st_size == result["pages"] * result["page_size"]
    assert result["sha256"] == snapshot.sha256(str(out))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.db", "source"], "nothing left over"


def test_a_writer_in_wal_mode_goes_on_and_the_copy_is_of_one_moment(make_state, tmp_path):
    path = make_state("WAL", "close")
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("UPDATE t SET b = 'second'")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE t SET b = 'not yet'")
    out = tmp_path / "out.db"
    snapshot.take(str(path), str(out))
    writer.execute("COMMIT")
    assert rows_of(out) == (1000, 1, "second")
    assert rows_of(path) == (1000, 1, "not yet")


def test_a_file_in_wal_mode_without_its_wal_is_warned_about(make_state, tmp_path):
    path = make_state("WAL", "close")
    result = snapshot.take(str(path), str(tmp_path / "out.db"))
    assert len(result["warnings"]) == 1
    assert "no -wal" in result["warnings"][0]


def test_a_read_only_directory_is_no_obstacle(make_state, tmp_path):
    path = make_state("WAL", "close")
    path.parent.chmod(0o555)
    path.chmod(0o444)
    snapshot.take(str(path), str(tmp_path / "out.db"))
    path.parent.chmod(0o755)
    assert rows_of(tmp_path / "out.db")[0] == 1000


def test_a_locked_file_is_refused_after_a_wait(make_state, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "LOCK_TIMEOUT", 0.2)
    path = make_state("DELETE", "close")
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(snapshot.SnapshotError, match="locked by another program"):
        snapshot.take(str(path), str(tmp_path / "out.db"))
    writer.close()
    assert not (tmp_path / "out.db").exists()


@pytest.mark.parametrize(("kind", "message"), DAMAGES.items())
def test_what_is_no_whole_database_is_refused_with_a_way_out(make_state, tmp_path, kind, message):
    path = make_state("DELETE", "close")
    spoil(path, kind)
    with pytest.raises(snapshot.SnapshotError, match=message) as caught:
        snapshot.take(str(path), str(tmp_path / "out.db"))
    if kind in ("truncated", "page", "index"):
        assert ".recover" in str(caught.value)
    assert not (tmp_path / "out.db").exists()


def test_oddly_typed_values_are_no_damage(tmp_path):
    path = tmp_path / "odd.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(
        "CREATE TABLE t (a INTEGER CHECK (a < 3), b TEXT);"
        "PRAGMA ignore_check_constraints = ON;"
        "INSERT INTO t SELECT 'word', value FROM json_each('[1,2,3]'); INSERT INTO t VALUES (9, 1)"
    )
    connection.close()
    assert snapshot.take(str(path), str(tmp_path / "out.db"))["integrity"] == "ok"


def run_alone(*arguments, cwd):
    # -I: no PYTHONPATH and no site, so nothing but the standard library is there.
    return subprocess.run(
        [sys.executable, "-I", cwd / "snapshot.py", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={"PATH": "/usr/bin"},
    )


def test_runs_alone_as_a_single_file(make_state, tmp_path):
    (tmp_path / "snapshot.py").write_bytes(PROGRAM.read_bytes())
    path = make_state("DELETE", "close")
    done = run_alone(path, "out.db", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    assert {"size", "sha256", "pages", "seconds"} <= set(result)
    assert done.stderr == ""

    again = run_alone(path, "out.db", cwd=tmp_path)
    assert again.returncode == 3
    assert "exists already" in again.stderr
    assert again.stdout == ""

    missing = run_alone("nowhere.db", "new.db", cwd=tmp_path)
    assert missing.returncode == 3
    assert "does not exist" in missing.stderr
    assert not (tmp_path / "nowhere.db").exists(), "SQLite would have created it"
    assert run_alone("--help", cwd=tmp_path).returncode == 2


def test_runs_also_where_it_lies(make_state, tmp_path):
    path = make_state("DELETE", "close")
    done = subprocess.run(
        [sys.executable, PROGRAM, path, tmp_path / "out.db"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_is_written_for_python_3_8():
    import ast

    ast.parse(PROGRAM.read_text(), feature_version=(3, 8))


def test_the_command_prints_the_same_line(ferry, bot_database, tmp_path):
    run = ferry("snapshot", bot_database, tmp_path / "out.db")
    assert run.code == 0
    assert json.loads(run.out)["sha256"] == snapshot.sha256(str(tmp_path / "out.db"))
    assert ferry("snapshot", bot_database, tmp_path / "out.db").code == 3
