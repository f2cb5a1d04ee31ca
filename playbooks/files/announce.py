"""Post a text to a Discord webhook, within a few seconds or not at all.

Usage: announce.py < {"url": "https://…", "text": "…"}

The URL is a secret, so it comes by standard input and is in nothing that this prints. Leaves with
1, and a sentence on standard error, where the text was not delivered. Standard library only.
"""

from __future__ import annotations

import json
import signal
import sys
import urllib.error
import urllib.request

SECONDS = 5  # for everything: names, connection, answer
LONGEST = 2000  # letters of a message on Discord


def deliver(url: str, text: str) -> None:
    """Post it; raises OSError or ValueError."""
    if not url.startswith("https://"):
        raise ValueError("its address does not begin with https://")
    body = {"content": text[:LONGEST], "allowed_mentions": {"parse": []}}
    request = urllib.request.Request(  # noqa: S310 - https, see above
        url,
        json.dumps(body).encode(),
        # Discord turns away the name that Python gives by itself.
        {"Content-Type": "application/json", "User-Agent": "DiscordBot (migration, 1)"},
    )
    with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310 - https, see above
        pass


def give_up(*_: object) -> None:
    """End the wait when the alarm rings: names may take long, or an answer byte by byte."""
    raise TimeoutError(f"no answer within {SECONDS} s")


def main() -> int:
    """Read, post, and say what was wrong."""
    job = json.load(sys.stdin)
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    try:
        deliver(job["url"], job["text"])
    except urllib.error.HTTPError as error:
        reason = f"it answers {error.code}"
    except urllib.error.URLError as error:
        reason = str(error.reason)
    except (OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
    else:
        return 0
    print(f"the webhook did not take it: {reason.replace(job['url'], '…')}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
