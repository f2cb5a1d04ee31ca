"""The one guild there is: its people, channels and messages, in the shapes of Discord's API."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

EPOCH = 1_420_070_400_000  # ms; ids count from here
GUILD_ID = 700_000_000_000_000_001
BOT_ID = 700_000_000_000_000_010
ADMIN_ROLE_ID = 700_000_000_000_000_020

# Permission bits.
ADMINISTRATOR = 1 << 3
VIEW_CHANNEL = 1 << 10
SEND_MESSAGES = 1 << 11
EMBED_LINKS = 1 << 14
READ_HISTORY = 1 << 16
EVERYBODY = VIEW_CHANNEL | SEND_MESSAGES | EMBED_LINKS | READ_HISTORY

Json = dict[str, Any]


def now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class User:
    """Somebody in the guild."""

    id: int
    name: str
    admin: bool = False
    bot: bool = False

    def as_json(self) -> Json:
        """Return Discord's user object."""
        return {
            "id": str(self.id),
            "username": self.name,
            "global_name": None if self.bot else self.name,
            "discriminator": "0",
            "avatar": None,
            "bot": self.bot,
            "public_flags": 0,
        }

    def member(self) -> Json:
        """Return Discord's member object, without the user."""
        return {
            "roles": [str(ADMIN_ROLE_ID)] if self.admin else [],
            "joined_at": "2024-01-01T00:00:00+00:00",
            "nick": None,
            "avatar": None,
            "deaf": False,
            "mute": False,
            "flags": 0,
            "pending": False,
        }


@dataclass
class Channel:
    """A text channel, or a direct line to one person."""

    id: int
    name: str
    recipient: User | None = None
    denied: int = 0  # permission bits that the bot does not have here
    messages: dict[int, Json] = field(default_factory=dict)

    def as_json(self, position: int = 0) -> Json:
        """Return Discord's channel object."""
        last = next(reversed(self.messages), None)
        common = {"id": str(self.id), "last_message_id": str(last) if last else None}
        if self.recipient is not None:
            return {**common, "type": 1, "recipients": [self.recipient.as_json()]}
        overwrites = [{"id": str(BOT_ID), "type": 1, "allow": "0", "deny": str(self.denied)}]
        return {
            **common,
            "type": 0,
            "guild_id": str(GUILD_ID),
            "name": self.name,
            "position": position,
            "permission_overwrites": overwrites if self.denied else [],
            "nsfw": False,
            "topic": None,
            "rate_limit_per_user": 0,
            "parent_id": None,
        }


class World:
    """The guild."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.bot = User(BOT_ID, "stats-bot", bot=True)
        self.users: dict[str, User] = {}
        for offset, name in enumerate(("player", "other", "admin"), 100):
            self.users[name] = User(GUILD_ID + offset, name, admin=name == "admin")
        self.channels: dict[int, Channel] = {}
        for offset, name in enumerate(("general", "stats"), 200):
            self.channels[GUILD_ID + offset] = Channel(GUILD_ID + offset, name)

    def new_id(self) -> int:
        """Return a snowflake: later ones are greater."""
        milliseconds = int(now().timestamp() * 1000) - EPOCH
        return (milliseconds << 22) + next(self._numbers) % (1 << 22)

    def user(self, name: str, *, admin: bool = False) -> User:
        """Return the person of that name, who joins if nobody is called so yet."""
        if name not in self.users:
            self.users[name] = User(self.new_id(), name, admin)
        return self.users[name]

    def channel(self, name: str) -> Channel:
        """Return a channel by its name or id; one that is not there is made."""
        for channel in self.channels.values():
            if name in (channel.name, str(channel.id)):
                return channel
        return self._add(Channel(self.new_id(), name))

    def direct_channel(self, user: User) -> Channel:
        """Return the direct line between the bot and somebody."""
        for channel in self.channels.values():
            if channel.recipient == user:
                return channel
        return self._add(Channel(self.new_id(), f"dm-{user.name}", recipient=user))

    def _add(self, channel: Channel) -> Channel:
        self.channels[channel.id] = channel
        return channel

    def mentioned(self, content: str) -> list[User]:
        """Return the people that a text mentions."""
        ids = {int(found) for found in re.findall(r"<@!?(\d+)>", content)}
        return [user for user in (*self.users.values(), self.bot) if user.id in ids]

    def new_message(self, channel: Channel, author: User, content: str, **more: Any) -> Json:
        """Write a message into a channel and return it."""
        message: Json = {
            "id": str(self.new_id()),
            "type": 19 if more.get("message_reference") else 0,
            "channel_id": str(channel.id),
            "author": author.as_json(),
            "content": content,
            "timestamp": now().isoformat(),
            "edited_timestamp": None,
            "tts": False,
            "mention_everyone": False,
            "mentions": [user.as_json() | {"member": user.member()} for user in
                         self.mentioned(content)],
            "mention_roles": [],
            "attachments": [],
            "embeds": [],
            "components": [],
            "pinned": False,
            "flags": 0,
        } | more  # fmt: skip
        channel.messages[int(message["id"])] = message
        return message

    def guild(self) -> Json:
        """Return the guild as GUILD_CREATE tells it."""
        everybody = {"id": str(GUILD_ID), "name": "@everyone", "permissions": str(EVERYBODY)}
        admins = {"id": str(ADMIN_ROLE_ID), "name": "admins", "permissions": str(ADMINISTRATOR)}
        roles = [
            {**role, "color": 0, "hoist": False, "position": position, "managed": False,
             "mentionable": False, "flags": 0}
            for position, role in enumerate((everybody, admins))
        ]  # fmt: skip
        text = [channel for channel in self.channels.values() if channel.recipient is None]
        people = [self.bot, *self.users.values()]
        return {
            "id": str(GUILD_ID),
            "name": "ET:Legacy",
            "owner_id": str(GUILD_ID + 999),
            "unavailable": False,
            "member_count": len(people),
            "large": False,
            "joined_at": "2024-01-01T00:00:00+00:00",
            "preferred_locale": "en-US",
            "afk_timeout": 300,
            "verification_level": 0,
            "default_message_notifications": 0,
            "explicit_content_filter": 0,
            "mfa_level": 0,
            "nsfw_level": 0,
            "premium_tier": 0,
            "system_channel_flags": 0,
            "features": [],
            "emojis": [],
            "stickers": [],
            "roles": roles,
            "channels": [channel.as_json(place) for place, channel in enumerate(text)],
            "members": [{**user.member(), "user": user.as_json()} for user in people],
            "threads": [],
            "voice_states": [],
            "presences": [],
            "stage_instances": [],
            "guild_scheduled_events": [],
            "soundboard_sounds": [],
        }
