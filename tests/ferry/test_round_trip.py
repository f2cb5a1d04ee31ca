"""Any schema, any contents: copy, verify, reverse, and everything is as it was."""

import random
import sqlite3
import string
import tempfile
from pathlib import Path

from ferry.names import SYSTEM_COLUMNS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ferry import snapshot

# Text as people write it, and characters that formats and separators trip over.
texts = st.text(
    st.one_of(
        st.sampled_from("\\\t\n\r,;:'\"^%N{}\x1f\x7f\u2028é名😀\ufeff "),
        st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"),
    ),
    max_size=12,
)
seconds = st.datetimes()
timestamps = seconds.flatmap(
    lambda moment: st.sampled_from(
        [
            moment.isoformat(),
            moment.isoformat(" ", timespec="seconds"),
            moment.isoformat(timespec="milliseconds"),
            moment.isoformat(" ", timespec="minutes"),
            moment.date().isoformat(),
        ]
    )
)
VALUES = {
    "INTEGER": st.integers(-(2**63), 2**63 - 1),
    "REAL": st.floats(allow_nan=False),
    "TEXT": texts,
    "BLOB": st.binary(max_size=12),
    "BOOLEAN": st.sampled_from([0, 1, "t", "FALSE", "Yes"]),
    "TIMESTAMP": timestamps,
    "DATE": seconds.map(lambda moment: moment.date().isoformat()),
    "TIME": seconds.map(lambda moment: moment.time().isoformat()),
    "NUMERIC(12,3)": st.decimals(-999999999, 999999999, places=3).map(float),
    "VARCHAR(3)": texts,
}
# What does not fit its column, and goes through all the same as text or as another type.
UNFIT = {
    "INTEGER": st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False), texts),
    "REAL": st.one_of(st.floats(allow_nan=False), st.integers(-(2**53), 2**53), texts),
    "": st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), texts,
                  st.binary(max_size=9), st.integers(-99, 99).map(str)),
    "TIMESTAMP": st.one_of(timestamps, texts, timestamps.map("{}Z".format)),
    "DATE": st.one_of(seconds.map(lambda moment: moment.date().isoformat()), texts),
    "BOOLEAN": st.sampled_from([0, 1, "t", "maybe", ""]),
    "BOOL": st.sampled_from([0, 1, 2, -7]),
    "STRING": st.one_of(texts, st.floats(allow_nan=False), st.integers(-9, 9)),
}  # fmt: skip
RULES = "".join(
    f"[[rule]]\ntable = '*'\ncolumn = '*'\nhazard = '{hazard}'\naction = '{action}'\n"
    for hazard, action in [
        ("fraction-in-integer", "double"),
        ("beyond-64-bit", "double"),
        ("number-in-boolean", "integer"),
        # The last one of a column decides about its type.
        ("empty-text", "text"),
        ("text-in-number", "text"),
        ("text-in-boolean", "text"),
        ("word-in-timestamp", "text"),
        ("time-zone-in-timestamp", "text"),
        ("fine-fraction-in-timestamp", "text"),
        ("time-in-date", "text"),
        ("not-a-timestamp", "text"),
        ("mixed-types", "text"),
    ]
)
names = st.one_of(
    st.text(string.ascii_letters + " _\"'%$äé", min_size=1, max_size=10),
    st.sampled_from(["select", "Order", "rowid", "oid", "id", "user"]),
).filter(lambda name: name not in SYSTEM_COLUMNS)  # Hypothesis finds these in ferry's own source


def quote(name):
    return '"' + name.replace('"', '""') + '"'


@st.composite
def tables(draw, kinds=VALUES):
    columns = draw(
        st.lists(
            st.tuples(names, st.sampled_from(sorted(kinds)), st.booleans()),
            min_size=1,
            max_size=6,
            unique_by=lambda column: column[0].lower(),
        )
    )
    key = draw(st.sampled_from(["none", "identity", "autoincrement", "without rowid"]))
    definitions, generators = [], []
    if key != "none" and all(name.lower() != "k" for name, *_ in columns):
        words = {
            "identity": "INTEGER PRIMARY KEY",
            "autoincrement": "INTEGER PRIMARY KEY AUTOINCREMENT",
            "without rowid": "TEXT PRIMARY KEY",
        }[key]
        definitions.append(f"k {words}")
        generators.append(None)
    else:
        key = "none"
    for name, declared, required in columns:
        definitions.append(f"{quote(name)} {declared}{' NOT NULL' if required else ''}")
        values = kinds[declared]
        generators.append(values if required else st.one_of(st.none(), values))
    count = draw(st.integers(0, 8))
    rows = []
    for number in range(count):
        identifier = number * 3 - 4 if key != "without rowid" else f"key {number}"
        rows.append([identifier if values is None else draw(values) for values in generators])
    suffix = " WITHOUT ROWID" if key == "without rowid" else ""
    return f"({', '.join(definitions)}){suffix}", rows


