"""Carry only what has changed since a copy.

With the snapshot that the copy was made from (the base), the changed rows are known exactly: rows
on pages that are the same in both SQLite files are left out, the others are joined. Without it,
both databases hash their rows into buckets, and only rows of buckets that differ are looked at.

A changed row is deleted and inserted again, with the foreign keys to its table away meanwhile: no
cascade runs, and values that change places do not collide. At the end everything is compared:
PostgreSQL's checksum of each table with the one that SQLite's side must have.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ferry import pages, proof, sqlite
from ferry.census import row_name, take_census
from ferry.errors import RefusedError
from ferry.load import copy_table, without_foreign_keys
from ferry.schema import Schema, Table, quote_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import apsw
    import psycopg

    from ferry.census import Census
    from ferry.versions import Versions, Written

_KEYS_PER_DELETE = 10_000


@dataclass
class TableDelta:
    """What is to be done to one table in PostgreSQL."""

    table: Table
    inserted: int = 0
    changed: int = 0
    deleted: int = 0
    # Rows to delete, by key (with a base) or by place (without one).
    keys: list[tuple[Any, ...]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    # What the checksum of the table must be afterwards, and of the rows in it that are carried.
    total: proof.Total = field(default_factory=proof.Total)
    carried: proof.Total = field(default_factory=proof.Total)
    # Who had written the base's rows when they were proven, and who has written what is there now.
    versions: Versions | None = None
    written: Written | None = None

    @property
    def touched(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.inserted or self.changed or self.deleted)

    def as_json(self) -> dict[str, int]:
        """Return the numbers for the report."""
        return {"inserted": self.inserted, "changed": self.changed, "deleted": self.deleted}


@contextlib.contextmanager
def workbench(new_uri: str, base_uri: str | None) -> Iterator[apsw.Connection]:
    """Open a connection that sees the new file's tables, and temporary ones in front of them.

    A temporary table with a table's own name holds the rows to carry: what reads the table then
    reads these rows only. The base, if there is one, is attached as ``base``.
    """
    connection = sqlite.connect(":memory:")
    try:
        connection.execute("PRAGMA temp_store = FILE")
        connection.execute("ATTACH ? AS new", (new_uri,))
        if base_uri is not None:
            connection.execute("ATTACH ? AS base", (base_uri,))
        yield connection
    finally:
        connection.close()


def _rows_of(database: str, part: str = "rows") -> str:
    return quote_name(f"ferry {part} of {database}")


def _key_of(table: Table) -> tuple[str, ...]:
    return table.primary_key.columns if table.primary_key else ()


def check_same_schema(new: Schema, base: Schema) -> None:
    """Refuse files whose tables are declared differently: sync carries rows only."""
    ours = {table.name: table.ddl for table in new.tables}
    theirs = {table.name: table.ddl for table in base.tables}
    names = sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )
    if names:
        raise RefusedError(
            f"the schema has changed since the base was made: {', '.join(names)}",
            "sync carries rows only; make a fresh copy",
        )


class Delta:
    """Finds what has changed, table by table, and carries it."""

    def __init__(
        self,
        bench: apsw.Connection,
        target: psycopg.Connection,
        schema: Schema,
        namespace: str,
        place: Callable[[str, str], str],
        differing: pages.Differing | None = None,
    ) -> None:
        """Take ``place``: where a table of ``new`` or ``base`` is, the rules' views before it."""
        self.bench = bench
        self.differing = differing
        self.target = target
        self.schema = schema
        self.namespace = namespace
        self.place = place
        self.columns = proof.columns_of(target, namespace)
        missing = [table.name for table in schema.tables if table.name not in self.columns]
        if missing:
            raise RefusedError(
                f"the target has not been copied to: {', '.join(missing[:10])} missing in the "
                f"schema {namespace}",
                "run `ferry copy` first",
            )

    def sides(self, table: Table) -> proof.TableSides:
        """Return the table's canonical form on both sides; refuses differing columns."""
        present = self.columns[table.name]
        names = {column.name for column in table.columns}
        if names != set(present):
            raise RefusedError(
                f"the columns of {table.name} differ: {', '.join(sorted(names ^ set(present)))}",
                "sync carries rows only; make a fresh copy",
            )
        categories = {name: category for name, (category, _) in present.items()}
        return proof.TableSides(table, categories, self.namespace)

    # With a base ---------------------------------------------------------------------------

    def from_base(self, table: Table, base_total: proof.Total) -> TableDelta:
        """Join both files; the rows to carry then stand in a temporary table."""
        delta = TableDelta(table)
        key = _key_of(table)
        name = quote_name(table.name)
        if not key:
            return self.from_target(table)
        new, base = self._candidates(table)
        columns = ", ".join(f"n.{quote_name(column.name)}" for column in table.columns)
        self.bench.execute(f"DROP VIEW IF EXISTS temp.{name}")
        first = quote_name(key[0])
        # BINARY: a column's own collation would take 'a' and 'A' for the same.
        differs = " OR ".join(
            f"n.{quote_name(column.name)} IS NOT b.{quote_name(column.name)} COLLATE BINARY"
            for column in table.columns
        )
        self.bench.execute(
            f"CREATE TEMP TABLE {name} AS SELECT {columns} FROM {new} n "
            f"LEFT JOIN {base} b ON {proof.same_key(key, 'n', 'b')} "
            f"WHERE b.{first} IS NULL OR {differs}"
        )
        keys = ", ".join(f"b.{quote_name(part)}" for part in key)
        replaced = self.bench.execute(
            f"SELECT {keys} FROM temp.{name} n JOIN {base} b ON {proof.same_key(key, 'n', 'b')}"
        ).fetchall()
        (carried,) = self.bench.execute(f"SELECT count(*) FROM temp.{name}").fetchone()
        delta.changed, delta.inserted = len(replaced), carried - len(replaced)
        (now,) = self.bench.execute(f"SELECT count(*) FROM {new}").fetchone()
        (before,) = self.bench.execute(f"SELECT count(*) FROM {base}").fetchone()
        gone = []
        if before + delta.inserted != now:
            gone = self.bench.execute(
                f"SELECT {keys} FROM {base} b LEFT JOIN {new} n ON {proof.same_key(key, 'b', 'n')} "
                f"WHERE n.{first} IS NULL"
            ).fetchall()
        delta.deleted = len(gone)
        delta.keys = replaced + gone
        sides = self.sides(table)
        delta.carried = sides.sqlite_total(self.bench)
        delta.total = base_total.plus(delta.carried)
        delta.total = delta.total.minus(self._total_of_base_rows(table, sides, base, delta.keys))
        for database in ("new", "base"):
            self.bench.execute(f"DROP TABLE IF EXISTS temp.{_rows_of(database)}")
        return delta

    def _candidates(self, table: Table) -> tuple[str, str]:
        """Return two places with all rows of ``new`` and ``base`` that can differ, perhaps more."""
        databases = ("new", "base")
        places = tuple(self.place(database, table.name) for database in databases)
        row = row_name(table)
        # Before a view of rules all rows count: what it shows of one may depend on another.
        plain = places == tuple(f"{database}.{quote_name(table.name)}" for database in databases)
        if not plain:
            return tuple(
                self._write_down(database, place, table, _key_of(table))
                for database, place in zip(databases, places, strict=True)
            )
        if self.differing is None or row is None:
            return places
        ranges = self.differing.rowids(table.name)
        if ranges is None:
            return places
        return tuple(
            pages.put_candidates(self.bench, database, table, row, ranges) for database in databases
        )

    def _write_down(self, database: str, place: str, table: Table, identity: Sequence[str]) -> str:
        """Write down what a view of rules shows of a table, and index it; returns the place.

        A join with the view itself would compute every key anew for every row of the other side.
        """
        rows = _rows_of(database)
        names = [column.name for column in table.columns]
        names += [name for name in identity if name not in names]  # the rowid
        columns, key = (", ".join(map(quote_name, part)) for part in (names, identity))
        self.bench.execute(f"CREATE TEMP TABLE {rows} AS SELECT {columns} FROM {place}")
        self.bench.execute(f"CREATE INDEX temp.{_rows_of(database, 'key')} ON {rows} ({key})")
        return f"temp.{rows}"

    def _total_of_base_rows(
        self,
        table: Table,
        sides: proof.TableSides,
        base: str,
        keys: Sequence[tuple[Any, ...]],
    ) -> proof.Total:
        """Hash the rows as they were: a temporary table stands in for them for a moment."""
        if not keys:
            return proof.Total()
        name = quote_name(table.name)
        columns = _key_of(table)
        self.bench.execute(f"ALTER TABLE temp.{name} RENAME TO ferry_aside")
        marks = ", ".join("?" * len(columns))
        names = ", ".join(f"k{number}" for number in range(len(columns)))
        self.bench.execute(f"CREATE TEMP TABLE ferry_keys ({names})")
        self.bench.executemany(f"INSERT INTO temp.ferry_keys VALUES ({marks})", keys)
        on = " AND ".join(
            f"b.{quote_name(column)} = k.k{number} COLLATE BINARY"
            for number, column in enumerate(columns)
        )
        wanted = ", ".join(f"b.{quote_name(column.name)}" for column in table.columns)
        self.bench.execute(
            f"CREATE TEMP TABLE {name} AS SELECT {wanted} FROM temp.ferry_keys k "
            f"CROSS JOIN {base} b ON {on}"
        )
        total = sides.sqlite_total(self.bench)
        self.bench.execute(f"DROP TABLE temp.{name}")
        self.bench.execute("DROP TABLE temp.ferry_keys")
        self.bench.execute(f"ALTER TABLE temp.ferry_aside RENAME TO {name}")
        return total

    # Without one ---------------------------------------------------------------------------

    def from_target(self, table: Table) -> TableDelta:
        """Compare both databases; the rows to carry then stand in a temporary table."""
        delta = TableDelta(table)
        sides = self.sides(table)
        found = proof.find_differences(self.bench, self.target, sides)
        delta.total = found.total
        name, new = quote_name(table.name), self.place("new", table.name)
        columns = ", ".join(f"n.{quote_name(column.name)}" for column in table.columns)
        if not found.only_sqlite and not found.only_postgres:
            self.bench.execute(f"DROP VIEW IF EXISTS temp.{name}")
            self.bench.execute(f"CREATE TEMP TABLE {name} AS SELECT {columns} FROM {new} n LIMIT 0")
            return delta
        keys = self._put_rows(table, sides, dict(found.only_sqlite))
        remote = proof.rows_of_hashes(self.target, sides, found.only_postgres)
        delta.places = [place for place, _ in remote]
        both = sum(bool(key) and key in keys for _, key in remote)
        delta.changed = both
        delta.inserted = sum(found.only_sqlite.values()) - both
        delta.deleted = len(remote) - both
        return delta

    def _put_rows(
        self, table: Table, sides: proof.TableSides, wanted: dict[str, int]
    ) -> set[tuple[str, ...]]:
        """Put the rows with these hashes into the temporary table; return their keys."""
        name, new = quote_name(table.name), self.place("new", table.name)
        row = row_name(table)
        # Where columns have all of the rowid's names, the rows themselves have to do.
        columns = [column.name for column in table.columns]
        identity = [row] if row else list(_key_of(table)) or columns
        names = ", ".join(f"k{number}" for number in range(len(identity)))
        marks = ", ".join("?" * len(identity))
        self.bench.execute(f"CREATE TEMP TABLE ferry_keys ({names})")
        keys = set()
        for digest, values in sides.sqlite_rows(self.bench, [*identity, *sides.key]):
            text = digest.hex()
            if wanted.get(text):
                wanted[text] -= 1
                self.bench.execute(
                    f"INSERT INTO temp.ferry_keys VALUES ({marks})", values[: len(identity)]
                )
                keys.add(tuple(map(str, values[len(identity) :])))
        rows = new
        if new.startswith("temp.") and identity is not columns:
            rows = self._write_down("new", new, table, identity)
        self.bench.execute(f"DROP VIEW IF EXISTS temp.{name}")
        every = ", ".join(f"n.{quote_name(column)}" for column in columns)
        if identity is columns:
            self.bench.execute(f"CREATE TEMP TABLE {name} AS SELECT {every} FROM {new} n LIMIT 0")
            own = ", ".join(map(quote_name, columns))
            self.bench.execute(f"INSERT INTO temp.{name} ({own}) SELECT * FROM temp.ferry_keys")
        else:
            on = " AND ".join(
                f"n.{quote_name(str(column))} = k.k{number} COLLATE BINARY"
                for number, column in enumerate(identity)
            )
            self.bench.execute(
                f"CREATE TEMP TABLE {name} AS SELECT {every} FROM temp.ferry_keys k "
                f"CROSS JOIN {rows} n ON {on}"
            )
        self.bench.execute(f"DROP TABLE IF EXISTS temp.{_rows_of('new')}")
        self.bench.execute("DROP TABLE temp.ferry_keys")
        return keys

    # Carrying ------------------------------------------------------------------------------

    def judge(self, deltas: Sequence[TableDelta]) -> Census:
        """Take the census of the rows to carry."""
        touched = Schema(tables=[delta.table for delta in deltas if delta.touched])
        return take_census(self.bench, touched, orphans=False, checks=False)

    def apply(self, deltas: Sequence[TableDelta], census: Census) -> None:
        """Delete and insert; foreign keys to what is replaced are away meanwhile."""
        touched = {delta.table.name: delta for delta in deltas if delta.touched}
        replaced = {name for name, delta in touched.items() if delta.keys or delta.places}
        with without_foreign_keys(self.target, self.namespace, list(touched), replaced) as order:
            for name in order:
                delta = touched[name]
                self._delete(delta)
                if delta.inserted or delta.changed:
                    generated = self._generated(name)
                    columns = [c.name for c in delta.table.columns if c.name not in generated]
                    copy_table(
                        self.bench,
                        self.target,
                        delta.table,
                        census.tables[name],
                        self.namespace,
                        columns,
                        lambda _: None,
                        fresh=False,
                    )
        for name in touched:
            self.target.execute(f"ANALYZE {self._place(name)}")

    def _place(self, table: str) -> str:
        return f"{quote_name(self.namespace)}.{quote_name(table)}"

    def _generated(self, table: str) -> set[str]:
        rows = self.target.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attgenerated <> ''",
            (self._place(table),),
        )
        return {name for (name,) in rows}

    def _delete(self, delta: TableDelta) -> None:
        deleted = 0
        if delta.places:
            place = self._place(delta.table.name).replace("%", "%%")
            for part in _parts(delta.places):
                deleted += self.target.execute(
                    f"DELETE FROM {place} WHERE ctid = ANY (%s::tid[])", (part,)
                ).rowcount
            expected = len(delta.places)
        else:
            deleted = self._delete_by_key(delta)
            expected = len(delta.keys)
        if deleted != expected:
            raise RefusedError(
                f"the target's table {delta.table.name} is not what the base says: {expected} rows "
                f"were to be replaced or deleted, {deleted} were found",
                "run sync without --base, which compares both databases, or make a fresh copy",
            )

    def _delete_by_key(self, delta: TableDelta) -> int:
        key = _key_of(delta.table)
        types = dict(
            self.target.execute(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                (self._place(delta.table.name),),
            ).fetchall()
        )
        columns = ", ".join(f"t.{quote_name(name)}" for name in key)
        arrays = ", ".join(f"unnest(%s::text[])::{types[name]}" for name in key)
        statement = (
            f"DELETE FROM {self._place(delta.table.name)} t WHERE ({columns}) IN "
        ).replace("%", "%%") + f"(SELECT {arrays})"
        deleted = 0
        for part in _parts(delta.keys):
            values = [[_as_text(row[number]) for row in part] for number in range(len(key))]
            deleted += self.target.execute(statement, values).rowcount
        return deleted


def _parts(items: Sequence[Any]) -> Iterable[list[Any]]:
    return (
        list(items[start : start + _KEYS_PER_DELETE])
        for start in range(0, len(items), _KEYS_PER_DELETE)
    )


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return repr(value) if isinstance(value, float) else str(value)
