"""The gateway: websocket sessions, and a record of who was connected when."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import secrets
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import WSMsgType, web

from fake_discord.world import GUILD_ID, Json, World, now

log = logging.getLogger("gateway")

DISPATCH, HEARTBEAT, IDENTIFY, PRESENCE, RESUME, RECONNECT, MEMBERS, INVALID, HELLO, ACK = (
    0, 1, 2, 3, 6, 7, 8, 9, 10, 11,
)  # fmt: skip
NOT_AUTHENTICATED, WRONG_TOKEN, ALREADY_AUTHENTICATED, TIMED_OUT = 4003, 4004, 4005, 4009
DISALLOWED_INTENTS, UNKNOWN_OPCODE, TOO_FAST = 4014, 4001, 4008
GUILD_MESSAGES, DIRECT_MESSAGES, MESSAGE_CONTENT = 1 << 9, 1 << 12, 1 << 15
REMEMBERED = 1000  # events that a resume can ask for


@dataclass
class Connection:
    """One websocket of a session, for the record."""

    address: str
    since: datetime
    until: datetime | None = None
    end: str = ""  # close code or what happened

    def as_json(self) -> Json:
        """Return the record; times in UTC."""
        return {
            "address": self.address,
            "since": self.since.isoformat(),
            "until": self.until.isoformat() if self.until else None,
            "end": self.end,
        }


@dataclass
class Session:
    """What one IDENTIFY began."""

    id: str
    intents: int
    library: str
    connections: list[Connection] = field(default_factory=list)
    sequence: int = 0
    sent: deque[Json] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    socket: Socket | None = None
    resumable: bool = True

    def as_json(self) -> Json:
        """Return the record."""
        return {
            "id": self.id,
            "library": self.library,
            "connected": self.socket is not None,
            "connections": [connection.as_json() for connection in self.connections],
        }


class Socket:
    """One websocket: JSON both ways, compressed towards the bot if it wants that."""

    def __init__(self, request: web.Request, response: web.WebSocketResponse) -> None:
        self.request = request
        self.response = response
        self._zlib = zlib.compressobj() if "compress" in request.query else None
        self.end = ""

    async def send(self, op: int, data: Any = None, **more: Any) -> None:
        """Send one payload; a socket that is gone is no error."""
        text = json.dumps({"op": op, "d": data, "s": None, "t": None, **more})
        with contextlib.suppress(ConnectionError, RuntimeError):
            if self._zlib is None:
                await self.response.send_str(text)
            else:
                part = self._zlib.compress(text.encode()) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
                await self.response.send_bytes(part)

    async def close(self, code: int, reason: str = "") -> None:
        """Close with a close code."""
        self.end = self.end or f"{code} {reason}".strip()
        await self.response.close(code=code, message=reason.encode())


class Gateway:
    """All sessions, present and past."""

    def __init__(self, world: World, *, token: str, heartbeat: float) -> None:
        self.world = world
        self.token = token
        self.heartbeat = heartbeat  # seconds between a bot's heartbeats
        self.message_content = True  # whether the privileged intent is switched on
        self.sessions: list[Session] = []

    # ------------------------------------------------------------------------------- one socket

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve ``GET /?v=10&encoding=json``."""
        query = request.query
        if query.get("v") != "10" or query.get("encoding", "json") != "json":
            return web.Response(status=400, text="only v=10 and encoding=json are spoken here")
        if query.get("compress") not in (None, "zlib-stream"):
            return web.Response(status=400, text="only compress=zlib-stream is spoken here")
        response = web.WebSocketResponse(compress=False, autoping=True)
        await response.prepare(request)
        socket = Socket(request, response)
        await socket.send(HELLO, {"heartbeat_interval": round(self.heartbeat * 1000)})
        session = None
        received = deque(maxlen=120)
        try:
            # A bot sends its heartbeat in time or it is taken for dead.
            while True:
                message = await response.receive(timeout=self.heartbeat * 1.5)
                if message.type is not WSMsgType.TEXT:
                    break
                received.append(asyncio.get_running_loop().time())
                if len(received) == 120 and received[-1] - received[0] < 60:
                    await socket.close(TOO_FAST, "You are being rate limited.")
                    break
                payload = json.loads(message.data)
                session = await self._receive(socket, session, payload, request.remote or "?")
        except TimeoutError:
            await socket.close(TIMED_OUT, "Session timed out.")
        finally:
            if session is not None and session.socket is socket:
                code = response.close_code
                self._disconnect(session, socket.end or f"closed by the bot ({code or 'lost'})")
                # A bot that says goodbye with 1000 or 1001 has given the session up.
                session.resumable &= bool(socket.end) or code not in (1000, 1001)
        return response

    async def _receive(
        self, socket: Socket, session: Session | None, payload: Json, address: str
    ) -> Session | None:
        op, data = payload.get("op"), payload.get("d")
        if op == HEARTBEAT:
            await socket.send(ACK)
        elif op in (IDENTIFY, RESUME):
            if session is not None:
                await socket.close(ALREADY_AUTHENTICATED, "Already authenticated.")
            elif data["token"].removeprefix("Bot ") != self.token:
                await socket.close(WRONG_TOKEN, "Authentication failed.")
            elif op == IDENTIFY:
                return await self._identify(socket, data, address)
            else:
                return await self._resume(socket, data, address)
        elif session is None:
            await socket.close(NOT_AUTHENTICATED, "Not authenticated.")
        elif op == MEMBERS:
            await self._send_members(session, data)
        elif op != PRESENCE:
            await socket.close(UNKNOWN_OPCODE, "Unknown opcode.")
        return session

    async def _identify(self, socket: Socket, data: Json, address: str) -> Session | None:
        if data["intents"] & MESSAGE_CONTENT and not self.message_content:
            await socket.close(DISALLOWED_INTENTS, "Disallowed intent(s).")
            return None
        library = data.get("properties", {}).get("browser", "?")
        session = Session(secrets.token_hex(16), data["intents"], library)
        self.sessions.append(session)
        self._connect(session, socket, address)
        ready = {
            "v": 10,
            "user": self.world.bot.as_json(),
            "guilds": [{"id": str(GUILD_ID), "unavailable": True}],
            "session_id": session.id,
            "session_type": "normal",
            "resume_gateway_url": "wss://gateway.discord.gg",
            "application": {"id": str(self.world.bot.id), "flags": 1 << 18},
        }
        await self._dispatch(session, "READY", ready)
        await self._dispatch(session, "GUILD_CREATE", self.world.guild())
        return session

    async def _resume(self, socket: Socket, data: Json, address: str) -> Session | None:
        session = next((known for known in self.sessions if known.id == data["session_id"]), None)
        if session is None or not session.resumable:
            await socket.send(INVALID, False)
            return None
        if session.socket is not None:  # the old socket is half dead, or there are two bots
            old = session.socket
            self._disconnect(session, "replaced by a resume")
            await old.close(4000, "Resumed elsewhere.")
        self._connect(session, socket, address)
        for event in [event for event in session.sent if event["s"] > data["seq"]]:
            await socket.send(DISPATCH, event["d"], s=event["s"], t=event["t"])
        await self._dispatch(session, "RESUMED", {})
        return session

    async def _send_members(self, session: Session, data: Json) -> None:
        members = self.world.guild()["members"]
        wanted = data.get("user_ids")
        if wanted is not None:
            ids = {str(one) for one in (wanted if isinstance(wanted, list) else [wanted])}
            members = [member for member in members if member["user"]["id"] in ids]
        elif query := data.get("query"):
            members = [member for member in members if
                       member["user"]["username"].startswith(query)]  # fmt: skip
        chunk = {"guild_id": str(GUILD_ID), "members": members, "chunk_index": 0,
                 "chunk_count": 1, "nonce": data.get("nonce")}  # fmt: skip
        await self._dispatch(session, "GUILD_MEMBERS_CHUNK", chunk)

    # ------------------------------------------------------------------------------- the record

    def _connect(self, session: Session, socket: Socket, address: str) -> None:
        session.socket = socket
        session.connections.append(Connection(address, now()))
        log.info("session %s of %s begins or goes on", session.id[:8], address)
        if len(live := [known.id[:8] for known in self.sessions if known.socket]) > 1:
            log.warning("%d sessions at once: %s", len(live), ", ".join(live))

    def _disconnect(self, session: Session, end: str) -> None:
        session.socket = None
        connection = session.connections[-1]
        connection.until, connection.end = now(), end
        log.info("session %s of %s: %s", session.id[:8], connection.address, end)

    def silences(self) -> list[Json]:
        """Return every time during which nobody was connected, between the first and the last."""
        found = []
        last: Connection | None = None  # of those so far the one that ended last
        for now_there in sorted(
            (each for session in self.sessions for each in session.connections),
            key=lambda each: each.since,
        ):
            end = last.until if last else None
            if last and end and end < now_there.since:
                found.append({
                    "addresses": [last.address, now_there.address],
                    "since": end.isoformat(),
                    "seconds": round((now_there.since - end).total_seconds(), 1),
                })  # fmt: skip
            if last is None or (end and (now_there.until is None or now_there.until > end)):
                last = now_there
        return found

    def overlaps(self) -> list[Json]:
        """Return every time during which two sessions were connected at once."""
        found = []
        for one, other in itertools.combinations(self.sessions, 2):
            for a, b in itertools.product(one.connections, other.connections):
                since = max(a.since, b.since)
                until = min(a.until or now(), b.until or now())
                if since < until:
                    found.append({
                        "sessions": [one.id, other.id],
                        "addresses": [a.address, b.address],
                        "since": since.isoformat(),
                        "until": until.isoformat() if a.until or b.until else None,
                        "seconds": round((until - since).total_seconds(), 3),
                    })  # fmt: skip
        return found

    # ------------------------------------------------------------------------------- all sockets

    def connected(self) -> Iterator[tuple[Session, Socket]]:
        """Iterate over the sessions that have a socket now."""
        yield from [(session, session.socket) for session in self.sessions if session.socket]

    async def _dispatch(self, session: Session, event: str, data: Json) -> None:
        session.sequence += 1
        sent = {"s": session.sequence, "t": event, "d": data}
        session.sent.append(sent)
        if session.socket is not None:
            await session.socket.send(DISPATCH, data, s=sent["s"], t=event)

    async def message_created(self, message: Json) -> None:
        """Tell all sessions that want to know; those that are cut off hear of it when they resume.

        Without the intent "message content" a bot gets the text of nobody's messages but its own,
        those that mention it, and direct ones.
        """
        channel = self.world.channels[int(message["channel_id"])]
        author = message["author"]
        extra: Json = {}
        if channel.recipient is None:
            person = self.world.bot if author["bot"] else self.world.users[author["username"]]
            extra = {"guild_id": str(GUILD_ID), "member": person.member()}
        wanted = GUILD_MESSAGES if channel.recipient is None else DIRECT_MESSAGES
        bot = str(self.world.bot.id)
        for session in self.sessions:
            if not session.intents & wanted or not session.resumable:
                continue
            readable = (
                session.intents & MESSAGE_CONTENT
                or channel.recipient is not None
                or author["id"] == bot
                or any(user["id"] == bot for user in message["mentions"])
            )
            hidden = {} if readable else {"content": "", "embeds": [], "attachments": []}
            await self._dispatch(session, "MESSAGE_CREATE", {**message, **extra, **hidden})

    async def channel_changed(self, event: str, data: Json) -> None:
        """Tell all sessions of a channel, a member, a message that was deleted or the like."""
        for session in self.sessions:
            if session.resumable:
                await self._dispatch(session, event, data)

    async def ask_to_reconnect(self) -> None:
        """Send RECONNECT, as Discord does when it moves a session."""
        for _, socket in self.connected():
            await socket.send(RECONNECT)

    async def invalidate(self, *, resumable: bool) -> None:
        """Send INVALID SESSION."""
        for session, socket in self.connected():
            session.resumable &= resumable
            await socket.send(INVALID, resumable)

    async def close_all(self, code: int) -> None:
        """Close every socket with a code."""
        for _, socket in self.connected():
            await socket.close(code)

    def drop_all(self) -> None:
        """Break every connection without a word, as a network does."""
        for _, socket in self.connected():
            socket.end = "dropped"
            if socket.request.transport is not None:
                socket.request.transport.abort()
