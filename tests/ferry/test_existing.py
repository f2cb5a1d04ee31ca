"""copy --into-existing: into tables that the application made itself."""

import pytest

SOURCE = (
    "CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT NOT NULL, ok BOOLEAN, at TIMESTAMP);"
    "CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent, score REAL);"
    "INSERT INTO parent VALUES (5, 'a', 1, '2024-01-01 10:00:00'), (9, 'b', 0, NULL);"
    "INSERT INTO child VALUES (1, 9, 0.1), (2, 5, NULL)"
)
TARGET = """
    CREATE TABLE child (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, score float8,
        parent integer);
    CREATE TABLE parent (id serial PRIMARY KEY, at timestamptz, ok boolean DEFAULT false,
        name varchar(20) NOT NULL, note text DEFAULT 'none');
    ALTER TABLE child ADD CONSTRAINT kept FOREIGN KEY (parent) REFERENCES parent ON DELETE CASCADE;
    COMMENT ON TABLE parent IS 'the application speaks';
"""


@pytest.fixture
def fill(ferry, make_sqlite, database):
    def run(target=TARGET, source=SOURCE):
        path = make_sqlite(source)
        with database.connect() as connection:
            connection.execute(target)
        return path, ferry("copy", path, database.dsn, "--into-existing")

    return run


def ask(database, statement):
    with database.connect() as connection:
        return connection.execute(statement).fetchall()


def test_columns_are_matched_by_name_and_everything_is_proven(ferry, fill, database):
    path, run = fill()
    assert run.code == 0, run
    assert ask(database, "SELECT id, name, ok, note FROM parent ORDER BY id") == [
        (5, "a", True, "none"),
        (9, "b", False, "none"),
    ]
    assert ask(database, "SELECT extract(epoch FROM at)::int FROM parent WHERE id = 5") == [
        (1704103200,)
    ]
    assert all(table["equal"] for table in run.report["tables"])
    warnings = {m["text"] for m in run.report["messages"] if m["level"] == "warning"}
    assert any("parent.note exists only in PostgreSQL" in text for text in warnings)
    assert any("child.id is integer" in text for text in warnings)
    # The foreign key is back as it was, the sequences go on, the application's comment stays.
    assert ask(database, "SELECT conname, confdeltype::text, convalidated FROM pg_constraint "
                         "WHERE contype = 'f'") == [("kept", "c", True)]  # fmt: skip
    with database.connect() as connection:
        row = connection.execute("INSERT INTO parent (name) VALUES ('c') RETURNING id").fetchone()
        assert row == (10,)
        connection.execute("DELETE FROM parent WHERE id = 10")
    assert ferry("sync", path, database.dsn).code == 3, "it has a column of its own"
    with database.connect() as connection:
        connection.execute("ALTER TABLE parent DROP COLUMN note")
    assert ferry("sync", path, database.dsn).code == 0
    assert ask(database, "SELECT obj_description('parent'::regclass)") == [
        ("the application speaks",)
    ]
    again = ferry("copy", path, database.dsn, "--into-existing")
    assert again.report["outcome"] == "nothing to do"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "ALTER TABLE parent DROP COLUMN ok",
            "column parent.ok is missing in PostgreSQL (2 values)",
        ),
        ("DROP TABLE child", "table child is missing in PostgreSQL (2 rows)"),
        ("ALTER TABLE child ALTER score TYPE real", "child.score is real"),
        ("ALTER TABLE parent ALTER at TYPE date", "parent.at is date"),
        ("ALTER TABLE parent ADD COLUMN must int NOT NULL", "parent.must exists only"),
        ("INSERT INTO parent (name) VALUES ('seed')", "not empty: parent (1 rows)"),
        ("ALTER TABLE parent ADD CHECK (name <> 'b')", "violates check constraint"),
    ],
)
def test_what_would_lose_data_is_refused_and_nothing_is_written(fill, database, change, message):
    _, run = fill(TARGET + change)
    assert run.code == 3, run
    assert message in run.err
    assert ask(database, "SELECT count(*) FROM parent WHERE name <> 'seed'") == [(0,)]


def test_values_that_do_not_fit_the_applications_type_are_refused(fill, database):
    _, run = fill(source=SOURCE + ", (7000000000, 5, 1.5)")
    assert run.code == 3, run
    assert "out of range" in run.err
    assert ask(database, "SELECT count(*) FROM parent") == [(0,)]


ALIKE = [
    ("jsonb", """'{"bb":1,  "a":[1.50, 2e2, -0.0, null], "é\\n":"\\u00e9", "a":true}'"""),
    ("jsonb", "'[]'"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"),
    ("uuid", "'a0eebc999c0b4ef8bb6d6bb9bd380a11'"),
    ("inet", "'192.168.0.1'"),
    ("inet", "'10.1.2.3/8'"),
    ("inet", "'2001:DB8:0::1'"),
    ("interval", "'1 day 02:03:04.5'"),
    ("interval", "'P1Y2M3DT4H5M6S'"),
    ("interval", "'90 minutes'"),
    ("interval", "'-00:00:01'"),
    ("timestamptz", "'2024-01-01T10:00:00+02:00'"),
    ("timestamptz", "'2024-01-01 10:00:00.5Z'"),
]


def test_values_are_compared_and_not_how_they_are_written(fill, database):
    columns = ", ".join(f"c{number}" for number in range(len(ALIKE)))
    source = f"CREATE TABLE t ({columns.replace(',', ' TEXT,')} TEXT); INSERT INTO t VALUES (" + (
        ", ".join(value for _, value in ALIKE) + ")"
    )
    types = ", ".join(f"c{number} {kind}" for number, (kind, _) in enumerate(ALIKE))
    _, run = fill(f"CREATE TABLE t ({types})", source)
    assert run.code == 0, run
    assert ask(database, "SELECT c3::text, c4::text FROM t") == [
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "192.168.0.1/32")
    ]


@pytest.mark.parametrize(
    ("kind", "value", "other"),
    [
        ("jsonb", '{"a": 1}', '{"a": 1.0}'),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"),
        ("inet", "10.1.2.3/8", "10.1.2.3/9"),
        ("interval", "1 day", "24 hours"),
        ("timestamptz", "2024-01-01 10:00:00Z", "2024-01-01 10:00:00.000001Z"),
    ],
)
def test_values_that_are_not_the_same_are_a_difference(ferry, fill, database, kind, value, other):
    source = f"CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (5, '{value}')"
    path, run = fill(f"CREATE TABLE t (id bigint PRIMARY KEY, v {kind})", source)
    assert run.code == 0, run
    with database.connect() as connection:
        connection.execute(f"UPDATE t SET v = '{other}'")
    run = ferry("verify", path, database.dsn)
    assert run.code == 4, run
    assert "id 5" in run.err


def test_values_that_the_applications_type_alters_are_a_difference(fill, database):
    _, run = fill(TARGET.replace("name varchar(20)", "name char(20)"))
    assert run.code == 4, run
    assert "id 5" in run.err
    assert ask(database, "SELECT count(*) FROM parent") == [(0,)]
