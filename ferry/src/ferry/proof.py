"""Prove that both sides hold the same: contents, keys, indexes, sequences.

This module shares nothing with the loader: neither its types nor its SQL, so that a mistake there
cannot cancel itself out here. What a column is, is asked of PostgreSQL's catalogue.

Each row is written in a canonical form (exact: doubles as their eight bytes, text with its length
before it), by each database in its own SQL; the row's md5 is cut into two 64-bit numbers, which
are summed up over the table. The sums do not depend on the order of the rows and count duplicates
(an exclusive or would not). Two tables are equal if the number of rows and both sums are.
"""

from __future__ import annotations

import hashlib
import math
import struct
import sys
import threading
from array import array
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from psycopg import sql

from ferry.rows import MAX_ROWS, Changes, RowMemory
from ferry.schema import FOLDING, Schema, Table, quote_name
from ferry.values import CANONICAL, FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import apsw
    import psycopg

SHOWN = 5  # differing rows shown per table and side
# Rows looked at one by one where tables differ; beyond it a part of the table has to do.
_MAX_NARROWED = 1_000_000
_COLUMNS_PER_CHUNK = 33  # up to three arguments each, of which PostgreSQL's functions take 100
_ROWS_PER_BLOCK = 1000
_MASK = (1 << 64) - 1

_EXACT = 2**53  # every integer below it is a double

_TRUE = "'t', 'true', 'y', 'yes', 'on', '1'"
_FALSE = "'f', 'false', 'n', 'no', 'off', '0'"

# Canonical form by PostgreSQL's type: the arguments of concat() in SQLite's and in PostgreSQL's
# SQL. Both take NULL for an empty text: nothing but the sign that ends or begins a value is left.
_CANONICAL: dict[str, tuple[str, str]] = {
    "integer": ("{c}, ','", "{c}, ','"),
    "boolean": (
        "CASE WHEN {c} IS NULL THEN '' WHEN typeof({c}) = 'integer' THEN {c} "
        f"WHEN lower({{c}}) IN ({_TRUE}) THEN 1 WHEN lower({{c}}) IN ({_FALSE}) THEN 0 "
        "ELSE '?' || {c} END, ','",
        "CASE WHEN {c} THEN '1,' WHEN NOT {c} THEN '0,' ELSE ',' END",
    ),
    "text": ("length({c}), ':', {c}", "length({c}::text), ':', {c}"),
    "timestamp": (
        "replace({c}, 'T', ' ') || substr('0000-00-00 00:00:00.000000', length({c}) + 1), ','",
        "to_char({c}, 'YYYY-MM-DD HH24:MI:SS.US'), ','",
    ),
    "date": ("{c}, ','", "to_char({c}, 'YYYY-MM-DD'), ','"),
    "time": (
        "{c} || substr('00:00:00.000000', length({c}) + 1), ','",
        "to_char(date '2000-01-01' + {c}, 'HH24:MI:SS.US'), ','",
    ),
    "numeric": ("ferry_decimal({c}), ','", "trim_scale({c}), ','"),
    "bytea": (
        "CASE typeof({c}) WHEN 'null' THEN '' WHEN 'blob' THEN 'x' || lower(hex({c})) "
        "ELSE '?' || hex({c}) END, ','",
        "'x' || encode({c}, 'hex'), ','",
    ),
    # The eight bytes; in SQLite nothing at all for what is no number.
    "double": (
        "iif({c} IS NULL, 'N', lower(hex(ieee754_to_blob({c}))))",
        "coalesce(encode(float8send({c}), 'hex'), 'N')",
    ),
}
# Text in PostgreSQL that is of any storage class in SQLite (see `text_forms`).
_TEXT_FORMS: dict[str, tuple[str, str]] = {
    "any class": ("length(ferry_as_text({c})), ':', ferry_as_text({c})", _CANONICAL["text"][1]),
    "affinity": (
        "length(ferry_as_number({c})), ':', ferry_as_number({c})",
        "length({n}), ':', {n}".replace(
            "{n}",
            r"CASE WHEN length({c}::text) < 60 AND {c}::text ~ '^[ \t\n\f\r\v]*[-+]?"
            r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?[ \t\n\f\r\v]*$' "
            "THEN CASE WHEN abs({c}::numeric) < 9007199254740992 "
            "AND {c}::numeric = trunc({c}::numeric) THEN trunc({c}::numeric)::text "
            "WHEN abs({c}::numeric) NOT BETWEEN 4.9e-324 AND 1.7976931348623158e308 THEN {c}::text "
            "WHEN {c}::text ~ '^[-+]?[0-9]{1,19}$' AND abs({c}::numeric) < 9223372036854775808 "
            "THEN ({c}::numeric)::text "
            "ELSE encode(float8send({c}::float8), 'hex') END ELSE {c}::text END",
        ),
    ),
}
_CANONICAL |= _TEXT_FORMS
_CANONICAL |= CANONICAL
_CATEGORIES = {
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "bool": "boolean",
    "timestamp": "timestamp",
    **{name: name for name in FUNCTIONS},
    "date": "date",
    "time": "time",
    "numeric": "numeric",
    "bytea": "bytea",
    "float4": "double",
    "float8": "double",
}


