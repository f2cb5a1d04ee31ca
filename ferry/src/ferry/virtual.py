"""Virtual tables: which of them hold data, which only an index of it, and who can read them.

A virtual table keeps what it has in storage tables of its own (SQLite calls them shadow tables).
Full text search may hold the only copy of its texts, an index of another table's, or an index of
texts that are nowhere; an R-tree always holds the only copy. Where our SQLite has the module, rows
are read through it. Where it has not (or lacks a tokenizer), the storage tables are tables like any
other, and carried byte by byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import apsw
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import SqlglotError
from sqlglot.tokens import Token, TokenType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_QUOTES = {"'": "'", '"': '"', "`": "`", "[": "]"}
FULL_TEXT = ("fts3", "fts4", "fts5")
_TREES = ("rtree", "rtree_i32", "geopoly")


class Keeps(StrEnum):
    """Where the contents of a virtual table are."""

    ROWS = "rows"  # here and nowhere else; our SQLite reads them
    INDEX = "index"  # in another table or view, of which this is an index
    REPLAY = "replay"  # nowhere, but triggers of other tables fill it
    NOTHING = "nothing"  # it only shows what is elsewhere
    STORAGE = "storage"  # in storage tables that only its module understands


@dataclass(frozen=True)
class VirtualTable:
    """A virtual table and what has to be known to bring it back."""

    name: str
    sql: str
    module: str
    keeps: Keeps
    settings: tuple[tuple[str, Any], ...] = ()  # of full text search, kept in its own storage
    why: str = ""  # our SQLite cannot read it

    def as_json(self) -> dict[str, Any]:
        """Return what `reverse` has to know."""
        return {
            "name": self.name,
            "sql": self.sql,
            "module": self.module,
            "keeps": str(self.keeps),
            "settings": [list(pair) for pair in self.settings],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> VirtualTable:
        """Read that form."""
        settings = tuple((key, value) for key, value in data["settings"])
        return cls(data["name"], data["sql"], data["module"], Keeps(data["keeps"]), settings)

    @property
    def reason(self) -> str:
        """Say what of it does not arrive in PostgreSQL, and what `reverse` does."""
        if self.keeps == Keeps.ROWS:
            return (
                f"its rows are carried as a table; what {self.module} does with them (MATCH, for "
                "example) is not: PostgreSQL has its own means"
            )
        if self.keeps == Keeps.INDEX:
            return (
                "it is an index of another table's contents, which `reverse` builds again; "
                "PostgreSQL has its own full text search"
            )
        if self.keeps == Keeps.REPLAY:
            return (
                "it is an index that triggers fill, which `reverse` lets them do again; PostgreSQL "
                "has its own full text search"
            )
        if self.keeps == Keeps.NOTHING:
            return "it holds nothing of its own; `reverse` declares it again"
        why = f" ({self.why})" if self.why else ""
        return (
            f"only the program reads it{why}; the tables that {self.module} stores it in are "
            "carried as they are"
        )


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def module_of(sql: str) -> tuple[str, list[str]]:
    """Return the module's name in lower case and its arguments, as they stand in the DDL."""
    outside = _outside_quotes(sql)
    found = re.search(r"\bUSING\s+", outside, re.IGNORECASE)
    if found is None:
        return "", []
    opening = outside.find("(", found.end())
    module = sql[found.end() : opening if opening > 0 else len(sql)].strip().strip("\"'`[];")
    if opening < 0:
        return module.lower(), []
    arguments, depth, start = [], 0, opening + 1
    for position in range(opening, len(outside)):
        sign = outside[position]
        depth += (sign == "(") - (sign == ")")
        if depth == 0 or (depth == 1 and sign == ","):
            arguments.append(sql[start:position].strip())
            start = position + 1
        if depth == 0:
            break
    return module.lower(), arguments


