"""What the owner puts into the vault arrives where vault.yml.example says it does."""

import json
import os
import re
import runpy
import string
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

ROOT = Path(__file__).parents[2]
NAMES = re.findall(r"\b(vault_\w+):", (ROOT / "group_vars/all/vault.yml.example").read_text())
GAME = {"ansible_host": "192.0.2.3", "game_ssh_port": 48101, "game_user": "etstats",
        "game_stats_path": "/stats", "game_host_key": "ssh-ed25519 AAAA"}  # fmt: skip


@pytest.fixture
def on_the_bots_host(tmp_path):
    """Return what Ansible makes of an expression there, given all.yml of the inventory."""

    def value(expression, *options, **settings):
        hosts = {
            "database": {"hosts": {"vps1": {"ansible_host": "192.0.2.1"}}},
            "bot": {"hosts": {"vps2": {"ansible_host": "192.0.2.2"}}},
            "game": {"hosts": {"gameserver": GAME}},
        }
        (tmp_path / "hosts.yml").write_text(json.dumps({"all": {"children": hosts}}))
        (tmp_path / "group_vars").mkdir(exist_ok=True)
        passwords = {"vault_postgres_app_password": "long-enough-for-the-role"}
        (tmp_path / "group_vars/all.yml").write_text(json.dumps(passwords | settings))
        shown = subprocess.run(
            ["ansible", "-i", tmp_path / "hosts.yml", "--playbook-dir", ROOT / "playbooks",
             "-m", "ansible.builtin.debug", "-a", json.dumps({"msg": expression}),
             *options, "vps2"],
            cwd=ROOT,
            env=os.environ
            | {
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_FORCE_COLOR": "0",
            },
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert shown.returncode == 0, shown.stdout + shown.stderr
        return json.loads(shown.stdout.partition(" => ")[2])["msg"]

    return value


@pytest.mark.parametrize("name", NAMES)
def test_every_secret_of_the_example_is_read_by_the_wiring(name):
    wiring = [path.read_text() for path in (ROOT / "group_vars").rglob("*.yml")]
    assert [text for text in wiring if re.search(rf"^[^#]*{{{{.*\b{name}\b", text, re.MULTILINE)]


def test_token_and_rcon_password_reach_the_bot(on_the_bots_host):
    environment = on_the_bots_host(
        "{{ bot_server_environment }}", vault_discord_bot_token="tok", vault_rcon_password="pass"
    )
    assert environment["DISCORD_BOT_TOKEN"] == "tok"
    rcon = {name: value for name, value in environment.items() if name.startswith("RCON_")}
    assert rcon == {"RCON_HOST": "192.0.2.3", "RCON_PORT": "27960", "RCON_PASSWORD": "pass"}


def test_what_bot_environment_says_wins(on_the_bots_host):
    environment = on_the_bots_host(
        "{{ bot_server_environment }}",
        vault_discord_bot_token="tok",
        bot_environment={"DISCORD_BOT_TOKEN": "another", "LOG_LEVEL": "DEBUG"},
    )
    assert environment["DISCORD_BOT_TOKEN"] == "another"
    assert environment["LOG_LEVEL"] == "DEBUG"


SUMMARY = "{{ lookup('ansible.builtin.template', 'templates/site_summary.txt.j2') }}"


@pytest.mark.parametrize(
    ("settings", "mute"),
    [
        ({}, True),
        ({"vault_discord_bot_token": ""}, True),
        ({"vault_discord_bot_token": "tok", "bot_environment": {"DISCORD_BOT_TOKEN": ""}}, True),
        ({"vault_discord_bot_token": "tok"}, False),
        ({"bot_environment": {"DISCORD_TOKEN": "tok"}}, False),
    ],
)
def test_site_says_that_a_bot_without_a_token_is_mute(on_the_bots_host, settings, mute):
    said = on_the_bots_host(SUMMARY, **settings)
    assert ("Put it in as vault_discord_bot_token" in said) == mute
    assert "Both servers are built." in said


def test_site_lists_what_the_bot_may_lack_ready_to_be_pasted(on_the_bots_host):
    unset = [
        {"name": name, "file": "bot/main.py", "line": 7, "needed": name == "MISSING"}
        for name in ("STATS_CHANNEL_ID", "GUILD_TOKEN", "DATA_DIR", "MISSING")
    ]
    old = {
        "STATS_CHANNEL_ID": {"value": '12"3'},
        "GUILD_TOKEN": {"secret": True},
        "DATA_DIR": {"local": True},
    }
    said = on_the_bots_host(
        SUMMARY, __site_unset=unset, __site_old_environment={"stdout": json.dumps(old)}
    )
    pasted = said[said.index("  bot_environment:") :].splitlines()[:3]
    assert yaml.safe_load("\n".join(pasted)) == {
        "bot_environment": {"STATS_CHANNEL_ID": '12"3', "GUILD_TOKEN": "{{ vault_guild_token }}"}
    }
    assert "MISSING  bot/main.py, line 7\n" in said
    assert "DATA_DIR  bot/main.py, line 7 (it goes on without); the old bot's is a place" in said


def test_a_check_of_bare_servers_does_not_say_that_they_are_built(on_the_bots_host):
    said = on_the_bots_host(SUMMARY, "--check", __site_stands={"stat": {"exists": False}})
    assert "Both servers are built" not in said
    assert "The servers are not built yet: ansible-playbook site.yml builds them." in said


@pytest.mark.parametrize(
    ("done", "words"),
    [
        ({"installed": [], "left": [], "restarts": [], "reboot": False, "reboot_for": []}, []),
        (
            {
                "installed": [["libpam0g", "1", "2"], ["openssl", "3", "4"]],
                "left": [["held", "1", "2"]],
                "restarts": ["postgresql@15-main.service"],
                "reboot": True,
                "reboot_for": ["linux-image-cloud-amd64"],
            },
            [
                "Security updates on vps1: 2 installed (libpam0g, openssl), left: held.",
                "vps2 still runs what they replaced: the kernel or system "
                "(linux-image-cloud-amd64), postgresql@15-main.service. It reboots at 04:40.",
            ],
        ),
    ],
    ids=["none was pending", "some were"],
)
def test_site_says_which_security_updates_it_installed(on_the_bots_host, done, words):
    said = on_the_bots_host(SUMMARY, __hardening_first_updates={"stdout": json.dumps(done)})
    assert ("Security updates on" in said) == bool(words)
    for part in words:
        assert part in said


# Every sign that can stand in a line, and two that are no ASCII.
PRINTABLE = f"{string.digits}{string.ascii_letters}{string.punctuation} ü€ "
# A letter on each side, so that a password cannot go wrong where two signs meet either.
SIGNS = "".join(f"a{sign}" for sign in PRINTABLE)


def test_a_password_of_any_signs_passes_through_the_url(on_the_bots_host):
    password = PRINTABLE + SIGNS
    environment = on_the_bots_host(
        "{{ bot_server_environment }}",
        vault_postgres_app_password=password,
        postgres_server_database="stats/of us?",
    )
    url = environment["DATABASE_URL"]
    parts = urlsplit(url)  # as asyncpg reads it
    assert unquote(parts.password) == password
    assert (parts.hostname, parts.port) == ("192.0.2.1", 5432)
    assert unquote(parts.path) == "/stats/of us?"
    read = conninfo_to_dict(url)  # as libpq reads it
    assert (read["password"], read["host"], read["port"]) == (password, "192.0.2.1", "5432")
    assert read["dbname"] == "stats/of us?"
    assert environment["DATABASE_PASSWORD"] == environment["POSTGRES_PASSWORD"] == password


ENVIRONMENT_FILES = {
    "roles/bot_server/templates/etc/bot/environment.j2": "bot_server_environment",
    "playbooks/templates/etc/partial/environment.j2": "rollback_partial_settings",
}


@pytest.mark.parametrize("template", ENVIRONMENT_FILES)
def test_a_value_of_any_signs_passes_through_an_environment_file(
    on_the_bots_host, tmp_path, template
):
    """Read by a shell, whose double quotes are systemd's; the scenario bot_server asks systemd."""
    said = on_the_bots_host(
        f"{{{{ lookup('ansible.builtin.template', '{ROOT / template}') }}}}",
        **{ENVIRONMENT_FILES[template]: {"FIRST": PRINTABLE, "SECOND": SIGNS}},
    )
    path = tmp_path / "environment"
    path.write_text(said)
    shown = subprocess.run(
        ["sh", "-c", f'. {path} && printf "%s\\n" "$FIRST" "$SECOND"'],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shown.stdout.split("\n") == [PRINTABLE, SIGNS, ""]


def test_a_password_of_any_signs_passes_through_a_password_file(on_the_bots_host):
    """libpq takes a backslash from before a colon and a backslash."""
    migrate = (ROOT / "playbooks/migrate/pgpass.yml").read_text()
    content = json.loads(re.search(r"ferry_text: (\".*\")$", migrate, re.MULTILINE)[1])
    both = [
        on_the_bots_host(content, vault_postgres_migrator_password=SIGNS),
        on_the_bots_host(
            "{{ __postgres_server_passfile.content }}",
            vault_postgres_replication_password=SIGNS,
            postgres_server_primary="192.0.2.1",
            postgres_server_replication_role="postgres_replication",
            **passfile_variables(),
        ),
    ]
    for line in both:
        fields = re.findall(r"((?:\\.|[^:\\])*)(?::|$)", line.removesuffix("\n"))[:5]
        assert re.sub(r"\\(.)", r"\1", fields[4]) == SIGNS
        assert line.count("\n") == 1


def passfile_variables():
    """Return what the role postgres_server writes its password file from."""
    text = yaml.safe_load((ROOT / "roles/postgres_server/vars/main.yml").read_text())
    wanted = ("__postgres_server_passfile", "__postgres_server_passfile_fields")
    return {name: text[name] for name in wanted} | {"__postgres_server_etc": "/etc"}


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("git@github.com:you/bot.git", ("22", [])),
        ("ssh://git@192.0.2.77:2222/bot.git", ("2222", ["192.0.2.77"])),
        ("https://git.example.org:8443/bot.git", ("8443", [])),
        ("https://github.com/you/bot.git", None),
    ],
)
def test_the_firewall_lets_the_repository_through(on_the_bots_host, url, rule):
    rules = on_the_bots_host("{{ hardening_firewall_rules }}", bot_server_repository=url)
    found = [one for one in rules if one["name"] == "the repository of the bot"]
    assert [(str(one["port"]), one["addresses"]) for one in found] == ([rule] if rule else [])
    assert all(one["direction"] == "out" for one in found)


