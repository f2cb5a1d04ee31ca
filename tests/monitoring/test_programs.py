"""receiver.py, heartbeat.py and watch.py, over real HTTP where they speak it."""

import json
import os
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

FIRING = {
    "status": "firing",
    "labels": {"alertname": "BotDown", "instance": "bot-vps", "severity": "critical"},
    "annotations": {"summary": "the bot does not\nrun \x1b[31m", "do": "look", "runbook": "d#bot"},
}
WARNING = {
    "status": "firing",
    "labels": {"alertname": "DiskFillsUp", "instance": "bot-vps", "severity": "warning"},
    "annotations": {"summary": "full"},
}
OVER = FIRING | {"status": "resolved"}


@pytest.fixture
def answers():
    """A server that answers paths with JSON; 404 for others."""
    known = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(known.get(self.path.partition("?")[0])).encode()
            self.send_response(200 if self.path.partition("?")[0] in known else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known["url"] = f"http://127.0.0.1:{server.server_port}"
    yield known
    server.shutdown()
    server.server_close()


# ----------------------------------------------------------------------------------- receiver.py


@pytest.fixture
def receiver(program, answers, monkeypatch, tmp_path):
    """The running receiver: post something and get the status; what was told is in a file."""
    module = program("receiver")
    answers["/api/v2/alerts"] = []
    monkeypatch.setattr(module, "ALERTS", answers["url"] + "/api/v2/alerts")
    monkeypatch.setattr(module, "MOTD", tmp_path / "motd/monitoring")
    module.Handler.shell_command = f"cat >> {tmp_path}/told"
    server = HTTPServer(("127.0.0.1", 0), module.Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def post(body):
        url = f"http://127.0.0.1:{server.server_port}/"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(url, data=data, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    post.module, post.told, post.motd = module, tmp_path / "told", tmp_path / "motd/monitoring"
    yield post
    server.shutdown()
    server.server_close()


def test_a_notification_is_one_message(receiver):
    assert receiver({"alerts": [FIRING, WARNING, OVER]}) == 200
    assert receiver.told.read_text().splitlines() == [
        "ALERT from bot-vps, BotDown: the bot does not run [31m",
        "  do: look",
        "  more: d#bot",
        "WARNING from bot-vps, DiskFillsUp: full",
        "OVER bot-vps, BotDown: the bot does not run [31m",
    ]


def test_what_was_not_handed_over_is_sent_again(receiver):
    receiver.module.Handler.shell_command = "exit 4"
    assert receiver({"alerts": [FIRING]}) == 503


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"alerts": 5}', b'{"alerts": ["x"]}', b""])
def test_what_is_no_notification_is_refused(receiver, body):
    assert receiver(body) == 400
    assert not receiver.told.exists()


def test_the_login_shows_what_fires_now(receiver, answers):
    silent = {"labels": {"alertname": "Watchdog", "severity": "none"}}
    answers["/api/v2/alerts"] = [FIRING, silent]
    receiver({"alerts": [FIRING]})
    assert receiver.motd.read_text() == "ALERT from bot-vps, BotDown: the bot does not run [31m\n"
    answers["/api/v2/alerts"] = [silent]
    receiver({"alerts": [OVER]})
    assert not receiver.motd.exists()


# ---------------------------------------------------------------------------------- heartbeat.py

WATCHDOG = {"labels": {"alertname": "Watchdog"}}


@pytest.fixture
def heartbeat(program, answers, monkeypatch, tmp_path):
    module = program("heartbeat")
    answers["/prometheus"] = {"data": {"alerts": [WATCHDOG]}}
    answers["/alertmanager"] = [WATCHDOG]
    monkeypatch.setattr(module, "PROMETHEUS", answers["url"] + "/prometheus")
    monkeypatch.setattr(module, "ALERTMANAGER", answers["url"] + "/alertmanager")
    tell = tmp_path / "tell-operator"
    monkeypatch.setattr(module, "TELL", tell)
    monkeypatch.setattr(module, "USER", "")
    module.waits = lambda seconds: (
        tell.write_text(f"#!/bin/sh\necho '{json.dumps({'waiting': [{'seconds': seconds}]})}'\n"),
        tell.chmod(0o755),
    )
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/beats\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("sys.argv", ["heartbeat", "-p", "48022", "monitoring-heartbeat@bot"])
    module.beats = lambda: (tmp_path / "beats").exists()
    return module


def test_it_beats_while_all_works(heartbeat):
    heartbeat.waits(20)
    assert (heartbeat.main(), heartbeat.beats()) == (0, True)


@pytest.mark.parametrize(
    ("path", "answer", "reason"),
    [
        ("/prometheus", {"data": {"alerts": []}}, "Prometheus evaluates no rules"),
        ("/prometheus", {"error": "x"}, "Prometheus does not answer"),
        ("/alertmanager", [], "Alertmanager hears nothing of Prometheus"),
        ("/alertmanager", None, "Alertmanager does not answer"),
    ],
)
def test_it_is_silent_when_something_does_not_work(heartbeat, answers, path, answer, reason):
    answers[path] = answer
    if answer is None:
        del answers[path]
    assert reason in heartbeat.problem()
    assert (heartbeat.main(), heartbeat.beats()) == (1, False)


def test_the_check_names_who_does_not_answer(heartbeat, answers, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["heartbeat", "--check"])
    monkeypatch.setattr(heartbeat, "TARGETS", answers["url"] + "/targets")
    up = {"health": "up", "labels": {"instance": "db"}}
    answers["/targets"] = {"data": {"activeTargets": [up]}}
    assert heartbeat.main() == 0
    assert "1 targets answer" in capsys.readouterr().out
    down = {"health": "down", "labels": {"instance": "bot-vps"}}
    answers["/targets"] = {"data": {"activeTargets": [up, down]}}
    assert heartbeat.main() == 1
    assert capsys.readouterr().out == "no answer from bot-vps\n"
    assert not heartbeat.beats()


def test_it_is_silent_when_nothing_is_delivered(heartbeat):
    heartbeat.waits(301)
    assert heartbeat.problem() == "1 messages are not delivered"
    assert (heartbeat.main(), heartbeat.beats()) == (1, False)


# -------------------------------------------------------------------------------------- watch.py


@pytest.fixture
def watch(program, tmp_path):
    module = program("watch")
    settings = {
        "beat": str(tmp_path / "beat"), "since": str(tmp_path / "since"),
        "motd": str(tmp_path / "motd/silent"), "seconds": 300, "source": "database-vps",
        "command": f"cat >> {tmp_path}/told; echo >> {tmp_path}/told", "url": "",
    }  # fmt: skip

    def look(beat=None, **more):
        """Look, with a beat so many seconds ago; return what is told by then."""
        if beat is not None:
            Path(settings["beat"]).write_text("")
            os.utime(settings["beat"], (time.time() - beat,) * 2)
        module.main(settings | more)
        told = tmp_path / "told"
        return told.read_text().splitlines() if told.exists() else []

    return look


def test_silence_is_told_once_and_its_end(watch):
    assert watch(beat=290) == []
    told = watch(beat=310)
    assert "MonitoringSilent: database-vps has not said for 5 minutes that it watches" in told[0]
    assert len(watch(beat=400)) == len(told)
    assert watch(beat=10)[-1].endswith("MonitoringSilent: database-vps watches again")
    assert len(watch(beat=20)) == len(told) + 1


def test_a_watch_that_has_never_begun_is_told(watch, tmp_path):
    assert watch() == []
    os.utime(tmp_path / "since", (time.time() - 301,) * 2)
    assert "MonitoringSilent" in watch()[0]


def test_what_could_not_be_told_is_told_at_the_next_look(watch):
    assert watch(beat=400, command="exit 1") == []
    assert "MonitoringSilent" in watch()[0]


def test_somebody_outside_hears_only_while_all_is_well(watch, answers, capsys):
    asked = []
    answers["/ping-secret"] = 1
    url = answers["url"] + "/ping-secret"
    watch(beat=10, url=url)
    watch(beat=10, url=answers["url"] + "/away-secret")
    watch(beat=400, url="http://127.0.0.1:1/never-secret")
    said = capsys.readouterr().out
    assert said.count("the outside watch was not reached: HTTPError") == 1
    assert "secret" not in said
    assert asked == []