@dataclass(frozen=True)
class Total:
    """Checksum of a table: rows, and the two sums over their hashes."""

    rows: int = 0
    low: int = 0
    high: int = 0

    def plus(self, other: Total) -> Total:
        """Return the total with the other's rows added."""
        return Total(self.rows + other.rows, self.low + other.low, self.high + other.high)

    def minus(self, other: Total) -> Total:
        """Return the total with the other's rows taken away."""
        return Total(self.rows - other.rows, self.low - other.low, self.high - other.high)

    @property
    def checksum(self) -> str:
        """Return 32 hex digits."""
        return f"{self.low & _MASK:016x}{self.high & _MASK:016x}"


@dataclass
class TableProof:
    """What was found about one table."""

    name: str
    rows_sqlite: int = 0
    rows_postgres: int = 0
    checksum_sqlite: str = ""
    checksum_postgres: str = ""
    equal: bool = False
    # How many rows stand on one side only (a changed row counts on both).
    only_sqlite: int = 0
    only_postgres: int = 0
    counted_all: bool = True  # False: the two numbers above are lower bounds
    differences: list[dict[str, Any]] = field(default_factory=list)
    memory: RowMemory | None = None
    total: Total = field(default_factory=Total)  # of SQLite's side
    sides: TableSides | None = None

    def judge(self, mine: Total, theirs: Total) -> None:
        """Note the checksums of SQLite's and PostgreSQL's side, and whether they agree."""
        self.rows_sqlite, self.checksum_sqlite = mine.rows, mine.checksum
        self.rows_postgres, self.checksum_postgres = theirs.rows, theirs.checksum
        self.equal = (mine.rows, mine.checksum) == (theirs.rows, theirs.checksum)

    def as_json(self) -> dict[str, Any]:
        """Return the table's entry in the report."""
        entry: dict[str, Any] = {
            "name": self.name,
            "rows_sqlite": self.rows_sqlite,
            "rows_postgres": self.rows_postgres,
            "checksum_sqlite": self.checksum_sqlite,
            "checksum_postgres": self.checksum_postgres,
            "equal": self.equal,
        }
        if not self.equal:
            entry |= {
                "rows_only_sqlite": self.only_sqlite,
                "rows_only_postgres": self.only_postgres,
                "counted_all": self.counted_all,
                "differences": self.differences,
            }
        return entry


@dataclass
class Proof:
    """Result of a comparison."""

    tables: list[TableProof] = field(default_factory=list)
    structure: list[str] = field(default_factory=list)  # differences, one sentence each
    not_compared: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Tell whether contents and structure agree."""
        return not self.structure and all(table.equal for table in self.tables)


def ferry_decimal(value: float | str | None) -> str | None:
    """Return a number in PostgreSQL's shortest notation for numeric, None for NULL."""
    if value is None:
        return None
    if not isinstance(value, (int, float)):
        return f"?{value!r}"
    number = Decimal(repr(value)).normalize()
    return format(number if number else Decimal(0), "f")