def test_the_role_takes_every_firewall_rule_that_the_wiring_makes(on_the_bots_host):
    """What site.yml asks first of each server, with all that adds a rule."""
    rules = on_the_bots_host(
        "{{ hardening_firewall_rules }}",
        bot_server_repository="git@github.com:you/bot.git",
        postgres_server_pgbouncer_enabled=True,
        vault_alert_webhook="https://chat.example.org:8443/hook",
    )
    ports = {str(one["port"]) for one in rules}
    assert {"22", "5432", "6432", "8443", "48101", "27960"} <= ports
    role = runpy.run_path(str(ROOT / "roles/hardening/filter_plugins/hardening.py"))
    assert role["firewall_rule_complaints"](rules, 48022) == []


def test_the_bot_has_its_deploy_key_and_reaches_its_own_servers(on_the_bots_host):
    """Also where these are in a private network."""
    key = "-----BEGIN\nabc\n"
    both = "{{ [bot_server_repository_key, bot_server_allowed_addresses] }}"
    assert on_the_bots_host(both, vault_bot_deploy_key=key) == [key, ["192.0.2.1", "192.0.2.3"]]


OPEN = (
    "{{ lookup('ansible.builtin.template', 'templates/open_alerts.txt.j2') | default('-', true) }}"
)
HOOK = "https://discord.com/api/webhooks/1/x"