def _outside_quotes(sql: str) -> str:
    """Return the text with everything in quotes, and the quotes, replaced by underscores."""
    signs, closing = [], ""
    for sign in sql:
        if closing:
            signs.append("_")
            if sign == closing:
                closing = ""
        elif sign in _QUOTES:
            closing = _QUOTES[sign]
            signs.append("_")
        else:
            signs.append(sign)
    return "".join(signs)


def option(arguments: Sequence[str], name: str) -> str | None:
    """Return the value of ``name=value`` among a module's arguments, None if it is not there."""
    for argument in arguments:
        found = re.fullmatch(rf"{name}\s*=\s*(.*)", argument, re.IGNORECASE | re.DOTALL)
        if found is not None:
            value = found[1].strip()
            if value[:1] in _QUOTES and value[-1:] == _QUOTES[value[0]] and len(value) > 1:
                value = value[1:-1].replace(value[-1] * 2, value[-1])
            return value
    return None


def classify(
    connection: apsw.Connection, name: str, sql: str, triggers: Sequence[str], *, stored: bool
) -> VirtualTable:
    """Judge a virtual table; ``stored``: it has storage tables that SQLite knows as such."""
    module, arguments = module_of(sql)
    try:
        connection.execute(f"SELECT * FROM main.{_name(name)} LIMIT 1").fetchall()
        if module in FULL_TEXT:
            _try_tokenizer(module, arguments)
    except apsw.Error as error:
        if isinstance(error, (apsw.CorruptError, apsw.IOError, apsw.NotADBError)):
            raise
        return VirtualTable(name, sql, module, Keeps.STORAGE, why=str(error))
    if module in _TREES:
        return VirtualTable(name, sql, module, Keeps.ROWS)
    if module not in FULL_TEXT:
        return VirtualTable(name, sql, module, Keeps.STORAGE if stored else Keeps.NOTHING)
    keeps = Keeps.ROWS
    content = option(arguments, "content") if module != "fts3" else None
    if content:
        keeps = Keeps.INDEX
    elif content is not None:
        keeps = Keeps.STORAGE
        if any(replay_of(trigger, name) for trigger in triggers):
            keeps = Keeps.REPLAY
    elif option(arguments, "locale") == "1":  # which cannot be read back through the module
        keeps = Keeps.STORAGE
    settings: tuple[tuple[str, Any], ...] = ()
    if module == "fts5" and keeps != Keeps.STORAGE:
        settings = tuple(
            connection.execute(
                f"SELECT k, v FROM main.{_name(name + '_config')} WHERE k <> 'version' ORDER BY k"
            )
        )
    return VirtualTable(name, sql, module, keeps, settings)


def _try_tokenizer(module: str, arguments: Sequence[str]) -> None:
    """Raise apsw.Error for a tokenizer that is not there; reading rows does not need it."""
    chosen = [text for text in arguments if re.match(r"tokenize\b", text, re.IGNORECASE)]
    if chosen:
        with apsw.Connection(":memory:") as probe:
            probe.execute(f"CREATE VIRTUAL TABLE probe USING {module}(a, {chosen[0]})")


def storage_of(name: str, shadows: Sequence[str], virtual: Sequence[str]) -> list[str]:
    """Return the storage tables of a virtual table; ``virtual`` are the names of all of those."""

    def owner(shadow: str) -> str:
        owners = [v for v in virtual if shadow.lower().startswith(v.lower() + "_")]
        return max(owners, key=len, default="")

    return [shadow for shadow in shadows if owner(shadow) == name]


def columns_with_data(
    connection: apsw.Connection, table: VirtualTable
) -> tuple[str | None, list[tuple[str, str]]]:
    """Return the name under which the rowid is reached, and the columns with their types.

    The first is None where the first column is the rowid.
    """
    _, arguments = module_of(table.sql)
    language = option(arguments, "languageid") if table.module == "fts4" else None
    columns = [
        (name, "INTEGER" if language and name.lower() == language.lower() else declared)
        for name, declared, hidden in connection.execute(
            "SELECT name, type, hidden FROM pragma_table_xinfo(?) ORDER BY cid", (table.name,)
        )
        if not hidden or (language and name.lower() == language.lower())
    ]
    if table.module in ("rtree", "rtree_i32"):
        return None, columns
    taken = {name.lower() for name, _ in columns}
    free = (name for name in ("rowid", "_rowid_", "oid", "docid") if name not in taken)
    return next(free), columns


