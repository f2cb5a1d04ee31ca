"""The REST API, version 10: what a bot needs, with Discord's refusals and rate limits."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from fake_discord.gateway import Gateway
from fake_discord.world import (
    EMBED_LINKS,
    GUILD_ID,
    READ_HISTORY,
    SEND_MESSAGES,
    VIEW_CHANNEL,
    Channel,
    Json,
    User,
    World,
    now,
)

log = logging.getLogger("rest")

BASE = "/api/v10"
# The webhooks: address, which is the password, to id and channel. Each takes Slack's form, too.
WEBHOOKS = {
    f"/api/webhooks/{GUILD_ID + 800}/token-of-the-fake-webhook": (GUILD_ID + 800, "stats"),
    f"/api/webhooks/{GUILD_ID + 801}/token-of-the-ops-webhook": (GUILD_ID + 801, "ops"),
}
NONCE_SECONDS = 300  # how long a nonce is remembered
WINDOW = 5.0  # seconds of the rate limit for messages


class ApiError(Exception):
    """An answer of Discord's that is no success."""

    def __init__(self, status: int, code: int, message: str, errors: Json | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"message": message, "code": code} | ({"errors": errors} if errors else {})


@dataclass
class Fault:
    """What happens to the next requests to a path that contains ``path``."""

    status: int
    count: int = 1
    path: str = ""
    accepted: bool = False  # whether the request is carried out all the same
    retry_after: float = 0.5  # seconds, with status 429
    is_global: bool = False


