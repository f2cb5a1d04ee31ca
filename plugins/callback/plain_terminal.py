"""What hosts say reaches the operator's terminal as text.

A host that somebody has taken over writes into its messages what moves the cursor, renames the
window, hides lines or types on the keyboard of a terminal. Whatever Ansible displays passes here
first: control characters are shown as Python would write them. Colours stay, since Ansible puts its
own into recap and diff; a host can use those eight and nothing else.

Loaded by itself, whatever the callbacks are that a run enables.
"""

from __future__ import annotations

import re
from functools import wraps
from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.utils.display import Display

DOCUMENTATION = """
  name: plain_terminal
  type: notification
  short_description: Show control characters of hosts instead of obeying them
  description: Every message that Ansible displays is freed of control characters, but for colours.
"""

# All of C0 and C1 but tab and newline, what turns the direction of text, and line separators. Black
# is no colour here: it would be a way to hide a line.
_COLOUR = re.compile(r"(\x1b\[(?:0|[01];3[1-7])m)")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """Return a text in which control characters are spelled out."""
    parts = _COLOUR.split(text.replace("\r\n", "\n"))
    parts[::2] = [_CONTROL.sub(lambda found: ascii(found[0])[1:-1], part) for part in parts[::2]]
    return "".join(parts)


class CallbackModule(CallbackBase):
    """Puts itself before everything that is displayed; does nothing else."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "plain_terminal"
    CALLBACK_NEEDS_ENABLED = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take the place of Display.display(), once."""
        super().__init__(*arguments, **options)
        display = Display.display
        if getattr(display, "is_plain", False):
            return

        @wraps(display)
        def display_plain(self: Display, msg: str, *more: Any, **named: Any) -> None:
            display(self, plain(msg) if isinstance(msg, str) else msg, *more, **named)

        display_plain.is_plain = True
        Display.display = display_plain
