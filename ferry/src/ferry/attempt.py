"""Try in PostgreSQL what was translated: one expression that fails stops nothing but itself.

Statements run in savepoints, whatever class of error PostgreSQL raises. A generated column and a
CHECK are carried only if they answer on the real rows as they do in SQLite.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import date, datetime
from datetime import time as clock
from typing import TYPE_CHECKING, Any

import apsw
import psycopg
from psycopg import errors
from sqlglot.tokens import TokenType

from ferry import proof, server
from ferry.errors import RefusedError
from ferry.schema import NotCarried, quote_name, tokens_of
from ferry.types import TRUE_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ferry.ddl import Plan, Step
    from ferry.schema import Program, Schema, Table

_MAX_ROWS = 50_000  # of a view that are compared
_SECONDS = 20  # that a view may take on each side
# PostgreSQL's types, by their numbers.
_BOOL = 16
_MOMENTS = {1114: datetime.fromisoformat, 1082: date.fromisoformat, 1083: clock.fromisoformat}
_FRACTIONS = (700, 701, 1700)


class _UndoError(Exception):
    """Leave a savepoint without keeping what was done in it."""

    def __init__(self, columns: Sequence[str] = ()) -> None:
        super().__init__()
        self.columns = columns


def is_of_the_statement(error: psycopg.Error) -> bool:
    """Tell an error of the statement from one of the connection, the server or our rights."""
    if isinstance(error, errors.InsufficientPrivilege):
        return False
    return isinstance(error, errors.ProgramLimitExceeded) or not isinstance(
        error, (psycopg.OperationalError, psycopg.InterfaceError)
    )


def reason_of(error: psycopg.Error) -> str:
    """Return PostgreSQL's own words, short."""
    return f"PostgreSQL: {error.diag.message_primary or str(error).splitlines()[0]}"


def run_step(target: psycopg.Connection, step: Step) -> NotCarried | None:
    """Run one step after the load; return what was not carried, if PostgreSQL cannot express it.

    Raises RefusedError where the contents break a key.
    """
    failure = None
    for statement in filter(None, (step.sql, *step.otherwise)):
        try:
            with target.transaction():
                target.execute(statement)
        except psycopg.Error as error:
            if not is_of_the_statement(error):
                raise
            failure = failure or error
        else:
            return None
    broken = errors.UniqueViolation if step.strict else errors.ForeignKeyViolation
    if step.optional and not isinstance(failure, (broken, errors.ForeignKeyViolation)):
        reason = reason_of(failure)
        if isinstance(failure, errors.CheckViolation):
            reason = "PostgreSQL judges rows otherwise than SQLite does"
        return NotCarried(step.what, step.name, reason, step.origin)
    detail = f" ({failure.diag.message_detail})" if failure.diag.message_detail else ""
    if isinstance(failure, psycopg.IntegrityError):
        raise RefusedError(
            f"the contents break the {step.what} of {step.name}: {failure.diag.message_primary}"
            f"{detail}",
            "nothing was written; correct these rows in SQLite and run again",
        ) from failure
    raise RefusedError(
        f"the {step.what} of {step.name} cannot be created: {failure.diag.message_primary}{detail}",
        "nothing was written; drop it, or shorten the values, on a copy of the file"
        if isinstance(failure, errors.ProgramLimitExceeded)
        else f"the statement was: {step.sql}",
    ) from failure


def create_table(
    target: psycopg.Connection, plan: Plan, name: str
) -> tuple[list[str], list[NotCarried]]:
    """Create a table, empty, with those of its generated columns that PostgreSQL takes.

    Returns these, and what it does not take.
    """
    computed = list(plan.computed.get(name, {}))
    lost = []
    for column in list(computed):
        error = _attempt(target, plan.create(name, [column]))
        if error is not None:
            computed.remove(column)
            lost.append(_no_longer_computed(plan, name, column, reason_of(error)))
    statement = plan.create(name, computed)
    try:
        target.execute(statement)
    except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
        if not is_of_the_statement(error):
            raise
        raise RefusedError(
            f"PostgreSQL does not take the table {name}: {error.diag.message_primary}",
            f"the statement was:\n{statement}",
        ) from error
    return computed, lost


