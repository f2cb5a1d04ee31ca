"""Read the schema of a SQLite database: the PRAGMAs first, the DDL's tokens for the rest.

SQLite tells columns, keys, indexes and foreign keys by PRAGMA. CHECK constraints, generated
columns, deferrability and index expressions stand only in the DDL; they are found by sqlglot's
tokenizer (which knows SQLite's four ways to quote a name), never by splitting text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlglot.dialects.sqlite import SQLite
from sqlglot.tokens import Token, TokenType

from ferry import virtual
from ferry.snapshot import is_of_the_application
from ferry.virtual import Keeps, VirtualTable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import apsw

# SQLite's own collations beside BINARY: what they make equal can be said in PostgreSQL.
FOLDING = ("NOCASE", "RTRIM")
ICU = "ICU "  # before a locale: how a rule says what an application's collation is


def quote_name(name: str) -> str:
    """Quote an identifier; the same rules hold in SQLite and in PostgreSQL."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Column:
    """One column as declared."""

    name: str
    declared: str  # the declared type as it stands in the DDL, "" if there is none
    not_null: bool
    default: str | None  # SQL text
    collation: str = "BINARY"
    generated: str | None = None  # expression of a generated column
    stored: bool = False
    origin: str = ""  # the name in SQLite, where a rule gives another one

    @property
    def original(self) -> str:
        """The name in SQLite, which expressions in the DDL use."""
        return self.origin or self.name


@dataclass(frozen=True)
class Key:
    """A primary key or unique constraint: columns in key order, with their collations."""

    columns: tuple[str, ...]
    collations: tuple[str, ...]


@dataclass(frozen=True)
class IndexPart:
    """One column or expression of an index."""

    column: str | None
    expression: str | None
    descending: bool
    collation: str


@dataclass(frozen=True)
class Index:
    """An index made by CREATE INDEX."""

    name: str
    unique: bool
    parts: tuple[IndexPart, ...]
    where: str | None
    ddl: str


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key; ``references`` is empty when the parent's primary key is meant."""

    columns: tuple[str, ...]
    parent: str
    references: tuple[str, ...]
    on_update: str
    on_delete: str
    deferrable: bool = False
    initially_deferred: bool = False


@dataclass(frozen=True)
class Check:
    """A CHECK constraint."""

    name: str | None
    expression: str


@dataclass(frozen=True)
class Table:
    """An ordinary table with all that hangs on it."""

    name: str
    ddl: str
    columns: tuple[Column, ...]
    rowid_alias: str | None  # the INTEGER PRIMARY KEY, if there is one
    has_rowid: bool
    primary_key: Key | None
    uniques: tuple[Key, ...] = ()
    indexes: tuple[Index, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    checks: tuple[Check, ...] = ()
    autoincrement: bool = False
    sequence: int | None = None  # from sqlite_sequence
    origin: str = ""  # the name in SQLite, where a rule gives another one
    virtual: bool = False  # its rows are read through SQLite's module; one column is the rowid
    strict: bool = False  # each value has its column's class, or any class under ANY

    @property
    def original(self) -> str:
        """The name in SQLite."""
        return self.origin or self.name

    @property
    def renamed(self) -> dict[str, Any]:
        """What `reverse` needs to know about names; empty where nothing is called otherwise."""
        columns = {column.original: column.name for column in self.columns if column.origin}
        return {"table": self.original, "columns": columns} if self.origin or columns else {}

    def column(self, name: str) -> Column:
        """Find a column by name, upper or lower case as in SQLite."""
        for column in self.columns:
            if column.name.lower() == name.lower():
                return column
        raise KeyError(name)

    def is_key(self, columns: tuple[str, ...]) -> bool:
        """Tell whether a foreign key may point to these columns: they are unique, bytewise."""
        wanted = {name.lower() for name in columns}
        keys = [key for key in (self.primary_key, *self.uniques) if key is not None]
        found = [
            {name.lower() for name in key.columns}
            for key in keys
            if {"BINARY"} >= {*key.collations}
        ]
        found += [
            {str(part.column).lower() for part in index.parts}
            for index in self.indexes
            if index.unique
            and not index.where
            and all(part.column is not None and part.collation == "BINARY" for part in index.parts)
        ]
        return wanted in found


@dataclass(frozen=True)
class NotCarried:
    """Something in SQLite that does not arrive in PostgreSQL, and why."""

    what: str  # "trigger", "view", ...
    name: str
    reason: str
    sql: str = ""


@dataclass(frozen=True)
class Program:
    """A view or a trigger."""

    kind: str  # "view" or "trigger"
    name: str
    sql: str
    origin: str = ""  # the name in SQLite, where a rule gives another one

    @property
    def original(self) -> str:
        """The name in SQLite."""
        return self.origin or self.name


@dataclass
class Schema:
    """Everything that sqlite_master declares."""

    tables: list[Table] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)  # in order of creation
    not_carried: list[NotCarried] = field(default_factory=list)
    virtual: list[VirtualTable] = field(default_factory=list)
    zone: str = ""  # what SQLite's localtime is, where a rule says so

    def table(self, name: str) -> Table | None:
        """Find a table by name, upper or lower case as in SQLite."""
        return next((table for table in self.tables if table.name.lower() == name.lower()), None)

    @property
    def foreign_collations(self) -> set[str]:
        """The collations that only the application defines."""
        found = {column.collation for table in self.tables for column in table.columns}
        for table in self.tables:
            for key in (table.primary_key, *table.uniques):
                found |= {*key.collations} if key is not None else set()
            for index in table.indexes:
                found |= {part.collation for part in index.parts}
        return {n for n in found if n not in ("BINARY", *FOLDING) and not n.startswith(ICU)}

    def referenced(self, key: ForeignKey) -> tuple[str, ...]:
        """Return the parent's columns that a foreign key points to, as the parent spells them.

        Empty when the parent is missing or has no such unique key: SQLite cannot enforce such a
        foreign key either.
        """
        parent = self.table(key.parent)
        if parent is None:
            return ()
        wanted = key.references or (parent.primary_key.columns if parent.primary_key else ())
        spelled = {column.name.lower(): column.name for column in parent.columns}
        names = tuple(spelled.get(name.lower(), name) for name in wanted)
        return names if len(names) == len(key.columns) and parent.is_key(names) else ()