def ferry_as_text(value: Any) -> str | None:
    """Return any value as the text that the rule `text` makes of it."""
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, str) else repr(value)


def ferry_as_number(value: Any) -> str | None:
    """Return the same, but numbers in a form that does not tell how they are written."""
    if isinstance(value, float) and math.isfinite(value):
        if abs(value) < _EXACT and value == int(value):
            return str(int(value))
        return struct.pack(">d", value).hex()
    return ferry_as_text(value)


def text_forms(
    columns: dict[str, dict[str, tuple[str, bool]]],
    schema: Schema,
    shapes: Mapping[tuple[str, str], Mapping[str, int]],
) -> dict[tuple[str, str], str]:
    """Return ``{(table, column): category}`` where text in PostgreSQL may be more in SQLite.

    SQLite turns text into numbers in columns that are declared as such; and where the rule `text`
    made text of all, it has every class. ``shapes`` are those in which values were found.
    """
    forms = {}
    for table in schema.tables:
        for column in table.columns:
            category, _ = columns.get(table.name, {}).get(column.name, ("", False))
            declared = column.declared.upper()
            if category != "text":
                continue
            plain = not declared or (table.strict and declared == "ANY")
            if plain or ("BLOB" in declared and "INT" not in declared):
                if shapes.get((table.name, column.name), {}).keys() - {"text"}:
                    forms[table.name, column.name] = "any class"
            elif "INT" in declared or not any(w in declared for w in ("CHAR", "CLOB", "TEXT")):
                forms[table.name, column.name] = "affinity"
    return forms


class TableSides:
    """The canonical form of one table in the SQL of both sides."""

    def __init__(self, table: Table, columns: dict[str, str], namespace: str) -> None:
        """Take ``columns``: ``{name in PostgreSQL: category}`` of what is compared."""
        self.table = table
        # By name, so that the hash does not depend on the order in which columns were added.
        self.names = sorted(columns)
        self.categories = [columns[name] for name in self.names]
        self.place = f"{quote_name(namespace)}.{quote_name(table.name)}"
        key = table.primary_key.columns if table.primary_key else ()
        self.key = key if set(key) <= set(self.names) else ()

    def _row(self, side: int, of: str = "") -> str:
        """Return the expression for a row's canonical form in SQLite's (0) or PostgreSQL's SQL.

        ``of`` is what stands before the columns' names: "t." where they are those of "t".
        """
        forms = [
            _CANONICAL[category][side].replace("{c}", of + quote_name(name))
            for name, category in zip(self.names, self.categories, strict=True)
        ]
        chunks = [
            f"concat({', '.join(forms[start : start + _COLUMNS_PER_CHUNK])})"
            for start in range(0, len(forms), _COLUMNS_PER_CHUNK)
        ]
        return " || ".join(chunks)

    def sqlite_row(self, of: str = "") -> str:
        """Return SQLite's expression for a row's canonical form; see :meth:`prepare`."""
        return self._row(0, of)

    def prepare(self, connection: apsw.Connection) -> None:
        """Give a connection what SQLite's expression needs."""
        for category in FUNCTIONS.keys() & set(self.categories):
            function = FUNCTIONS[category]
            connection.create_scalar_function(function.__name__, function, 1, deterministic=True)
        if _TEXT_FORMS.keys() & set(self.categories):
            for function in (ferry_as_text, ferry_as_number):
                connection.create_scalar_function(
                    function.__name__, function, 1, deterministic=True
                )
        if "numeric" in self.categories:
            connection.create_scalar_function("ferry_decimal", ferry_decimal, 1, deterministic=True)

    def postgres_row(self) -> str:
        """Return PostgreSQL's expression for a row's canonical form."""
        return self._row(1)

    def postgres_hashes(self, where: str = "") -> str:
        """Return a sub-select of each row's md5.

        ``unnest`` has it evaluated once however often it is used; unlike OFFSET 0, which does so
        too, it leaves several processes free to work on it.
        """
        return (
            f"(SELECT unnest(ARRAY[md5({self.postgres_row()})]) AS m FROM {self.place} {where}) "
            "AS hashes"
        )

    def sqlite_rows(
        self, connection: apsw.Connection, beside: Sequence[str] = ()
    ) -> Iterator[tuple[bytes, tuple[Any, ...]]]:
        """Yield each row's md5 and the values of the columns ``beside``."""
        md5 = hashlib.md5
        for canonical, *values in self._canonical_rows(connection, beside):
            yield md5(canonical.encode(), usedforsecurity=False).digest(), tuple(values)

    def _canonical_rows(
        self, connection: apsw.Connection, beside: Sequence[str]
    ) -> Iterator[tuple[Any, ...]]:
        """Return SQLite's rows: the canonical form, and the columns ``beside`` as they are."""
        self.prepare(connection)
        wanted = ", ".join([self.sqlite_row(), *map(quote_name, beside)])
        return connection.execute(f"SELECT {wanted} FROM {quote_name(self.table.name)}")

    def sqlite_total(self, connection: apsw.Connection, memory: RowMemory | None = None) -> Total:
        """Add up the hashes of SQLite's rows, and remember them on request."""
        rows = self._canonical_rows(connection, self.key if memory else ())
        md5 = hashlib.md5
        count = low = high = 0
        while block := list(islice(rows, _ROWS_PER_BLOCK)):
            digests = [md5(row[0].encode(), usedforsecurity=False).digest() for row in block]
            numbers = array("q", b"".join(digests))
            if sys.byteorder == "little":
                numbers.byteswap()
            low += sum(numbers[::2])
            high += sum(numbers[1::2])
            count += len(block)
            if memory is not None:
                for row, digest in zip(block, digests, strict=True):
                    memory.add(row[1:], digest)
        return Total(count, low, high)


