"""The watch and the cleanup, run by Ansible on this machine; systemd and journal are played."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import psycopg
import pytest
from support import ansible
from support.postgres import Cluster

REPOSITORY = Path(__file__).resolve().parents[2]
PLAYED = {
    # Answers as files say that lie beside it.
    "systemctl": 'case "$*" in *--value*) echo active;; is-active*) echo inactive; exit 3;;\n'
    '*) echo ActiveState=active; echo NRestarts=$(cat "$(dirname "$0")/restarts");; esac',
    "journalctl": 'cat "$(dirname "$0")/journal"',
    "runuser": 'shift 3; exec "$@"',
}
FACTS = "{{ [__watch_seen | default({}), __watch_wants_back | default(false)] | to_json }}"
HOSTS = {
    "all": {
        "vars": {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
        },
        "children": {
            "database": {"hosts": {"database-vps": {"ansible_host": "192.0.2.1"}}},
            "bot": {"hosts": {"bot-vps": {"ansible_host": "192.0.2.2"}}},
            "legacy": {"hosts": {"old-pc": {"ansible_host": "192.0.2.3"}}},
        },
    }
}


@pytest.fixture(scope="module")
def cluster():
    with Cluster.of_major(None, shared_preload_libraries="pg_stat_statements") as cluster:
        with cluster.database("postgres").connect() as admin:
            admin.execute("CREATE EXTENSION pg_stat_statements")
            admin.execute("CREATE ROLE etlegacy_app LOGIN")
        yield cluster


class World:
    """A control machine and three hosts that are all this one."""

    def __init__(self, directory, database):
        self.directory, self.database = directory, database
        self.programs = directory / "programs"
        self.stats = directory / "local_stats"
        self.artifacts = directory / "artifacts"
        self.ferry = directory / "ferry"
        self.old = directory / "old"
        for each in (self.programs, self.stats, self.artifacts, self.ferry, self.old):
            each.mkdir()
        for name, script in PLAYED.items():
            (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (self.programs / name).chmod(0o755)
        (self.programs / "restarts").write_text("0")
        (self.programs / "journal").write_text("INFO logged in\n")
        (directory / "hosts.json").write_text(json.dumps(HOSTS))
        self.settings = {
            "postgres_server_database": database.name,
            "postgres_server_port": database.port,
            "migration_directory": str(self.ferry),
            "migration_artifacts": str(self.artifacts),
            "migrate_watch_minutes": 0.05,
            "migrate_watch_seconds": 1,
            "migrate_watch_grace_seconds": 1,
            "migrate_watch_files": f"{self.stats}/*-round-[12].txt",
            "legacy_database": str(self.old / "production.db"),
            "legacy_service": "old-bot.service",
        }

    def play(self, tasks, **settings):
        """Run these tasks on the bot host; return the exit code, the output, __watch_* facts."""
        play = [{"hosts": settings.pop("hosts", "bot"), "gather_facts": False, "tasks": [
            *tasks,
            {"copy": {"dest": str(self.directory / "facts"), "content": FACTS}},
        ]}]  # fmt: skip
        (self.directory / "play.yml").write_text(json.dumps(play))
        (self.directory / "settings.json").write_text(json.dumps(self.settings | settings))
        variables = (
            *(f"{REPOSITORY}/group_vars/all/{name}.yml" for name in ("migration", "watch", "main")),
            self.directory / "settings.json",  # the last one wins
        )
        done = ansible.play(
            self.directory / "play.yml",
            *(f"--extra-vars=@{file}" for file in variables),
            inventory=self.directory / "hosts.json",
            environment={
                "PATH": f"{self.programs}:{self.database_programs}:{os.environ['PATH']}",
                "PGHOST": self.database.socket_dir,
                "PGUSER": "postgres",
            },
        )
        facts = self.directory / "facts"
        seen, back = json.loads(facts.read_text()) if facts.exists() else ({}, False)
        return done.returncode, ansible.words(done), seen, back


@pytest.fixture
def world(tmp_path, cluster):
    with cluster.fresh_database("after") as database:
        with database.connect() as connection:
            connection.execute("CREATE TABLE rounds (id integer)")
        world = World(tmp_path, database)
        world.database_programs = cluster.bindir
        yield world


def watch(world, **settings):
    tasks = [
        {"set_fact": {"__migration_live_at": time.time() - 5}},
        {"include_tasks": f"{REPOSITORY}/playbooks/migrate/watch_minutes.yml"},
        {"include_tasks": f"{REPOSITORY}/playbooks/migrate/watch_decide.yml"},
    ]
    code, text, seen, back = world.play(tasks, **settings)
    assert code == 0, text
    return text, seen, back


def test_nothing_happens(world):
    session = world.database.connect(user="etlegacy_app")
    with session:
        text, seen, back = watch(world)
    assert "no limit was crossed" in text
    assert seen["crossed"] == []
    assert seen["looks"] >= 2
    assert not back
    assert {figure["what"]: figure["seen"] for figure in seen["figures"]}[
        "sessions of the bot, at least"
    ] == 1


@pytest.mark.parametrize("by_itself", [True, False])
def test_the_bot_was_restarted(world, by_itself):
    (world.programs / "restarts").write_text("3")
    text, seen, back = watch(world, migrate_watch_rollback=by_itself)
    assert seen["crossed"] == ["The bot was restarted 3 times."]
    assert seen["looks"] == 1, "no further look is taken"
    assert back is by_itself, "nobody sits there"
    assert ("Going back to the old PC now" if by_itself else "goes on serving") in text


def test_the_bot_has_lost_its_database(world):
    _, seen, _ = watch(world)
    assert seen["crossed"] == ["The bot has 0 sessions at the database."]
    assert seen["looks"] == 2, "the first time may be a passing thing"


def test_the_database_does_not_answer(world):
    _, seen, _ = watch(world, postgres_server_port=1)
    assert len(seen["crossed"]) == 1
    assert seen["crossed"][0].startswith("The database could not be asked: ")


# ---------------------------------------------------------------------------------------- cleanup

LIVE = {"stage": "settled", "legacy_database_sha256": hashlib.sha256(b"old").hexdigest()}
LEFT = {
    "ferry": ["migration.json", "copy.json"],
    "artifacts": ["migration.json", "migration-20261122.html"],
    "old": ["bot.py", "production.db.txt"],
}


def cleanup(world, days=8, **settings):
    live_at = time.time() - days * 86400
    asked = "inventory_hostname != legacy_host or not cleanup_without_legacy | default(false)"
    tasks = [
        {"set_fact": {"__migration_state": LIVE | {"live_at": live_at}, "__migration_live": True}},
        {"include_tasks": f"{REPOSITORY}/playbooks/cleanup/preflight.yml",
         "when": "inventory_hostname == bot_host"},
        {"include_tasks": f"{REPOSITORY}/playbooks/cleanup/remove.yml", "when": asked},
    ]  # fmt: skip
    code, text, *_ = world.play(tasks, hosts="bot:legacy:database", **settings)
    return code, text


@pytest.fixture
def kept(world):
    """What a migration leaves behind for a way back, and beside it what is not its own."""
    files = {
        world.ferry: ["base.db", "final.db", "back.db", "state-back.tar", "parcel", *LEFT["ferry"]],
        world.artifacts: ["final.parcel", "back.db", *LEFT["artifacts"]],
        world.old: ["production.db", "production.db-wal", "production.db.migrated-0123abcd",
                    *LEFT["old"]],
    }  # fmt: skip
    for place, names in files.items():
        for name in names:
            (place / name).write_text("old")
    with world.database.connect() as connection:
        for name in ("aside_20260101T000000Z", "aside_mine", "migration"):
            connection.execute(f'CREATE SCHEMA "{name}"')
            connection.execute(f'CREATE TABLE "{name}".kept (id integer)')
    with world.database.connect(dbname="postgres") as admin:
        for end in ("aside_20260101t000000z", "aside_mine"):
            admin.execute(f"CREATE DATABASE {world.database.name}_{end}")
    yield {place: set(names) for place, names in files.items()}
    with world.database.connect(dbname="postgres") as admin:
        for name in databases(world):
            admin.execute(f"DROP DATABASE {name}")


def databases(world):
    """Return what was set aside of a database."""
    with world.database.connect(dbname="postgres") as admin:
        names = admin.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s ORDER BY 1",
            [f"{world.database.name}_aside_%"],
        )
        return [name for (name,) in names]


def present(world, kept):
    with world.database.connect() as connection:
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname ~ '^(aside|migration)' ORDER BY 1"
        )
        return {place: {file.name for file in place.iterdir()} for place in kept}, [
            name for (name,) in schemas
        ]


def test_what_was_kept_is_removed_and_nothing_else(world, kept):
    for _ in ("the first time", "again"):
        code, text = cleanup(world, cleanup_confirm=world.database.name)
        assert code == 0, text
        files, schemas = present(world, kept)
        assert files == {
            world.ferry: set(LEFT["ferry"]),
            world.artifacts: set(LEFT["artifacts"]),
            world.old: set(LEFT["old"]),
        }
        assert schemas == ["aside_mine"]
        assert databases(world) == [f"{world.database.name}_aside_mine"]


def test_by_force_and_without_the_old_pc(world, kept):
    code, text = cleanup(
        world,
        days=1,
        cleanup_force=True,  # within the week, too
        cleanup_confirm=world.database.name,
        cleanup_without_legacy=True,
    )
    assert code == 0, text
    files, _ = present(world, kept)
    assert files[world.old] == kept[world.old], "it was not asked"
    assert files[world.ferry] == set(LEFT["ferry"])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"days": 6.9}, "went live 6.9 days ago"),
        ({"cleanup_confirm": "etlegacy"}, "it wants the database's name"),
        ({"cleanup_confirm": None}, "it wants the database's name"),
        ({"content": "somebody wrote"}, "no longer the file that was migrated"),
        ({"systemctl": "echo active"}, "two bots answer"),
        ({"systemctl": "echo failed"}, "now is no time to burn bridges"),
    ],
)
def test_what_cleanup_refuses(world, kept, settings, reason):
    settings = {"cleanup_confirm": world.database.name} | settings
    if settings["cleanup_confirm"] is None:
        del settings["cleanup_confirm"]
    if content := settings.pop("content", None):
        (world.old / "production.db").write_text(content)
    if script := settings.pop("systemctl", None):
        (world.programs / "systemctl").write_text(f"#!/bin/sh\n{script}\n")
    code, text = cleanup(world, **settings)
    assert code != 0
    assert reason in text
    assert "Nothing was removed" in text
    assert present(world, kept)[0] == kept


# --------------------------------------------------------------------------------- set aside

OURS = ("owner", "app", "readonly", "migrator")
NAMES = """
    SELECT (SELECT count(*) FROM information_schema.columns WHERE table_name = 'rounds'),
           (SELECT count(*) FROM pg_tables WHERE tablename = 'rounds')
