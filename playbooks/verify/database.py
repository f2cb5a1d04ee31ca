"""Ask PostgreSQL and its backups how they stand, change nothing, and print one JSON list.

Usage (as root on the database server): database.py JSON

Standard library only. The argument:

    {"database": "…", "port": 5432, "app": "…", "owner": "…", "readonly": "…", "address": "…",
     "keeper": true, "certificate_days": 14}

address: where the server is reached with TLS; keeper: whether another host keeps copies. The
environment's PGPASSWORD is the reading role's password. Results are those of host.py.
"""

import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RESULTS: list[dict] = []
AGE = b"age-encryption.org/v1\n"
ANYWHERE = ("all", "samenet", "0.0.0.0", "::")  # noqa: S104 - what must not be there
CERTIFICATE = "/etc/postgresql/tls/server.crt"


class QueryError(Exception):
    """PostgreSQL did not answer; the message is psql's last line."""


def check(name: str, sentence: str, ask: Callable[[], tuple[bool | None, str]]) -> None:
    """Ask, and note the answer; a question that breaks is a failure that says how."""
    try:
        ok, said = ask()
    except (QueryError, OSError, ValueError, KeyError, IndexError) as error:
        ok, said = False, f"could not be asked: {error}"
    ok = None if ok is None else bool(ok)  # such as the number that a question has found
    RESULTS.append({"id": name, "check": sentence, "ok": ok, "said": str(said)})


def psql(text: str, wish: dict, *, login: str = "") -> list:
    """Return the rows (as JSON) of the query that ends ``text``, as postgres or through TLS."""
    where = (
        f"host={wish['address']} port={wish['port']} dbname={wish['database']} user={login} "
        "sslmode=require connect_timeout=10"
        if login
        else f"port={wish['port']} dbname={wish['database']}"
    )
    *first, last = [part for part in text.split(";") if part.strip()]
    wrapped = f"SELECT coalesce(jsonb_agg(x), '[]') FROM ({last}) AS x"
    commands = [part for statement in (*first, wrapped) for part in ("-c", statement)]
    command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", where, *commands]
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    if not login:
        command = ["runuser", "-u", "postgres", "--", *command]
        # A superuser runs no function that somebody has put into the database under a known name.
        environment |= {"PGOPTIONS": "-c search_path=pg_catalog"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", check=False, timeout=60, env=environment
    )
    if done.returncode:
        raise QueryError((done.stderr.strip() or "no word").splitlines()[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])


def app_role(wish: dict) -> tuple[bool, str]:
    """Return whether the bot's role has nothing but its rows."""
    found = psql(
        f"""SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls,
            (SELECT count(*) FROM pg_auth_members WHERE member = r.oid) AS memberships,
            (SELECT count(*) FROM pg_class WHERE relowner = r.oid) AS owned,
            has_schema_privilege(rolname, 'public', 'CREATE') AS creates,
            has_database_privilege(rolname, current_database(), 'CREATE') AS creates_schemas
            FROM pg_roles AS r WHERE rolname = '{wish["app"]}'""",
        wish,
    )[0]
    amiss = [name for name, value in found.items() if value]
    return not amiss, f"{wish['app']} has: {', '.join(amiss)}" if amiss else "reads and writes rows"


def mighty_roles(wish: dict) -> tuple[bool, str]:
    """Return whether nobody but postgres may do everything.

    The roles that make and restore backups read past policies, and come from this host alone.
    """
    rows = psql(
        "SELECT rolname, rolsuper OR rolcreaterole AS mighty FROM pg_roles"
        " WHERE (rolsuper OR rolcreaterole OR rolbypassrls)"
        " AND rolname <> 'postgres' AND rolname !~ '^pg_' ORDER BY rolname",
        wish,
    )
    config = json.loads(Path("/etc/postgres-backup.json").read_text())
    readers = (backup_user(), config["check_role"], config["restore_role"])
    names = [row["rolname"] for row in rows if row["mighty"] or row["rolname"] not in readers]
    return (
        not names,
        f"also {', '.join(names)}" if names else "postgres alone, and only on the host",
    )


def everybody(wish: dict) -> tuple[bool, str]:
    """Return whether PUBLIC has been shut out."""
    rows = psql(
        """SELECT datname FROM pg_database WHERE datallowconn AND
           has_database_privilege('public', datname, 'CONNECT') ORDER BY datname""",
        wish,
    )
    names = [row["datname"] for row in rows]
    creates = psql("SELECT has_schema_privilege('public', 'public', 'CREATE') AS yes", wish)
    ok = not names and not creates[0]["yes"]
    return ok, "may enter no database" if ok else f"PUBLIC may enter {', '.join(names) or 'none'}"