def _attempt(
    target: psycopg.Connection, statement: str, then: Callable[[], None] = lambda: None
) -> psycopg.Error | None:
    """Run a statement and what follows, and undo it; return PostgreSQL's error if there is one."""
    try:
        with target.transaction():
            target.execute(statement)
            then()
            raise _UndoError
    except _UndoError:
        return None
    except psycopg.Error as error:
        if not is_of_the_statement(error):
            raise
        return error


def _no_longer_computed(plan: Plan, table: str, column: str, reason: str) -> NotCarried:
    return NotCarried(
        "generated column",
        f"{table}.{column}",
        f"it arrives with its values, but no longer computes them: {reason}",
        plan.computed[table][column],
    )


def load_computed(
    source: apsw.Connection,
    target: psycopg.Connection,
    table: Table,
    plan: Plan,
    namespace: str,
    fill: Callable[[Sequence[str]], None],
) -> list[NotCarried]:
    """Create and fill a table with generated columns that PostgreSQL computes as SQLite does.

    ``fill`` loads the columns it is told. Returns what is not computed any more.
    """
    name = table.name
    with target.transaction():
        computed, lost = create_table(target, plan, name)
        target.execute(f"DROP TABLE {quote_name(namespace)}.{quote_name(name)}")

    def plain_columns(generated: Sequence[str]) -> list[str]:
        return [column.name for column in table.columns if column.name not in generated]

    while True:
        try:
            with target.transaction():
                target.execute(plan.create(name, computed))
                fill(plain_columns(computed))
                differing = _differing(source, target, table, namespace, computed)
                if differing:
                    raise _UndoError(differing)
            return lost
        except _UndoError as undone:
            reasons = dict.fromkeys(
                undone.columns, "PostgreSQL computes other values than SQLite has"
            )
        except psycopg.Error as error:
            if not computed or not is_of_the_statement(error):
                raise
            reasons = {}
            for column in computed:
                found = _attempt(
                    target,
                    plan.create(name, [column]),
                    lambda column=column: fill(plain_columns([column])),
                )
                if found is not None:
                    reasons[column] = reason_of(found)
            if not reasons:
                raise
        lost += [_no_longer_computed(plan, name, *item) for item in reasons.items()]
        computed = [column for column in computed if column not in reasons]


def _differing(
    source: apsw.Connection,
    target: psycopg.Connection,
    table: Table,
    namespace: str,
    columns: Sequence[str],
) -> list[str]:
    """Return the columns that do not hold the same on both sides."""
    present = proof.columns_of(target, namespace)[table.name]
    found = []
    for column in columns:
        sides = proof.TableSides(table, {column: present[column][0]}, namespace)
        if sides.sqlite_total(source) != proof.postgres_total(target, sides):
            found.append(column)
    return found


def try_out(target: psycopg.Connection, plan: Plan) -> list[NotCarried]:
    """Run a whole plan on empty tables; return what PostgreSQL does not take of it.

    The caller's transaction has to be rolled back.
    """
    lost = []
    for statement in plan.collations:
        target.execute(statement)
    for name in plan.tables:
        lost += create_table(target, plan, name)[1]
    for step in plan.steps:
        item = run_step(target, step)
        if item is not None:
            lost.append(item)
    return lost


class _TooLongError(Exception):
    """A view takes longer, or has more rows, than a comparison is worth."""