"""


@pytest.fixture
def roles(world):
    """Those that site.yml makes, and a developer with a schema of her own."""
    name = world.database.name
    made = [f"etlegacy_{each}" for each in OURS[:1] + OURS[2:]]
    made += ["postgres_backup", "postgres_monitor", "anna"]
    with world.database.connect() as admin:
        for role in made:
            admin.execute(f"CREATE ROLE {role} LOGIN")
        admin.execute(f"ALTER DATABASE {name} OWNER TO etlegacy_owner")
        admin.execute("ALTER TABLE rounds OWNER TO etlegacy_owner")
        admin.execute("INSERT INTO rounds VALUES (1), (2)")
        admin.execute("GRANT ALL ON rounds TO etlegacy_app")
        admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO etlegacy_readonly")
        admin.execute(f"GRANT CONNECT ON DATABASE {name} TO etlegacy_app, PUBLIC")
        admin.execute("GRANT etlegacy_readonly TO anna; CREATE SCHEMA anna AUTHORIZATION anna")
    yield
    with world.database.connect(dbname="postgres") as admin:
        for database in [name, *databases(world)]:
            admin.execute(f"DROP DATABASE {database} WITH (FORCE)")
        for role in (*made, "etlegacy_app"):
            admin.execute(f"DROP OWNED BY {role}")
        for role in made:
            admin.execute(f"DROP ROLE {role}")


@pytest.mark.usefixtures("roles")
def test_nobody_sees_what_was_set_aside(world):
    """Neither in information_schema nor in pg_tables, which knows no rights."""
    bot = world.database.connect(user="etlegacy_app")
    assert bot.execute(NAMES).fetchone() == (1, 1)
    tasks = [{"include_tasks": f"{REPOSITORY}/playbooks/migrate/set_aside.yml"}]
    for times in (1, 2):
        code, text, *_ = world.play(tasks, hosts="database")
        assert code == 0, text
        assert len(databases(world)) == times
        with world.database.connect() as owner:
            assert owner.execute(NAMES).fetchone() == (0, 0)
            owner.execute("SET ROLE etlegacy_owner; CREATE TABLE rounds (id integer)")
        time.sleep(1)  # the next one has another name
    with pytest.raises(psycopg.OperationalError):
        bot.execute("SELECT 1")  # its session has ended
    for role in ("etlegacy_app", "etlegacy_readonly"):
        with world.database.connect(user=role) as connection:
            assert connection.execute(NAMES).fetchone() == (1, 1)
        for name in databases(world):
            with pytest.raises(psycopg.OperationalError, match="permission denied"):
                world.database.connect(user=role, dbname=name)
    first = databases(world)[0]
    with world.database.connect(dbname=first) as admin:
        assert admin.execute("SELECT count(*) FROM rounds").fetchone() == (2,)
    with world.database.connect(user="anna") as connection:
        connection.execute("CREATE TABLE mine (n integer); CREATE TEMP TABLE t (n integer)")
        assert connection.execute("SELECT current_schema()").fetchone() == ("anna",)
