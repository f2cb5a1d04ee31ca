"""Ask this server how it stands, change nothing, and print the results as one JSON list.

Usage (as root): host.py JSON

Standard library only, since it runs on the server. The argument:

    {"ssh_port": 48022, "admin": "ops", "outgoing": "deny", "jails": ["sshd"],
     "timezone": "Etc/UTC", "secrets": ["/etc/x/environment"], "timers": ["x.timer"],
     "bot": "etlegacy-bot", "token": true, "crash": false}

bot: the unit that must run here, "" for none; token: whether it has one for Discord; crash: kill it
and see it come back. Each result:

    {"id": "ssh-keys-only", "check": "SSH lets nobody in by password", "ok": true, "said": "…"}

ok is null where nothing could be asked; said is what was seen.
"""

import grp
import json
import os
import pwd
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RESULTS: list[dict] = []
CRASH_SECONDS = 120  # patience with a bot that was killed

# What answers there knows secrets of the host, or trusts whoever is near.
PRIVATE = (
    "10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"
)  # fmt: skip


def check(name: str, sentence: str, ask: Callable[[], tuple[bool | None, str]]) -> None:
    """Ask, and note the answer; a question that breaks is a failure that says how."""
    try:
        ok, said = ask()
    except (OSError, ValueError, KeyError, IndexError, subprocess.SubprocessError) as error:
        ok, said = False, f"could not be asked: {error}"
    ok = None if ok is None else bool(ok)  # such as the number that a question has found
    RESULTS.append({"id": name, "check": sentence, "ok": ok, "said": str(said)})


def run(*command: str) -> str:
    """Return what a command prints, whatever its exit code."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    return done.stdout + done.stderr


def unit(name: str, *properties: str) -> dict[str, str]:
    """Return properties of a systemd unit."""
    lines = run("systemctl", "show", name, f"--property={','.join(properties)}").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def sshd_settings(user: str) -> dict[str, str]:
    """Return sshd's effective settings for a user who comes from anywhere."""
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    lines = run("sshd", "-T", "-C", f"user={user},host=anywhere.example,addr=192.0.2.1")
    found: dict[str, str] = {}
    for line in lines.splitlines():
        name, _, value = line.partition(" ")
        found[name] = f"{found[name]} {value}" if name == "port" and name in found else value
    return found


def ssh_policy(port: int, admin: str) -> tuple[bool, str]:
    """Return whether only keys open the door, at one port, and never root's."""
    wanted = {
        "port": str(port),
        "passwordauthentication": "no",
        "kbdinteractiveauthentication": "no",
        "permitemptypasswords": "no",
        "pubkeyauthentication": "yes",
    }
    amiss = []
    for user in ("root", admin):
        settings = sshd_settings(user)
        for name, value in {**wanted, "permitrootlogin": "no"}.items():
            if settings.get(name) != value:
                amiss.append(f"{name} {settings.get(name, 'unknown')} for {user}")
    return not amiss, ", ".join(amiss) or f"port {port}, keys only, root never (sshd -T)"


def firewall(outgoing: str) -> tuple[bool, str]:
    """Return whether ufw denies what comes in, and with what goes out does as wanted."""
    said = run("ufw", "status", "verbose")
    default = re.search(r"Default: (\w+) \(incoming\), (\w+) \(outgoing\)", said)
    ok = "Status: active" in said and default is not None
    ok = ok and default[1] in ("deny", "reject") and (default[2] == "allow") == (
        outgoing == "allow"
    )  # fmt: skip
    return ok, default[0] if default else said.strip()[:100]


def jails(wanted: list[str]) -> tuple[bool, str]:
    """Return whether fail2ban watches what it should."""
    match = re.search(r"Jail list:\s*(.*)", run("fail2ban-client", "status"))
    found = {name.strip() for name in match[1].split(",")} if match else set()
    missing = [name for name in wanted if name not in found]
    if missing:
        return False, f"no jail {', '.join(missing)}"
    banned = []
    for name in wanted:
        count = re.search(r"Currently banned:\s*(\d+)", run("fail2ban-client", "status", name))
        banned.append(f"{name} ({count[1] if count else '?'} banned now)")
    return True, ", ".join(banned)


def updates() -> tuple[bool, str]:
    """Return whether security updates install themselves."""
    switched = 'APT::Periodic::Unattended-Upgrade "1"' in run("apt-config", "dump")
    timer = unit("apt-daily-upgrade.timer", "ActiveState", "UnitFileState")
    service = unit("apt-daily-upgrade.service", "ActiveState")
    ok = switched and timer == {"ActiveState": "active", "UnitFileState": "enabled"}
    ok = ok and service["ActiveState"] != "failed"
    return ok, (
        f"unattended-upgrades {'on' if switched else 'off'}, timer {timer.get('ActiveState')}, "
        f"last run {'failed' if service['ActiveState'] == 'failed' else 'did not fail'}"
    )


