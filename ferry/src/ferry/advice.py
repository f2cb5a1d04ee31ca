"""What PREPARE cannot see and a reader can: statements that PostgreSQL takes and means otherwise.

Looked for are casts that round, texts passed for numbers and moments, and rows whose order depends
on what SQLite happens to do. Types, keys and NOT NULL come from the database's catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

# Types that a text is passed for by mistake, by their numbers in pg_type.
_NO_TEXT = {
    20: "bigint",
    21: "smallint",
    23: "integer",
    16: "boolean",
    700: "real",
    701: "double precision",
    1082: "date",
    1083: "time",
    1114: "timestamp",
    1184: "timestamptz",
    1700: "numeric",
}
_WHOLE = ("int2", "int4", "int8", "bool")


@dataclass
class _Relation:
    """What the catalogue knows of a table."""

    types: dict[str, str] = field(default_factory=dict)
    not_null: set[str] = field(default_factory=set)
    keys: list[set[str]] = field(default_factory=list)


class Adviser:
    """Reads statements that were accepted; the connection is only asked about its catalogue."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._relations: dict[str, _Relation | None] = {}

    def passed(self, parameters: Sequence[int], arguments: Sequence[str | None]) -> list[str]:
        """Name the parameters (types by number) that get a text, as far as the source tells."""
        return [
            f"parameter {number} is a {_NO_TEXT[kind]} by what it is compared with or stored in, "
            "and gets a text: asyncpg refuses it, pass the value itself"
            for number, (kind, given) in enumerate(zip(parameters, arguments, strict=False), 1)
            if given == "text" and kind in _NO_TEXT
        ]

    def read(self, statement: str) -> list[str]:
        """Return what is to be said about a statement (parameters as ``$n``)."""
        try:
            tree = sqlglot.parse_one(statement, read="postgres")
        except SqlglotError:
            return []
        found = dict.fromkeys(self._casts(tree))
        for select in tree.find_all(exp.Select):
            found |= dict.fromkeys(self._order(select))
        return list(found)

    def _relation(self, name: str) -> _Relation | None:
        if name not in self._relations:
            self._relations[name] = self._look_up(name)
        return self._relations[name]

    def _look_up(self, name: str) -> _Relation | None:
        quoted = ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))
        (oid,) = self._connection.execute("SELECT to_regclass(%s)::oid", (quoted,)).fetchone()
        if oid is None:
            return None
        relation = _Relation()
        for column, kind, not_null in self._connection.execute(
            "SELECT attname, typname, attnotnull FROM pg_attribute a "
            "JOIN pg_type t ON t.oid = a.atttypid "
            "WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped",
            (oid,),
        ):
            relation.types[column] = kind
            if not_null:
                relation.not_null.add(column)
        for (columns,) in self._connection.execute(
            "SELECT ARRAY(SELECT attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid "
            "AND a.attnum = ANY (i.indkey)) FROM pg_index i WHERE indrelid = %s AND indisunique "
            "AND indpred IS NULL AND indexprs IS NULL",
            (oid,),
        ):
            relation.keys.append(set(columns))
        return relation

    def _tables(self, node: exp.Expression) -> Iterator[tuple[str, _Relation]]:
        """Yield the tables of the statement that a node is in, by what they are called there."""
        scope = node if isinstance(node, exp.Select) else node.find_ancestor(exp.Select)
        scope = scope or node.root()
        for table in scope.find_all(exp.Table):
            if table.find_ancestor(exp.Select) not in (scope, None):
                continue
            name = f"{table.db}.{table.name}" if table.db else table.name
            relation = self._relation(name)
            if relation is not None:
                yield table.alias_or_name, relation

    def _owner(self, column: exp.Column) -> _Relation | None:
        """Return the table that a column is of, None where it cannot be told."""
        owners = [
            relation
            for name, relation in self._tables(column)
            if column.table in ("", name) and column.name in relation.types
        ]
        return owners[0] if len(owners) == 1 else None

    def _casts(self, tree: exp.Expression) -> Iterator[str]:
        for cast in tree.find_all(exp.Cast):
            if cast.to.this not in exp.DataType.INTEGER_TYPES:
                continue
            inner = cast.this.unnest()
            if isinstance(inner, exp.Literal) and inner.name.isdigit():
                continue
            if isinstance(inner, (exp.Count, exp.Length, exp.Floor, exp.Ceil, exp.Parameter)):
                continue
            if isinstance(inner, exp.Anonymous) and inner.name.lower() in ("trunc", "floor"):
                continue
            if isinstance(inner, exp.Column):
                owner = self._owner(inner)
                kind = owner.types[inner.name] if owner is not None else ""
                if kind in _WHOLE:
                    continue
                if kind in ("text", "varchar"):
                    yield (
                        f"CAST({inner.sql()} AS INTEGER) of a text: PostgreSQL refuses what is no "
                        "number, SQLite takes the digits at its beginning, or 0"
                    )
                    continue
            yield (
                f"{cast.sql('postgres')} rounds in PostgreSQL and cuts off in SQLite: "
                "CAST(trunc(…) AS bigint)"
            )

    def _order(self, select: exp.Select) -> Iterator[str]:
        order = select.args.get("order")
        if order is None:
            return
        keys = [key.this for key in order.expressions]
        for ordered in order.expressions:
            yield from self._nulls(select, ordered)
        if select.args.get("limit") is None and select.args.get("fetch") is None:
            return
        if not self._is_total(select, keys):
            yield (
                "ORDER BY … LIMIT without a tie-breaker: which of the rows with equal "
                f"{', '.join(key.sql('postgres') for key in keys)} come first may differ from "
                "SQLite, and from run to run; add the primary key at its end"
            )

    def _nulls(self, select: exp.Select, ordered: exp.Ordered) -> Iterator[str]:
        key = ordered.this
        written = ordered.sql("postgres").upper()
        if not isinstance(key, exp.Column) or "NULLS" in written or not ordered.args.get("desc"):
            return
        owner = self._owner(key)
        if owner is None or key.name in owner.not_null:
            return
        where = select.args.get("where")
        if where is not None and any(
            isinstance(test.this, exp.Column) and test.this.name == key.name
            for test in (*where.find_all(exp.Is), *where.find_all(exp.GT), *where.find_all(exp.GTE))
        ):
            return
        yield (
            f"ORDER BY {key.sql('postgres')} DESC: NULLs come first in PostgreSQL and last in "
            "SQLite: DESC NULLS LAST"
        )

    def _is_total(self, select: exp.Select, keys: Sequence[exp.Expression]) -> bool:
        """Tell whether no two rows can have the same keys, as far as that is plain to see."""
        named = {
            item.alias: item.this for item in select.expressions if isinstance(item, exp.Alias)
        }
        keys = [named.get(key.name, key) if not _qualified(key) else key for key in keys]
        columns = {key.name for key in keys if isinstance(key, exp.Column)}
        group = select.args.get("group")
        if group is not None:
            wanted = [named.get(item.name, item) for item in group.expressions]
            return all(item in keys or _by_number(item) for item in wanted)
        if not any(select.find_all(exp.AggFunc)):
            tables = list(self._tables(select))
            if select.args.get("distinct") and all(
                item.unalias() in keys for item in select.selects
            ):
                return True
            # With joins each table's key would be needed; the first one's is what people add.
            return not tables or any(key <= columns for _, table in tables for key in table.keys)
        return True  # one row


def _qualified(node: exp.Expression) -> bool:
    return isinstance(node, exp.Column) and bool(node.table)


def _by_number(node: exp.Expression) -> bool:
    return isinstance(node, exp.Literal)
