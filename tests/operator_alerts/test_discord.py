"""tell-operator and Discord's webhooks understand each other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.discord import FakeDiscord

PROGRAM = Path(__file__).parents[2] / "roles/operator_alerts/files/tell_operator.py"
HOOK = "https://discord.com/api/webhooks/700000000000000802/token-of-the-ops-webhook"


@pytest.fixture(scope="module")
def discord(tmp_path_factory):
    with FakeDiscord(tmp_path_factory.mktemp("discord")) as discord:
        yield discord


@pytest.mark.parametrize("ending", ["", "/slack"])
def test_a_message_is_in_the_operators_channel(discord, tmp_path, ending):
    for name in ("new", "tmp", "given_up"):
        (tmp_path / "spool" / name).mkdir(parents=True)
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"url": HOOK + ending}))
    base = [sys.executable, PROGRAM, f"--spool={tmp_path / 'spool'}", f"--settings={settings}"]
    text = f"ALERT from vps1{ending}: “the disk” is full"
    subprocess.run(base, input=text, text=True, check=True)
    environment = {**os.environ, **discord.environment}
    subprocess.run([*base, "send"], env=environment, check=True, timeout=60)
    assert discord.get("/messages", channel="ops", author="webhook")[-1]["content"] == text
