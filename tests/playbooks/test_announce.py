"""announce.py: the players are told, and nobody waits long when they cannot be."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.discord import FakeDiscord

PROGRAM = Path(__file__).resolve().parents[2] / "playbooks" / "files" / "announce.py"
PATH = "/api/webhooks/700000000000000801/token-of-the-fake-webhook"


@pytest.fixture(scope="module")
def discord(tmp_path_factory):
    with FakeDiscord(tmp_path_factory.mktemp("discord")) as discord:
        yield discord


@pytest.fixture
def announce(discord):
    def announce(url, text="The bot moves now.", **environment):
        return subprocess.run(
            [sys.executable, PROGRAM],
            input=json.dumps({"url": url, "text": text}),
            env={**os.environ, **discord.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return announce


def posted(discord):
    return discord.get("/messages", channel="stats", author="webhook")


def test_the_text_is_in_the_channel_and_calls_nobody(discord, announce):
    done = announce(f"https://discord.com{PATH}", "Back, @everyone. “Ünïcode” ^1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    message = posted(discord)[-1]
    assert message["content"] == "Back, @everyone. “Ünïcode” ^1"
    assert message["allowed_mentions"] == {"parse": []}


def test_a_text_that_is_too_long_is_cut(discord, announce):
    assert announce(f"https://discord.com{PATH}", "x" * 5000).returncode == 0
    assert len(posted(discord)[-1]["content"]) == 2000


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://discord.com/api/webhooks/1/wrong-secret", "it answers 401"),
        ("https://nowhere.invalid/secret", "resol|not known|failure"),
        ("https://127.0.0.1:9/secret", "refused"),
        ("http://discord.com/secret", "does not begin with https"),
        ("file:///etc/passwd#secret", "does not begin with https"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(announce, url, reason):
    done = announce(url)
    assert done.returncode == 1
    assert "secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert any(word in done.stderr.lower() for word in reason.lower().split("|")), done.stderr


def test_a_foreign_certificate_is_not_trusted(announce):
    done = announce(f"https://discord.com{PATH}", SSL_CERT_FILE="/dev/null")
    assert done.returncode == 1
    assert "certificate" in done.stderr.lower()


def test_a_server_that_says_nothing_is_not_waited_for(announce):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        done = announce(f"https://127.0.0.1:{silent.getsockname()[1]}/secret")
        assert done.returncode == 1
        assert "time" in done.stderr or "no answer" in done.stderr
        assert "secret" not in done.stderr
        assert time.monotonic() - begun < 50, "the alarm rings after 5 s"
