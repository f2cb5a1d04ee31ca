"""The command line. What the commands do stands in :mod:`ferry.commands`."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ferry import __version__, evidence, page, snapshot
from ferry.commands import Journey
from ferry.errors import FerryError
from ferry.report import Report
from ferry.rules import read_rules
from ferry.screen import Screen, make_printable

if TYPE_CHECKING:
    from collections.abc import Callable

_EXIT_CODES = """
Exit codes: 0 done and proven · 2 usage · 3 refused: source or target not fit, nothing was written ·
4 the contents differ · 5 connection or server error, safe to run again · 1 a bug ·
130 interrupted (Ctrl-C), nothing was written
"""

app = typer.Typer(
    name="ferry",
    help="Move a SQLite database to PostgreSQL and back, with proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog=_EXIT_CODES,
)

SqliteFile = Annotated[
    str, typer.Argument(metavar="SQLITE", help="The SQLite file; it is only ever read.")
]
Dsn = Annotated[
    str,
    typer.Argument(
        metavar="DSN",
        help="PostgreSQL database as libpq takes it: a URI, key=value pairs, or an empty string "
        "for the environment (PGHOST, PGUSER, PGSSLMODE …). Never with a password: that comes "
        "from PGPASSWORD, PGPASSFILE or a service file.",
    ),
]
Namespace = Annotated[
    str, typer.Option("--schema", metavar="NAME", help="PostgreSQL schema that holds the tables.")
]
ReportFile = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write what was found as JSON.")
]


RulesFile = Annotated[
    Path | None,
    typer.Option(
        "--rules",
        metavar="RULES.toml",
        help="What to do about hazards and names; see ferry/README.md.",
    ),
]


def _run(
    command: str,
    report_file: Path | None,
    action: Callable[[Journey], str | None],
    rules_file: Path | None = None,
) -> None:
    """Run a command, report its end, and leave with its exit code."""
    screen = Screen()
    try:
        report = Report(command, report_file)
    except FerryError as error:
        screen.fail(error)
        raise typer.Exit(error.exit_code) from None
    try:
        rules = read_rules(rules_file) if rules_file is not None else None
        outcome = action(Journey(report, screen, rules))
    except FerryError as error:
        screen.fail(error)
        report.message(error.message, "error")
        if error.remedy:
            report.message(error.remedy, "info")
        report.finish(error.exit_code, error.word)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        screen.note("ferry: interrupted; nothing was written")
        report.finish(130, "interrupted")
        raise typer.Exit(130) from None
    except Exception as error:
        # Not foreseen, so a bug: the traceback goes into the report, not over the screen.
        screen.err.print(f"ferry: a bug: {type(error).__name__}: {error}", markup=False)
        if report_file is None or os.environ.get("FERRY_DEBUG"):
            traceback.print_exc()
        report.message("".join(traceback.format_exception(error)), "error")
        report.finish(1, "bug")
        raise typer.Exit(1) from None
    report.finish(0, outcome or "done")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command(epilog=_EXIT_CODES)
def inspect(
    sqlite: SqliteFile,
    dsn: Annotated[
        str | None,
        typer.Argument(
            metavar="[DSN]",
            help="A PostgreSQL database as for `copy`: it judges every expression, on temporary "
            "tables that are gone afterwards.",
        ),
    ] = None,
    rules: RulesFile = None,
    report: ReportFile = None,
) -> None:
    """Judge a SQLite file before a move: what each column becomes, and what is in the way.

    Reads everything once (integrity check, every value), writes nothing, needs no server (but with
    one it also names each view, CHECK, index, default and generated column that PostgreSQL itself
    does not take). Leaves with 3 if anything in the file cannot be carried as it is; each hazard is
    named with table, column, count, the first rows and values, and ways out. Where --rules names a
    file that does not exist yet, a draft of it is written: every hazard with the actions there are,
    to choose from.
    """
    if rules is not None and not rules.exists():
        _run("inspect", report, lambda journey: journey.inspect(sqlite, rules, dsn))
    else:
        _run("inspect", report, lambda journey: journey.inspect(sqlite, dsn=dsn), rules)


@app.command(name="schema", epilog=_EXIT_CODES)
def print_schema(
    sqlite: SqliteFile,
    rules: RulesFile = None,
    schema: Namespace = "public",
    report: ReportFile = None,
) -> None:
    """Print the PostgreSQL DDL that `copy` would run: tables, keys, indexes, foreign keys.

    What cannot be expressed in PostgreSQL stands at the end as comments: `-- not carried: …`.
    """
    _run("schema", report, lambda journey: journey.schema(sqlite, schema), rules)


@app.command(epilog=_EXIT_CODES)
def copy(
    sqlite: SqliteFile,
    dsn: Dsn,
    rules: RulesFile = None,
    schema: Namespace = "public",
    into_existing: Annotated[
        bool,
        typer.Option(
            "--into-existing",
            help="Fill the empty tables that the application has made by itself: columns are "
            "matched by name, differences of the schemas are listed, and what would lose data is "
            "refused.",
        ),
    ] = False,
    report: ReportFile = None,
) -> None:
    """Copy a SQLite database into an empty PostgreSQL schema and prove that both are equal.

    One transaction holds everything: tables, rows, keys, indexes, sequences, statistics, and the
    comparison of both sides. Either all of it is there afterwards or nothing.

    Refused (3): a damaged or locked file, values that would not arrive as they are, a target that
    already has tables. Values that would not arrive as they are need a choice in the rules file.
    A target that already holds exactly this database is left alone, and that
    is a success. If the connection breaks (5), run the same command again.
    """
    _run(
        "copy",
        report,
        lambda journey: journey.copy(sqlite, dsn, schema, into_existing=into_existing),
        rules,
    )


@app.command(epilog=_EXIT_CODES)
def verify(
    sqlite: SqliteFile,
    dsn: Dsn,
    rules: RulesFile = None,
    schema: Namespace = "public",
    report: ReportFile = None,
) -> None:
    """Compare the contents of a SQLite file and a PostgreSQL schema, value by value.

    Prints rows and checksums of both sides per table; where they differ (4), the rows and columns
    that do. Keys, unique constraints, foreign keys, NOT NULL and sequences are compared as well.
    Writes nothing on either side.
    """
    _run("verify", report, lambda journey: journey.verify(sqlite, dsn, schema), rules)


@app.command(epilog=_EXIT_CODES)
def sync(
    sqlite: SqliteFile,
    dsn: Dsn,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="SNAPSHOT",
            help="The file that the copy was made from: the changes are then found by joining two "
            "SQLite files, in a fraction of the time.",
        ),
    ] = None,
    rules: RulesFile = None,
    schema: Namespace = "public",
    check_later: Annotated[
        bool,
        typer.Option(
            "--check-later",
            help="Leave SQLite's integrity check of the file, which takes the longest, to the "
            "`ferry verify` that follows.",
        ),
    ] = False,
    sha256: Annotated[
        str,
        typer.Option(metavar="HEX", help="Refuse a file that has not this SHA-256."),
    ] = "",
    report: ReportFile = None,
) -> None:
    """After a copy: carry only the rows that were inserted, changed or deleted since.

    Copy a snapshot while the program still runs, stop it, then sync: the downtime is that of the
    changes alone. One transaction; afterwards PostgreSQL's checksum of every table is compared with
    the one that SQLite's side has. A target that is not what the base says is refused or found by
    the checksums. The schema must be the same as at the copy, and so must be the rules.
    """
    _run(
        "sync",
        report,
        lambda journey: journey.sync(
            sqlite, dsn, schema, base, check=not check_later, sha256=sha256
        ),
        rules,
    )


@app.command(epilog=_EXIT_CODES)
def reverse(
    dsn: Dsn,
    sqlite: Annotated[str, typer.Argument(metavar="SQLITE", help="New file; must not exist.")],
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="REPORT",
            help="Report of the `copy` or `verify` of the cutover: the schema, and the rows there "
            "were, to tell which are new, changed or gone since.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="SNAPSHOT",
            help="The file that was moved: only what was written since then is changed in a copy "
            "of it, where PostgreSQL's row versions tell. It is only read.",
        ),
    ] = None,
    schema: Namespace = "public",
    report: ReportFile = None,
) -> None:
    """Write PostgreSQL's present contents into a new SQLite file, and prove that they are equal.

    The file has the original's schema (its own DDL), booleans as 0/1 and times in the format that
    each column had, so that the old program runs on it; and what there was beside rows, or it is
    named. Without a baseline the schema comes from
    the comments that `copy` left on the tables. The file appears complete and proven, or not at
    all; PostgreSQL is only read.
    """
    _run("reverse", report, lambda journey: journey.reverse(dsn, sqlite, schema, baseline, base))


@app.command(name="audit-sql", epilog=_EXIT_CODES)
def audit_sql(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH… DSN",
            help="Python and SQL files or directories, then the DSN as for the other commands "
            '("" for the environment).',
        ),
    ],
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="PATTERN",
            help="Leave out files that fit (`*sqlite*.sql`); may be repeated.",
        ),
    ] = None,
    report: ReportFile = None,
) -> None:
    """Find a program's SQL and let PostgreSQL judge every statement, without running any.

    Reads Python sources (also f-strings and concatenations, with holes where values are put in) and
    .sql files, turns `?` and `:name` into parameters and has each statement prepared on the target
    in a transaction that only reads. Lists file, line, PostgreSQL's message and, for SQLite's
    idioms, what to write instead. Statements that cannot be judged are listed as such. A statement
    that is meant for SQLite alone is counted, not judged, if a comment beside it or above it says
    `ferry: sqlite`. Leaves with 3 if any statement fails.
    """
    if len(words) < 2:
        raise typer.BadParameter("name at least one PATH, and the DSN last")
    _run(
        "audit-sql", report, lambda journey: journey.audit_sql(words[:-1], words[-1], exclude or ())
    )


@app.command(name="snapshot", epilog=_EXIT_CODES)
def take_snapshot(
    sqlite: SqliteFile,
    out: Annotated[str, typer.Argument(metavar="OUT", help="New file; must not exist.")],
) -> None:
    """Take a consistent copy of a SQLite file that may be in use, and check it.

    Uses SQLite's backup API in one step. In WAL mode the program that writes is not disturbed; in
    rollback mode it waits for as long as the copying takes (a second for some hundred megabytes).
    Prints one line of JSON: size, sha256, pages, seconds.
    """
    try:
        result = snapshot.take(sqlite, out)
    except snapshot.SnapshotError as error:
        print(f"ferry: refused: {error}", file=sys.stderr)
        raise typer.Exit(3) from None
    for warning in result["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(json.dumps(result))


@app.command(name="report", epilog=_EXIT_CODES)
def render_report(
    reports: Annotated[
        list[Path],
        typer.Argument(
            metavar="REPORT.json…",
            help="Reports of other commands, and at most one evidence of the playbooks "
            "(migration.json).",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="PAGE.html", help="Written anew.")],
) -> None:
    """Show reports as one HTML page that needs nothing beside it, in light and dark.

    With the evidence of a rehearsal, a move or a way back among them it is the page of that
    evening: how it ended, when, what moved, warnings, how to go back; the reports come last.
    """
    try:
        documents = [json.loads(path.read_text()) for path in reports]
        told = any(map(evidence.is_evidence, documents))
        html = evidence.render(documents) if told else page.render(documents)
        out.write_text(html)
    except OSError as error:
        print(f"ferry: usage: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"ferry: usage: this is no report of ferry: {error!r}", file=sys.stderr)
        raise typer.Exit(2) from None


def main() -> None:
    """Entry point of the command."""
    make_printable()
    app(prog_name="ferry")
