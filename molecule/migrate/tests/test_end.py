"""After moves and ways back, at the end of migrate and of ways_back: what the machines say."""

import json
from itertools import groupby

import pytest
from scenario import ARTIFACTS, NETWORK, discord, machine, sql


def test_exactly_one_bot_runs_and_it_is_the_new_one():
    assert machine("bot-vps").service("etlegacy-bot").is_running
    assert not machine("old-pc").service("etlegacy-bot").is_running


@pytest.mark.parametrize("command", ["!last_session", "!stats"])
def test_the_new_bot_answers_on_discord_and_nobody_else(command):
    asked = discord("/ask", {"author": "player", "content": command})
    assert [answer["from_address"] for answer in asked["answers"]] == [f"{NETWORK}.20"]
    assert len(asked["answers"][0]["embeds"]) == 1, "a card: the bot knows who the player is"


def test_there_never_were_two_bots_on_discord():
    record = discord("/sessions")
    assert record["overlaps"] == []
    served = [session["connections"][0]["address"] for session in record["sessions"]]
    turns = [address for address, _ in groupby(served)]
    old, new = f"{NETWORK}.30", f"{NETWORK}.20"
    # Moved, back, then at least the failed move and the one that was made once more.
    assert turns[:3] == [old, new, old]
    assert turns[-1] == new


def test_the_old_bot_cannot_be_started_by_mistake():
    old_pc = machine("old-pc")
    result = old_pc.run("systemctl start etlegacy-bot")
    assert result.rc != 0
    assert "Assertion failed" in result.stderr
    assert not old_pc.service("etlegacy-bot").is_running


def test_the_new_bot_speaks_tls_to_the_database():
    sessions = sql(
        "SELECT count(*), bool_and(ssl) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"
        " WHERE usename = 'etlegacy_app'"
    )
    count, encrypted = sessions.split("|")
    assert int(count) >= 1
    assert encrypted == "t"


def test_every_stats_file_of_the_game_server_is_in_the_database_once():
    written = machine("game-server").check_output("ls /srv/etstats/stats").split()
    rounds = {name for name in written if name.endswith(("-round-1.txt", "-round-2.txt"))}
    assert set(sql("SELECT filename FROM processed_files WHERE success").split("\n")) == rounds
    assert int(sql("SELECT count(*) FROM rounds")) == len(rounds)


def test_the_next_insert_gets_a_free_id():
    inserted = sql(
        "BEGIN;"
        " INSERT INTO player_aliases (guid, alias) VALUES ('00000000', 'sequence check')"
        " RETURNING id > (SELECT coalesce(max(id), 0) FROM player_aliases);"
        " ROLLBACK"
    )
    assert "t" in inserted.split("\n")


def test_the_application_role_cannot_change_the_schema():
    assert sql("SELECT has_schema_privilege('etlegacy_app', 'public', 'CREATE')") == "f"
    assert (
        sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
        == "etlegacy_owner"
    )


@pytest.mark.parametrize("machine_name", ["old-pc", "bot-vps"])
def test_no_snapshot_is_left_lying_about(machine_name):
    find = "find /var/tmp /tmp -name 'etl-*' -o -name '*.db'"
    ours = "-not -name corrupt.db -not -name text.db -not -name link.db"  # refusals.yml made them
    assert machine(machine_name).check_output(f"{find} {ours}") == ""
    assert machine(machine_name).check_output("find /var/lib -maxdepth 1 -name 'etl-*'") == ""


def test_what_lies_on_the_control_machine_is_the_operators_alone():
    assert ARTIFACTS.stat().st_mode & 0o777 == 0o700
    kept = [path for path in ARTIFACTS.iterdir() if path.suffix in (".json", ".html", ".parcel")]
    assert {path.stat().st_mode & 0o777 for path in kept if path.stem != "verify"} == {0o600}
    assert [path.name for path in kept if path.suffix == ".parcel"] == []


def test_the_migration_password_is_nowhere_on_the_bot_server():
    bot = machine("bot-vps")
    assert not bot.file("/var/lib/ferry/pgpass").exists
    assert (
        bot.run("grep -rqs molecule-migrate-migrator /etc /opt /var/lib /var/log /root /home").rc
        == 1
    )


def test_the_evidence_is_on_the_control_machine():
    state = json.loads((ARTIFACTS / "migration.json").read_text())
    assert state["stage"] == "settled"
    assert state["downtime_seconds"] > 0
    assert state["legacy_database_mode"] == "0644", "noted before the file was made read-only"
    assert state["cleaned_at"] is None, "the cleanup was that of an earlier move"
    assert {table["name"] for table in state["tables"] if table["equal"]} >= {"rounds"}
    assert len(state["tables"]) == 7
    assert all(table["rows_sqlite"] == table["rows_postgres"] for table in state["tables"])
    proof = json.loads((ARTIFACTS / "verify.json").read_text())
    assert proof["exit_code"] == 0
    assert all(table["equal"] for table in proof["tables"])
    assert len(proof["tables"]) == 7
    assert proof["target"]["tls"] is True
