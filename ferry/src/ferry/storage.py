"""Storage classes under the rule `text`: what a value was before it became text.

SQLite keeps integers, doubles and texts side by side in a column; the rule makes all of them text.
Nearly always a text tells by its looks what it was: numbers are written so that they read back
exactly. Rows where it does not (the text '5' where there also were integers) are noted by key.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ferry.census import MAX_EXCEPTIONS
from ferry.rules import ferry_text
from ferry.schema import quote_name
from ferry.types import Kind

if TYPE_CHECKING:
    from collections.abc import Collection

    import apsw

    from ferry.census import ColumnCensus
    from ferry.rules import Application
    from ferry.schema import Table

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
# What SQLite itself takes for a number in a column with an affinity for numbers.
_NUMBER = re.compile(
    r"[ \t\n\f\r\v]*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?[ \t\n\f\r\v]*"
)


def has_numeric_affinity(declared: str, *, strict: bool) -> bool | None:
    """Tell whether SQLite turns text into numbers in a column; None if it changes nothing.

    See https://www.sqlite.org/datatype3.html, section 3.1, and stricttables.html.
    """
    name = declared.upper()
    if strict and name == "ANY":
        return None
    if "INT" in name:
        return True
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return False
    if "BLOB" in name or not name.strip():
        return None
    return True


def looks_like(text: str, classes: Collection[str]) -> str:
    """Return which of the storage classes of a column a value was, by its text."""
    whole = "integer" in classes and text != "-0" and _INTEGER.fullmatch(text)
    if whole and -(2**63) <= int(text) < 2**63:
        return "integer"
    if "real" in classes:
        try:
            if repr(float(text)) == text:
                return "real"
        except ValueError:
            pass
    return "text" if "text" in classes or "blob" not in classes else "blob"


def as_it_was(text: Any, storage: str) -> Any:
    """Return the value of a storage class that was written as this text, if there is one."""
    try:
        if storage == "integer":
            return int(text)
        if storage == "real":
            return float(text)
        if storage == "blob":
            return bytes.fromhex(text)
    except (ValueError, TypeError):
        pass
    return text


def as_number(text: Any) -> Any:
    """Return the number that SQLite's affinity for numbers makes of a text, but exactly.

    SQLite's own conversion may miss a double's last bit.
    """
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        return text
    try:
        number = int(text)
    except ValueError:
        return float(text)
    return number if -(2**63) <= number < 2**63 else float(text)


def note_storage(
    connection: apsw.Connection,
    table: Table,
    entries: dict[str, ColumnCensus],
    application: Application,
) -> None:
    """Note in the columns' ``entries`` what the values were that a rule makes text."""
    connection.create_scalar_function("ferry_looks_like", _looks_like, 2, deterministic=True)
    texts = {
        (entry.table, entry.column) for entry in application.applied if entry.rule.action == "text"
    }
    for column in table.columns:
        entry = entries.get(column.name)
        if (table.original, column.original) in texts and entry and entry.kind == Kind.TEXT:
            _note_column(connection, table, column.original, entry, texts)


def _looks_like(value: Any, classes: str) -> str:
    return looks_like(ferry_text(value) or "", classes.split())


def _note_column(
    connection: apsw.Connection,
    table: Table,
    column: str,
    entry: ColumnCensus,
    texts: Collection[tuple[str, str]],
) -> None:
    place, name = f"main.{quote_name(table.original)}", quote_name(column)
    entry.shapes = dict(
        connection.execute(
            f"SELECT typeof({name}), count(*) FROM {place} WHERE {name} IS NOT NULL "
            "GROUP BY 1 ORDER BY 2 DESC"
        ).fetchall()
    )
    other = f"typeof({name}) <> ferry_looks_like({name}, ?)"
    classes = " ".join(entry.shapes)
    (count,) = connection.execute(
        f"SELECT count(*) FROM {place} WHERE {name} IS NOT NULL AND {other}", (classes,)
    ).fetchone()
    key = table.primary_key.columns if table.primary_key else ()
    if not count:
        return
    if len(key) != 1 or count > MAX_EXCEPTIONS:
        entry.forgotten = count
        return
    own = table.column(key[0]).original
    row = f"ferry_text({quote_name(own)})" if (table.original, own) in texts else quote_name(own)
    for storage, identity in connection.execute(
        f"SELECT typeof({name}), {row} FROM {place} WHERE {name} IS NOT NULL AND {other}",
        (classes,),
    ):
        if isinstance(identity, (int, str)):
            entry.exceptions.setdefault(storage, []).append(identity)
        else:
            entry.forgotten += 1