def alerts(command: str) -> tuple[bool | None, str]:
    """Return whether somebody is told of alerts, all were delivered, and none is open."""
    if not command:
        return None, "NOBODY IS TOLD: vault_alert_webhook is not set"
    status = json.loads(run("/usr/local/bin/tell-operator", "status"))
    if status["open"]:
        return False, "; ".join(status["open"])
    if late := [one for one in status["waiting"] if one["seconds"] > 120]:
        return False, f"{len(late)} messages are not delivered: {status['trouble']}"
    if status["given_up"]:
        return False, f"{len(status['given_up'])} messages could not be delivered for a day"
    if "tell-operator" not in command:
        return True, "no alert is open; alert_command is your own"
    last = status["delivered"][-1:]
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(last[0]["at"])) if last else ""
    return True, f"no alert is open; last message delivered: {when or 'none yet'}"


def monitoring(part: str, silence: float) -> tuple[bool | None, str]:
    """Return whether this host watches (``server``), or is watched and hears so (``watched``)."""
    if not part:
        return None, "monitoring_enabled is false"
    if part == "server":
        done = subprocess.run(
            ["/usr/local/sbin/monitoring-heartbeat", "--check"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode == 0, done.stdout.strip() or done.stderr.strip()[-200:]
    beat = Path("/var/lib/monitoring/beat")
    seconds = time.time() - beat.stat().st_mtime
    return seconds < silence, f"the last beat of the database server was {seconds:.0f} s ago"


def failed_units() -> tuple[bool, str]:
    """Return whether no service and no timer has failed."""
    command = ("systemctl", "list-units", "--failed", "--plain", "--no-legend")
    lines = run(*command, "--type=service,timer").splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    return not names, f"failed: {', '.join(names)}" if names else "none has failed"


def secrets(paths: list[str]) -> tuple[bool, str]:
    """Return whether files with secrets are closed to everybody who has no business there."""
    amiss, seen = [], 0
    for pattern in paths:
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            if not path.is_file():
                continue
            seen += 1
            status = path.stat()
            if status.st_mode & 0o027:  # others: nothing; the group: reading
                owner = pwd.getpwuid(status.st_uid).pw_name
                group = grp.getgrgid(status.st_gid).gr_name
                amiss.append(f"{path} is {status.st_mode & 0o7777:04o} {owner}:{group}")
    return bool(seen) and not amiss, "; ".join(amiss) or f"{seen} files, none open to others"


def timers(names: list[str]) -> tuple[bool, str]:
    """Return whether timers wait for their hour, and what they start did not fail last time."""
    amiss = []
    for name in names:
        state = unit(name, "ActiveState", "UnitFileState")
        service = unit(name.replace(".timer", ".service"), "ActiveState", "Result")
        if (state.get("ActiveState"), state.get("UnitFileState")) != ("active", "enabled"):
            amiss.append(f"{name} is {state.get('ActiveState')}, {state.get('UnitFileState')}")
        elif service.get("Result") != "success":
            amiss.append(f"{name}: the last run ended with {service.get('Result')}")
    return not amiss, "; ".join(amiss) or ", ".join(names)


def journal() -> tuple[bool, str]:
    """Return whether the journal outlives a reboot."""
    kept = any(Path("/var/log/journal").glob("*/system.journal"))
    return kept, "in /var/log/journal" if kept else "only in memory"


def zone(wanted: str) -> tuple[bool, str]:
    """Return whether the clock has the zone of the inventory; others lose rounds."""
    found = os.path.realpath("/etc/localtime").removeprefix("/usr/share/zoneinfo/")
    same = {wanted, found} <= {"UTC", "Etc/UTC", "Universal", "Zulu"} or found == wanted
    return same, found if same else f"{found} instead of {wanted}"


# ----------------------------------------------------------------------------------- the bot's unit


def bot_runs(name: str) -> tuple[bool, str]:
    """Return whether the bot runs, and does not come and go."""
    state = unit(name, "ActiveState", "SubState", "NRestarts", "ActiveEnterTimestamp")
    ok = (state["ActiveState"], state["SubState"]) == ("active", "running")
    return ok, (
        f"{state['ActiveState']} ({state['SubState']}) since "
        f"{state['ActiveEnterTimestamp'] or 'never'}, {state['NRestarts']} restarts by itself"
    )


def bot_restarts(name: str) -> tuple[bool, str]:
    """Return whether systemd would start it again however it ends, and at the next boot."""
    state = unit(name, "Restart", "UnitFileState")
    ok = state == {"Restart": "always", "UnitFileState": "enabled"}
    return ok, f"Restart={state.get('Restart')}, {state.get('UnitFileState')} at boot"


def bot_egress(name: str, *, open_by_choice: bool) -> tuple[bool | None, str]:
    """Return whether systemd keeps the bot away from metadata services and private networks."""
    state = unit(name, "IPAddressDeny", "IPAddressAllow")
    open_ones = [network for network in PRIVATE if network not in state["IPAddressDeny"].split()]
    if open_ones and open_by_choice:
        return None, "bot_server_denied_addresses is empty"
    allowed = f"allowed: {state['IPAddressAllow'] or 'none of them'}"
    return not open_ones, f"not denied: {', '.join(open_ones)}" if open_ones else allowed


def bot_errors(name: str) -> tuple[bool, str]:
    """Return whether the bot's journal has no unhandled error since the start."""
    invocation = unit(name, "InvocationID")["InvocationID"]
    lines = run("journalctl", f"_SYSTEMD_INVOCATION_ID={invocation}", "--output=cat", "--no-pager")
    found = [line for line in lines.splitlines() if line.startswith("Traceback (most recent")]
    return not found, f"{len(found)} unhandled errors in the journal since its start"


def bot_on_discord(name: str) -> tuple[bool, str]:
    """Return whether a process of the bot holds a connection to port 443."""
    group = unit(name, "ControlGroup")["ControlGroup"]
    files = [Path("/sys/fs/cgroup") / kind / group.lstrip("/") / "cgroup.procs"
             for kind in ("", "systemd", "unified")]  # fmt: skip
    listed = next((path.read_text().split() for path in files if path.exists()), [])
    processes = listed or [unit(name, "MainPID")["MainPID"]]
    lines = run("ss", "-Htnp", "state", "established", "dport", "=", ":443").splitlines()
    peers = [line.split()[3] for line in lines if any(f"pid={pid}," in line for pid in processes)]
    return bool(peers), f"connected to {', '.join(peers)}" if peers else "no connection to port 443"


def bot_survives(name: str) -> tuple[bool, str]:
    """Kill the bot and return whether it comes back, and after how many seconds."""
    before = unit(name, "MainPID")["MainPID"]
    begun = time.monotonic()
    run("systemctl", "kill", "--signal=KILL", name)
    while time.monotonic() - begun < CRASH_SECONDS:
        state = unit(name, "MainPID", "ActiveState", "SubState")
        running = (state["ActiveState"], state["SubState"]) == ("active", "running")
        if running and state["MainPID"] not in ("0", before):
            return True, f"back {time.monotonic() - begun:.1f} s after kill -9"
        time.sleep(0.2)
    return False, f"not back {CRASH_SECONDS} s after kill -9"


def main(wish: dict) -> None:
    """Ask everything and print."""
    check("ssh-policy", "SSH takes keys only, at its own port, and never root",
          lambda: ssh_policy(wish["ssh_port"], wish["admin"]))  # fmt: skip
    check("firewall", "The firewall is on and denies what nobody asked for",
          lambda: firewall(wish["outgoing"]))  # fmt: skip
    check("fail2ban", "fail2ban watches the logins", lambda: jails(wish["jails"]))
    check("updates", "Security updates install themselves", updates)
    check("secrets", "Files with secrets are closed to others", lambda: secrets(wish["secrets"]))
    check("timers", "What has to run every night waits for its hour",
          lambda: timers(wish["timers"]))  # fmt: skip
    check("units", "No service has failed", failed_units)
    check("journal", "The journal is kept over a reboot", journal)
    check("alerts", "Somebody is told when something breaks, and nothing is open",
          lambda: alerts(wish["alert_command"]))  # fmt: skip
    check("monitoring", "Monitoring is active",
          lambda: monitoring(wish["monitoring"], float(wish["monitoring_silence"])))  # fmt: skip
    check("time-zone", "The time zone is the inventory's", lambda: zone(wish["timezone"]))
    if name := wish["bot"]:
        check("bot-runs", "The bot runs", lambda: bot_runs(name))
        check("bot-restart", "systemd starts the bot again however it ends",
              lambda: bot_restarts(name))  # fmt: skip
        check("bot-egress", "The bot reaches no metadata service and no private network by itself",
              lambda: bot_egress(name, open_by_choice=wish["egress_open"]))  # fmt: skip
        check("bot-errors", "The bot handles its errors", lambda: bot_errors(name))
        check("bot-discord", "The bot is connected to Discord",
              (lambda: bot_on_discord(name)) if wish["token"] else
              lambda: (None, "it has no DISCORD_BOT_TOKEN"))  # fmt: skip
        check("bot-crash", "The bot comes back when it is killed",
              (lambda: bot_survives(name)) if wish["crash"] else
              lambda: (None, "only with -e verify_crash=true, since it interrupts"))  # fmt: skip
    print(json.dumps(RESULTS))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
