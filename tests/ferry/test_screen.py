"""What is printed arrives on every terminal; a report has a place before anything is done."""

import os
import subprocess
import sys


def test_a_terminal_that_knows_ascii_only_gets_everything(make_sqlite, tmp_path):
    path = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, grüße INTEGER); INSERT INTO t VALUES (1, '→ x')"
    )
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\ntable = "*"\ncolumn = "*"\nhazard = "text-in-number"\naction = "text"\n'
    )
    for words in (["inspect", path, "--rules", rules], ["inspect", path], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "ferry", *map(str, words)],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        )
        assert done.returncode in (0, 3), done.stderr
        assert b"Traceback" not in done.stderr
        (done.stdout + done.stderr).decode("ascii")
        if words[-1] == rules:
            assert b"text-in-number -> text" in done.stdout
            assert b"gr\\xfc\\xdfe" in done.stdout


def test_a_directory_is_no_report(ferry, make_sqlite, tmp_path):
    path = make_sqlite("CREATE TABLE t (a)")
    run = ferry("inspect", path, "--report", tmp_path)
    assert run.code == 2
    assert f"{tmp_path} is a directory" in run.err
    assert "column" not in run.out
