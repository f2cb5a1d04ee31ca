"""sync: after a copy only what differs is carried, and everything is compared."""

import hashlib
import json
import sqlite3

import pytest


def change(path, *statements):
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def deltas(run):
    return {
        table["name"]: tuple(table["delta"][kind] for kind in ("inserted", "changed", "deleted"))
        for table in run.report["tables"]
        if any(table["delta"].values())
    }


def versions(database, table):
    with database.connect() as connection:
        return dict(connection.execute(f"SELECT id, xmin::text FROM {table}").fetchall())


@pytest.mark.parametrize("with_base", [True, False])
def test_only_what_changed_is_carried(
    ferry, bot_database, own_bot_database, copied, with_base, tmp_path
):
    change(
        own_bot_database,
        "INSERT INTO processed_files (filename) VALUES ('new 1'), ('new 2')",
        "UPDATE rounds SET winner_team = 7 WHERE id = 4",
        "DELETE FROM player_links WHERE rowid IN (SELECT rowid FROM player_links LIMIT 3)",
        "UPDATE weapon_comprehensive_stats SET accuracy = accuracy * (1 + 3e-16) "
        "WHERE accuracy > 1 AND id IN (SELECT id FROM weapon_comprehensive_stats LIMIT 40)",
        "INSERT INTO rounds (round_date, round_time, match_id, map_name, round_number) "
        "VALUES ('d', 't', 'm', 'x', 1)",
        "INSERT INTO weapon_comprehensive_stats (round_id, player_guid, player_name, weapon_name) "
        "SELECT max(id), 'g', 'n\t\\', 'w' FROM rounds",
        "DELETE FROM processed_files WHERE id = 7",
    )
    before = versions(copied, "weapon_comprehensive_stats")
    options = ["--base", bot_database] if with_base else []
    run = ferry("sync", own_bot_database, copied.dsn, *options)
    assert run.code == 0, run
    found = deltas(run)
    assert found["processed_files"] == (2, 0, 1)
    assert found["rounds"] == (1, 1, 0)
    assert found["player_links"] == (0, 0, 3)
    inserted, changed, deleted = found["weapon_comprehensive_stats"]
    assert (inserted, deleted) == (1, 0)
    assert 20 < changed <= 40
    assert "player_comprehensive_stats" not in found
    assert all(table["equal"] for table in run.report["tables"])
    after = versions(copied, "weapon_comprehensive_stats")
    assert sum(after.get(key) != version for key, version in before.items()) == changed

    assert ferry("verify", own_bot_database, copied.dsn).code == 0
    again = ferry("sync", own_bot_database, copied.dsn)
    assert again.code == 0
    assert again.report["outcome"] == "nothing to do"
    # Foreign keys were away meanwhile; the way back still knows the formats.
    assert ferry("reverse", copied.dsn, tmp_path / "back.db").code == 0
    with sqlite3.connect(tmp_path / "back.db") as back, sqlite3.connect(own_bot_database) as own:
        assert list(back.iterdump()) == list(own.iterdump())


@pytest.mark.parametrize("with_base", [True, False])
def test_unique_values_that_change_places_and_parents_that_move(
    ferry, make_sqlite, database, with_base
):
    script = (
        "CREATE TABLE p (id INTEGER PRIMARY KEY, name TEXT UNIQUE);"
        "CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p ON DELETE CASCADE);"
        "CREATE TABLE f (name TEXT PRIMARY KEY COLLATE NOCASE, v TEXT COLLATE NOCASE) "
        "WITHOUT ROWID;"
        "INSERT INTO p VALUES (1, 'a'), (2, 'b'); INSERT INTO c VALUES (1, 1), (2, 2);"
        "INSERT INTO f VALUES ('x', 'same'), ('y', 'v')"
    )
    base = make_sqlite(script, name="base.db")
    new = make_sqlite(script, name="new.db")
    assert ferry("copy", base, database.dsn).code == 0
    change(
        new,
        "UPDATE p SET name = 'z' WHERE id = 1",
        "UPDATE p SET name = 'a' WHERE id = 2",
        "UPDATE p SET name = 'b' WHERE id = 1",
        "UPDATE f SET v = 'SAME' WHERE name = 'x'",
        "UPDATE f SET name = 'Y' WHERE name = 'y'",
    )
    run = ferry("sync", new, database.dsn, *(["--base", base] if with_base else []))
    assert run.code == 0, run
    assert ferry("verify", new, database.dsn).code == 0
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM c").fetchone() == (2,), "nothing cascaded"
        assert connection.execute("SELECT confdeltype::text FROM pg_constraint WHERE contype = 'f'"
                                  ).fetchone() == ("c",)  # fmt: skip


