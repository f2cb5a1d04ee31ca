"""The last test. cleanup.yml refuses within a week; forced, it removes what it says."""

import json

import pytest
from scenario import ARTIFACTS, machine, play

pytestmark = pytest.mark.order("last")  # what the other tests look at is gone after it

DATABASE = "/home/player/etlegacy-bot/bot/etlegacy_production.db"
CONFIRMED = ("-e", "cleanup_confirm=etlegacy_stats")


def cleanup(*options):
    """Run cleanup.yml; return its exit code and what it said, in one line."""
    code, said = play("cleanup.yml", *options)
    return code, " ".join(said.split())


def there():
    """Return what there is to be removed, by place."""
    find = "find /var/lib/ferry /var/tmp -maxdepth 1 -name '*.db' -o -maxdepth 1 -name '*.tar'"
    schemas = (
        "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(aside_|migration$)'"
        " UNION ALL SELECT datname FROM pg_database WHERE datname ~ '_aside_'"
    )
    return {
        "old PC": machine("old-pc").check_output(f"ls {DATABASE}* 2>/dev/null || true"),
        "bot server": machine("bot-vps").check_output(find),
        "database": machine("database-vps").check_output(
            "runuser -u postgres -- psql -XAt -d etlegacy_stats -c %s", schemas
        ),
        "control machine": "\n".join(
            path.name for path in ARTIFACTS.iterdir() if path.suffix in (".db", ".parcel", ".tar")
        ),
    }


@pytest.fixture(scope="module")
def before():
    (ARTIFACTS / "final.parcel").touch()  # as a run that was killed on the way leaves it
    return there()


@pytest.fixture(scope="module")
def cleaned(before):  # noqa: ARG001 - only after it
    return cleanup(*CONFIRMED, "-e", "cleanup_force=true")


def test_within_a_week_it_refuses(before):
    assert all(before.values()), before
    code, said = cleanup(*CONFIRMED)
    assert code != 0
    assert "What was kept of the old world stays for a week" in said
    assert "Nothing was removed." in said
    assert there() == before


def test_without_the_name_of_the_database_it_refuses(before):
    code, said = cleanup("-e", "cleanup_force=true", "-e", "cleanup_confirm=yes")
    assert code != 0
    assert "cleanup_confirm=etlegacy_stats. Nothing was removed." in said
    assert there() == before


def test_forced_it_removes_every_copy_and_says_what_stays(cleaned):
    code, said = cleaned
    assert code == 0, said
    assert "The old world is gone. What is left of it: the folder of the old bot" in said
    assert not any(there().values())


def test_the_fence_the_evidence_and_the_new_bot_stay(cleaned):
    assert cleaned[0] == 0
    assert "Assertion failed" in machine("old-pc").run("systemctl start etlegacy-bot").stderr
    assert machine("old-pc").file("/home/player/etlegacy-bot/local_stats").is_directory
    assert machine("bot-vps").service("etlegacy-bot").is_running
    # What it notes is on the bot server; the page of the move lies on the control machine.
    state = json.loads(machine("bot-vps").file("/var/lib/ferry/migration.json").content_string)
    assert state["stage"] == "settled"
    assert state["cleaned_at"]
    assert list(ARTIFACTS.glob("migration-*.html"))


def test_rollback_refuses_from_then_on(cleaned):
    assert cleaned[0] == 0
    code, said = play("rollback.yml")
    assert code != 0
    assert "cleanup.yml removed the SQLite file" in " ".join(said.split())
    assert machine("bot-vps").service("etlegacy-bot").is_running
