"""plugins/action/age_stream.py: only the right file with the right key is decrypted."""

import hashlib
import importlib.util
from pathlib import Path

import pyrage
import pytest
from ansible.errors import AnsibleActionFail

PATH = Path(__file__).parents[2] / "plugins/action/age_stream.py"
PLAIN = b"PGDMP and so on"


@pytest.fixture(scope="module")
def decrypt():
    spec = importlib.util.spec_from_file_location("age_stream", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.decrypt


@pytest.fixture
def backup(tmp_path):
    """Arguments of decrypt() that work."""
    identity = pyrage.x25519.Identity.generate()
    sealed = pyrage.encrypt(PLAIN, [identity.to_public()])
    (tmp_path / "dump.age").write_bytes(sealed)
    (tmp_path / "identity.txt").write_text(f"# opens the backups\n\n{identity}\n")
    return {
        "src": tmp_path / "dump.age",
        "sha256": hashlib.sha256(sealed).hexdigest(),
        "plain_sha256": hashlib.sha256(PLAIN).hexdigest(),
        "identity": tmp_path / "identity.txt",
    }


def test_the_right_file_and_key_open(decrypt, backup):
    assert decrypt(**backup) == PLAIN


def test_one_of_several_keys_is_enough(decrypt, backup):
    mine = backup["identity"].read_text()
    backup["identity"].write_text(f"{pyrage.x25519.Identity.generate()}\n{mine}")
    assert decrypt(**backup) == PLAIN


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda it: it["src"].unlink(), "No such file or directory"),
        (lambda it: it["src"].write_bytes(it["src"].read_bytes()[:-1]), "truncated or altered"),
        (lambda it: it["src"].write_bytes(b""), "truncated or altered"),
        (lambda it: it.update(plain_sha256="0" * 64), "something else than its manifest says"),
        (lambda it: it["identity"].unlink(), "It opens the backups"),
        (lambda it: it["identity"].write_text("# nothing\n"), "holds no private key"),
        (lambda it: it["identity"].write_text("age1public"), "is no age identity file"),
        (
            lambda it: it["identity"].write_text(str(pyrage.x25519.Identity.generate())),
            "does not open",
        ),
    ],
)
def test_anything_else_is_refused_with_its_reason(decrypt, backup, spoil, message):
    spoil(backup)
    with pytest.raises(AnsibleActionFail, match=message):
        decrypt(**backup)
