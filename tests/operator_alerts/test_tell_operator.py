"""tell-operator loses no message: against an HTTP server that answers 500, 429 and nothing."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "roles/operator_alerts/files/tell_operator.py"
SECRET = "webhook-secret-Hq7"


class Webhook:
    """A server that answers what ``answers`` says, in turn, then 204; keeps what it took."""

    def __init__(self):
        self.answers = []
        self.taken = []
        self.asked = []
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                webhook.asked.append((time.monotonic(), self.path))
                status, headers, said = (
                    webhook.answers.pop(0) if webhook.answers else (204, {}, b"")
                )
                if status == 0:  # nothing: the connection ends without a word
                    self.close_connection = True
                    return
                if status < 300:
                    webhook.taken.append((self.headers["Content-Type"], body))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/{SECRET}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def texts(self):
        return [json.loads(body)["content"] for _, body in self.taken]


@pytest.fixture
def webhook():
    webhook = Webhook()
    yield webhook
    webhook.server.shutdown()
    webhook.server.server_close()


class Teller:
    """The program with a spool of its own."""

    def __init__(self, directory, url):
        self.spool = directory / "spool"
        for name in ("new", "tmp", "given_up"):
            (self.spool / name).mkdir(parents=True)
        self.motd = directory / "motd"
        self.motd.mkdir()
        self.settings = directory / "settings.json"
        self.set(url=url)

    def set(self, **settings):
        self.settings.write_text(
            json.dumps({"url": "", "body": "", "hours": 24, "pauses": [0.3]} | settings)
        )

    def command(self, *arguments):
        options = [f"--spool={self.spool}", f"--settings={self.settings}", f"--motd={self.motd}"]
        return [sys.executable, PROGRAM, *arguments, *options]

    def run(self, *arguments, text=""):
        run = subprocess.run(
            self.command(*arguments), input=text, capture_output=True, text=True, timeout=60
        )
        assert SECRET not in run.stdout + run.stderr
        return run

    def tell(self, text):
        run = self.run(text=text)
        assert run.returncode == 0, run.stderr
        return run.stdout.split()

    def send(self):
        run = self.run("send")
        assert run.returncode == 0, run.stderr
        return run.stdout

    @property
    def status(self):
        return json.loads(self.run("status").stdout)


@pytest.fixture
def teller(tmp_path, webhook):
    return Teller(tmp_path, webhook.url)


def test_a_message_arrives_and_calls_nobody(teller, webhook):
    [name] = teller.tell("ALERT from vps1: “Ünïcode”, @everyone\nsecond line\n")
    assert "delivered " + name in teller.send()
    [(kind, body)] = webhook.taken
    assert kind == "application/json"
    assert json.loads(body) == {
        "content": "ALERT from vps1: “Ünïcode”, @everyone\nsecond line",
        "allowed_mentions": {"parse": []},
    }
    assert webhook.asked[0][1] == f"/hooks/{SECRET}"
    status = teller.status
    assert (status["webhook"], status["waiting"], status["given_up"]) == (True, [], [])
    assert [one["id"] for one in status["delivered"]] == [name]


def test_the_caller_does_not_wait_for_a_webhook_that_says_nothing(teller):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        teller.set(url=f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET}")
        began = time.monotonic()
        teller.tell("one")
        assert time.monotonic() - began < 2
    assert [one["text"] for one in teller.status["waiting"]] == ["one"]


def test_what_is_not_taken_is_sent_again(teller, webhook):
    elsewhere = {"Location": "http://127.0.0.1:9/"}
    refusals = [500, 503, 401, 403, 404, 302, 0]
    webhook.answers = [(status, elsewhere, b"") for status in refusals]
    teller.tell("first")
    teller.tell("second")
    said = teller.send()
    assert webhook.texts == ["first", "second"], "none lost, none twice, in their order"
    assert said.count("waits, it ") == len(refusals)
    assert webhook.asked[1][0] - webhook.asked[0][0] >= 0.3


def test_429_is_obeyed(teller, webhook):
    """Seconds in the head, or as Discord says them in the body, which knows parts of one."""
    webhook.answers = [
        (429, {"Retry-After": "0.6"}, b""),
        (429, {"Retry-After": "60"}, b'{"retry_after": 0.7, "global": false}'),
        (429, {}, b'{"retry_after": 0.6}'),
        (429, {"Retry-After": "0.6"}, b"<html>no JSON"),
    ]
    teller.tell("one")
    teller.send()
    assert webhook.texts == ["one"]
    pauses = [b[0] - a[0] for a, b in zip(webhook.asked, webhook.asked[1:], strict=False)]
    assert len(pauses) == 4
    assert all(0.6 <= pause < 5 for pause in pauses)


def test_one_message_that_is_refused_does_not_hold_up_the_others(teller, webhook):
    webhook.answers = [(400, {}, b"")]
    teller.tell("bad")
    teller.tell("good")
    teller.send()
    assert webhook.texts == ["good", "bad"]


def test_nothing_is_lost_when_the_delivery_is_killed(teller, webhook):
    webhook.answers = [(500, {}, b"")]
    teller.set(url=webhook.url, pauses=[60])
    teller.tell("one")
    run = subprocess.Popen(teller.command("send"), stdout=subprocess.DEVNULL)
    until = time.monotonic() + 20
    while not (teller.spool / "trouble.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    run.kill()
    run.wait()
    teller.set(url=webhook.url)
    assert webhook.texts == []
    assert teller.status["trouble"] == "it answers 500"
    teller.send()
    assert webhook.texts == ["one"]
    assert teller.status["trouble"] == ""


def test_after_a_day_it_is_left_to_the_journal_and_kept(teller, webhook):
    [name] = teller.tell("ALERT from vps1: the disk is full")
    teller.tell("a young one")
    path = teller.spool / "new" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"at": time.time() - 90_000}))
    webhook.answers = [(500, {}, b"")]
    said = teller.send()
    assert "<2>given up, it answers 500: ALERT from vps1: the disk is full" in said.splitlines()
    assert webhook.texts == ["a young one"]
    assert [one["text"] for one in teller.status["given_up"]] == [
        "ALERT from vps1: the disk is full"
    ]


def test_a_long_message_goes_in_pieces(teller, webhook):
    text = "".join(f"line {number}\n" for number in range(700)).strip()
    names = teller.tell(text)
    assert len(names) == len(set(names)) == -(-len(text) // 1800)
    teller.send()
    assert "".join(webhook.texts) == text
    assert max(map(len, webhook.texts)) <= 2000
    teller.tell("x" * 100_000)
    teller.send()
    assert webhook.texts[-1] == "… 82000 more characters"


def test_a_flood_does_not_fill_the_disk(teller):
    for number in range(500):
        (teller.spool / "new" / f"{number:03}").write_text("x")
    run = teller.run(text="one more")
    assert run.returncode == 4
    assert "500 messages wait already; this one is in the journal only" in run.stderr
    assert len(list((teller.spool / "new").iterdir())) == 500


def test_a_file_that_is_no_message_is_set_aside(teller, webhook):
    """Else the path unit would start the service again and again."""
    (teller.spool / "new" / "x").write_text("{half a mess")
    teller.tell("one")
    teller.send()
    assert webhook.texts == ["one"]
    assert list((teller.spool / "new").iterdir()) == []
    assert [path.name for path in (teller.spool / "given_up").iterdir()] == ["x"]


HOST = socket.gethostname()
TELEGRAM = '{"chat_id": 5, "text": "{host}: {text}", "more": [true, "{text}"]}'
TOLD = "<b> & “x”"


@pytest.mark.parametrize(
    ("path", "template", "wanted"),
    [
        ("/api/webhooks/1/x/slack", "", {"text": "&lt;b&gt; &amp; “x”"}),
        (
            "/bot1/sendMessage",
            TELEGRAM,
            {"chat_id": 5, "text": f"{HOST}: {TOLD}", "more": [True, TOLD]},
        ),
        ("/topic", "{host} says {text}", f"{HOST} says {TOLD}"),
    ],
)
def test_other_receivers(teller, webhook, path, template, wanted):
    teller.set(url=webhook.url + path, body=template)
    teller.tell(TOLD)
    teller.send()
    [(kind, body)] = webhook.taken
    assert ("json" in kind) == isinstance(wanted, dict)
    assert (json.loads(body) if "json" in kind else body.decode()) == wanted


def test_a_message_does_not_change_the_form_of_a_template(teller, webhook):
    teller.set(url=webhook.url, body='{"text": "{text}", "to": "me"}')
    teller.tell('"}, "to": "everybody {host} {text}')
    teller.send()
    assert json.loads(webhook.taken[0][1]) == {
        "text": '"}, "to": "everybody {host} {text}',
        "to": "me",
    }


@pytest.mark.parametrize("url", [f"htps:/{SECRET}", f"http://[{SECRET}/", f"http://x y/{SECRET}"])
def test_a_malformed_address_is_not_in_the_journal(teller, url):
    teller.set(url=url)
    [name] = teller.tell("one")
    path = teller.spool / "new" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"at": 0}))
    assert "given up" in teller.send()


def test_without_a_webhook_the_caller_hears_that_nobody_is_told(teller):
    teller.set(url="")
    run = teller.run(text="one")
    assert (run.returncode, run.stdout) == (3, "")
    assert "no webhook is set, so nobody is told" in run.stderr
    assert teller.status["webhook"] is False


def test_open_alerts_are_what_the_login_shows(teller):
    (teller.motd / "backup-keeper").write_text("ALERT from vps2, copies of backups: late\nmore\n")
    (teller.motd / "news").write_text("Ubuntu Pro is here\n")
    assert teller.status["open"] == ["ALERT from vps2, copies of backups: late"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
def test_root_writes_as_the_spools_owner():
    with tempfile.TemporaryDirectory() as directory:
        teller = Teller(Path(directory), "http://127.0.0.1:9")
        Path(directory).chmod(0o711)  # pytest's own directories are closed to others
        for path in [teller.spool, *teller.spool.iterdir()]:
            os.chown(path, 65534, 65534)
        [name] = teller.tell("one")
        status = (teller.spool / "new" / name).stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 65534, 0o600)