def same_key(key: Sequence[str], left: str, right: str) -> str:
    """Return SQLite's condition for two rows, of aliased tables, to have the same key.

    BINARY: a column's own collation would take 'a' and 'A' for the same.
    """
    return " AND ".join(
        f"{left}.{quote_name(name)} = {right}.{quote_name(name)} COLLATE BINARY" for name in key
    )


def changes_between(bench: apsw.Connection, sides: TableSides, new: str, base: str) -> Changes:
    """Say what differs between a table of two attached SQLite files.

    ``new`` and ``base`` are its places. Rows are paired by the primary key; without one nothing is
    changed, only new or deleted.
    """
    sides.prepare(bench)
    found = Changes()
    if not sides.key:
        found.new, found.deleted = bench.execute(
            "SELECT coalesce(sum(max(n, 0)), 0), coalesce(sum(max(-n, 0)), 0) FROM ("
            f"SELECT sum(side) AS n FROM (SELECT {sides.sqlite_row()} AS row, 1 AS side FROM {new} "
            f"UNION ALL SELECT {sides.sqlite_row()}, -1 FROM {base}) GROUP BY row)"
        ).fetchone()
        return found
    key = [quote_name(name) for name in sides.key]
    rows = bench.execute(
        f"SELECT b.{key[0]} IS NULL, {', '.join(f'n.{name}' for name in key)} "
        f"FROM {new} n LEFT JOIN {base} b ON {same_key(sides.key, 'n', 'b')} "
        f"WHERE b.{key[0]} IS NULL OR {sides.sqlite_row('n.')} <> {sides.sqlite_row('b.')}"
    )
    for is_new, *values in rows:
        found.note(values, is_new=bool(is_new))
    (now,) = bench.execute(f"SELECT count(*) FROM {new}").fetchone()
    (before,) = bench.execute(f"SELECT count(*) FROM {base}").fetchone()
    found.deleted = before - (now - found.new)
    return found


def postgres_total(connection: psycopg.Connection, sides: TableSides, where: str = "") -> Total:
    """Let PostgreSQL add up the hashes of its rows."""
    row = connection.execute(
        "SELECT count(*), coalesce(sum(('x' || left(m, 16))::bit(64)::bigint), 0), "
        "coalesce(sum(('x' || right(m, 16))::bit(64)::bigint), 0) "
        f"FROM {sides.postgres_hashes(where)}"
    ).fetchone()
    return Total(row[0], int(row[1]), int(row[2]))


