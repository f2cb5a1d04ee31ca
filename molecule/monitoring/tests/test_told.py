"""Every alert of both servers arrives in the operator's channel, also when that was away."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

SECRET = "token-of-the-ops-webhook"
GUARD = Path(__file__).parents[3] / "roles/hardening/files/access-guard.sh"
WAYS = {
    "172.30.8.10": {"updates, SSH and the firewall", "a backup, its copy or the archive fails"},
    "172.30.8.20": {
        "updates, SSH and the firewall",
        "copies of backups are late or damaged",
        "etlegacy-bot does not stay up",
    },
}


def status(host: Any) -> dict[str, Any]:
    """What tell-operator says of itself."""
    return json.loads(host.check_output("tell-operator status"))


def test_a_message_of_every_way_arrives(play, channel) -> None:
    after = len(channel.messages())
    code, said = play("playbooks/alert_test.yml")
    assert code == 0, said
    assert said.count("arrived after") == 7
    messages = [one for one in channel.messages()[after:] if one[1].startswith("TEST ")]
    for address, ways in WAYS.items():
        texts = [text for sender, text in messages if sender == address]
        assert len(texts) == len(ways) + 1
        assert all(any(way in text for text in texts) for way in ways)
        assert all("Nothing is wrong." in text for text in texts)


def test_a_test_is_no_alert(database, bot) -> None:
    for host in (database, bot):
        assert status(host)["open"] == []
        assert "TEST" not in host.check_output("journalctl -p alert --no-pager -q")


@pytest.mark.parametrize("name", ["database", "bot"])
def test_the_webhook_is_roots_alone(name, request) -> None:
    host = request.getfixturevalue(name)
    assert SECRET in host.check_output("cat /etc/tell-operator.json")
    assert host.check_output("stat -c %a:%U:%G /etc/tell-operator.json") == "640:root:tell-operator"
    assert host.run("runuser -u nobody -- cat /etc/tell-operator.json").rc != 0
    assert host.run("runuser -u nobody -- ls /var/spool/tell-operator").rc != 0
    host.check_output("echo secrets: where are they | tell-operator")
    places = "systemctl show tell-operator; journalctl --no-pager -q; ps axww; cat /proc/*/environ"
    assert SECRET not in host.run(f"({places}) 2>/dev/null").stdout


@pytest.mark.parametrize("name", ["database", "bot"])
def test_the_delivery_is_in_a_sandbox(name, request) -> None:
    host = request.getfixturevalue(name)
    shown = host.check_output("systemd-analyze security --no-pager tell-operator.service")
    score = float(re.search(r"exposure level for \S+: ([\d.]+)", shown)[1])
    assert score <= 2.0, shown


def test_the_bot_may_tell_nothing(bot) -> None:
    """A taken-over bot must not be able to flood the channel by this way."""
    refused = bot.run("echo x | runuser -u etlegacy-bot -- tell-operator")
    assert refused.rc != 0
    assert "Permission denied" in refused.stderr


def test_a_unit_that_fails_is_told_and_over_at_the_next_success(database, channel, play) -> None:
    """Through systemd, as in the night."""
    after = len(channel.messages())
    dropin = "/run/systemd/system/postgres-backup-check.service.d/fails.conf"
    database.check_output("mkdir -p $(dirname %s)", dropin)
    database.check_output("printf '[Service]\nExecStartPre=/bin/false\n' > %s", dropin)
    database.check_output("systemctl daemon-reload")
    assert database.run("systemctl start postgres-backup-check.service").rc != 0
    sender, _ = channel.wait_for("ALERT from database-vps, backups: ", after=after)
    assert sender == "172.30.8.10"
    # Prometheus may have seen the failed unit, too.
    [alert] = [one for one in status(database)["open"] if ", backups: " in one]
    _, said = play("deploy.yml", "--check")
    assert f"OPEN: {alert}" in said
    database.check_output("rm %s; systemctl daemon-reload", dropin)
    database.check_output("systemctl start postgres-backup-check.service")
    assert alert not in status(database)["open"]
    until = time.monotonic() + 60
    while status(database)["open"]:
        assert time.monotonic() < until, status(database)["open"]
        time.sleep(1)


def test_the_host_that_went_back_by_itself_tells_it(bot, channel) -> None:
    after = len(channel.messages())
    bot.check_output("printf %%s %s > /root/guard", GUARD.read_text())
    group = bot.check_output("id -gn ops")
    bot.check_output(
        "bash /root/guard arm 600 ops %s && /var/lib/hardening/access-guard revert", group
    )
    channel.wait_for(
        "ALERT from bot-vps, access: the change of SSH and firewall was not", after=after
    )
    assert len(status(bot)["open"]) == 1
    bot.check_output("bash /root/guard disarm; rm /root/guard")
    assert status(bot)["open"] == []


def test_the_release_that_was_taken_back_is_told(bot, channel) -> None:
    after = len(channel.messages())
    bot.check_output("/usr/local/sbin/etlegacy-bot-alert reverted bad-1 good-1")
    words = "the release bad-1 of etlegacy-bot was not found healthy in time; good-1 runs again"
    channel.wait_for(words, after=after)
    bot.check_output("rm /run/motd.d/etlegacy-bot-reverted")


def test_nothing_is_lost_while_the_webhook_is_away(database, stranger, channel) -> None:
    stranger.check_output("systemctl stop fake-discord")
    try:
        began = time.monotonic()
        for number in range(3):
            database.check_output(
                "echo ALERT from the test: number %s | tell-operator", str(number)
            )
        assert time.monotonic() - began < 10
        database.check_output(
            "for i in $(seq 50); do"
            " tell-operator status | grep -q cannot && exit; sleep 0.2; done; exit 1"
        )
        waiting = status(database)
        assert [one["text"][-8:] for one in waiting["waiting"]] == [f"number {n}" for n in range(3)]
        # The delivery dies as well; systemd starts it again.
        database.check_output(
            "systemctl kill --signal=KILL tell-operator; systemctl restart tell-operator"
        )
    finally:
        stranger.check_output("systemctl start fake-discord")
    channel.wait_for("number 2")
    told = [text for _, text in channel.messages() if "the test: number" in text]
    assert [text[-1] for text in told] == ["0", "1", "2"]
    assert status(database)["waiting"] == []