def tokens_of(ddl: str) -> list[Token]:
    """Split SQLite's DDL into tokens; raises sqlglot's TokenError."""
    return SQLite().tokenize(ddl)


def _word(token: Token | None) -> str:
    """Return an unquoted token in upper case, "" for quoted names, strings and the end."""
    if token is None or token.token_type in (TokenType.IDENTIFIER, TokenType.STRING):
        return ""
    return token.text.upper()


@dataclass
class _Declared:
    """What only the DDL of a table says."""

    checks: list[Check] = field(default_factory=list)
    collations: dict[str, str] = field(default_factory=dict)
    generated: dict[str, str] = field(default_factory=dict)
    foreign_keys: list[tuple[bool, bool]] = field(default_factory=list)  # in order of declaration
    conflict_clauses: list[str] = field(default_factory=list)
    autoincrement: bool = False


def _closing(tokens: Sequence[Token], opening: int) -> int:
    """Return the position of the parenthesis that closes the one at ``opening``."""
    depth = 0
    for position in range(opening, len(tokens)):
        if tokens[position].token_type == TokenType.L_PAREN:
            depth += 1
        elif tokens[position].token_type == TokenType.R_PAREN:
            depth -= 1
            if depth == 0:
                return position
    raise ValueError("unbalanced parentheses")