def test_whoever_has_no_webhook_hears_that_nobody_is_told(on_the_bots_host):
    said = on_the_bots_host(OPEN)
    assert "WARNING: NOBODY IS TOLD" in said
    assert on_the_bots_host(OPEN, vault_alert_webhook=HOOK) == "-"


def test_open_alerts_and_what_was_not_delivered_are_named(on_the_bots_host):
    status = {
        "open": ["ALERT from vps2, copies of backups: late"],
        "waiting": [{"id": "1", "text": "x", "seconds": 9}],
        "trouble": "it answers 500",
        "given_up": [{"id": "0", "text": "y"}],
    }
    answer = {"rc": 0, "stdout": json.dumps(status)}
    said = on_the_bots_host(OPEN, vault_alert_webhook=HOOK, __open_alerts=answer)
    assert "OPEN: ALERT from vps2, copies of backups: late" in said
    assert "NOT DELIVERED: vps2 has 1 message for you" in said
    assert "it answers 500" in said
    assert "GIVEN UP: vps2 could not deliver 1 message for a day" in said


def test_every_alert_has_the_same_command(on_the_bots_host):
    names = ["hardening_alert_command", "backup_keeper_alert_command", "bot_server_alert_command"]
    commands = "{{ [" + ", ".join(names) + "] }}"
    assert on_the_bots_host(commands) == ["", "", ""]
    told = on_the_bots_host(commands, vault_alert_webhook=HOOK)
    assert told == ["/usr/local/bin/tell-operator"] * 3
    assert on_the_bots_host(commands, alert_command="my-pager") == ["my-pager"] * 3


@pytest.mark.parametrize(
    ("url", "ports"), [(HOOK, []), ("https://a.b:443/x", []), ("https://a.b:8443/x", ["8443"])]
)
def test_a_webhook_on_another_port_gets_out(on_the_bots_host, url, ports):
    rules = on_the_bots_host("{{ hardening_firewall_rules }}", vault_alert_webhook=url)
    assert [rule["port"] for rule in rules if rule["name"] == "alerts to the operator"] == ports