def columns_of(
    connection: psycopg.Connection, namespace: str
) -> dict[str, dict[str, tuple[str, bool]]]:
    """Return ``{table: {column: (category, not null)}}`` of a schema."""
    rows = connection.execute(
        """
        SELECT c.relname, a.attname, t.typname, a.attnotnull
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid
        WHERE n.nspname = %s AND c.relkind IN ('r', 'p')
        ORDER BY c.relname, a.attnum
        """,
        (namespace,),
    ).fetchall()
    found: dict[str, dict[str, tuple[str, bool]]] = {}
    for table, column, type_name, not_null in rows:
        category = _CATEGORIES.get(type_name, "text")
        found.setdefault(table, {})[column] = (category, not_null)
    return found


class Comparison:
    """One comparison of all tables; use it as a context manager.

    SQLite's side is summed up in a thread of its own from the beginning, so that PostgreSQL may
    build indexes meanwhile; the contents of its tables must stand by then. Nobody else may use the
    connection ``source`` until :meth:`finish`.
    """

    def __init__(
        self,
        source: apsw.Connection,
        target: psycopg.Connection,
        schema: Schema,
        namespace: str,
        *,
        remember: bool = False,
        forms: Mapping[tuple[str, str], str] = MappingProxyType({}),
    ) -> None:
        """Begin; see :func:`compare`."""
        self.source = source
        self.target = target
        self.schema = schema
        self.namespace = namespace
        self.proof = Proof()
        self._forms = forms
        self._pairs: list[tuple[TableSides, TableProof]] = []
        self._failure: BaseException | None = None
        self._pair_tables()
        if remember and self._count_rows() <= MAX_ROWS:
            for sides, proof in self._pairs:
                proof.memory = RowMemory(sides.names)
        self._thread = threading.Thread(target=self._sum_up_sqlite, name="proof of SQLite's side")
        self._thread.start()

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        while self._thread.is_alive():
            self.source.interrupt()
            self._thread.join(0.05)

    def finish(self) -> Proof:
        """Sum up PostgreSQL's side and compare everything."""
        totals = {sides.table.name: postgres_total(self.target, sides) for sides, _ in self._pairs}
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        for sides, proof in self._pairs:
            proof.judge(proof.total, totals[proof.name])
            if not proof.equal:
                _narrow_down(self.source, self.target, sides, proof)
        self.proof.structure += compare_structure(self.target, self.schema, self.namespace)
        return self.proof

    def _pair_tables(self) -> None:
        present = columns_of(self.target, self.namespace)
        for table in self.schema.tables:
            proof = TableProof(table.name)
            self.proof.tables.append(proof)
            if table.name not in present:
                self.proof.structure.append(f"table {table.name} is missing in PostgreSQL")
                (proof.rows_sqlite,) = self.source.execute(
                    f"SELECT count(*) FROM {quote_name(table.name)}"
                ).fetchone()
                continue
            sides = self._sides(table, present[table.name])
            proof.sides = sides
            self._pairs.append((sides, proof))
        for name in sorted(set(present) - {table.name for table in self.schema.tables}):
            self.proof.not_compared.append(f"table {name}: only in PostgreSQL")

    def _count_rows(self) -> int:
        names = (quote_name(table.name) for table in self.schema.tables)
        return sum(
            self.source.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names
        )

    def _sides(self, table: Table, present: dict[str, tuple[str, bool]]) -> TableSides:
        names = {column.name for column in table.columns}
        for name in names - set(present):
            self.proof.structure.append(f"column {table.name}.{name} is missing in PostgreSQL")
        for name in sorted(set(present) - names):
            self.proof.not_compared.append(f"column {table.name}.{name}: only in PostgreSQL")
        common = {
            name: self._forms.get((table.name, name), kind)
            for name, (kind, _) in present.items()
            if name in names
        }
        return TableSides(table, common, self.namespace)

    def _sum_up_sqlite(self) -> None:
        try:
            for sides, proof in self._pairs:
                proof.total = sides.sqlite_total(self.source, proof.memory)
        except BaseException as error:
            self._failure = error