def passwords(wish: dict) -> tuple[bool, str]:
    """Return whether every stored password is scram's."""
    rows = psql(
        "SELECT rolname, rolpassword LIKE 'SCRAM-SHA-256$%' AS scram FROM pg_authid"
        " WHERE rolpassword IS NOT NULL ORDER BY rolname",
        wish,
    )
    weak = [row["rolname"] for row in rows if not row["scram"]]
    return not weak, f"not scram: {', '.join(weak)}" if weak else f"{len(rows)}, all scram-sha-256"


def access_rules(wish: dict) -> tuple[bool, str]:
    """Return whether pg_hba.conf lets in from elsewhere only with TLS, by scram, from somewhere."""
    rows = psql(
        "SELECT line_number, type, database, user_name, address, auth_method, error"
        " FROM pg_hba_file_rules ORDER BY line_number",
        wish,
    )
    amiss = []
    for row in rows:
        where = f"line {row['line_number']}"
        if row["error"]:
            amiss.append(f"{where}: {row['error']}")
        elif row["type"] == "local":
            if row["auth_method"] != "peer":
                amiss.append(f"{where}: local {row['auth_method']}")
        elif row["type"] != "hostssl" and row["auth_method"] != "reject":
            amiss.append(f"{where}: {row['type']} lets {row['address']} in without TLS")
        elif row["auth_method"] not in ("scram-sha-256", "cert", "reject"):
            amiss.append(f"{where}: {row['auth_method']}")
        elif row["address"] in ANYWHERE:
            amiss.append(f"{where}: from {row['address']}")
    return bool(rows) and not amiss, "; ".join(amiss) or f"{len(rows)} rules"


def tls(wish: dict) -> tuple[bool, str]:
    """Return whether TLS is on, and not an old one."""
    row = psql(
        "SELECT current_setting('ssl') AS on, current_setting('ssl_min_protocol_version') AS least,"
        " current_setting('password_encryption') AS stored",
        wish,
    )[0]
    ok = row["on"] == "on" and row["least"] in ("TLSv1.2", "TLSv1.3")
    return ok and row["stored"] == "scram-sha-256", f"ssl {row['on']}, at least {row['least']}"


def certificate(wish: dict) -> tuple[bool, str]:
    """Return whether the server's certificate is good for some weeks."""
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-in", CERTIFICATE],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    text = done.stdout.strip().partition("=")[2]
    end = datetime.datetime.strptime(text, "%b %d %H:%M:%S %Y %Z").replace(tzinfo=datetime.UTC)
    days = (end - datetime.datetime.now(datetime.UTC)).days
    return days >= wish["certificate_days"], f"{days} days left; site.yml renews it"


def bot_sessions(wish: dict) -> tuple[bool, str]:
    """Return whether the bot is there, by TLS only."""
    row = psql(
        f"""SELECT count(*) AS all, count(*) FILTER (WHERE ssl) AS encrypted,
            string_agg(DISTINCT host(client_addr), ', ') AS addresses
            FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
            WHERE usename = '{wish["app"]}' AND client_addr IS NOT NULL""",
        wish,
    )[0]
    ok = row["all"] > 0 and row["encrypted"] == row["all"]
    return ok, f"{row['encrypted']} of {row['all']} sessions encrypted, from {row['addresses']}"


def sequences(wish: dict) -> tuple[bool, str]:
    """Return whether the next row of every table gets an id that is free."""
    rows = psql(
        """SELECT format('SELECT %L AS t, coalesce(max(%I), 0) AS highest FROM %s', c.oid::regclass,
             attname, c.oid::regclass) AS question,
             pg_get_serial_sequence(c.oid::regclass::text, attname) AS sequence
           FROM pg_class AS c JOIN pg_attribute ON attrelid = c.oid
           WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
             AND pg_get_serial_sequence(c.oid::regclass::text, attname) IS NOT NULL""",
        wish,
    )
    behind = []
    for row in rows:
        name = row["sequence"]
        last = psql(f"SELECT last_value, is_called FROM {name}", wish)[0]
        highest = psql(row["question"], wish)[0]
        if last["last_value"] + last["is_called"] <= highest["highest"]:
            behind.append(f"{name} at {last['last_value']}, {highest['t']} at {highest['highest']}")
    return not behind, "; ".join(behind) or f"{len(rows)} sequences ahead of their tables"