@dataclass(frozen=True)
class Replay:
    """What a trigger does to a virtual table when a row is inserted into a table."""

    table: str
    condition: str  # "WHEN …", or nothing
    statements: tuple[str, ...]


def replay_of(trigger: str, virtual: str) -> Replay | None:
    """Return what an INSERT trigger inserts into a virtual table; None if it does not."""
    try:
        tokens = SQLite().tokenize(trigger)
    except SqlglotError:
        return None
    words = [_word(token) for token in tokens]
    try:
        begin = words.index("BEGIN")
        on = words.index("ON")
    except ValueError:
        return None
    head = words[:on]
    if "INSERT" not in head or "INSTEAD" in head:
        return None
    place = on + 1
    if place + 2 < begin and tokens[place + 1].token_type == TokenType.DOT:
        place += 2
    condition = ""
    if "WHEN" in words[place:begin]:
        when = words.index("WHEN", place)
        condition = trigger[tokens[when].start : tokens[begin].start]
    statements = tuple(
        text
        for part in _statements(tokens[begin + 1 :])
        if _inserts_into(part, virtual) and (text := trigger[part[0].start : part[-1].end + 1])
    )
    return Replay(tokens[place].text, condition, statements) if statements else None


def _word(token: Token) -> str:
    quoted = token.token_type in (TokenType.IDENTIFIER, TokenType.STRING)
    return "" if quoted else token.text.upper()


def _statements(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    start = 0
    for position, token in enumerate(tokens):
        if token.token_type == TokenType.SEMICOLON:
            if position > start:
                yield tokens[start:position]
            start = position + 1


def _inserts_into(tokens: Sequence[Token], virtual: str) -> bool:
    """Tell whether a statement inserts rows; full text search also takes commands that way."""
    words = [_word(token) for token in tokens]
    if words[0] not in ("INSERT", "REPLACE") or "INTO" not in words:
        return False
    place = words.index("INTO") + 1
    if tokens[place].text.lower() != virtual.lower():
        return False
    columns = []
    if place + 1 < len(tokens) and tokens[place + 1].token_type == TokenType.L_PAREN:
        for token in tokens[place + 2 :]:
            if token.token_type == TokenType.R_PAREN:
                break
            columns.append(token.text.lower())
    return virtual.lower() not in columns


def kind_of(sql: str) -> str:
    """Return "view" or "trigger"; SQLite writes the first words of what it keeps itself."""
    found = re.match(r"CREATE (VIEW|TRIGGER)\b", sql, re.IGNORECASE)
    return found[1].lower() if found else ""


def name_of(sql: str) -> str:
    """Return the name that a CREATE statement gives."""
    try:
        tokens = SQLite().tokenize(sql)
    except SqlglotError:
        return sql
    words = [_word(token) for token in tokens]
    place = next(
        (n for n, w in enumerate(words[:5]) if w in ("TABLE", "INDEX", "VIEW", "TRIGGER")), 0
    )
    place += 4 if words[place + 1 : place + 4] == ["IF", "NOT", "EXISTS"] else 1
    if tokens[place + 1].token_type == TokenType.DOT:
        place += 2
    return tokens[place].text


def mentioned(sql: str, names: Sequence[str]) -> list[str]:
    """Return which of these names stand in a statement."""
    if not names:
        return []
    try:
        words = {token.text.lower() for token in SQLite().tokenize(sql)}
    except SqlglotError:
        return [name for name in names if name.lower() in sql.lower()]
    return [name for name in names if name.lower() in words]
