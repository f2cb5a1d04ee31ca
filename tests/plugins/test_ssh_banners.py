"""Which port answers as SSH: closed, silent, wrong and right ones."""

import socket
import threading

import pytest


@pytest.fixture
def listen():
    """Start listeners that greet with the given bytes; None says nothing and hangs up."""
    sockets = []

    def start(greeting):
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    if greeting:
                        connection.sendall(greeting)

        threading.Thread(target=serve, daemon=True).start()
        return server.getsockname()[1]

    yield start
    for server in sockets:
        server.close()


@pytest.fixture
def closed():
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def ask(ssh_banners, ports, host="127.0.0.1"):
    from ansible.plugins.loader import lookup_loader

    lookup_loader.add_directory(str(ssh_banners.__file__).rsplit("/", 1)[0])
    return lookup_loader.get("ssh_banners").run(ports, variables={}, host=host, patience=0)


def test_the_first_that_answers_ends_the_search(ssh_banners, listen, closed):
    first, second = listen(b"SSH-2.0-OpenSSH_9.2\r\n"), listen(b"SSH-2.0-Other\r\n")
    assert ask(ssh_banners, [closed, first, second]) == [
        {"port": closed, "ssh": False, "found": "closed"},
        {"port": first, "ssh": True, "found": "SSH-2.0-OpenSSH_9.2"},
    ]


def test_what_is_not_ssh_is_said(ssh_banners, listen):
    web, mute = listen(b"HTTP/1.1 400\r\n"), listen(None)
    found = {answer["port"]: answer["found"] for answer in ask(ssh_banners, [web, mute])}
    assert found == {web: "open, but not SSH", mute: "hung up"}


def test_an_unknown_name_is_said(ssh_banners):
    (answer,) = ask(ssh_banners, [22], host="no-such-host.invalid")
    assert not answer["ssh"]
    assert "unknown" in answer["found"]
