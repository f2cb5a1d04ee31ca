"""playbooks/game_access.yml: the bot's public key is the bot's file, so it is looked at first."""

import base64
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PLAY = next(
    play
    for play in yaml.safe_load((ROOT / "playbooks/game_access.yml").read_text())
    if play["name"] == "The bot's key"
)
CHECK = next(task for task in PLAY["tasks"] if "one key" in task["name"])
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGmzKq0QyXh0Ew5L0pVbq5w7y0l2mHfUoY3mCwq8b6kR"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOtherOtherOtherOtherOtherOtherOtherOtherO"
TEXTS = {
    f"{KEY} bot@vps2\n": True,
    f"{KEY}": True,
    f"ssh-rsa {'A' * 372}= bot@vps2\n": True,
    f"{KEY} bot@vps2\n{OTHER}\n": False,
    f'command="/bin/sh" {KEY}\n': False,
    f'{KEY} x\ncommand="/bin/sh" {OTHER}\n': False,
    f"{KEY} bot@vps2\r{OTHER}": False,
    "": False,
    "-----BEGIN OPENSSH PRIVATE KEY-----\n": False,
}


def test_only_one_key_and_nothing_else_goes_to_the_game_server(tmp_path):
    """All in one run: each text is a host."""
    hosts = {
        f"h{place}": {"__game_bot_key": {"content": base64.b64encode(text.encode()).decode()}}
        for place, text in enumerate(TEXTS)
    }
    (tmp_path / "hosts.yml").write_text(
        yaml.safe_dump(
            {
                "all": {
                    "hosts": hosts,
                    "vars": {"bot_server_environment": {"SSH_KEY_PATH": "/key"}},
                }
            }
        )
    )
    play = {"hosts": "all", "gather_facts": False, "tasks": [CHECK], "any_errors_fatal": False}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        ["ansible-playbook", "-i", tmp_path / "hosts.yml", tmp_path / "play.yml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    passed = [f"ok: [h{place}]" in done.stdout for place in range(len(TEXTS))]
    assert dict(zip(TEXTS, passed, strict=True)) == TEXTS, done.stdout


def test_it_is_looked_at_right_after_it_was_read():
    names = [task["name"] for task in PLAY["tasks"]]
    assert names[names.index(CHECK["name"]) - 1] == "Read the public key that site.yml made"
