"""Discord without Discord: enough of its REST API and gateway for unmodified bots.

python demo/fake_discord certificate --out DIR [--ca-certificate FILE --ca-key FILE] [--address IP]
python demo/fake_discord serve --certificate DIR/server.crt --key DIR/server.key

The README beside this file says how a bot finds it and what the control port can do.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import ssl
import sys
from pathlib import Path

if not __package__:  # started by its path
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

TOKEN = "token-of-the-fake-discord"  # noqa: S105 - opens nothing real


async def serve(arguments: argparse.Namespace) -> None:
    """Listen until SIGTERM or SIGINT."""
    from aiohttp import web

    from fake_discord.control import Control
    from fake_discord.gateway import Gateway
    from fake_discord.rest import Rest
    from fake_discord.world import World

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.certificate, arguments.key)
    world = World()
    token = os.environ.get("FAKE_DISCORD_TOKEN", TOKEN)
    gateway = Gateway(world, token=token, heartbeat=arguments.heartbeat)
    rest = Rest(world, gateway, messages_per_window=arguments.messages_per_window)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runners = []
    for application, (host, port), tls in (
        (rest.application(), arguments.listen, context),
        (Control(rest).application(), arguments.control, None),
    ):
        runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, host, port, ssl_context=tls, shutdown_timeout=0.5).start()
    ports = [runner.addresses[0][1] for runner in runners]
    print(f"ready: Discord on port {ports[0]}, control on port {ports[1]}", flush=True)
    _tell_systemd("READY=1")
    await stop.wait()
    await gateway.close_all(1001)
    for runner in runners:
        await runner.cleanup()


def _tell_systemd(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(message.encode(), address.replace("@", "\0", 1))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("certificate", help="write ca.crt, server.crt and server.key")
    making.add_argument("--out", type=Path, required=True)
    making.add_argument("--ca-certificate", type=Path, help="the authority that signs")
    making.add_argument("--ca-key", type=Path, help="its key (default: an authority made for this)")
    making.add_argument("--address", action="append", default=[], help="an IP address of it")
    serving = commands.add_parser("serve", help="be Discord (FAKE_DISCORD_TOKEN is the token)")
    serving.add_argument("--certificate", type=Path, required=True)
    serving.add_argument("--key", type=Path, required=True)
    serving.add_argument("--listen", type=_address, default=("0.0.0.0", 443))  # noqa: S104
    serving.add_argument("--control", type=_address, default=("127.0.0.1", 8480))
    serving.add_argument("--heartbeat", type=float, default=41.25, help="seconds")
    serving.add_argument("--messages-per-window", type=int, default=5, help="in 5 s, each channel")
    arguments = parser.parse_args()
    if arguments.command == "certificate":
        from fake_discord import certificate

        if (arguments.ca_certificate is None) != (arguments.ca_key is None):
            parser.error("--ca-certificate and --ca-key belong together")
        given = arguments.ca_certificate and (arguments.ca_certificate, arguments.ca_key)
        certificate.make(arguments.out, given, arguments.address)
        return 0
    logging.basicConfig(level="INFO", format="%(asctime)s %(name)s: %(message)s")
    asyncio.run(serve(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
