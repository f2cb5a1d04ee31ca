"""plugins/action/backup_manifest.py: only a manifest that the database server signed is used."""

from __future__ import annotations

import datetime
import importlib.util
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from support.signing import make_keys

PATH = Path(__file__).parents[2] / "plugins/action/backup_manifest.py"
NOW = datetime.datetime.now(datetime.UTC)
STAMP = f"{NOW - datetime.timedelta(hours=2):%Y%m%dT%H%M%SZ}"
MANIFEST = {
    "stamp": STAMP,
    "database": "stats",
    "bytes": 300,
    "sha256": "a" * 64,
    "plain_sha256": "b" * 64,
    "rows": 5,
    "restored_and_compared": True,
    "tables": {"public.rounds": {"rows": 5, "checksum": "-123"}},
    "sequences": {"public.rounds_id_seq": 6},
    "objects": {"views": 0},
    "creates_public": False,
}


@pytest.fixture(scope="module")
def action():
    spec = importlib.util.spec_from_file_location("backup_manifest", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ActionModule


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    """The key of the server, and one of somebody else."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def copy(keys, tmp_path):
    """A copy of a backup, signed by the server, and a way to write another."""

    def write(manifest: object = MANIFEST, key: str = "server", space: str = "postgres-backup"):
        text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        (tmp_path / "manifest.json").write_bytes(text)
        done = subprocess.run(
            ["ssh-keygen", "-q", "-Y", "sign", "-f", keys / key, "-n", space],
            input=text,
            capture_output=True,
            check=True,
        )
        (tmp_path / "manifest.json.sig").write_bytes(done.stdout)

    write()
    return SimpleNamespace(directory=tmp_path, write=write, signers=tmp_path / "signers")


@pytest.fixture
def check(action, keys, copy):
    """Run the action as a task does."""
    copy.signers.write_text((keys / "signers").read_text())

    def run(**given: object):
        arguments = {
            "directory": str(copy.directory),
            "signers": str(copy.signers),
            "database": "stats",
            "stamp": "",
            "newest": True,
            "max_age_hours": 36,
        } | given
        task = SimpleNamespace(args=arguments, async_val=0, check_mode=False, diff=False)
        it = action.__new__(action)
        it._task = task
        it._connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=""))
        it._play_context = SimpleNamespace(check_mode=False, diff=False)
        return it.run(task_vars={})

    return run


def refused(check, **given: object) -> str:
    with pytest.raises(AnsibleActionFail) as error:
        check(**given)
    return str(error.value)


def test_a_signed_manifest_is_returned(check) -> None:
    assert check()["manifest"] == MANIFEST
    assert check(stamp=STAMP)["manifest"] == MANIFEST


def test_an_altered_one_is_refused(check, copy) -> None:
    path = copy.directory / "manifest.json"
    path.write_bytes(path.read_bytes() + b" ")
    assert "was not signed by a server of stats" in refused(check)


@pytest.mark.parametrize(
    "how",
    [
        {"key": "stranger"},
        {"space": "file"},  # whatever else that key may have signed
        {"space": "git"},
    ],
)
def test_another_signature_is_refused(check, copy, how: dict) -> None:
    copy.write(**how)
    assert "was not signed by a server of stats" in refused(check)


def test_a_downgrade_is_refused(check, copy) -> None:
    (copy.directory / "manifest.json.sig").unlink()
    assert "one without a signature was made before" in refused(check)


@pytest.mark.parametrize("signature", [b"", b"\0" * 100, b"-----BEGIN SSH SIGNATURE-----\n"])
def test_what_is_no_signature_is_refused(check, copy, signature: bytes) -> None:
    (copy.directory / "manifest.json.sig").write_bytes(signature)
    assert "was not signed" in refused(check)


def test_without_a_known_server_nothing_is_trusted(check, copy) -> None:
    copy.signers.unlink()
    assert "site.yml` writes the database server's into it" in refused(check)


def test_a_backup_of_another_database_is_refused(check, copy) -> None:
    copy.write({**MANIFEST, "database": "other"})
    assert "is one of other, not of stats" in refused(check)
    assert "was not signed by a server of other" in refused(check, database="other")


def test_another_backup_in_place_of_the_one_asked_for_is_refused(check) -> None:
    assert "20261122T043000Z was asked for" in refused(check, stamp="20261122T043000Z")


def test_an_old_one_as_the_newest_is_refused_unless_it_is_named(check, copy) -> None:
    stamp = f"{NOW - datetime.timedelta(hours=50):%Y%m%dT%H%M%SZ}"
    copy.write({**MANIFEST, "stamp": stamp})
    said = refused(check)
    assert "is 50 hours old (more than 36)" in said
    assert f"-e restore_backup={stamp}" in said
    assert check(stamp=stamp)["manifest"]["stamp"] == stamp
    assert check(newest=False)["manifest"]["stamp"] == stamp


def test_one_older_than_was_seen_before_is_refused_unless_it_is_named(check, copy) -> None:
    newer = f"{NOW:%Y%m%dT%H%M%SZ}"
    seen = copy.signers.with_name("signers.seen")
    seen.write_text(f"stats {newer}\nother 20990101T000000Z\nstats ../x\n\n")
    assert f"but {newer} was seen before" in refused(check)
    assert check(stamp=STAMP)["manifest"]["stamp"] == STAMP


@pytest.mark.parametrize(
    "wrong",
    [
        {"stamp": "../../etc"},
        {"stamp": f"{STAMP}\n"},
        {"stamp": 5},
        {"bytes": "300"},
        {"bytes": True},
        {"sha256": "A" * 64},
        {"plain_sha256": ""},
        {"rows": -1},
        {"restored_and_compared": 1},
        {"tables": []},
        {"tables": {"a": {"rows": 1, "checksum": "{{ 1 }}"}}},
        {"tables": {"a": {"rows": 1}}},
        {"sequences": {"a": "1"}},
        {"objects": {"a": None}},
    ],
)
def test_values_of_another_form_are_refused(check, copy, wrong: dict) -> None:
    """Even signed: the server may be in a stranger's hands, and values become paths and words."""
    copy.write({**MANIFEST, **wrong})
    assert f"{next(iter(wrong))} missing or of another form" in refused(check)


@pytest.mark.parametrize("text", [b"", b"[]", b"5", b"null", b'{"stamp": '])
def test_what_is_no_manifest_is_refused(check, copy, text: bytes) -> None:
    copy.write(text)
    assert "manifest is no" in refused(check)


def test_a_file_without_end_is_not_read(check, copy) -> None:
    path = copy.directory / "manifest.json"
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "has more than" in refused(check)
