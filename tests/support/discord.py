"""The fake Discord of demo/fake_discord as a process, and its control port as methods."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from fake_discord import certificate

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = REPOSITORY / "demo" / "fake_discord"
HOSTS_FILE = Path(__file__).resolve().parent / "hosts_file"
TOKEN = "token-of-the-tests"
NAMES = ("discord.com", "gateway.discord.gg")
Json = dict[str, Any]


class Refused(Exception):
    """The control port said no."""


class FakeDiscord:
    """A running fake Discord; use it as a context manager."""

    def __init__(self, directory: Path, *, listen: str = "127.0.0.1:0", heartbeat: float = 5.0):
        self.directory = directory
        self._options = ["--listen", listen, "--heartbeat", str(heartbeat)]
        self._process: subprocess.Popen[str] | None = None
        self.port = self.control = 0

    def __enter__(self) -> FakeDiscord:
        if not (self.directory / "server.crt").exists():
            certificate.make(self.directory, None)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, at a restart on the same ports."""
        certificate = ["--certificate", self.directory / "server.crt"]
        key = ["--key", self.directory / "server.key"]
        options = self._options
        if self.port:
            options = [*options, "--listen", f"127.0.0.1:{self.port}"]
        with (self.directory / "log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, PROGRAM, "serve", *certificate, *key, *options,
                 "--control", f"127.0.0.1:{self.control}"],
                env=os.environ | {"FAKE_DISCORD_TOKEN": TOKEN},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )  # fmt: skip
        line = self._process.stdout.readline()
        ports = re.findall(r"port (\d+)", line)
        if len(ports) != 2:
            raise RuntimeError((self.directory / "log").read_text())
        self.port, self.control = map(int, ports)

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a bot's process needs to take this for Discord."""
        hosts = " ".join(f"{name}=127.0.0.1:{self.port}" for name in NAMES)
        return {
            "DISCORD_BOT_TOKEN": TOKEN,
            "SSL_CERT_FILE": str(self.directory / "ca.crt"),
            "PYTHONPATH": str(HOSTS_FILE),
            "TEST_HOSTS": hosts,
        }

    # ------------------------------------------------------------------------------ control port

    def get(self, path: str, /, **query: object) -> Any:
        """GET from the control port."""
        return self._request(f"{path}?{urllib.parse.urlencode(query)}", None)

    def post(self, path: str, /, **data: object) -> Any:
        """POST to the control port."""
        return self._request(path, json.dumps(data).encode())

    def _request(self, path: str, body: bytes | None) -> Any:
        url = f"http://127.0.0.1:{self.control}{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(json.load(error)["error"]) from None

    def ask(self, content: str, author: str = "player", **more: object) -> Json:
        """Say something and return the one answer of the bot; none and two are failures."""
        found = self.post("/ask", author=author, content=content, **more)
        assert len(found["answers"]) == 1, found["answers"]
        return found["answers"][0] | {"seconds": found["seconds"]}

    def silence(self, content: str, author: str = "player", **more: object) -> bool:
        """Say something that gets no answer."""
        more.setdefault("timeout", 0.5)
        return not self.post("/ask", author=author, content=content, **more)["answers"]

    def overlaps(self) -> list[Json]:
        """Return the times when two sessions were there at once."""
        return self.get("/sessions")["overlaps"]

    def wait_until(self, condition: Any, patience: float = 30.0) -> Any:
        """Wait for a condition on the control port to be true; return what it gave."""
        end = time.monotonic() + patience
        while not (found := condition(self)):
            assert time.monotonic() < end, "it did not come to pass"
            time.sleep(0.02)
        return found

    def wait_for_sessions(self, count: int) -> None:
        """Wait until so many sessions are connected."""
        self.wait_until(lambda discord: discord.get("/state")["connected"] == count)


def ask_machine(machine: Any, path: str, **data: object) -> Any:
    """Ask the control port on a machine that plays Discord (a testinfra host).

    Args:
        machine: the host.
        path: with the query.
        data: makes it a POST.

    Returns:
        The answer's JSON.

    """
    program = (
        "import sys, urllib.request as r;"
        " print(r.urlopen('http://127.0.0.1:8480' + sys.argv[1],"
        " sys.argv[2].encode() or None, timeout=60).read().decode())"
    )
    body = json.dumps(data) if data else ""
    return json.loads(machine.check_output("python3 -c %s %s %s", program, path, body))


def text_of(message: Json) -> str:
    """Return all the words of a message, embeds included, one line each."""
    lines = [message["content"]]
    for embed in message["embeds"]:
        lines += [embed.get("title"), embed.get("description")]
        for field in embed.get("fields", []):
            lines += [field["name"], field["value"]]
        lines.append(embed.get("footer", {}).get("text"))
    return "\n".join(line for line in lines if line)
