#!/usr/bin/python3 -I
"""Write what alerts depend on, for node exporter's textfile collector.

Usage: host-facts SETTINGS.json OUT.prom

Names are the same on every distribution and begin with ``etl_``. Each family is asked by itself:
one that breaks is ``etl_collector_failed`` and leaves the others alone. Whatever comes from outside
(names of units, ports) is data and is cleaned before it becomes a label. Runs as root, since only
root sees whose a connection is; standard library only, Python 3.10 or newer.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Settings = dict[str, Any]
Sample = tuple[str, dict[str, str], float]
LOCK_SECONDS = 3600

STATISTICS = """
WITH client AS (SELECT * FROM pg_stat_activity WHERE backend_type = 'client backend')
SELECT 'sessions', count(*)::float FROM client
UNION ALL SELECT 'sessions_max', setting::float FROM pg_settings WHERE name = 'max_connections'
UNION ALL SELECT 'app_sessions', count(*) FROM client WHERE usename = {app}
UNION ALL SELECT 'app_sessions_elsewhere', count(*) FROM client
  WHERE usename = {app} AND NOT coalesce(client_addr <<= ANY ({addresses}::inet[]), true)
UNION ALL SELECT 'idle_in_transaction_seconds',
  coalesce(max(extract(epoch FROM now() - state_change)), 0)::float FROM client
  WHERE state LIKE 'idle in transaction%'
UNION ALL SELECT 'lock_wait_seconds',
  coalesce(max(extract(epoch FROM now() - query_start)), 0)::float FROM client
  WHERE wait_event_type = 'Lock'
UNION ALL SELECT 'xid_age', max(age(datfrozenxid)) FROM pg_database
UNION ALL SELECT 'checksum_failures', coalesce(sum(checksum_failures), 0)::float
  FROM pg_stat_database
UNION ALL SELECT 'slot_kept_bytes',
  coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::float
  FROM pg_replication_slots WHERE NOT pg_is_in_recovery()
"""


def run(*command: str, seconds: float = 10) -> str:
    """Return what a command prints; raise OSError or SubprocessError where it fails."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=True, timeout=seconds
    )
    return done.stdout


def clean(text: str) -> str:
    """Return a label's value of plain characters only."""
    return re.sub(r"[^A-Za-z0-9@._:/\\-]", "?", text)[:100]


def units(settings: Settings) -> Iterator[Sample]:
    """Tell which of the named units are wanted, run, and how often they were restarted."""
    for name in settings["units"]:
        shown = run("systemctl", "show", name, "--property=ActiveState,NRestarts,UnitFileState")
        state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        label = {"unit": name, "kind": "bot" if name == f"{settings['bot']}.service" else "system"}
        yield "etl_unit_wanted", label, float(state["UnitFileState"] == "enabled")
        yield "etl_unit_active", label, float(state["ActiveState"] == "active")
        yield "etl_unit_restarts_total", label, float(state.get("NRestarts") or 0)


def failed_units(_: Settings) -> Iterator[Sample]:
    """Name every unit that has failed."""
    listed = run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager")
    names = [line.split()[0] for line in listed.splitlines() if line.strip()]
    yield "etl_units_failed", {}, float(len(names))
    for name in names[:20]:
        yield "etl_unit_failed", {"unit": clean(name)}, 1.0


def heard(listed: str, belongs: Callable[[str], bool], seconds: float) -> bool:
    """Return whether one of the connections that ``ss -O -tinp`` lists has heard something lately.

    Established is not heard: the kernel of a frozen host completes connections.
    """
    for line in listed.splitlines():
        received = re.search(r"\bbytes_received:(\d+)", line)
        last = re.search(r"\blastrcv:(\d+)", line)
        if not (received and last and int(received[1]) > 0):
            continue
        lately = int(last[1]) < seconds * 1000
        if lately and any(belongs(pid) for pid in re.findall(r"\bpid=(\d+)", line)):
            return True
    return False


def discord(settings: Settings) -> Iterator[Sample]:
    """Tell whether the bot hears Discord, for any bot and without touching it."""
    if not settings["bot"] or not settings["bot_has_token"]:
        return
    end = f"/{settings['bot']}.service"

    def belongs(pid: str) -> bool:
        try:
            return Path(f"/proc/{pid}/cgroup").read_text().rstrip().endswith(end)
        except OSError:
            return False

    listed = run("ss", "-H", "-O", "-tinp", "state", "established", "dport", "=", ":443")
    hears = heard(listed, belongs, float(settings["heard_seconds"]))
    yield "etl_bot_hears_discord", {}, float(hears)


def errors(settings: Settings) -> Iterator[Sample]:
    """Count what looks like an error in the bot's journal."""
    if not settings["bot"]:
        return
    since = f"--since=-{settings['error_seconds']}s"
    journal = ("journalctl", "--quiet", "--no-pager", "--output=cat", since)
    said = run(*journal, f"--unit={settings['bot']}.service", "--lines=20000", seconds=20)
    pattern = re.compile(settings["error_lines"])
    yield "etl_bot_errors", {}, float(sum(bool(pattern.search(one)) for one in said.splitlines()))