FAMILY = (
    "CREATE TABLE a_child (id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent,"
    " elder INTEGER REFERENCES a_child);"
    "CREATE TABLE parent (id INTEGER PRIMARY KEY, eldest INTEGER {});"
    "INSERT INTO parent VALUES (1, NULL); INSERT INTO a_child VALUES (1, 1, NULL)"
)


@pytest.mark.parametrize(
    ("eldest", "statements", "kept"),
    [
        (
            "",
            ["INSERT INTO parent VALUES (2, 2)", "INSERT INTO a_child VALUES (2, 2, 3), (3, 1, 1)"],
            True,
        ),
        ("", ["DELETE FROM a_child", "INSERT INTO parent VALUES (7, 7)"], False),
        ("", ["UPDATE parent SET eldest = 1"], False),
        (
            "REFERENCES a_child",
            ["INSERT INTO parent VALUES (2, 2)", "INSERT INTO a_child VALUES (2, 2, NULL)"],
            False,
        ),
    ],
    ids=["rows come", "children go", "a parent changes", "each refers to the other"],
)
def test_foreign_keys_to_tables_that_only_grow_are_not_validated_anew(
    ferry, make_sqlite, database, eldest, statements, kept
):
    """That would take as long as the tables are, while nobody answers."""
    keys = "SELECT oid, conname FROM pg_constraint WHERE contype = 'f' ORDER BY conname"
    base, new = (make_sqlite(FAMILY.format(eldest), name=name) for name in ("base.db", "new.db"))
    assert ferry("copy", base, database.dsn).code == 0
    with database.connect() as connection:
        before = connection.execute(keys).fetchall()
    change(new, *statements)
    run = ferry("sync", new, database.dsn, "--base", base)
    assert run.code == 0, run
    assert ferry("verify", new, database.dsn).code == 0  # which compares the keys too
    with database.connect() as connection:
        assert (connection.execute(keys).fetchall() == before) == kept
    change(new, "INSERT INTO a_child VALUES (9, 999, NULL)")
    run = ferry("sync", new, database.dsn)
    assert run.code == 3, run
    assert "foreign key" in run.err


def test_another_file_than_was_sent_is_refused(ferry, bot_database, own_bot_database, copied):
    change(own_bot_database, "INSERT INTO processed_files (filename) VALUES ('new')")
    sent = hashlib.sha256(own_bot_database.read_bytes()).hexdigest()
    for options in ((), ("--base", bot_database)):
        run = ferry("sync", own_bot_database, copied.dsn, *options, "--sha256", "0" * 64)
        assert run.code == 3
        assert sent in run.err
    run = ferry("sync", own_bot_database, copied.dsn, "--base", bot_database, "--sha256", sent)
    assert run.code == 0, run
    assert run.report["source"]["sha256"] == sent
    assert deltas(run) == {"processed_files": (1, 0, 0)}


