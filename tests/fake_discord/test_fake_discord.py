"""The fake Discord keeps to the protocol: asked raw, and by unmodified discord.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import runpy
import socket
import ssl
import subprocess
import sys
import zlib

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from support.discord import PROGRAM, TOKEN, FakeDiscord, Refused, text_of

GENERAL = "700000000000000201"
MESSAGES = f"/api/v10/channels/{GENERAL}/messages"
MESSAGE_INTENTS = 1 << 9 | 1 << 12 | 1 << 15
PING_BOT = """
import asyncio, os, discord
from discord.ext import commands
intents = discord.Intents.default()
intents.message_content = True
bot = commands.Bot("!", intents=intents)
@bot.command()
async def ping(context):
    await context.send("pong", embed=discord.Embed(title="an embed"))
@bot.command()
@commands.has_permissions(administrator=True)
async def rule(context):
    await context.reply("yes")
@bot.event
async def on_command_error(context, error):
    await context.send(type(error).__name__)
asyncio.run(bot.start(os.environ["DISCORD_BOT_TOKEN"]))
"""


@pytest.fixture(scope="module")
def discord(tmp_path_factory):
    with FakeDiscord(tmp_path_factory.mktemp("discord")) as discord:
        yield discord


class Hosts(AbstractResolver):
    """Every name is 127.0.0.1 with the fake's port."""

    def __init__(self, port):
        self.port = port

    async def resolve(self, host, port=0, family=socket.AF_INET):  # noqa: ARG002
        return [{"hostname": host, "host": "127.0.0.1", "port": self.port, "family": family,
                 "proto": 0, "flags": 0}]  # fmt: skip

    async def close(self):
        pass


@pytest.fixture
async def http(discord):
    """A client that is logged in with the right token."""
    trust = ssl.create_default_context(cafile=discord.directory / "ca.crt")
    async with aiohttp.ClientSession(
        "https://discord.com",
        headers={"Authorization": f"Bot {TOKEN}"},
        connector=aiohttp.TCPConnector(ssl=trust, resolver=Hosts(discord.port)),
    ) as session:
        yield session


async def get(http, path, **options):
    async with http.get(path, **options) as answer:
        return answer.status, await answer.json()


async def post(http, path, **data):
    async with http.post(path, json=data) as answer:
        return answer.status, await answer.json(), answer.headers


class Client:
    """A bot's end of the gateway."""

    def __init__(self, socket):
        self.socket = socket

    async def send(self, op, data):
        await self.socket.send_json({"op": op, "d": data})

    async def receive(self, wanted):
        """Wait for an opcode or an event."""
        while True:
            message = await self.socket.receive(timeout=10)
            assert message.type is aiohttp.WSMsgType.TEXT, self.socket.close_code
            payload = json.loads(message.data)
            if wanted in (payload["op"], payload["t"]):
                return payload

    async def identify(self, intents=MESSAGE_INTENTS, token=TOKEN):
        await self.receive(10)
        await self.send(2, {"token": token, "intents": intents, "properties": {}})
        return self

    async def closed(self):
        message = await self.socket.receive(timeout=10)
        assert message.type is aiohttp.WSMsgType.CLOSE
        return message.data


@contextlib.asynccontextmanager
async def gateway(http):
    async with http.ws_connect("wss://gateway.discord.gg/?v=10&encoding=json") as socket:
        yield Client(socket)


# ------------------------------------------------------------------------------------------- REST


async def test_only_the_right_token_is_let_in(http):
    status, me = await get(http, "/api/v10/users/@me")
    assert (status, me["username"], me["bot"]) == (200, "stats-bot", True)
    status, said = await get(http, "/api/v10/users/@me", headers={"Authorization": "Bot wrong"})
    assert (status, said["message"]) == (401, "401: Unauthorized")


async def test_the_certificate_is_for_discords_names_only(discord):
    trust = ssl.create_default_context(cafile=discord.directory / "ca.crt")
    connector = aiohttp.TCPConnector(ssl=trust, resolver=Hosts(discord.port))
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get("https://example.org/")