def _split_at_commas(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    depth, start = 0, 0
    for position, token in enumerate(tokens):
        if token.token_type == TokenType.L_PAREN:
            depth += 1
        elif token.token_type == TokenType.R_PAREN:
            depth -= 1
        elif token.token_type == TokenType.COMMA and depth == 0:
            yield tokens[start:position]
            start = position + 1
    yield tokens[start:]


def _text_between(ddl: str, tokens: Sequence[Token]) -> str:
    return ddl[tokens[0].start : tokens[-1].end + 1] if tokens else ""


def _read_definition(ddl: str, tokens: Sequence[Token], found: _Declared) -> None:
    """Read one column definition or table constraint (SQLite allows several without a comma)."""
    column = None
    if _word(tokens[0]) not in ("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"):
        column = tokens[0].text.lower()
    constraint_name = None
    position = 1 if column is not None else 0
    while position < len(tokens):
        token = tokens[position]
        word = _word(token)
        following = tokens[position + 1] if position + 1 < len(tokens) else None
        if token.token_type == TokenType.L_PAREN:
            position = _closing(tokens, position)
        elif word == "CONSTRAINT" and following is not None:
            constraint_name = following.text
            position += 1
        elif word in ("CHECK", "AS") and following and following.token_type == TokenType.L_PAREN:
            end = _closing(tokens, position + 1)
            expression = _text_between(ddl, tokens[position + 2 : end])
            if word == "CHECK":
                found.checks.append(Check(constraint_name, expression))
                constraint_name = None
            elif column is not None:
                found.generated[column] = expression
            position = end
        elif word == "COLLATE" and following is not None and column is not None:
            found.collations[column] = following.text.upper()
            position += 1
        elif word == "REFERENCES":
            found.foreign_keys.append((False, False))
        elif word == "DEFERRABLE" and found.foreign_keys and _word(tokens[position - 1]) != "NOT":
            deferred = [_word(part) for part in tokens[position + 1 : position + 3]]
            found.foreign_keys[-1] = (True, deferred == ["INITIALLY", "DEFERRED"])
        elif word == "AUTOINCREMENT":
            found.autoincrement = True
        elif word == "ON" and _word(following) == "CONFLICT":
            found.conflict_clauses.append(_text_between(ddl, tokens))
        position += 1


def _read_declarations(ddl: str) -> _Declared:
    found = _Declared()
    tokens = tokens_of(ddl)
    opening = next(
        position for position, token in enumerate(tokens) if token.token_type == TokenType.L_PAREN
    )
    body = tokens[opening + 1 : _closing(tokens, opening)]
    for definition in _split_at_commas(body):
        if definition:
            _read_definition(ddl, definition, found)
    return found


def without_stored_expressions(ddl: str) -> str:
    """Return a table's DDL in which stored generated columns are plain ones.

    Their rows are laid out alike, so values can be written that SQLite cannot compute.
    """
    tokens = tokens_of(ddl)
    cuts = []
    for position, token in enumerate(tokens[:-1]):
        if _word(token) != "AS" or tokens[position + 1].token_type != TokenType.L_PAREN:
            continue
        end = _closing(tokens, position + 1) + 1
        if end < len(tokens) and _word(tokens[end]) == "STORED":
            words = [_word(part) for part in tokens[position - 2 : position]]
            first = position - 2 if words == ["GENERATED", "ALWAYS"] else position
            cuts.append((tokens[first].start, tokens[end].end + 1))
    for start, end in reversed(cuts):
        ddl = ddl[:start] + ddl[end:]
    return ddl


def _index_texts(ddl: str) -> tuple[list[str], str | None]:
    """Return the texts of an index's parts (without COLLATE, ASC, DESC) and of its WHERE."""
    tokens = tokens_of(ddl)
    on = next(position for position, token in enumerate(tokens) if _word(token) == "ON")
    opening = next(
        position
        for position in range(on, len(tokens))
        if tokens[position].token_type == TokenType.L_PAREN
    )
    closing = _closing(tokens, opening)
    parts = []
    for part in _split_at_commas(tokens[opening + 1 : closing]):
        kept = list(part)
        while len(kept) > 1 and _word(kept[-1]) in ("ASC", "DESC"):
            kept.pop()
        while len(kept) > 2 and _word(kept[-2]) == "COLLATE":
            del kept[-2:]
        parts.append(_text_between(ddl, kept))
    where = None
    if closing + 1 < len(tokens) and _word(tokens[closing + 1]) == "WHERE":
        where = _text_between(ddl, tokens[closing + 2 :])
    return parts, where


def _read_index(connection: apsw.Connection, name: str, unique: bool, ddl: str) -> Index:
    rows = connection.execute(
        'SELECT cid, name, "desc", coll FROM pragma_index_xinfo(?) WHERE key = 1 ORDER BY seqno',
        (name,),
    ).fetchall()
    texts, where = _index_texts(ddl)
    parts = tuple(
        IndexPart(
            column=column if cid >= 0 else None,
            expression=text if cid == -2 else None,
            descending=bool(descending),
            collation=(collation or "BINARY").upper(),
        )
        for (cid, column, descending, collation), text in zip(rows, texts, strict=True)
    )
    return Index(name=name, unique=unique, parts=parts, where=where, ddl=ddl)


def _read_key(connection: apsw.Connection, index: str) -> Key:
    rows = connection.execute(
        "SELECT name, coll FROM pragma_index_xinfo(?) WHERE key = 1 ORDER BY seqno", (index,)
    ).fetchall()
    return Key(tuple(row[0] for row in rows), tuple(row[1].upper() for row in rows))


def _read_foreign_keys(
    connection: apsw.Connection, table: str, deferrability: list[tuple[bool, bool]]
) -> tuple[ForeignKey, ...]:
    grouped: dict[int, list[tuple]] = {}
    for row in connection.execute(
        'SELECT id, "table", "from", "to", on_update, on_delete '
        "FROM pragma_foreign_key_list(?) ORDER BY id, seq",
        (table,),
    ):
        grouped.setdefault(row[0], []).append(row)
    keys = []
    # SQLite numbers them backwards: the last one declared is 0.
    for number, identifier in enumerate(sorted(grouped, reverse=True)):
        rows = grouped[identifier]
        deferrable, deferred = (
            deferrability[number] if len(deferrability) == len(grouped) else (False, False)
        )
        keys.append(
            ForeignKey(
                columns=tuple(row[2] for row in rows),
                parent=rows[0][1],
                references=tuple(row[3] for row in rows if row[3] is not None),
                on_update=rows[0][4],
                on_delete=rows[0][5],
                deferrable=deferrable,
                initially_deferred=deferred,
            )
        )
    return tuple(keys)


def _read_table(
    connection: apsw.Connection, name: str, ddl: str, without_rowid: bool, schema: Schema
) -> Table:
    declared = _read_declarations(ddl)
    rows = connection.execute(
        'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?) '
        "ORDER BY cid",
        (name,),
    ).fetchall()
    columns = tuple(
        Column(
            name=column,
            declared=_declared_type(kind, hidden),
            not_null=bool(not_null),
            default=default if hidden == 0 else None,
            collation=declared.collations.get(column.lower(), "BINARY"),
            generated=declared.generated.get(column.lower()) if hidden in (2, 3) else None,
            stored=hidden == 3,
        )
        for column, kind, not_null, default, _, hidden in rows
    )
    uniques, indexes, primary_key = [], [], None
    for index, unique, origin in connection.execute(
        'SELECT name, "unique", origin FROM pragma_index_list(?) ORDER BY seq DESC', (name,)
    ).fetchall():
        if origin == "pk":
            primary_key = _read_key(connection, index)
        elif origin == "u":
            uniques.append(_read_key(connection, index))
        else:
            (index_ddl,) = connection.execute(
                "SELECT sql FROM sqlite_master WHERE type = 'index' AND name = ?", (index,)
            ).fetchone()
            indexes.append(_read_index(connection, index, bool(unique), index_ddl))
    rowid_alias = None
    key_columns = [row[0] for row in sorted(rows, key=lambda row: row[4]) if row[4]]
    if primary_key is None and key_columns:
        # A primary key without an index of its own is the rowid (or, without rowid, the table).
        primary_key = Key(tuple(key_columns), ("BINARY",) * len(key_columns))
        if not without_rowid:
            rowid_alias = key_columns[0]
    for clause in declared.conflict_clauses:
        schema.not_carried.append(
            NotCarried(
                "conflict clause",
                name,
                "PostgreSQL has no ON CONFLICT in a constraint; the constraint itself is carried, "
                "the statement has to say what happens on a conflict",
                clause,
            )
        )
    lost = _not_computable(connection, name, columns)
    for column in lost:
        schema.not_carried.append(
            NotCarried(
                "generated column",
                f"{name}.{column.name}",
                "its values are not in the file: they are computed by a function or collation that "
                "only the application has",
                column.generated or "",
            )
        )
    gone = {column.name for column in lost}
    for key in [key for key in uniques if gone & {*key.columns}]:
        uniques.remove(key)
        columns_of_key = ", ".join(key.columns)
        schema.not_carried.append(
            NotCarried(
                "unique constraint", f"{name} ({columns_of_key})", "it is over such a column"
            )
        )
    indexes = [_without_columns(index, gone) for index in indexes]
    columns = tuple(column for column in columns if column.name not in gone)
    return Table(
        name=name,
        ddl=ddl,
        columns=columns,
        rowid_alias=rowid_alias,
        has_rowid=not without_rowid,
        primary_key=primary_key,
        uniques=tuple(uniques),
        indexes=tuple(indexes),
        foreign_keys=_read_foreign_keys(connection, name, declared.foreign_keys),
        checks=tuple(declared.checks),
        autoincrement=declared.autoincrement,
        sequence=_sequence(connection, name),
        strict=_is_strict(connection, name),
    )


def _not_computable(
    connection: apsw.Connection, table: str, columns: Sequence[Column]
) -> list[Column]:
    """Return the generated columns that are not stored and that SQLite alone cannot compute."""
    foreign = {
        column.name.lower() for column in columns if column.collation not in ("BINARY", *FOLDING)
    }
    found = []
    for column in columns:
        if column.generated is None or column.stored:
            continue
        words = [token.text for token in tokens_of(column.generated)]
        collations = {
            name.upper() for before, name in pairwise(words) if before.upper() == "COLLATE"
        }
        if foreign & {word.lower() for word in words} or collations - {"BINARY", *FOLDING}:
            found.append(column)
            foreign.add(column.name.lower())
            continue
        try:
            connection.execute(f"SELECT {quote_name(column.name)} FROM {quote_name(table)} LIMIT 0")
        except Exception as error:  # of the standard library's sqlite3, or of apsw
            if not is_of_the_application(error):
                raise
            found.append(column)
    return found


def _without_columns(index: Index, gone: set[str]) -> Index:
    """Return an index in which columns that do not arrive are nothing that could be carried."""
    parts = tuple(
        replace(part, column=None) if part.column in gone else part for part in index.parts
    )
    return replace(index, parts=parts)


def _is_strict(connection: apsw.Connection, table: str) -> bool:
    (strict,) = connection.execute(
        "SELECT strict FROM pragma_table_list WHERE schema = 'main' AND name = ?", (table,)
    ).fetchone()
    return bool(strict)


def _declared_type(kind: str, hidden: int) -> str:
    """Return the declared type without the words that SQLite adds for generated columns."""
    if hidden in (2, 3) and kind.upper().endswith("GENERATED ALWAYS"):
        return kind[: -len("GENERATED ALWAYS")].strip()
    return kind


def _sequence(connection: apsw.Connection, table: str) -> int | None:
    if not connection.execute(
        "SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'"
    ).fetchone():
        return None
    row = connection.execute(
        "SELECT max(CAST(seq AS INTEGER)) FROM sqlite_sequence WHERE name = ?", (table,)
    ).fetchone()
    return row[0]


def _read_virtual(
    connection: apsw.Connection, ddl: dict[str, str], kinds: dict[str, str]
) -> list[VirtualTable]:
    """Judge all virtual tables."""
    triggers = [
        row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")
    ]
    names = [name for name in ddl if kinds.get(name) == "virtual"]
    shadows = [name for name in ddl if kinds.get(name) == "shadow"]
    return [
        virtual.classify(
            connection,
            name,
            ddl[name],
            triggers,
            stored=bool(virtual.storage_of(name, shadows, names)),
        )
        for name in names
    ]


def _virtual_as_table(connection: apsw.Connection, table: VirtualTable) -> Table:
    """Return the table that holds a virtual table's rows: its columns, and the rowid as key."""
    rowid, columns = virtual.columns_with_data(connection, table)
    found = [
        # An R-tree has a number everywhere, and a text has a language: 0 where none is given.
        Column(name, declared, declared != "", "0" if declared else None)
        for name, declared in columns
    ]
    if rowid is not None:
        found.insert(0, Column(rowid, "INTEGER", not_null=True, default=None))
    key = found[0].name
    return Table(
        name=table.name,
        ddl=table.sql,
        columns=tuple(found),
        rowid_alias=key,
        has_rowid=True,
        primary_key=Key((key,), ("BINARY",)),
        virtual=True,
    )


def read_schema(connection: apsw.Connection) -> Schema:
    """Read all tables in order of creation, and name what is no table."""
    schema = Schema()
    ddl = dict(
        connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    )
    without_rowid = {}
    kinds = {}
    for name, kind, wr in connection.execute(
        "SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'"
    ):
        kinds[name], without_rowid[name] = kind, bool(wr)
    schema.virtual = _read_virtual(connection, ddl, kinds)
    found = {table.name: table for table in schema.virtual}
    shadows = [name for name in ddl if kinds.get(name) == "shadow"]
    raw = {
        shadow
        for table in schema.virtual
        if table.keeps == Keeps.STORAGE
        for shadow in virtual.storage_of(table.name, shadows, list(found))
    }
    for name, sql_text in ddl.items():
        if name.lower().startswith("sqlite_"):
            continue
        if name in found:
            schema.not_carried.append(
                NotCarried("virtual table", name, found[name].reason, sql_text)
            )
            if found[name].keeps == Keeps.ROWS:
                schema.tables.append(_virtual_as_table(connection, found[name]))
        elif kinds.get(name) != "shadow" or name in raw:
            schema.tables.append(
                _read_table(connection, name, sql_text, without_rowid[name], schema)
            )
    for kind, name, sql_text in connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE type IN ('view', 'trigger') ORDER BY rowid"
    ):
        schema.programs.append(Program(kind, name, sql_text))
        if kind == "trigger":
            reason = "triggers are programs; PostgreSQL's are written in another language"
            schema.not_carried.append(NotCarried(kind, name, reason, sql_text))
    return schema