def reader(wish: dict) -> tuple[bool, str]:
    """Log in as a developer does, through TLS; read every table, and write into none."""
    rows = psql(
        """SELECT count(*) AS tables,
             count(*) FILTER (WHERE has_table_privilege(oid, 'SELECT')) AS readable,
             count(*) FILTER (WHERE has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))
               AS writable
           FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'""",
        wish | {"address": "127.0.0.1"},
        login=wish["readonly"],
    )[0]
    ok = rows["readable"] == rows["tables"] and rows["writable"] == 0
    return ok, (
        f"{wish['readonly']} reads {rows['readable']} of {rows['tables']} tables, "
        f"writes into {rows['writable']}"
    )


# -------------------------------------------------------------------------------------- the backups


def backup_user() -> str:
    """Return the system user, and role, that makes the backups."""
    shown = subprocess.run(
        ["systemctl", "show", "--property=User", "--value", "postgres-backup.service"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return shown.stdout.strip()


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run postgres-backup as its own user."""
    return subprocess.run(
        ["runuser", "-u", backup_user(), "--", "/usr/local/sbin/postgres-backup", *arguments],
        capture_output=True, text=True, cwd="/", check=False,
    )  # fmt: skip


def newest_backup() -> dict | None:
    """Return the newest backup's manifest; None where there is none."""
    shown = tool("show")
    return json.loads(shown.stdout) if shown.returncode == 0 else None


def backup_is_fresh() -> tuple[bool, str]:
    """Return whether there is a backup of this day that was restored and compared."""
    manifest = newest_backup()
    if manifest is None:
        return False, "none yet: ansible-playbook playbooks/backup.yml"
    hours = (time.time() - manifest["started"]) / 3600
    # A manifest is only written after the restored copy was found equal.
    return hours < 36, (
        f"{manifest['stamp']}, {hours:.0f} hours old: {manifest['rows']} rows in "
        f"{len(manifest['tables'])} tables were restored and found equal"
    )


def backups_are_whole() -> tuple[bool, str]:
    """Return whether postgres-backup itself has nothing to complain of."""
    done = tool("check")
    said = (done.stderr or done.stdout).strip().splitlines()
    return done.returncode == 0, said[-1] if said else "nothing to complain of"


def backup_is_encrypted() -> tuple[bool, str]:
    """Return whether every dump on the disk is age's, and no key lies beside it."""
    directory = Path(json.loads(Path("/etc/postgres-backup.json").read_text())["directory"])
    dumps = sorted(directory.glob("*/dump*"))
    plain = [str(path) for path in dumps if not path.open("rb").read(len(AGE)).startswith(AGE)]
    keys = [str(path) for path in directory.rglob("*identity*")]
    ok = bool(dumps) and not plain and not keys
    return ok, f"open: {', '.join(plain + keys)}" if plain or keys else f"{len(dumps)} files by age"


def backup_is_copied(wish: dict) -> tuple[bool | None, str]:
    """Return whether the newest backup is on the other host too."""
    if not wish["keeper"]:
        return None, "backups_host is empty"
    manifest = newest_backup()
    path = Path("/var/lib/postgres-backup/copied.json")
    copied = json.loads(path.read_text()) if path.exists() else {}
    places = [place for place, stamps in copied.items() if manifest and manifest["stamp"] in stamps]
    return bool(places), f"on {', '.join(places)}" if places else "the newest is on this host alone"


def main(wish: dict) -> None:
    """Ask everything and print."""
    for name, sentence, ask in (
        ("app-role", "The bot's role can do nothing but read and write rows", app_role),
        ("superusers", "Nobody but postgres may do everything", mighty_roles),
        ("public", "Whoever has no grant may enter no database", everybody),
        ("passwords", "Passwords are stored as scram", passwords),
        ("pg-hba", "pg_hba.conf lets in from elsewhere only with TLS and scram", access_rules),
        ("tls", "TLS is on, 1.2 or newer", tls),
        ("certificate", "The server's certificate is good for some weeks", certificate),
        ("bot-sessions", "The bot's sessions are there and encrypted", bot_sessions),
        ("sequences", "The next row of every table gets a free id", sequences),
        ("developers", "Developers can connect and read, and cannot write", reader),
        ("backup-copied", "The newest backup is on another host too", backup_is_copied),
    ):
        check(name, sentence, lambda ask=ask: ask(wish))
    check("backup-fresh", "There is a backup of this day that was restored", backup_is_fresh)
    check("backups-whole", "The backups are whole", backups_are_whole)
    check("backup-encrypted", "Backups are encrypted", backup_is_encrypted)
    print(json.dumps(RESULTS))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