def test_the_given_authority_signs(tmp_path):
    """The demo's own CA, as scripts/make_secrets.py makes it."""
    scripts = runpy.run_path(str(PROGRAM.parents[1] / "scripts" / "make_secrets.py"))
    for name, content in zip(("ca.key", "ca.crt"), scripts["make_ca"]("a CA"), strict=True):
        (tmp_path / name).write_bytes(content)
    run = [sys.executable, PROGRAM, "certificate", "--out", tmp_path / "out"]
    run += ["--ca-certificate", tmp_path / "ca.crt"]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 2
    assert "belong together" in done.stderr
    subprocess.run([*run, "--ca-key", tmp_path / "ca.key"], check=True)
    check = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver"]
    check += ["-verify_hostname", "gateway.discord.gg", "-CAfile", tmp_path / "ca.crt"]
    subprocess.run([*check, tmp_path / "out" / "server.crt"], check=True)
    assert (tmp_path / "out" / "server.key").stat().st_mode & 0o77 == 0


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        ({"content": " "}, 400, 50006),
        ({"content": "x" * 2001}, 400, 50035),
        ({"embeds": [{"fields": [{"name": "a", "value": "b" * 1025}]}]}, 400, 50035),
        ({"embeds": [{"fields": [{"name": "a", "value": ""}]}]}, 400, 50035),
        ({"embeds": [{"title": "t" * 257}]}, 400, 50035),
        ({"embeds": [{"description": "d" * 4000}, {"description": "d" * 2001}]}, 400, 50035),
        ({"content": "x", "nonce": "n" * 26}, 400, 50035),
        ({"content": "x", "message_reference": {"message_id": "1"}}, 400, 50035),
    ],
)
async def test_what_discord_refuses_is_refused(discord, http, message, status, code):
    discord.post("/settings", messages_per_window=1000)
    answer, said, _ = await post(http, MESSAGES, **message)
    assert (answer, said["code"]) == (status, code)
    assert discord.get("/state")["refused_requests"][-1]["code"] == code


async def test_where_the_bot_may_not_write_it_cannot(discord, http):
    channel = discord.post("/channels", name="secret", denied=1 << 11)
    status, said, _ = await post(http, f"/api/v10/channels/{channel['id']}/messages", content="x")
    assert (status, said["code"]) == (403, 50013)
    status, said, _ = await post(http, "/api/v10/channels/1/messages", content="x")
    assert (status, said["code"]) == (404, 10003)


async def test_a_nonce_makes_a_message_once(discord, http):
    discord.post("/settings", messages_per_window=1000)
    first = await post(http, MESSAGES, content="once", nonce="7", enforce_nonce=True)
    again = await post(http, MESSAGES, content="twice", nonce="7", enforce_nonce=True)
    assert first[1]["id"] == again[1]["id"]
    other = await post(http, MESSAGES, content="once", nonce="7")
    assert other[1]["id"] != first[1]["id"]


async def test_the_sixth_message_in_five_seconds_has_to_wait(discord, http):
    path = f"/api/v10/channels/{discord.post('/channels', name='busy')['id']}/messages"
    discord.post("/settings", messages_per_window=5)
    for left in (4, 3, 2, 1, 0):
        status, _, headers = await post(http, path, content="x")
        assert (status, headers["X-RateLimit-Remaining"]) == (200, str(left))
    status, said, headers = await post(http, path, content="x")
    assert status == 429
    assert 0 < said["retry_after"] <= 5
    assert float(headers["X-RateLimit-Reset-After"]) == pytest.approx(said["retry_after"], abs=0.01)


async def test_what_is_not_spoken_here_is_noted(discord, http):
    status, _ = await get(http, "/api/v10/stickers/1")
    assert status == 404
    assert "GET /api/v10/stickers/1" in discord.get("/state")["unknown_requests"]


async def test_the_control_port_names_mistakes(discord):
    with pytest.raises(Refused, match="content"):
        discord.post("/messages", author="player")
    with pytest.raises(Refused, match="no such trouble: flood"):
        discord.post("/faults", kind="flood")


# ---------------------------------------------------------------------------------------- gateway


async def test_two_sessions_at_once_are_recorded(discord, http):
    before = len(discord.overlaps())
    async with gateway(http) as one:
        await (await one.identify()).receive("READY")
        async with gateway(http) as other:
            ready = await (await other.identify()).receive("READY")
            (guild,) = ready["d"]["guilds"]
            assert (await other.receive("GUILD_CREATE"))["d"]["id"] == guild["id"]
            now = discord.overlaps()[before:]
            assert [found["until"] for found in now] == [None]
            assert now[0]["addresses"] == ["127.0.0.1", "127.0.0.1"]
    discord.wait_for_sessions(0)
    (found,) = discord.overlaps()[before:]
    assert found["until"]
    assert found["seconds"] < 5
    await asyncio.sleep(0.3)
    async with gateway(http) as third:  # one after the other is no overlap, but a silence
        await (await third.identify()).receive("READY")
    discord.wait_for_sessions(0)
    assert len(discord.overlaps()) == before + 1
    silence = discord.get("/sessions")["silences"][-1]
    assert silence["addresses"] == ["127.0.0.1", "127.0.0.1"]
    assert 0.2 <= silence["seconds"] < 5