@pytest.mark.parametrize("with_base", [True, False])
def test_tables_without_a_key_and_with_percent_signs(ferry, make_sqlite, database, with_base):
    script = (
        'CREATE TABLE "100%" ("a%s" TEXT, b BLOB);'
        "INSERT INTO \"100%\" VALUES ('x', x'01'), ('x', x'01'), ('y', NULL), ('y', NULL)"
    )
    base, new = make_sqlite(script, name="base.db"), make_sqlite(script, name="new.db")
    assert ferry("copy", base, database.dsn).code == 0
    change(
        new,
        'DELETE FROM "100%" WHERE rowid = 2',
        "INSERT INTO \"100%\" VALUES ('y', NULL), ('z', x'')",
    )
    run = ferry("sync", new, database.dsn, *(["--base", base] if with_base else []))
    assert run.code == 0, run
    assert deltas(run) == {"100%": (2, 0, 1)}
    assert ferry("verify", new, database.dsn).code == 0


def test_a_target_that_is_not_what_the_base_says_is_found(
    ferry, bot_database, own_bot_database, copied
):
    change(own_bot_database, "UPDATE rounds SET winner_team = 7 WHERE id = 4")
    with copied.connect() as connection:
        connection.execute("UPDATE processed_files SET file_hash = 'changed' WHERE id = 7")
    run = ferry("sync", own_bot_database, copied.dsn, "--base", bot_database)
    assert run.code == 4, run
    assert "id 7" in run.err
    with copied.connect() as connection:
        row = connection.execute("SELECT winner_team FROM rounds WHERE id = 4").fetchone()
        assert row != (7,), "nothing was written"
    # Without a base both databases are compared, and the difference is carried over.
    assert ferry("sync", own_bot_database, copied.dsn).code == 0
    assert ferry("verify", own_bot_database, copied.dsn).code == 0


def test_a_row_that_should_be_there_and_is_not_is_refused(
    ferry, bot_database, own_bot_database, copied
):
    change(own_bot_database, "DELETE FROM processed_files WHERE id = 7")
    with copied.connect() as connection:
        connection.execute("DELETE FROM processed_files WHERE id = 7")
    run = ferry("sync", own_bot_database, copied.dsn, "--base", bot_database)
    assert run.code == 3
    assert "without --base" in run.err


def test_new_values_are_judged_like_all_others(ferry, bot_database, own_bot_database, copied):
    change(own_bot_database, "UPDATE rounds SET winner_team = 'nobody' WHERE id = 4")
    run = ferry("sync", own_bot_database, copied.dsn, "--base", bot_database)
    assert run.code == 3
    assert [h["code"] for h in run.report["hazards"]] == ["text-in-number"]
    change(own_bot_database, "UPDATE rounds SET winner_team = 5000000000 WHERE id = 4")
    run = ferry("sync", own_bot_database, copied.dsn, "--base", bot_database)
    assert run.code == 3
    assert "out of range" in run.err
    change(
        own_bot_database,
        "UPDATE rounds SET winner_team = 1 WHERE id = 4",
        "UPDATE weapon_comprehensive_stats SET round_id = 2 WHERE id = "
        "(SELECT min(id) FROM weapon_comprehensive_stats)",
    )
    run = ferry("sync", own_bot_database, copied.dsn, "--base", bot_database)
    assert run.code == 3
    assert "foreign key" in run.err


def test_what_sync_is_not_for(ferry, bot_database, own_bot_database, database, tmp_path):
    run = ferry("sync", bot_database, database.dsn)
    assert run.code == 3
    assert "ferry copy" in run.err
    assert ferry("copy", bot_database, database.dsn).code == 0
    change(own_bot_database, "ALTER TABLE rounds ADD COLUMN note TEXT")
    run = ferry("sync", own_bot_database, database.dsn, "--base", bot_database)
    assert run.code == 3
    assert "schema has changed" in run.err
    run = ferry("sync", own_bot_database, database.dsn)
    assert run.code == 3
    assert "note" in run.err
    missing = tmp_path / "nowhere.db"
    assert ferry("sync", bot_database, database.dsn, "--base", missing).code == 3
    assert not missing.exists()