def contents(path):
    connection = sqlite3.connect(path)
    schema = connection.execute(
        "SELECT type, name, sql FROM sqlite_master ORDER BY name"
    ).fetchall()
    found = {}
    for kind, name, _ in schema:
        if kind == "table":
            rows = connection.execute(f"SELECT * FROM {quote(name)}").fetchall()
            found[name] = sorted(map(repr, rows))
    connection.close()
    return schema, found


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                           HealthCheck.data_too_large],
)  # fmt: skip
@given(
    bodies=st.lists(tables(), min_size=1, max_size=3),
    page_size=st.sampled_from([512, 4096]),
    encoding=st.sampled_from(["UTF-8", "UTF-16le"]),
)
def test_copy_and_reverse_give_back_the_same_database(
    ferry, postgres_cluster, bodies, page_size, encoding
):
    with (
        tempfile.TemporaryDirectory() as directory,
        postgres_cluster.fresh_database("trip") as database,
    ):
        path, back = Path(directory) / "source.db", Path(directory) / "back.db"
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        for number, (body, rows) in enumerate(bodies):
            connection.execute(f"CREATE TABLE t{number} {body}")
            for row in rows:
                marks = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO t{number} VALUES ({marks})", row)
        connection.close()
        digest = snapshot.sha256(str(path))

        run = ferry("copy", path, database.dsn)
        assert run.code == 0, (run, bodies)
        assert ferry("verify", path, database.dsn).code == 0
        assert snapshot.sha256(str(path)) == digest
        # Only where a table has no key, the copy cannot note which value was written in which way.
        loose = any("would come back" in message["text"] for message in run.report["messages"])
        run = ferry("reverse", database.dsn, back)
        assert run.code == 0, run
        if not loose:
            assert contents(back) == contents(path)

        # And a changed value is noticed: one random cell of one random row.
        filled = [n for n, (_, rows) in enumerate(bodies) if rows]
        if filled:
            number = random.Random(digest).choice(filled)  # noqa: S311
            connection = sqlite3.connect(path, isolation_level=None)
            column = quote(connection.execute(f"PRAGMA table_info(t{number})").fetchall()[-1][1])
            connection.execute(
                f"UPDATE t{number} SET {column} = 'changed' WHERE {column} IS "
                f"(SELECT {column} FROM t{number} LIMIT 1)"
            )
            connection.close()
            assert ferry("verify", path, database.dsn).code == 4


PROGRAMS = """
CREATE VIEW v0 AS SELECT count(*) AS n FROM t0;
CREATE TABLE log (n INTEGER);
CREATE TRIGGER tr0 AFTER INSERT ON t0 BEGIN INSERT INTO log VALUES (1); END;
CREATE TABLE posts (id INTEGER PRIMARY KEY, body TEXT);
CREATE VIRTUAL TABLE found USING fts5(body, content='posts', content_rowid='id');
CREATE VIRTUAL TABLE notes USING fts4(body);
CREATE TRIGGER tr1 AFTER INSERT ON posts BEGIN
    INSERT INTO found(rowid, body) VALUES (new.id, new.body); END;
INSERT INTO posts (body) VALUES ('one'), ('two');
INSERT INTO notes (body) VALUES ('three');
"""


def whole(path):
    """Everything in a file but the pages of indexes."""
    connection = sqlite3.connect(path)
    settings = [
        connection.execute(f"PRAGMA {name}").fetchone()
        for name in ("user_version", "application_id", "encoding", "auto_vacuum", "page_size")
    ]
    schema = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 2").fetchall()
    found = {}
    for kind, name, _ in schema:
        if kind == "table" and not name.startswith(("found_", "notes_")):
            rows = connection.execute(f"SELECT * FROM {quote(name)}").fetchall()
            found[name] = sorted(map(repr, rows))
    connection.close()
    return settings, schema, found


@settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.generate],  # an example is a second: too slow to be made smaller
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
                           HealthCheck.data_too_large],
)  # fmt: skip
@given(
    bodies=st.lists(tables(UNFIT), min_size=1, max_size=3),
    page_size=st.sampled_from([1024, 4096]),
    encoding=st.sampled_from(["UTF-8", "UTF-16be"]),
    auto_vacuum=st.integers(0, 2),
    version=st.integers(-(2**31), 2**31 - 1),
)
def test_copy_by_rules_and_reverse_give_back_the_original(
    ferry, postgres_cluster, bodies, page_size, encoding, auto_vacuum, version
):
    with (
        tempfile.TemporaryDirectory() as directory,
        postgres_cluster.fresh_database("trip") as database,
    ):
        path, back = Path(directory) / "source.db", Path(directory) / "back.db"
        rules = Path(directory) / "rules.toml"
        rules.write_text(RULES)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.executescript(
            f"PRAGMA page_size = {page_size}; PRAGMA encoding = '{encoding}';"
            f"PRAGMA auto_vacuum = {auto_vacuum}"
        )
        for number, (body, rows) in enumerate(bodies):
            connection.execute(f"CREATE TABLE t{number} {body}")
            for row in rows:
                marks = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO t{number} VALUES ({marks})", row)
        connection.executescript(
            f"{PROGRAMS} PRAGMA user_version = {version}; PRAGMA application_id = {~version}"
        )
        connection.close()

        run = ferry("copy", path, database.dsn, "--rules", rules)
        assert run.code == 0, (run, bodies)
        loose = any("would come back" in message["text"] for message in run.report["messages"])
        run = ferry("reverse", database.dsn, back)
        assert run.code == 0, (run, bodies)
        assert run.report["not_carried"] == []
        assert whole(back)[:2] == whole(path)[:2]
        if not loose:
            assert whole(back) == whole(path)
