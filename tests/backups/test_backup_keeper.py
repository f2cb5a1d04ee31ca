"""The program on the other host: what it lets expire, and how it answers a source."""

from __future__ import annotations

import datetime
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyrage
import pytest
from support.signing import make_keys

ROOT = Path(__file__).parents[2]
PLAIN = b"PGDMP"
RECIPIENT = pyrage.x25519.Identity.generate().to_public()
DUMP = pyrage.encrypt(PLAIN, [RECIPIENT])
NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def keeper():
    path = ROOT / "roles/backup_keeper/files/backup_keeper.py"
    spec = importlib.util.spec_from_file_location("backup_keeper", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    """The source's key for signatures, and somebody else's."""
    return make_keys(tmp_path_factory.mktemp("keys"))


def sign(key: Path, text: bytes, namespace: str = "postgres-backup") -> bytes:
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", namespace]
    return subprocess.run(command, input=text, capture_output=True, check=True).stdout


@pytest.fixture
def config(keeper, tmp_path, keys, monkeypatch):
    (tmp_path / "stats").mkdir()
    monkeypatch.setattr(keeper, "SIGNERS", keys / "signers")
    monkeypatch.setattr(keeper, "server_key", keys / "server", raising=False)
    return keeper.Config(
        directory=str(tmp_path),
        sources=["stats"],
        minimum_free_mb=0,
        max_age_hours=36,
        shrink_percent=50,
        keep_days=7,
        keep_weeks=5,
        keep_months=12,
    )


def stamp(days: float) -> str:
    return f"{NOW - datetime.timedelta(days=days):%Y%m%dT%H%M%SZ}"


def manifest(name: str, dump: bytes = DUMP, **other: object) -> bytes:
    described = {
        "stamp": name,
        "bytes": len(dump),
        "sha256": hashlib.sha256(dump).hexdigest(),
        "plain_bytes": len(PLAIN),
        "restored_and_compared": True,
    }
    return json.dumps(described | other).encode()


def send(
    keeper,
    config,
    name: str,
    dump: bytes = DUMP,
    sent: bytes | None = None,
    signature: bytes | None = None,
    **other: object,
) -> str:
    text = manifest(name, dump, **other)
    signature = sign(keeper.server_key, text) if signature is None else signature
    stream = io.BytesIO(text + signature + (dump if sent is None else sent))
    return keeper.receive(config, "stats", f"put {name} {len(text)} {len(signature)}", stream)


def add(keeper, config, name: str, *, days_late: float = 0) -> None:
    """Lay a copy down that arrived so many days after it was made."""
    directory = Path(config.directory) / "stats" / name
    directory.mkdir()
    (directory / "dump.age").write_bytes(DUMP)
    (directory / "manifest.json").write_bytes(manifest(name))
    received = keeper.moment(name).timestamp() + days_late * 86400
    os.utime(directory / "manifest.json", (received, received))


def names(config) -> list[str]:
    return sorted(path.name for path in (Path(config.directory) / "stats").iterdir())


def test_an_offer_is_answered_with_what_is_not_here(keeper, config) -> None:
    add(keeper, config, stamp(1))
    have = json.loads(manifest(stamp(1)))["sha256"]
    asked = json.dumps([[stamp(1), have], [stamp(2), have], [stamp(1), "another"]]).encode()
    answer = keeper.receive(config, "stats", "offer", io.BytesIO(asked))
    assert json.loads(answer) == [stamp(2), stamp(1)]


def test_what_is_here_is_not_replaced(keeper, config) -> None:
    send(keeper, config, stamp(1))
    with pytest.raises(keeper.RefusedError, match="ever replaced"):
        send(keeper, config, stamp(1), pyrage.encrypt(PLAIN, [RECIPIENT]))
    assert (Path(config.directory) / "stats" / stamp(1) / "dump.age").read_bytes() == DUMP


@pytest.mark.parametrize("sent", [b"", DUMP[:-1], DUMP + b"x", DUMP.upper()])
def test_what_is_not_whole_leaves_nothing(keeper, config, sent: bytes) -> None:
    with pytest.raises(keeper.RefusedError, match="did not arrive"):
        send(keeper, config, stamp(1), sent=sent)
    assert names(config) == []


@pytest.mark.parametrize(
    "how",
    [
        lambda *_: b"",
        lambda *_: b"x" * 300,
        lambda keys, text: sign(keys / "stranger", text),
        lambda keys, text: sign(keys / "server", text, "file"),
        lambda keys, text: sign(keys / "server", text.replace(b"true", b"true ")),
    ],
    ids=["none", "no signature", "a stranger's", "of something else", "of another manifest"],
)
def test_what_the_source_has_not_signed_is_refused(keeper, config, keys, how) -> None:
    """The key that may send is not enough."""
    signature = how(keys, manifest(stamp(1)))
    with pytest.raises(keeper.RefusedError, match=r"not signed by the key of stats|is none"):
        send(keeper, config, stamp(1), signature=signature)
    assert names(config) == []


def test_nothing_is_taken_from_whom_nobody_knows(keeper, config, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(keeper, "SIGNERS", tmp_path / "none")
    with pytest.raises(keeper.RefusedError, match=r"run site\.yml"):
        send(keeper, config, stamp(1))


@pytest.mark.parametrize(
    ("dump", "other"),
    [
        (b"ten bytes.", {}),
        (b"", {"plain_bytes": 0}),
        (DUMP + b"x", {}),
        (DUMP[:-1], {}),
        (DUMP, {"plain_bytes": len(PLAIN) + 1}),
        (DUMP, {"plain_bytes": 10**9}),
        (DUMP, {"plain_bytes": -30}),
        (b"age-encryption.org/v1\n" + b"x" * 300, {}),
        (b"x" + DUMP, {}),
    ],
)
def test_what_age_has_not_made_is_no_backup(keeper, config, dump: bytes, other: dict) -> None:
    """However well it is signed."""
    with pytest.raises(keeper.RefusedError, match="is no encrypted file of"):
        send(keeper, config, stamp(1), dump, **other)
    assert names(config) == []


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
def test_files_of_every_size_are_taken(keeper, config, size: int) -> None:
    recipients = [pyrage.x25519.Identity.generate().to_public() for _ in range(3)]
    dump = pyrage.encrypt(b"x" * size, recipients)
    assert str(len(dump)) in send(keeper, config, stamp(1), dump, plain_bytes=size)


def test_a_backup_that_was_not_restored_is_none(keeper, config) -> None:
    with pytest.raises(keeper.RefusedError, match="does not say that the backup was restored"):
        send(keeper, config, stamp(1), restored_and_compared=False)


@pytest.mark.parametrize(
    "request_",
    [
        *("", "list", "show stats", "put x 5 5", "put 20261122T043000Z -5 5", "put ../x 5 5"),
        *("put 20261122T043000Z 5", "put 20261122T043000Z 5 x", "put 20261122T043000Z 5 5 5"),
        "put 20261122T043000Z \u0663 5",
    ],
)
def test_there_are_two_requests(keeper, config, request_: str) -> None:
    with pytest.raises(keeper.RefusedError, match="does nothing else"):
        keeper.receive(config, "stats", request_, io.BytesIO())


def test_no_other_source_is_taken(keeper, config) -> None:
    with pytest.raises(keeper.RefusedError, match="is no source"):
        keeper.receive(config, "../stats", "offer", io.BytesIO(b"[]"))


def test_the_disk_keeps_its_reserve(keeper, config) -> None:
    small = keeper.Config(**{**vars(config), "minimum_free_mb": 10**9})
    with pytest.raises(keeper.RefusedError, match="Make room here"):
        send(keeper, small, stamp(1))
    assert names(config) == []


def test_expiry_keeps_days_weeks_and_months(keeper, config) -> None:
    for day in range(400):
        add(keeper, config, stamp(day + 0.01))
    assert "copies are as they should be" in keeper.tidy(config)
    kept = names(config)
    assert set(kept) >= {stamp(day + 0.01) for day in range(7)}
    assert len({name[:6] for name in kept}) == 12
    assert len(kept) <= 7 + 5 + 12


def test_everything_of_the_last_day_is_kept(keeper, config) -> None:
    today = [stamp(0.1), stamp(0.2), stamp(0.9)]
    for name in today:
        add(keeper, config, name)
    keeper.tidy(config)
    assert names(config) == sorted(today)


def test_one_that_arrives_late_displaces_none_that_arrived_in_time(keeper, config) -> None:
    """Whoever has the source cannot rewrite the past."""
    honest = [stamp(day + 0.5) for day in range(0, 30, 2)]  # some nights the server was down
    for name in honest:
        add(keeper, config, name)
    keeper.tidy(config)
    before = set(names(config))
    for day in range(3, 30):  # up to two days are in time
        later_that_day = f"{stamp(day + 0.5)[:9]}235959Z"
        if later_that_day not in honest:
            add(keeper, config, later_that_day, days_late=day)
    keeper.tidy(config)
    assert before <= set(names(config))


def test_invented_ones_push_no_genuine_one_out(keeper, config) -> None:
    """Though they are of a later hour of a day, week and month, and arrive in time."""
    honest = [stamp(day + 0.4) for day in range(1, 40)]
    for name in honest:
        add(keeper, config, name)
    keeper.tidy(config)
    before = set(names(config))
    now = time.time()
    for genuine in honest[:1]:
        moment = keeper.moment(genuine) + datetime.timedelta(seconds=1)
        for seconds in range(3):
            name = f"{moment + datetime.timedelta(seconds=seconds):%Y%m%dT%H%M%SZ}"
            add(keeper, config, name)
            os.utime(Path(config.directory) / "stats" / name / "manifest.json", (now, now))
    keeper.tidy(config)
    assert before <= set(names(config))


def test_a_late_one_is_kept_where_there_is_no_other(keeper, config) -> None:
    """The first night after the other host was away."""
    late = [stamp(day + 0.5) for day in range(3, 6)]
    for name in late:
        add(keeper, config, name, days_late=3)
    add(keeper, config, stamp(0))
    keeper.tidy(config)
    assert set(late) < set(names(config))


def test_nothing_expires_while_something_is_wrong(keeper, config) -> None:
    for day in range(60):
        add(keeper, config, stamp(day + 3.5))
    with pytest.raises(keeper.KeeperError, match="nothing has arrived for 84 hours"):
        keeper.tidy(config)
    assert len(names(config)) == 60


def test_a_new_source_has_sent_nothing_yet(keeper, config) -> None:
    assert keeper.tidy(config).startswith("0 copies")
    place = Path(config.directory) / "stats"
    os.utime(place, (time.time() - 40 * 3600,) * 2)
    with pytest.raises(keeper.KeeperError, match="nothing has arrived for 40 hours"):
        keeper.tidy(config)


def test_the_newest_is_shown_unless_another_is_named(keeper, config) -> None:
    for day in (1, 2):
        add(keeper, config, stamp(day))
    assert keeper.show(config, "stats", None)["stamp"] == stamp(1)
    assert keeper.show(config, "stats", stamp(2))["stamp"] == stamp(2)
    with pytest.raises(keeper.KeeperError, match=f"there are: {stamp(1)}, {stamp(2)}"):
        keeper.show(config, "stats", stamp(3))