@dataclass
class Differences:
    """The rows that stand on one side only, as ``{md5: how often}``."""

    total: Total  # of SQLite's side
    only_sqlite: Counter[str] = field(default_factory=Counter)
    only_postgres: Counter[str] = field(default_factory=Counter)
    counted_all: bool = True


def find_differences(
    source: apsw.Connection,
    target: psycopg.Connection,
    sides: TableSides,
    *,
    limit: int | None = None,
) -> Differences:
    """Find the rows that differ.

    The rows' hashes are sorted into buckets by their first digits; only buckets whose sums differ
    are looked at row by row, up to ``limit`` rows.
    """
    (rows,) = source.execute(f"SELECT count(*) FROM {quote_name(sides.table.name)}").fetchone()
    digits = 3 if rows < 100_000 else 4 if rows < 1_000_000 else 5
    counts, sums = array("q", [0]) * 16**digits, array("Q", [0]) * 16**digits
    low = high = 0
    unpack = struct.Struct(">qq").unpack
    for digest, _ in sides.sqlite_rows(source):
        bucket = int(digest.hex()[:digits], 16)
        first, second = unpack(digest)
        low += first
        high += second
        counts[bucket] += 1
        sums[bucket] = (sums[bucket] + second) & _MASK
    found = Differences(Total(sum(counts), low, high))
    sizes = array("q", counts)
    with target.cursor(name="ferry_buckets") as cursor:
        cursor.itersize = 10_000
        cursor.execute(
            f"SELECT left(m, {digits}), count(*), sum(('x' || right(m, 16))::bit(64)::bigint) "
            f"FROM {sides.postgres_hashes()} GROUP BY 1"
        )
        for text, rows_there, total in cursor:
            bucket = int(text, 16)
            counts[bucket] -= rows_there
            sizes[bucket] += rows_there
            sums[bucket] = (sums[bucket] - int(total)) & _MASK
    wanted: set[str] = set()
    looked_at = 0
    for bucket, (count, total) in enumerate(zip(counts, sums, strict=True)):
        if count or total:
            looked_at += sizes[bucket]
            if limit is not None and looked_at > limit and wanted:
                found.counted_all = False
                break
            wanted.add(f"{bucket:0{digits}x}")
    if not wanted:
        return found
    left: Counter[str] = Counter()
    for digest, _ in sides.sqlite_rows(source):
        if (text := digest.hex())[:digits] in wanted:
            left[text] += 1
    right: Counter[str] = Counter()
    # Names may hold percent signs, which are psycopg's where there are parameters.
    hashes = sides.postgres_hashes().replace("%", "%%")
    for (text,) in target.execute(
        f"SELECT m FROM {hashes} WHERE left(m, {digits}) = ANY(%s)", (sorted(wanted),)
    ):
        right[text] += 1
    found.only_sqlite, found.only_postgres = left - right, right - left
    return found


def rows_of_hashes(
    target: psycopg.Connection, sides: TableSides, wanted: Counter[str]
) -> list[tuple[str, tuple[str, ...]]]:
    """Return place (ctid) and key of the rows with these hashes, each as often as wanted."""
    left = Counter(wanted)
    keys = "".join(f", {quote_name(name)}::text" for name in sides.key)
    hashed = (
        f"(SELECT md5({sides.postgres_row()}) AS ferry_md5, ctid, * FROM {sides.place} OFFSET 0)"
    )
    query = f"SELECT ferry_md5, ctid::text{keys} FROM {hashed} AS t".replace("%", "%%")
    found = []
    for text, place, *key in target.execute(f"{query} WHERE ferry_md5 = ANY(%s)", (list(wanted),)):
        if left[text]:
            left[text] -= 1
            found.append((place, tuple(map(str, key))))
    return found


def _narrow_down(
    source: apsw.Connection, target: psycopg.Connection, sides: TableSides, proof: TableProof
) -> None:
    """Find the rows that differ and show the first of them column by column."""
    found = find_differences(source, target, sides, limit=_MAX_NARROWED)
    proof.counted_all = found.counted_all
    proof.only_sqlite = found.only_sqlite.total()
    proof.only_postgres = found.only_postgres.total()
    _show(source, target, sides, proof, set(found.only_sqlite), set(found.only_postgres))