async def test_a_resumed_session_hears_what_it_missed(discord, http):
    async with gateway(http) as client:
        ready = await (await client.identify()).receive("READY")
        await client.receive("GUILD_CREATE")
        discord.post("/faults", kind="drop")
    discord.wait_for_sessions(0)
    discord.post("/messages", author="player", content="in between")
    async with gateway(http) as client:
        await client.receive(10)
        session = {"token": TOKEN, "session_id": ready["d"]["session_id"], "seq": 2}
        await client.send(6, session)
        assert (await client.receive("MESSAGE_CREATE"))["d"]["content"] == "in between"
        await client.receive("RESUMED")
        await client.socket.close(code=1000)
    discord.wait_for_sessions(0)
    async with gateway(http) as client:  # it has said goodbye: that session is over
        await client.receive(10)
        await client.send(6, session)
        assert (await client.receive(9))["d"] is False


async def test_without_the_intent_only_what_concerns_the_bot_can_be_read(discord, http):
    async with gateway(http) as client:
        await (await client.identify(MESSAGE_INTENTS & ~(1 << 15))).receive("GUILD_CREATE")
        discord.post("/messages", author="player", content="hello")
        assert (await client.receive("MESSAGE_CREATE"))["d"]["content"] == ""
        discord.post("/messages", author="player", content="<@700000000000000010> hello")
        assert "hello" in (await client.receive("MESSAGE_CREATE"))["d"]["content"]
        discord.post("/messages", author="player", channel="dm", content="psst")
        assert (await client.receive("MESSAGE_CREATE"))["d"]["content"] == "psst"


async def test_wrong_moves_have_their_close_codes(discord, http):
    async with gateway(http) as client:
        await client.identify(token="wrong")
        assert await client.closed() == 4004
    async with gateway(http) as client:
        await client.receive(10)
        await client.send(8, {})
        assert await client.closed() == 4003
    discord.post("/settings", message_content=False)
    async with gateway(http) as client:
        await client.identify()
        assert await client.closed() == 4014
    discord.post("/settings", message_content=True)


async def test_a_bot_without_a_heartbeat_is_taken_for_dead(tmp_path):
    with FakeDiscord(tmp_path, heartbeat=0.2) as discord:
        trust = ssl.create_default_context(cafile=tmp_path / "ca.crt")
        connector = aiohttp.TCPConnector(ssl=trust, resolver=Hosts(discord.port))
        async with aiohttp.ClientSession(connector=connector) as http, gateway(http) as client:
            await client.identify()
            for _ in range(5):  # with one it lives on
                await asyncio.sleep(0.1)
                await client.send(1, None)
                await client.receive(11)
            assert await client.closed() == 4009


async def test_it_compresses_where_asked(http):
    url = "wss://gateway.discord.gg/?v=10&encoding=json&compress=zlib-stream"
    async with http.ws_connect(url) as socket:
        data = (await socket.receive()).data
        assert data.endswith(b"\x00\x00\xff\xff")
        assert json.loads(zlib.decompressobj().decompress(data))["op"] == 10


# ------------------------------------------------------------------------------------- discord.py


@pytest.fixture(scope="module")
def ping_bot(discord):
    """A bot of a few lines with unmodified discord.py."""
    discord.post("/settings", messages_per_window=1000)
    process = subprocess.Popen(
        [sys.executable, "-c", PING_BOT],
        env=os.environ | discord.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    discord.wait_for_sessions(1)
    yield process
    process.terminate()
    process.wait()


@pytest.mark.usefixtures("ping_bot")
def test_unmodified_discord_py_logs_in_and_answers(discord):
    answer = discord.ask("!ping")
    assert text_of(answer) == "pong\nan embed"
    assert answer["from_address"] == "127.0.0.1"
    assert text_of(discord.ask("!ping", channel="dm")) == "pong\nan embed"
    assert text_of(discord.ask("!rule", author="admin")) == "yes"
    assert text_of(discord.ask("!rule")) == "MissingPermissions"
    assert text_of(discord.ask("!rule", author="second admin", admin=True)) == "yes"
    assert discord.silence("good evening")


@pytest.mark.usefixtures("ping_bot")
@pytest.mark.parametrize(
    "trouble",
    [
        {"kind": "reconnect"},
        {"kind": "invalid_session", "resumable": True},
        {"kind": "close", "code": 4000},
        {"kind": "drop"},
    ],
    ids=lambda trouble: trouble["kind"],
)
def test_discord_py_resumes_and_misses_nothing(discord, trouble):
    sessions = len(discord.get("/sessions")["sessions"])
    discord.post("/faults", **trouble)
    assert text_of(discord.ask("!ping", timeout=20)) == "pong\nan embed"
    assert len(discord.get("/sessions")["sessions"]) == sessions


@pytest.mark.usefixtures("ping_bot")
def test_a_lost_answer_of_the_server_does_not_double_the_bots(discord):
    discord.post("/faults", kind="rest", path="/messages", status=502, accepted=True)
    assert text_of(discord.ask("!ping", quiet=1.5)) == "pong\nan embed"
    discord.post("/faults", kind="rest", path="/messages", status=429, retry_after=0.2)
    assert discord.ask("!ping")["seconds"] > 0.2
