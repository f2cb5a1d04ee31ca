"""old_environment.py: what the old bot's .env sets, and what of it may leave the old PC."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "playbooks/files/old_environment.py"
ENV = r"""
# the bot's settings
STATS_CHANNEL_ID=1234567890123
export GREETING = "Hello # all"   # of the first evening
QUOTED='it is'
LEVEL=INFO # loud
EMPTY=
TWICE=first
TWICE=second
DISCORD_BOT_TOKEN=of-the-bot
GUILD_PASSWORD="p"
MAIN_URL=https://example.org/x
FEED=https://user:word@example.org/
LONG=Mzc2MTU0MDk2NzY4OTY4NzA0.Gx
DATABASE_PATH=/home/player/bot/prod.db
SQLITE=bot/prod.db
GATEWAY=localhost
NOT WANTED
OTHER=never asked for
"""
SECRETS = ("DISCORD_BOT_TOKEN", "GUILD_PASSWORD", "MAIN_URL", "FEED", "LONG")


def ask(file, *names):
    out = subprocess.check_output(
        [sys.executable, "-", file, *names], input=PROGRAM.read_text(), text=True
    )
    return json.loads(out)


def test_values_are_told_and_secrets_are_not(tmp_path):
    (tmp_path / ".env").write_text(ENV)
    names = [
        line.split("=")[0].replace("export", "").strip() for line in ENV.splitlines() if "=" in line
    ]
    names.remove("OTHER")
    assert ask(tmp_path / ".env", *names, "MISSING") == {
        "STATS_CHANNEL_ID": {"value": "1234567890123"},
        "GREETING": {"value": "Hello # all"},
        "QUOTED": {"value": "it is"},
        "LEVEL": {"value": "INFO"},
        "TWICE": {"value": "second"},
        **{name: {"secret": True} for name in SECRETS},
        **{name: {"local": True} for name in ("DATABASE_PATH", "SQLITE", "GATEWAY")},
    }


def test_no_file_sets_nothing(tmp_path):
    assert ask(tmp_path / ".env", "A") == {}