@dataclass
class Rest:
    """The routes and their state."""

    world: World
    gateway: Gateway
    messages_per_window: int = 5  # in each channel, as on Discord
    faults: list[Fault] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # requests that are not spoken here
    refused: list[Json] = field(default_factory=list)  # requests that Discord would refuse
    _sent: dict[int, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    _nonces: dict[str, tuple[float, Json]] = field(default_factory=dict)

    def application(self) -> web.Application:
        """Return the web application."""
        application = web.Application(middlewares=[self._answer])
        channel = f"{BASE}/channels/{{channel}}"
        message = f"{channel}/messages/{{message}}"
        application.add_routes([
            web.get("/", self.gateway.handle),
            web.get(f"{BASE}/gateway", self._gateway),
            web.get(f"{BASE}/gateway/bot", self._gateway),
            web.get(f"{BASE}/users/@me", self._me),
            web.post(f"{BASE}/users/@me/channels", self._open_direct_channel),
            web.get(f"{BASE}/users/{{user}}", self._user),
            web.get(f"{BASE}/oauth2/applications/@me", self._application),
            web.get(f"{BASE}/guilds/{{guild}}", self._guild),
            web.get(f"{BASE}/guilds/{{guild}}/channels", self._guild_channels),
            web.get(f"{BASE}/guilds/{{guild}}/members/{{user}}", self._member),
            web.get(channel, self._channel),
            web.post(f"{channel}/typing", self._typing),
            web.get(f"{channel}/messages", self._history),
            web.post(f"{channel}/messages", self._create),
            web.get(message, self._message),
            web.patch(message, self._edit),
            web.delete(message, self._delete),
            web.put(f"{message}/reactions/{{emoji}}/@me", self._react),
            *[web.post(path, self._webhook) for path in WEBHOOKS],
            *[web.post(f"{path}/slack", self._webhook) for path in WEBHOOKS],
        ])  # fmt: skip
        return application

    # ------------------------------------------------------------------------------ every request

    @web.middleware
    async def _answer(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        if request.path == "/":
            return await handler(request)
        try:
            told = request.headers.get("Authorization")
            webhook = request.path.removesuffix("/slack")
            if told != f"Bot {self.gateway.token}" and webhook not in WEBHOOKS:
                raise ApiError(401, 0, "401: Unauthorized")
            fault = next((one for one in self.faults if one.path in request.path), None)
            if fault is not None:
                return await self._fail(fault, request, handler)
            response = await handler(request)
        except web.HTTPNotFound:
            self.unknown.append(f"{request.method} {request.path}")
            log.warning("not spoken here: %s %s", request.method, request.path)
            response = _json({"message": "404: Not Found", "code": 0}, status=404)
        except ApiError as error:
            self.refused.append({"request": f"{request.method} {request.path}", **error.body})
            log.warning("%s %s: %s %s", request.method, request.path, error.status, error.body)
            response = _json(error.body, status=error.status)
        response.headers["Via"] = "1.1 fake"  # discord.py takes a 429 without it for Cloudflare's
        return response

    async def _fail(
        self,
        fault: Fault,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.Response:
        fault.count -= 1
        if fault.count <= 0:
            self.faults.remove(fault)
        if fault.accepted:
            await handler(request)
        if fault.status == 429:
            scope = "global" if fault.is_global else "user"
            return _limited(fault.retry_after, scope, {})
        return web.Response(status=fault.status, text="upstream error", headers={"Via": "1.1 fake"})

    # --------------------------------------------------------------------------------- small ones

    async def _gateway(self, _: web.Request) -> web.Response:
        limit = {"total": 1000, "remaining": 999, "reset_after": 0, "max_concurrency": 1}
        return _json({"url": "wss://gateway.discord.gg", "shards": 1, "session_start_limit": limit})

    async def _me(self, _: web.Request) -> web.Response:
        return _json(self.world.bot.as_json())

    async def _user(self, request: web.Request) -> web.Response:
        for user in (self.world.bot, *self.world.users.values()):
            if str(user.id) == request.match_info["user"]:
                return _json(user.as_json())
        raise ApiError(404, 10013, "Unknown User")

    async def _application(self, _: web.Request) -> web.Response:
        return _json({
            "id": str(self.world.bot.id),
            "name": self.world.bot.name,
            "description": "",
            "icon": None,
            "bot_public": False,
            "bot_require_code_grant": False,
            "owner": self.world.user("admin").as_json(),
            "team": None,
            "verify_key": "",
            "flags": 1 << 18,
        })  # fmt: skip

    async def _guild(self, request: web.Request) -> web.Response:
        self._check_guild(request)
        return _json(self.world.guild())

    async def _guild_channels(self, request: web.Request) -> web.Response:
        self._check_guild(request)
        return _json(self.world.guild()["channels"])

    async def _member(self, request: web.Request) -> web.Response:
        self._check_guild(request)
        for member in self.world.guild()["members"]:
            if member["user"]["id"] == request.match_info["user"]:
                return _json(member)
        raise ApiError(404, 10007, "Unknown Member")

    async def _open_direct_channel(self, request: web.Request) -> web.Response:
        recipient = str((await request.json())["recipient_id"])
        for user in self.world.users.values():
            if str(user.id) == recipient:
                return _json(self.world.direct_channel(user).as_json())
        raise ApiError(400, 50033, "Invalid Recipient(s)")

    async def _channel(self, request: web.Request) -> web.Response:
        return _json(self._channel_of(request).as_json())

    async def _typing(self, request: web.Request) -> web.Response:
        self._channel_of(request, SEND_MESSAGES)
        return web.Response(status=204)

    async def _react(self, request: web.Request) -> web.Response:
        self._message_of(request)
        return web.Response(status=204)

    # ----------------------------------------------------------------------------------- messages

    async def _history(self, request: web.Request) -> web.Response:
        channel = self._channel_of(request, READ_HISTORY)
        limit = int(request.query.get("limit", 50))
        if not 1 <= limit <= 100:
            raise ApiError(400, 50035, "Invalid Form Body")
        ids = sorted(channel.messages, reverse=True)
        if "before" in request.query:
            ids = [one for one in ids if one < int(request.query["before"])]
        if "after" in request.query:  # the oldest after that one, yet the newest of them first
            ids = [one for one in ids if one > int(request.query["after"])][-limit:]
        return _json([channel.messages[one] for one in ids[:limit]])

    async def _message(self, request: web.Request) -> web.Response:
        return _json(self._message_of(request))

    async def _create(self, request: web.Request) -> web.Response:
        channel = self._channel_of(request, SEND_MESSAGES)
        headers, wait = self._rate(channel)
        if wait:
            return _limited(wait, "user", headers)
        data, files = await _body(request)
        nonce = data.get("nonce")
        if nonce is not None and len(str(nonce)) > 25:
            raise ApiError(400, 50035, "Invalid Form Body", _too_long("nonce", 25))
        if nonce is not None and data.get("enforce_nonce"):
            until, message = self._nonces.get(str(nonce), (0.0, {}))
            if time.monotonic() < until:
                return _json(message, headers=headers)
        self._check_content(channel, data, files)
        more: Json = {
            "embeds": data.get("embeds", []),
            "attachments": files,
            "from_address": request.remote,  # ours: which host has posted this
            "allowed_mentions": data.get("allowed_mentions"),  # ours too
        }
        if reference := data.get("message_reference"):
            if int(reference["message_id"]) in channel.messages:
                more["message_reference"] = reference
            elif reference.get("fail_if_not_exists", True):
                raise ApiError(400, 50035, "Invalid Form Body", {"message_reference": {
                    "_errors": [{"code": "REPLIES_UNKNOWN_MESSAGE", "message": "Unknown message"}]
                }})  # fmt: skip
        message = self.world.new_message(
            channel, self.world.bot, data.get("content") or "", nonce=nonce, **more
        )
        if nonce is not None:
            self._nonces[str(nonce)] = (time.monotonic() + NONCE_SECONDS, message)
        await self.gateway.message_created(message)
        return _json(message, headers=headers)

    async def _webhook(self, request: web.Request) -> web.Response:
        number, name = WEBHOOKS[request.path.removesuffix("/slack")]
        channel = self.world.channel(name)
        data, files = await _body(request)
        if request.path.endswith("/slack"):
            data = _from_slack(data)
        self._check_content(channel, data, files)
        author = User(number, "webhook", bot=True)
        more: Json = {
            "webhook_id": str(number),
            "embeds": data.get("embeds", []),
            "from_address": request.remote,
            "allowed_mentions": data.get("allowed_mentions"),
        }
        message = self.world.new_message(channel, author, data.get("content") or "", **more)
        await self.gateway.message_created(message)
        return web.Response(status=204)

    async def _edit(self, request: web.Request) -> web.Response:
        message = self._message_of(request)
        if message["author"]["id"] != str(self.world.bot.id):
            raise ApiError(403, 50005, "Cannot edit a message authored by another user")
        data, files = await _body(request)
        channel = self._channel_of(request)
        self._check_content(channel, {**message, **data}, files)
        for name in ("content", "embeds"):
            if data.get(name) is not None:
                message[name] = data[name]
        message["edited_timestamp"] = now().isoformat()
        await self.gateway.channel_changed("MESSAGE_UPDATE", {**message, "guild_id": str(GUILD_ID)})
        return _json(message)

    async def _delete(self, request: web.Request) -> web.Response:
        message = self._message_of(request)
        if message["author"]["id"] != str(self.world.bot.id):
            raise ApiError(403, 50013, "Missing Permissions")
        channel = self._channel_of(request)
        del channel.messages[int(message["id"])]
        await self.gateway.channel_changed(
            "MESSAGE_DELETE",
            {"id": message["id"], "channel_id": str(channel.id), "guild_id": str(GUILD_ID)},
        )
        return web.Response(status=204)

    # ------------------------------------------------------------------------------------- checks

    def _check_guild(self, request: web.Request) -> None:
        if request.match_info["guild"] != str(GUILD_ID):
            raise ApiError(404, 10004, "Unknown Guild")

    def _channel_of(self, request: web.Request, needed: int = 0) -> Channel:
        number = request.match_info["channel"]
        channel = self.world.channels.get(int(number)) if number.isdigit() else None
        if channel is None:
            raise ApiError(404, 10003, "Unknown Channel")
        if channel.denied & VIEW_CHANNEL:
            raise ApiError(403, 50001, "Missing Access")
        if channel.denied & needed:
            raise ApiError(403, 50013, "Missing Permissions")
        return channel

    def _message_of(self, request: web.Request) -> Json:
        channel = self._channel_of(request)
        number = request.match_info["message"]
        message = channel.messages.get(int(number)) if number.isdigit() else None
        if message is None:
            raise ApiError(404, 10008, "Unknown Message")
        return message

    def _check_content(self, channel: Channel, data: Json, files: list[Json]) -> None:
        content, embeds = data.get("content") or "", data.get("embeds") or []
        if embeds and channel.denied & EMBED_LINKS:
            raise ApiError(403, 50013, "Missing Permissions")
        if not content.strip() and not embeds and not files:
            raise ApiError(400, 50006, "Cannot send an empty message")
        errors = _too_long("content", 2000) if len(content) > 2000 else {}
        if len(embeds) > 10:
            errors |= _too_long("embeds", 10)
        if sum(map(_length, embeds)) > 6000:
            errors |= {"embeds": _wrong("Embed size exceeds maximum size of 6000")}
        for place, embed in enumerate(embeds):
            if found := _embed_errors(embed):
                errors |= {"embeds": {str(place): found}}
        if errors:
            raise ApiError(400, 50035, "Invalid Form Body", errors)

    def _rate(self, channel: Channel) -> tuple[dict[str, str], float]:
        """Count a message; return the headers, and the seconds to wait where it is one too many."""
        moment, sent = time.monotonic(), self._sent[channel.id]
        while sent and sent[0] <= moment - WINDOW:
            sent.popleft()
        wait = sent[0] + WINDOW - moment if len(sent) >= self.messages_per_window else 0.0
        if not wait:
            sent.append(moment)
        reset = sent[0] + WINDOW - moment
        headers = {
            "X-RateLimit-Bucket": hashlib.md5(b"messages", usedforsecurity=False).hexdigest(),
            "X-RateLimit-Limit": str(self.messages_per_window),
            "X-RateLimit-Remaining": str(self.messages_per_window - len(sent)),
            "X-RateLimit-Reset": f"{time.time() + reset:.3f}",
            "X-RateLimit-Reset-After": f"{reset:.3f}",
        }
        return headers, wait


# Discord's limits on the texts of an embed.
_LIMITS = {"title": 256, "description": 4096}
_FIELD_LIMITS = {"name": 256, "value": 1024}


def _embed_errors(embed: Json) -> Json:
    errors: Json = {}
    for name, limit in _LIMITS.items():
        if len(embed.get(name) or "") > limit:
            errors |= _too_long(name, limit)
    if len((embed.get("footer") or {}).get("text") or "") > 2048:
        errors |= {"footer": _too_long("text", 2048)}
    if len((embed.get("author") or {}).get("name") or "") > 256:
        errors |= {"author": _too_long("name", 256)}
    fields = embed.get("fields") or []
    if len(fields) > 25:
        errors |= _too_long("fields", 25)
    for place, one in enumerate(fields):
        for name, limit in _FIELD_LIMITS.items():
            text = (one.get(name) or "").strip()
            if not text:
                errors.setdefault("fields", {})[str(place)] = {
                    name: _wrong("This field is required")
                }
            elif len(text) > limit:
                errors.setdefault("fields", {})[str(place)] = _too_long(name, limit)
    return errors


def _length(embed: Json) -> int:
    texts = [embed.get("title"), embed.get("description")]
    texts += [(embed.get("footer") or {}).get("text"), (embed.get("author") or {}).get("name")]
    for one in embed.get("fields") or []:
        texts += [one.get("name"), one.get("value")]
    return sum(len(text or "") for text in texts)


def _wrong(message: str) -> Json:
    return {"_errors": [{"code": "BASE_TYPE_BAD_LENGTH", "message": message}]}


def _too_long(name: str, limit: int) -> Json:
    return {name: _wrong(f"Must be {limit} or fewer in length.")}


def _limited(wait: float, scope: str, headers: dict[str, str]) -> web.Response:
    body = {
        "message": "You are being rate limited.",
        "retry_after": round(wait, 3),
        "global": scope == "global",
    }
    more = {"Retry-After": str(int(wait) + 1), "X-RateLimit-Scope": scope, "Via": "1.1 fake"}
    return _json(body, status=429, headers=headers | more)


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    # Without a charset, as Discord: discord.py looks for exactly this type.
    headers = {**(headers or {}), "Content-Type": "application/json"}
    return web.Response(body=json.dumps(body).encode(), status=status, headers=headers)


def _from_slack(data: Json) -> Json:
    """Return Discord's payload for Slack's."""
    embeds = [
        {"title": one.get("title", ""), "description": one.get("text", "")}
        for one in data.get("attachments", [])
    ]
    return {"content": data.get("text", ""), "embeds": embeds}


async def _body(request: web.Request) -> tuple[Json, list[Json]]:
    """Return the payload and what is attached to it."""
    if not request.content_type.startswith("multipart/"):
        try:
            return await request.json(), []
        except json.JSONDecodeError:
            raise ApiError(400, 50109, "The request body contains invalid JSON.") from None
    data: Json = {}
    files: list[Json] = []
    async for part in await request.multipart():
        content: Any = await part.read(decode=False)
        if part.name == "payload_json":
            data = json.loads(content)
        else:
            url = f"https://cdn.discordapp.com/attachments/{len(files)}/{part.filename}"
            files.append({"id": str(len(files)), "filename": part.filename, "size": len(content),
                          "url": url, "proxy_url": url})  # fmt: skip
        await asyncio.sleep(0)
    return data, files
