"""Fixtures of ferry's tests: SQLite files on demand, and the command as a user runs it."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ferry.cli import app
from support import sqlite_states
from support.postgres import Cluster, chosen_versions
from typer import testing
from typer.testing import CliRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from support import sqlite_states
from support.postgres import Database

FERRY = Path(__file__).parents[2] / "ferry"

# What depends on the server's version runs on every major that is installed: its catalogues, types,
# messages. Hazards and rules are SQLite's side; faults and Hypothesis cost most of the time.
ON_EVERY_MAJOR = ("audit", "copy", "existing", "names", "proof", "reverse", "schema", "sync")
# Nor does what is there for its size.
ON_ONE_MAJOR = (
    "test_three_hundred_statements_take_seconds",
    "test_two_hundred_small_tables_take_seconds",
    "test_wide_values_and_wide_tables",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the server's versions for each test that needs one."""
    if "postgres_cluster" in metafunc.fixturenames:
        majors = chosen_versions()
        module = metafunc.module.__name__.rpartition("test_")[2]
        if module not in ON_EVERY_MAJOR or metafunc.function.__name__ in ON_ONE_MAJOR:
            majors = majors[:1]
        metafunc.parametrize("postgres_cluster", majors, ids="pg{}".format, indirect=True)


@pytest.fixture(scope="session")
def postgres_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running PostgreSQL server of the tests' own, of one of the versions installed."""
    with Cluster.of_major(request.param) as cluster:
        yield cluster


class Outcome:
    """What a run of ferry left behind."""

    def __init__(self, result: Any, report: Path | None) -> None:
        self.code: int = result.exit_code
        self.out: str = result.stdout
        self.err: str = result.stderr
        self.text: str = result.output
        self.report: dict[str, Any] = (
            json.loads(report.read_text()) if report is not None and report.exists() else {}
        )

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.text}"


@pytest.fixture(scope="session", autouse=True)
def _build_the_command_once() -> Iterator[None]:
    """Typer's runner builds the command line anew for each run; that takes half of a short one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(testing, "_get_command", functools.cache(testing._get_command))
        yield


@pytest.fixture
def ferry(tmp_path: Path) -> Callable[..., Outcome]:
    """Run ``ferry ARGUMENTS`` with a report; returns the Outcome."""
    number = 0

    def run(*arguments: str | Path) -> Outcome:
        nonlocal number
        number += 1
        words = [str(argument) for argument in arguments]
        report = None
        if words[0] not in ("snapshot", "report") and "--report" not in words:
            report = tmp_path / f"report-{number}.json"
            words += ["--report", str(report)]
        result = CliRunner().invoke(app, words, terminal_width=200)
        return Outcome(result, report)

    return run


@pytest.fixture
def make_sqlite(tmp_path: Path) -> Callable[..., Path]:
    """Make a SQLite file from a script; ``rows`` are (statement, parameters) to run after it."""

    def make(script: str, *rows: tuple[str, tuple[Any, ...]], name: str = "source.db") -> Path:
        path = tmp_path / name
        connection = sqlite3.connect(path, isolation_level=None)
        connection.executescript(script)
        for statement, parameters in rows:
            connection.execute(statement, parameters)
        connection.close()
        return path

    return make


@pytest.fixture(scope="session")
def bench() -> ModuleType:
    """The generator of databases in the bot's shape (ferry/bench/generate.py)."""
    spec = importlib.util.spec_from_file_location("ferry_bench", FERRY / "bench/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bot_database(bench: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small database in the bot's shape; do not change it."""
    path = tmp_path_factory.mktemp("bot") / "bot.db"
    bench.generate(path, weapons=2000)
    return path


@pytest.fixture(scope="session")
def copied_bot(
    postgres_cluster: Cluster, bot_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The bot's database, copied once: a database to make others from, and the report."""
    report = tmp_path_factory.mktemp("copied") / "cutover.json"
    with postgres_cluster.fresh_database("copied") as database:
        words = ["copy", str(bot_database), database.dsn, "--report", str(report)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        yield database.name, report


@pytest.fixture
def copied(postgres_cluster: Cluster, copied_bot: tuple[str, Path]) -> Iterator[Database]:
    """A database of the test's own that holds the bot's data, just copied."""
    with postgres_cluster.fresh_database(template=copied_bot[0]) as database:
        yield database


@pytest.fixture
def cutover(copied_bot: tuple[str, Path], tmp_path: Path) -> Path:
    """The report of the copy that ``copied`` was made by."""
    report = tmp_path / "cutover.json"
    report.write_bytes(copied_bot[1].read_bytes())
    return report


@pytest.fixture
def own_bot_database(bot_database: Path, tmp_path: Path) -> Path:
    """A copy of the bot's database that a test may change."""
    copy = tmp_path / "bot.db"
    copy.write_bytes(bot_database.read_bytes())
    return copy


@pytest.fixture
def make_state(tmp_path: Path) -> Callable[[str, str], Path]:
    """Leave a database of 1,000 rows in a directory of its own, in one of the known states."""

    def make(mode: str, end: str) -> Path:
        directory = tmp_path / "source"
        directory.mkdir()
        return sqlite_states.make(directory / "bot.db", mode, end)

    return make


@pytest.fixture
def contents_of() -> Callable[[Path], dict[str, str]]:
    """Return the hashes of all files in a directory."""

    def read(directory: Path) -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in directory.iterdir()
            if path.is_file()
        }

    return read