def test_sequences_go_on_after_a_sync(ferry, bot_database, own_bot_database, copied):
    change(
        own_bot_database,
        "INSERT INTO processed_files (id, filename) VALUES (500000, 'far')",
        "DELETE FROM processed_files WHERE id = 500000",
    )
    assert ferry("sync", own_bot_database, copied.dsn, "--base", bot_database).code == 0
    with copied.connect() as connection:
        row = connection.execute(
            "INSERT INTO processed_files (filename) VALUES ('next') RETURNING id"
        ).fetchone()
    assert row == (500001,)


RULES = """
[[rule]]
table = "*"
column = "*"
hazard = "empty-text"
action = "null"

[[rule]]
table = "child"
column = "p"
hazard = "orphan"
action = "quarantine"

[[rule]]
table = "child"
column = "mixed"
hazard = "mixed-types"
action = "text"

[[rule]]
table = "child"
column = "at"
hazard = "time-zone-in-timestamp"
action = "utc"

[[rule]]
table = "keyless"
column = "n"
hazard = "fraction-in-integer"
action = "double"
"""
SCRIPT = """
CREATE TABLE child (id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent, mixed, at TIMESTAMP);
CREATE TABLE parent (id INTEGER PRIMARY KEY, n INTEGER);
CREATE TABLE keyless (n INTEGER, t TEXT);
INSERT INTO parent VALUES (1, ''), (2, 5), (3, 6);
INSERT INTO child VALUES (1, 1, 1, '2024-01-01T01:00:00+01:00'), (2, 99, 'x', NULL),
    (3, 2, NULL, ''), (4, 3, 2.5, '2024-01-01 00:00:00');
INSERT INTO keyless VALUES (1.5, 'a'), (1.5, 'a'), (2, 'b'), ('', NULL);
"""


@pytest.fixture
def ruled(ferry, make_sqlite, database, tmp_path):
    """Copy a database by rules; returns the base, a copy of it to change, and the rules."""
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES)
    base, new = make_sqlite(SCRIPT, name="base.db"), make_sqlite(SCRIPT, name="new.db")
    run = ferry("copy", base, database.dsn, "--rules", rules)
    assert run.code == 0, run
    return base, new, rules


@pytest.mark.parametrize("with_base", [True, False])
def test_rules_hold_for_a_sync_as_for_the_copy(ferry, database, ruled, with_base, tmp_path):
    base, new, rules = ruled
    options = ["--rules", rules, *(["--base", base] if with_base else [])]
    before = base.read_bytes(), new.read_bytes()
    run = ferry("sync", new, database.dsn, *options)
    assert (run.code, run.report["outcome"]) == (0, "nothing to do"), run
    assert (base.read_bytes(), new.read_bytes()) == before
    change(
        new,
        "INSERT INTO child VALUES (5, 2, x'ff', '2024-06-01T00:00:00Z'), (6, 98, 'aside', '')",
        "UPDATE parent SET n = '' WHERE id = 2",
        "DELETE FROM parent WHERE id = 3",  # its child 4 has no parent now
        "INSERT INTO parent VALUES (99, 9)",  # and child 2 has one
        "DELETE FROM keyless WHERE rowid = 1",
        "INSERT INTO keyless VALUES (7.25, 'c'), ('', NULL)",
    )
    run = ferry("sync", new, database.dsn, *options)
    assert run.code == 0, run
    assert deltas(run) == {"child": (2, 0, 1), "parent": (1, 1, 1), "keyless": (2, 0, 1)}
    assert run.report["quarantine"]["rows"] == {"child": 2}
    lines = (tmp_path / "rules.quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"]["id"] for line in lines] == [4, 6]
    with database.connect() as connection:
        assert connection.execute(
            "SELECT id, p, mixed, at::text FROM child ORDER BY 1"
        ).fetchall() == [
            (1, 1, "1", "2024-01-01 00:00:00"),
            (2, 99, "x", None),
            (3, 2, None, None),
            (5, 2, "ff", "2024-06-01 00:00:00"),
        ]
        rows = connection.execute("SELECT n, t FROM keyless ORDER BY 1, 2").fetchall()
        assert rows == [(1.5, "a"), (2, "b"), (7.25, "c"), (None, None), (None, None)]
    assert ferry("verify", new, database.dsn, "--rules", rules).code == 0
    assert ferry("sync", new, database.dsn, *options[:2]).report["outcome"] == "nothing to do"