def _show(
    source: apsw.Connection,
    target: psycopg.Connection,
    sides: TableSides,
    proof: TableProof,
    only_sqlite: set[str],
    only_postgres: set[str],
) -> None:
    """Show the first differing rows; rows with the same key are shown column by column."""
    key = sides.key
    mine: dict[Any, dict[str, Any]] = {}
    for digest, row in sides.sqlite_rows(source, sides.names):
        if digest.hex() in only_sqlite:
            values = dict(zip(sides.names, row, strict=True))
            mine[_key(values, key, len(mine))] = values
            if len(mine) == SHOWN:
                break
    theirs: dict[Any, dict[str, Any]] = {}
    as_text = ", ".join(f"{quote_name(name)}::text" for name in sides.names)
    place = f"(SELECT *, md5({sides.postgres_row()}) AS ferry_md5 FROM {sides.place} OFFSET 0) AS t"
    wanted = sql.SQL(
        f"SELECT {as_text.replace('%', '%%')} FROM {place.replace('%', '%%')} "
        "WHERE ferry_md5 = ANY(%s)"
    )
    # Enough to find the partners of what was found above, not the whole table.
    hashes = list(islice(only_postgres, 10_000))
    for row in target.execute(wanted, (hashes,)):
        values = dict(zip(sides.names, row, strict=True))
        theirs[_key(values, key, len(theirs))] = values
    paired = set()
    for name, values in mine.items():
        entry: dict[str, Any] = {"row": _readable_key(name)}
        other = theirs.get(name)
        if other is None:
            entry |= {"only": "sqlite", "values": {k: _shorten(v) for k, v in values.items()}}
        else:
            paired.add(name)
            entry["columns"] = {
                column: {"sqlite": _shorten(values[column]), "postgres": _shorten(other[column])}
                for column in sides.names
                if not _alike(values[column], other[column])
            }
        proof.differences.append(entry)
    unpaired = [name for name in theirs if name not in paired]
    for name in unpaired[: max(0, SHOWN - len(paired))]:
        values = {column: _shorten(value) for column, value in theirs[name].items()}
        proof.differences.append({"row": _readable_key(name), "only": "postgres", "values": values})


def _key(values: dict[str, Any], key: Sequence[str], number: int) -> Any:
    if not key:
        return number
    return tuple((name, None if values[name] is None else str(values[name])) for name in key)


def _readable_key(key: Any) -> str:
    if isinstance(key, tuple):
        return ", ".join(f"{name} {value}" for name, value in key)
    return "(no key)"


def _alike(mine: Any, theirs: str | None) -> bool:
    """Tell whether two values read the same (only to leave them out of what is shown)."""
    if mine is None or theirs is None:
        return mine is None and theirs is None
    if isinstance(mine, float):
        try:
            return struct.pack(">d", mine) == struct.pack(">d", float(theirs))
        except ValueError:
            return False
    if isinstance(mine, bytes):
        return theirs == "\\x" + mine.hex()
    return str(mine) == theirs or (mine in (0, 1) and theirs == ("false", "true")[mine])


def _shorten(value: Any) -> str | None:
    if value is None:
        return None
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= 120 else text[:119] + "…"


