"""verify: any difference is found, narrowed down and shown; equal is only what is equal."""

import random
import sqlite3

import pytest
from ferry.rows import RowMemory


def execute(database, statement):
    with database.connect() as connection:
        return connection.execute(statement)


def table_of(run, name):
    return next(table for table in run.report["tables"] if table["name"] == name)


CHANGES = [
    ("an integer", "UPDATE {w} SET kills = kills + 1 WHERE id = {id}", ["kills"]),
    ("the last bit of a double",
     "UPDATE {w} SET accuracy = accuracy * (1 + 3e-16) WHERE id = {id}", ["accuracy"]),
    ("a double rounded to four bytes",
     "UPDATE {w} SET accuracy = accuracy::float4 WHERE id = {id}", ["accuracy"]),
    ("a number to NULL", "UPDATE {w} SET kills = NULL WHERE id = {id}", ["kills"]),
    ("a space at the end of a name",
     "UPDATE {w} SET player_name = player_name || ' ' WHERE id = {id}", ["player_name"]),
    ("text moved from one column to the next",
     "UPDATE {w} SET player_name = left(player_name, -1), weapon_name = right(player_name, 1) "
     "|| weapon_name WHERE id = {id}", ["player_name", "weapon_name"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "columns"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_one_changed_value_is_found_and_shown(ferry, bot_database, copied, statement, columns):
    table = "weapon_comprehensive_stats"
    (identifier,) = execute(
        copied, f"SELECT id FROM {table} WHERE accuracy::float4 <> accuracy ORDER BY id DESC"
    ).fetchone()
    execute(copied, statement.format(w=table, id=identifier))
    run = ferry("verify", bot_database, copied.dsn)
    assert run.code == 4, run
    entry = table_of(run, table)
    assert entry["equal"] is False
    assert (entry["rows_only_sqlite"], entry["rows_only_postgres"]) == (1, 1)
    (difference,) = entry["differences"]
    assert difference["row"] == f"id {identifier}"
    assert sorted(difference["columns"]) == columns
    assert f"id {identifier}" in run.err
    assert all(t["equal"] for t in run.report["tables"] if t["name"] != table)


def test_changes_that_cancel_out_are_found(ferry, bot_database, copied):
    execute(
        copied,
        "UPDATE rounds SET winner_team = winner_team + CASE id WHEN 1 THEN 1 ELSE -1 END "
        "WHERE id IN (1, 4)",
    )
    assert ferry("verify", bot_database, copied.dsn).code == 4


def test_values_swapped_between_rows_are_found(ferry, bot_database, copied):
    execute(
        copied,
        "UPDATE processed_files p SET file_hash = q.file_hash FROM processed_files q "
        "WHERE p.id IN (7, 37) AND q.id = 44 - p.id",
    )
    run = ferry("verify", bot_database, copied.dsn)
    assert run.code == 4
    assert table_of(run, "processed_files")["rows_only_sqlite"] == 2


def test_missing_and_added_rows_are_told_apart(ferry, bot_database, copied):
    execute(copied, "DELETE FROM processed_files WHERE id = 7")
    execute(copied, "INSERT INTO processed_files (id, filename) VALUES (5, 'new')")
    run = ferry("verify", bot_database, copied.dsn)
    only = {d["row"]: d["only"] for d in table_of(run, "processed_files")["differences"]}
    assert only == {"id 7": "sqlite", "id 5": "postgres"}


def test_duplicates_count_where_there_is_no_key(ferry, make_sqlite, database):
    path = make_sqlite("CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('x'), ('x'), ('y'), ('y')")
    assert ferry("copy", path, database.dsn).code == 0
    # Same number of rows, same set of values, and an even number of changes.
    execute(database, "DELETE FROM t")
    execute(database, "INSERT INTO t VALUES ('x'), ('x'), ('x'), ('y')")
    run = ferry("verify", path, database.dsn)
    assert run.code == 4
    entry = table_of(run, "t")
    assert (entry["rows_only_sqlite"], entry["rows_only_postgres"]) == (1, 1)


@pytest.mark.parametrize("seed", range(12))
def test_a_random_changed_cell_of_the_source_is_always_found(
    ferry, bot_database, own_bot_database, copied, seed
):
    chance = random.Random(seed)  # noqa: S311
    connection = sqlite3.connect(own_bot_database, isolation_level=None)
    tables = ("rounds", "player_comprehensive_stats", "weapon_comprehensive_stats",
              "processed_files", "player_links")  # fmt: skip
    table = chance.choice(tables)
    columns = [row[1:3] for row in connection.execute(f"PRAGMA table_info({table})")][1:]
    name, declared = chance.choice(columns)
    (row,) = connection.execute(f"SELECT rowid FROM {table} ORDER BY random() LIMIT 1").fetchone()
    change = {
        "INTEGER": f"ifnull({name}, 0) + 1",
        "BIGINT": f"ifnull({name}, 0) + 1",
        "REAL": f"ifnull({name}, 0) * 1.0000000000000004 + 1e-9",
        "BOOLEAN": f"NOT ifnull({name}, 0)",
        "TIMESTAMP": "'2031-01-01 00:00:00'",
    }.get(declared, f"ifnull({name}, '') || 'x'")
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute(f"UPDATE {table} SET {name} = {change} WHERE rowid = ?", (row,))
    connection.close()
    assert ferry("verify", bot_database, copied.dsn).code == 0
    run = ferry("verify", own_bot_database, copied.dsn)
    assert run.code == 4
    assert [t["name"] for t in run.report["tables"] if not t["equal"]] == [table]
    assert name in str(table_of(run, table)["differences"])


@pytest.mark.parametrize("seed", range(8))
def test_a_random_changed_cell_of_the_target_is_always_found(ferry, bot_database, copied, seed):
    chance = random.Random(seed)  # noqa: S311
    columns = execute(
        copied,
        "SELECT table_name, column_name, data_type FROM information_schema.columns c "
        "WHERE table_schema = 'public' AND column_name NOT IN ('id', 'round_id', 'discord_id') "
        "AND table_name NOT IN ('session_teams', 'player_aliases') ORDER BY 1, ordinal_position",
    ).fetchall()
    table, column, kind = chance.choice(columns)
    change = {
        "integer": f"coalesce({column}, 0) + 1000003",
        "bigint": f"coalesce({column}, 0) + 1000003",
        "double precision": f"coalesce({column}, 0) * 1.0000000000000004 + 1e-9",
        "boolean": f"NOT coalesce({column}, false)",
        "timestamp without time zone": f"coalesce({column}, now()) + interval '1 microsecond'",
    }.get(kind, f"coalesce({column}, '') || 'x'")
    row = chance.random()
    execute(
        copied,
        f"UPDATE {table} SET {column} = {change} WHERE ctid = (SELECT ctid FROM {table} "
        f"OFFSET (SELECT floor(count(*) * {row}) FROM {table}) LIMIT 1)",
    )
    run = ferry("verify", bot_database, copied.dsn)
    assert run.code == 4, run
    assert [t["name"] for t in run.report["tables"] if not t["equal"]] == [table]
    assert column in str(table_of(run, table)["differences"])


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DROP TABLE player_aliases", "table player_aliases is missing"),
        ("ALTER TABLE rounds DROP COLUMN map_name", "column rounds.map_name is missing"),
        ("ALTER TABLE rounds ALTER map_name DROP NOT NULL", "rounds.map_name is not NOT NULL"),
        ("ALTER TABLE rounds DROP CONSTRAINT rounds_match_id_round_number_key",
         "rounds lacks the unique constraint"),
        ("ALTER TABLE player_links DROP CONSTRAINT player_links_pkey",
         "player_links lacks the primary key"),
        ("ALTER TABLE weapon_comprehensive_stats "
         "DROP CONSTRAINT weapon_comprehensive_stats_round_id_fkey", "lacks the foreign key"),
        ("SELECT setval('rounds_id_seq', 5)", "sequence of rounds stands at 5"),
        ("ALTER TABLE rounds ALTER id DROP IDENTITY", "does not count by itself"),
        ("DROP INDEX idx_weapon_guid", "lacks the index idx_weapon_guid"),
    ],
)  # fmt: skip
def test_a_lost_constraint_is_a_difference(ferry, bot_database, copied, statement, message):
    execute(copied, statement)
    run = ferry("verify", bot_database, copied.dsn)
    assert run.code == 4, run
    assert message in run.err
    assert any(message in line for line in run.report["structure"])


def test_what_is_not_compared_is_said(ferry, bot_database, copied):
    execute(copied, "CREATE TABLE extra (a int)")
    execute(copied, "ALTER TABLE rounds ADD COLUMN note text")
    run = ferry("verify", bot_database, copied.dsn)
    assert run.code == 0, run
    assert run.report["not_compared"] == [
        "column rounds.note: only in PostgreSQL",
        "table extra: only in PostgreSQL",
    ]
    assert "not compared: table extra" in run.out


def test_a_table_that_differs_everywhere_is_counted_and_only_its_beginning_shown(
    ferry, bot_database, copied
):
    execute(copied, "UPDATE weapon_comprehensive_stats SET kills = kills + 1")
    run = ferry("verify", bot_database, copied.dsn)
    entry = table_of(run, "weapon_comprehensive_stats")
    assert entry["rows_only_sqlite"] > 500
    assert 5 <= len(entry["differences"]) <= 10


def test_a_source_without_a_target_differs(ferry, bot_database, database):
    run = ferry("verify", bot_database, database.dsn)
    assert run.code == 4
    assert "table rounds is missing" in run.err


def test_verify_needs_no_more_than_reading(ferry, bot_database, copied, postgres_cluster):
    role = f"reader_{copied.name}"
    execute(copied, f"CREATE ROLE {role} LOGIN")
    for kind in ("TABLES", "SEQUENCES"):
        execute(copied, f"GRANT SELECT ON ALL {kind} IN SCHEMA public TO {role}")
    run = ferry("verify", bot_database, postgres_cluster.database(copied.name, user=role).dsn)
    assert run.code == 0, run
    execute(copied, f"DROP OWNED BY {role}")
    execute(copied, f"DROP ROLE {role}")


def test_row_memory_survives_its_packing_and_counts_changes():
    memory = RowMemory(["a"])
    keys = [5, -3, 2**63 - 1, -(2**63), 1000]
    for key in keys:
        memory.add((key,), bytes([key % 251]) * 16)
    for _ in range(3):
        memory.add((), b"\x07" * 16)  # a table without a key may hold a row thrice
    again = RowMemory.from_json(memory.as_json())
    assert again == memory
    today = [(bytes([key % 251]) * 16, (key,)) for key in keys[:4]]
    today[0] = (b"\xff" * 16, (5,))
    today += [(b"\x07" * 16, ())] * 2 + [(b"\x01" * 16, (77,))]
    changes = again.changes(today)
    assert (changes.new, changes.changed, changes.deleted) == (1, 1, 2)
    assert (changes.first_new, changes.first_changed) == ([[77]], [[5]])