def test_without_the_rules_of_the_copy_nothing_is_carried(ferry, database, ruled):
    base, new, rules = ruled
    change(new, "INSERT INTO parent VALUES (7, 7)")
    for options in ([], ["--base", base]):
        run = ferry("sync", new, database.dsn, *options)
        assert run.code in (3, 4), run
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM parent").fetchone() == (3,)
    assert ferry("sync", new, database.dsn, "--base", base, "--rules", rules).code == 0


def test_a_conversion_that_begins_after_the_copy(ferry, database, ruled):
    """A rule that gives a column another type finds no work at the copy, but then does."""
    base, new, rules = ruled
    rules.write_text(
        RULES + '[[rule]]\ntable = "parent"\ncolumn = "n"\nhazard = "text-in-number"\n'
        'action = "text"\n'
    )
    change(new, "UPDATE parent SET n = 'many' WHERE id = 2")
    run = ferry("sync", new, database.dsn, "--base", base, "--rules", rules)
    assert run.code == 3, run
    assert "parent" in run.err
    assert ferry("verify", base, database.dsn, "--rules", rules).code == 0


def _after_deletes(ferry, make_sqlite, database, tmp_path):
    """Copy a base, sync a file in which rows were deleted and keys changed; return both."""
    path = make_sqlite(
        "CREATE TABLE t (k TEXT PRIMARY KEY, v INTEGER); CREATE TABLE loose (a INTEGER);"
        "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3); INSERT INTO loose VALUES (1), (1), (2)"
    )
    assert ferry("copy", path, database.dsn).code == 0
    final = tmp_path / "final.db"
    final.write_bytes(path.read_bytes())
    change(
        final,
        "DELETE FROM t WHERE k = 'a'",
        "UPDATE t SET k = 'z' WHERE k = 'b'",
        "INSERT INTO t VALUES ('new', 1)",
        "DELETE FROM loose WHERE a = 2",
    )
    run = ferry("sync", final, database.dsn, "--base", path)
    assert run.code == 0, run
    return path, final


def test_a_second_run_is_nothing_to_do(ferry, make_sqlite, database, tmp_path):
    path, final = _after_deletes(ferry, make_sqlite, database, tmp_path)
    run = ferry("sync", final, database.dsn, "--base", path)
    assert run.code == 0, run
    assert "nothing to do" in run.out
    assert run.report["outcome"] == "nothing to do"
    assert not deltas(run)
    assert all(table["equal"] for table in run.report["tables"])
    # Also where row versions do not tell, as after a dump was restored.
    with database.connect() as connection:
        connection.execute("UPDATE t SET v = v; COMMENT ON TABLE loose IS 'somebody''s own'")
    run = ferry("sync", final, database.dsn, "--base", path)
    assert run.code == 0, run
    assert "nothing to do" in run.out


def test_a_second_run_does_not_hide_what_was_written_meanwhile(
    ferry, make_sqlite, database, tmp_path
):
    path, final = _after_deletes(ferry, make_sqlite, database, tmp_path)
    with database.connect() as connection:
        connection.execute("UPDATE t SET v = 99 WHERE k = 'c'")
    run = ferry("sync", final, database.dsn, "--base", path)
    assert run.code in (3, 4), run
    with database.connect() as connection:
        assert connection.execute("SELECT v FROM t WHERE k = 'c'").fetchone() == (99,)