def lock(settings: Settings) -> Iterator[Sample]:
    """Tell whether migrate, deploy, rollback or another run is at work, for an hour at most."""
    if not settings["lock"]:
        return
    path = Path(settings["lock"]) / "holder.json"
    try:
        young = time.time() - json.loads(path.read_text())["since"] < LOCK_SECONDS
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        young = False
    yield "etl_work_in_progress", {}, float(young)


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def postgres(settings: Settings) -> Iterator[Sample]:
    """Ask PostgreSQL by its socket; not being able to is an answer, too."""
    if not settings["app_role"]:
        return
    addresses = "{" + ",".join(settings["bot_addresses"]) + "}"
    sql = STATISTICS.format(app=quoted(settings["app_role"]), addresses=quoted(addresses))
    psql = ("psql", "-XAtq", "-F=", "-d", "postgres", "-p", str(settings["postgres_port"]))
    try:
        answer = run("runuser", "-u", "postgres", "--", *psql, "-c", sql)
    except (OSError, subprocess.SubprocessError):
        yield "etl_postgres_up", {}, 0.0
        return
    yield "etl_postgres_up", {}, 1.0
    for line in answer.splitlines():
        name, _, value = line.partition("=")
        yield f"etl_postgres_{name}", {}, float(value)


def certificates(settings: Settings) -> Iterator[Sample]:
    """Tell when each certificate ends."""
    for path in settings["certificates"]:
        end = run("openssl", "x509", "-noout", "-enddate", "-in", path).strip().partition("=")[2]
        when = time.mktime(time.strptime(end, "%b %d %H:%M:%S %Y %Z")) - time.timezone
        yield "etl_certificate_end_seconds", {"path": path}, when


def updates(_: Settings) -> Iterator[Sample]:
    """Tell when updates last succeeded, and since when a reboot is waited for."""
    stamp = Path("/var/lib/apt/periodic/upgrade-stamp")
    if stamp.exists():
        yield "etl_updates_success_seconds", {}, stamp.stat().st_mtime
    waiting = Path("/run/reboot-required")
    since = waiting.stat().st_mtime if waiting.exists() else 0.0
    yield "etl_reboot_wanted_since_seconds", {}, since


def names(settings: Settings) -> Iterator[Sample]:
    """Tell whether names resolve; asked by a process of its own, which can be given up."""
    for name in settings["names"]:
        try:
            known = bool(run("getent", "ahosts", name, seconds=8))
        except (OSError, subprocess.SubprocessError):
            known = False
        yield "etl_name_resolves", {"name": name}, float(known)


def unexpected(listed: str, expected: set[int]) -> set[int]:
    """Return the ports of ``ss -Htln`` that listen to others and are not expected."""
    found = set()
    for line in listed.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        host = address.strip("[]").partition("%")[0]
        if not (host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1")):
            found.add(int(port))
    return found - expected


def network(settings: Settings) -> Iterator[Sample]:
    """Tell whether the firewall is on, and what listens that should not."""
    active = run("ufw", "status").splitlines()[0] == "Status: active"
    yield "etl_firewall_active", {}, float(active)
    ports = unexpected(run("ss", "-Htln"), {int(port) for port in settings["ports"]})
    yield "etl_unexpected_listeners", {}, float(len(ports))
    for port in sorted(ports)[:20]:
        yield "etl_unexpected_listener", {"port": str(port)}, 1.0


FAMILIES = (
    units, failed_units, discord, errors, lock, postgres, certificates, updates, names, network
)  # fmt: skip


def collect(settings: Settings) -> list[str]:
    """Ask every family; return the lines of the exposition format, sorted by name."""
    samples: list[Sample] = [("etl_facts_seconds", {}, time.time())]
    for family in FAMILIES:
        label = {"family": family.__name__}
        try:
            samples += list(family(settings))
            samples.append(("etl_collector_failed", label, 0.0))
        except (OSError, ValueError, KeyError, IndexError, subprocess.SubprocessError) as error:
            print(f"{family.__name__}: {error}", file=sys.stderr)
            samples.append(("etl_collector_failed", label, 1.0))
    lines, known = [], ""
    for name, labels, value in sorted(samples, key=lambda one: (one[0], sorted(one[1].items()))):
        if name != known:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} See docs/monitoring.md.", f"# TYPE {name} {kind}"]
            known = name
        escaped = {key: text.replace("\\", "\\\\") for key, text in labels.items()}
        inside = ",".join(f'{key}="{text}"' for key, text in sorted(escaped.items()))
        lines.append(f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}")
    return lines


def main(settings: Path, out: Path) -> None:
    """Write the file as a whole."""
    lines = collect(json.loads(settings.read_text()))
    new = out.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n")
    new.chmod(0o644)
    new.replace(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