def differing_views(
    source: apsw.Connection,
    target: psycopg.Connection,
    schema: Schema,
    carried: Sequence[str],
    namespace: str,
) -> tuple[list[NotCarried], list[str]]:
    """Let both sides answer each view that was carried; drop those that answer otherwise.

    Returns what was dropped, and sentences about what could not be compared. SQLite's views stand
    before the file's own, so that they read what the rules make of the tables.
    """
    lost: list[NotCarried] = []
    notes: list[str] = []
    gone: set[str] = set()
    for program in schema.programs:
        if program.kind != "view":
            continue
        try:
            source.execute(_temporary(program))
        except apsw.Error:
            continue  # broken in SQLite too, or it speaks of names that rules have changed
        if program.name not in carried or program.name in gone:
            continue
        try:
            reason = _differs(source, target, program, namespace)
        except _TooLongError as error:
            notes.append(f"view {program.name}: not compared: {error}")
            continue
        if reason is None:
            continue
        present = server.relations(target, namespace)
        target.execute(f"DROP VIEW {quote_name(namespace)}.{quote_name(program.name)} CASCADE")
        fell = present.keys() - server.relations(target, namespace).keys() - {program.name}
        lost.append(NotCarried("view", program.name, reason, program.sql))
        lost += [NotCarried("view", name, f"it reads the view {program.name}") for name in fell]
        gone |= {program.name, *fell}
    return lost, notes


def _temporary(program: Program) -> str:
    """Return the statement that makes a view of SQLite's anew, on our own connection alone."""
    tokens = tokens_of(program.sql)
    place = next(n for n, token in enumerate(tokens) if token.text.upper() == "VIEW") + 1
    if tokens[place].text.upper() == "IF":  # IF NOT EXISTS
        place += 3
    if tokens[place + 1].token_type == TokenType.DOT:
        place += 2
    rest = program.sql[tokens[place].end + 1 :]
    return f"CREATE TEMP VIEW {quote_name(program.original)} {rest}"


def _differs(
    source: apsw.Connection, target: psycopg.Connection, program: Program, namespace: str
) -> str | None:
    """Return why a view does not answer as in SQLite, None if it does."""
    there = f"{quote_name(namespace)}.{quote_name(program.name)}"
    here = f"temp.{quote_name(program.original)}"
    try:
        mine = _within(source, f"SELECT * FROM {here} LIMIT {_MAX_ROWS + 1}")
    except apsw.SQLError as error:
        raise _TooLongError(f"SQLite: {error}") from error
    try:
        with target.transaction():
            target.execute(f"SET LOCAL statement_timeout = {_SECONDS * 1000}")
            cursor = target.execute(f"SELECT * FROM {there} LIMIT {_MAX_ROWS + 1}")
            theirs = cursor.fetchall()
            types = [column.type_code for column in cursor.description or ()]
            target.execute("SET LOCAL statement_timeout = 0")
    except errors.QueryCanceled as error:
        raise _TooLongError(f"PostgreSQL takes longer than {_SECONDS} s") from error
    except psycopg.Error as error:
        if not is_of_the_statement(error):
            raise
        return reason_of(error)
    if len(mine) > _MAX_ROWS and len(theirs) > _MAX_ROWS:
        raise _TooLongError(f"it has more than {_MAX_ROWS} rows")
    left = Counter(tuple(map(_comparable, row, types)) for row in mine)
    right = Counter(tuple(map(_comparable, row, types)) for row in theirs)
    if left == right:
        return None
    return (
        f"it answers otherwise than in SQLite: {(left - right).total()} of {len(mine)} rows are "
        "not the same"
    )


def _within(source: apsw.Connection, query: str) -> list[tuple[Any, ...]]:
    """Return a query's rows; raises _TooLongError."""
    deadline = time.monotonic() + _SECONDS
    source.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
    try:
        return source.execute(query).fetchall()
    except apsw.InterruptError as error:
        raise _TooLongError(f"SQLite takes longer than {_SECONDS} s") from error
    finally:
        source.set_progress_handler(None)


def _comparable(value: Any, type_code: int) -> Any:
    """Return a value of either side in one form.

    Fractions have the digits that do not depend on the order in which they were added up.
    """
    if value is None:
        return None
    try:
        if type_code == _BOOL:
            return value.lower() in TRUE_WORDS if isinstance(value, str) else bool(value)
        if type_code in _MOMENTS:
            return _MOMENTS[type_code](value) if isinstance(value, str) else value
        if type_code in _FRACTIONS:
            return f"{float(value):.11g}"
    except ValueError:
        return repr(value)
    return value if isinstance(value, (int, bytes)) else (type(value).__name__, value)