def compare_structure(target: psycopg.Connection, schema: Schema, namespace: str) -> list[str]:
    """Compare NOT NULL, keys, unique constraints, foreign keys, indexes and sequences.

    Returns a sentence for each thing that SQLite has and PostgreSQL lacks.
    """
    present = columns_of(target, namespace)
    keys: dict[str, set[tuple[str, tuple[str, ...]]]] = {}
    for table, kind, columns in target.execute(
        """
        SELECT c.relname,
               CASE WHEN i.indisprimary THEN 'p' WHEN i.indisunique THEN 'u' ELSE 'i' END,
               ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY k(attnum, n)
                     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                     ORDER BY k.n)
        FROM pg_index i
        JOIN pg_class c ON c.oid = i.indrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
        """,
        (namespace,),
    ):
        keys.setdefault(table, set()).add((kind, tuple(columns)))
    foreign: dict[str, set[tuple[tuple[str, ...], str]]] = {}
    for table, parent, columns in target.execute(
        """
        SELECT c.relname, p.relname,
               ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY x(attnum, n)
                     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.attnum
                     ORDER BY x.n)
        FROM pg_constraint k
        JOIN pg_class c ON c.oid = k.conrelid
        JOIN pg_class p ON p.oid = k.confrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = %s AND k.contype = 'f' AND k.convalidated
        """,
        (namespace,),
    ):
        foreign.setdefault(table, set()).add((tuple(columns), parent))
    problems = []
    for table in schema.tables:
        columns = present.get(table.name)
        if columns is None:
            continue
        have = keys.get(table.name, set())
        name = table.name
        for column in table.columns:
            if column.not_null and column.name in columns and not columns[column.name][1]:
                problems.append(f"{name}.{column.name} is not NOT NULL in PostgreSQL")
        if table.primary_key and ("p", table.primary_key.columns) not in have:
            problems.append(f"{name} lacks the primary key {table.primary_key.columns}")
        for key in table.uniques:
            if not {*FOLDING} & {*key.collations} and not any(
                kind in "pu" and set(found) == set(key.columns) for kind, found in have
            ):
                problems.append(f"{name} lacks the unique constraint {key.columns}")
        for key in table.foreign_keys:
            names = tuple(table.column(part).name for part in key.columns)
            parent = schema.table(key.parent)
            if (
                parent is not None
                and schema.referenced(key)
                and (names, parent.name) not in foreign.get(name, set())
            ):
                problems.append(f"{name} lacks the foreign key {names} → {parent.name}")
        for index in table.indexes:
            simple = not index.where and all(
                part.column is not None and part.collation == "BINARY" for part in index.parts
            )
            columns_of_index = tuple(str(part.column) for part in index.parts)
            if simple and not any(found == columns_of_index for _, found in have):
                problems.append(f"{name} lacks the index {index.name} {columns_of_index}")
        problems += _compare_sequence(target, table, namespace)
    return problems


def _compare_sequence(target: psycopg.Connection, table: Table, namespace: str) -> list[str]:
    if table.rowid_alias is None:
        return []
    place = f"{quote_name(namespace)}.{quote_name(table.name)}"
    (sequence,) = target.execute(
        "SELECT pg_get_serial_sequence(%s, %s)", (place, table.rowid_alias)
    ).fetchone()
    if sequence is None:
        return [f"{table.name}.{table.rowid_alias} does not count by itself in PostgreSQL"]
    last, called = target.execute(f"SELECT last_value, is_called FROM {sequence}").fetchone()
    given = last if called else last - 1
    name = quote_name(table.rowid_alias)
    (highest,) = target.execute(f"SELECT coalesce(max({name}), 0) FROM {place}").fetchone()
    highest = max(highest, table.sequence or 0)
    if given < highest:
        return [f"the sequence of {table.name} stands at {given}, below {highest}, given already"]
    return []


def compare(
    source: apsw.Connection,
    target: psycopg.Connection,
    schema: Schema,
    namespace: str,
    *,
    remember: bool = False,
    forms: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> Proof:
    """Compare all tables of ``schema`` with their namesakes in PostgreSQL.

    Both connections should stand in a transaction that sees one state. With ``remember`` each
    table's proof keeps which rows there are, unless the database has too many of them for a report.
    ``forms``: see :func:`text_forms`.
    """
    with Comparison(
        source, target, schema, namespace, remember=remember, forms=forms
    ) as comparison:
        return comparison.finish()


def changes_since(
    memory: RowMemory, source: apsw.Connection, table: Table, columns: dict[str, str]
) -> Changes | None:
    """Compare a SQLite table with the memory of an earlier proof; None if columns came or went.

    ``columns`` are the categories of the columns in PostgreSQL, by name.
    """
    sides = TableSides(table, columns, "")
    if sides.names != memory.columns:
        return None
    return memory.changes(sides.sqlite_rows(source, sides.key))
