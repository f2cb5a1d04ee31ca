"""hardening-security-updates: what was left and what waits; apt itself is the scenario's."""

import os
import subprocess
import time

import pytest

OLD, NEW = ("libpam0g", "1.0", "1.1"), ("openssl", "3.0", "3.1")


def touch(path, hours):
    path.touch()
    moment = time.time() - hours * 3600
    os.utime(path, (moment, moment))


def test_what_the_night_left_is_told_from_what_came_since(security_updates, monkeypatch):
    security_updates.record([OLD])
    newer = ("libpam0g", "1.0", "1.2")
    monkeypatch.setattr(security_updates, "pending", lambda: [newer, NEW])
    status = security_updates.status()
    assert (status["left"], status["tonight"]) == ([newer], [NEW])


def test_an_update_that_follows_an_installed_one_waits_for_tonight(security_updates, monkeypatch):
    security_updates.record([OLD])
    monkeypatch.setattr(security_updates, "pending", lambda: [("libpam0g", "1.1", "1.2")])
    assert security_updates.status()["left"] == []


@pytest.mark.parametrize(
    ("record", "stamp", "hours"), [(2, 30, 2.0), (30, 2, 2.0), (None, 5, 5.0), (None, None, None)]
)
def test_the_last_night_is_the_later_of_its_two_traces(
    security_updates, monkeypatch, record, stamp, hours
):
    monkeypatch.setattr(security_updates, "pending", list)
    for path, age in ((security_updates.RECORD, record), (security_updates.UPGRADED, stamp)):
        if age is not None:
            touch(path, age)
    assert security_updates.status()["hours_since_night"] == hours


@pytest.fixture
def world(security_updates, monkeypatch):
    """A host on which OLD and NEW are pending until unattended-upgrade runs."""
    calls, updates = [], [OLD, NEW]
    answers = {"code": 0, "left": []}

    def run(command):
        calls.append(command[0])
        if command[0] == "unattended-upgrade" and not answers["code"]:
            updates[:] = answers["left"]
        text = (
            "NEEDRESTART-VER: 3.6\nNEEDRESTART-SVC: cron.service\nNEEDRESTART-SVC: pg@1.service\n"
        )
        code = answers["code"] if command[0] == "unattended-upgrade" else 0
        return subprocess.CompletedProcess(command, code, stdout=text)

    monkeypatch.setattr(security_updates, "run", run)
    monkeypatch.setattr(security_updates, "pending", lambda: list(updates))
    return calls, updates, answers


def test_the_first_run_says_what_it_installed_and_what_waits(security_updates, world):
    world[2]["left"] = [NEW]
    security_updates.REBOOT.touch()
    security_updates.REBOOT.with_suffix(".pkgs").write_text("linux-image\nlinux-image\n")
    assert security_updates.install("^pg[@.]") == {
        "installed": [OLD],
        "left": [NEW],
        "restarts": ["pg@1.service"],
        "reboot": True,
        "reboot_for": ["linux-image"],
    }
    assert security_updates.RECORD.read_text() == "openssl 3.0 3.1\n"


def test_with_nothing_pending_apt_is_left_alone(security_updates, world):
    calls, updates, _ = world
    updates.clear()
    assert security_updates.install("^pg[@.]")["installed"] == []
    assert calls == []
    assert security_updates.RECORD.read_text() == ""


def test_old_lists_are_read_again_first(security_updates, world, tmp_path):
    calls, updates, _ = world
    updates.clear()
    touch(tmp_path / "lists", 7 * 24)
    security_updates.install("")
    assert calls == ["apt-get"]


def test_a_run_that_fails_is_not_recorded_as_done(security_updates, world):
    world[2]["code"] = 1
    with pytest.raises(SystemExit, match=r"still pending.*next run tries again"):
        security_updates.install("")
    assert not security_updates.RECORD.exists()


@pytest.mark.parametrize(
    ("record", "night", "stamp", "installed"),
    [
        (None, None, None, False),  # a bare host
        (None, None, 3, False),  # of the provider's image
        (None, 3, None, False),  # a first run that was interrupted
        (None, 3, 9, False),
        (None, 9, 3, True),  # of an earlier release of the role
        (3, 9, None, True),
    ],
)
def test_the_role_knows_whether_it_has_installed_them(
    host_state, tmp_path, monkeypatch, record, night, stamp, installed
):
    ages = {"UPDATES_LEFT": record, "NIGHT": night, "UPGRADED": stamp}
    for name, age in ages.items():
        monkeypatch.setattr(host_state, name, tmp_path / name)
        if age is not None:
            touch(tmp_path / name, age)
    assert host_state.security_updates_installed() == installed
