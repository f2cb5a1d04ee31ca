"""The other side of the counter: speak as a player, read what the bot said, make trouble."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from fake_discord.rest import Fault, Rest
from fake_discord.world import Channel, Json


class RequestError(Exception):
    """A request that makes no sense; the message says why."""


class Control:
    """The routes. Every answer is JSON; a mistake is status 400 with ``{"error": "..."}``."""

    def __init__(self, rest: Rest) -> None:
        self.rest = rest
        self.world, self.gateway = rest.world, rest.gateway

    def application(self) -> web.Application:
        """Return the web application."""
        application = web.Application(middlewares=[self._answer])
        application.add_routes([
            web.get("/state", self._state),
            web.get("/sessions", self._sessions),
            web.get("/messages", self._messages),
            web.post("/messages", self._say),
            web.post("/ask", self._ask),
            web.post("/channels", self._set_channel),
            web.post("/settings", self._set),
            web.post("/faults", self._fault),
        ])  # fmt: skip
        return application

    @web.middleware
    async def _answer(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except (RequestError, KeyError, ValueError, TypeError) as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)

    async def _state(self, _: web.Request) -> web.Response:
        """Who and what there is, and which requests were not answered well."""
        return web.json_response({
            "users": {name: str(user.id) for name, user in self.world.users.items()},
            "channels": {one.name: str(one.id) for one in self.world.channels.values()},
            "connected": sum(1 for _ in self.gateway.connected()),
            "unknown_requests": self.rest.unknown,
            "refused_requests": self.rest.refused,
        })  # fmt: skip

    async def _sessions(self, _: web.Request) -> web.Response:
        """Every session there ever was, every time when there were two at once, or none."""
        return web.json_response({
            "sessions": [session.as_json() for session in self.gateway.sessions],
            "overlaps": self.gateway.overlaps(),
            "silences": self.gateway.silences(),
        })  # fmt: skip

    async def _messages(self, request: web.Request) -> web.Response:
        """List messages, oldest first: ?channel=stats&after=ID&author=stats-bot."""
        query = request.query
        channels = list(self.world.channels.values())
        if "channel" in query:
            channels = [self.world.channel(query["channel"])]
        found = [
            message
            for channel in channels
            for number, message in channel.messages.items()
            if number > int(query.get("after", 0))
            and query.get("author", message["author"]["username"]) == message["author"]["username"]
        ]
        return web.json_response(sorted(found, key=lambda message: int(message["id"])))

    async def _say(self, request: web.Request) -> web.Response:
        """Write a message as somebody: {"author": "player", "channel": "general", "content": …}."""
        return web.json_response(await self._post(await request.json()))

    async def _post(self, data: Json) -> Json:
        author = self.world.user(data["author"], admin=bool(data.get("admin")))
        message = self.world.new_message(self._channel(data, author.name), author, data["content"])
        await self.gateway.message_created(message)
        return message

    def _channel(self, data: Json, author: str) -> Channel:
        name = data.get("channel", "general")
        if name == "dm":
            return self.world.direct_channel(self.world.user(author))
        return self.world.channel(name)

    async def _ask(self, request: web.Request) -> web.Response:
        """Write a message and wait for what the bot says to it.

        With "quiet" seconds of patience after the first answer for a second one, which should
        never come. "seconds" is the time to the first answer, null when none came in "timeout".
        """
        data = await request.json()
        timeout, quiet = float(data.get("timeout", 10)), float(data.get("quiet", 0.3))
        begun = time.monotonic()
        question = await self._post(data)
        channel = self.world.channels[int(question["channel_id"])]
        seconds, end = None, begun + timeout
        while time.monotonic() < end:
            answers = self._answers(channel, question)
            if answers and seconds is None:
                seconds = time.monotonic() - begun
                end = time.monotonic() + quiet
            await asyncio.sleep(0.002)
        return web.json_response(
            {"question": question, "answers": self._answers(channel, question), "seconds": seconds}
        )

    def _answers(self, channel: Channel, question: Json) -> list[Json]:
        """Return what the bot wrote after a question, without replies to other questions."""
        number = question["id"]
        answers = []
        for later in reversed(channel.messages.values()):
            if later["id"] == number:
                break
            reference = later.get("message_reference") or {"message_id": number}
            if later["author"]["bot"] and str(reference["message_id"]) == number:
                answers.append(later)
        return answers[::-1]

    async def _set_channel(self, request: web.Request) -> web.Response:
        """Make a channel, or change what the bot may not do in it: {"name": …, "denied": 2048}."""
        data = await request.json()
        channel = self.world.channel(data["name"])
        channel.denied = int(data.get("denied", 0))
        await self.gateway.channel_changed("CHANNEL_UPDATE", channel.as_json())
        return web.json_response(channel.as_json())

    async def _set(self, request: web.Request) -> web.Response:
        """Change the token, the privileged intent or the rate limit while it runs."""
        for name, value in (await request.json()).items():
            if name == "token":
                self.gateway.token = str(value)
            elif name == "message_content":
                self.gateway.message_content = bool(value)
            elif name == "messages_per_window":
                self.rest.messages_per_window = int(value)
            else:
                raise RequestError(f"no such setting: {name}")
        return web.json_response({})

    async def _fault(self, request: web.Request) -> web.Response:
        """Make trouble, see the README."""
        data = await request.json()
        kind = data.pop("kind")
        if kind == "reconnect":
            await self.gateway.ask_to_reconnect()
        elif kind == "invalid_session":
            await self.gateway.invalidate(resumable=bool(data.get("resumable")))
        elif kind == "close":
            await self.gateway.close_all(int(data["code"]))
        elif kind == "drop":
            self.gateway.drop_all()
        elif kind == "rest":
            names = {one.name for one in dataclasses.fields(Fault)}
            self.rest.faults.append(Fault(**{k: v for k, v in data.items() if k in names}))
        else:
            raise RequestError(f"no such trouble: {kind}")
        return web.json_response({})
