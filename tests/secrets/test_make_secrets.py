"""scripts/make_secrets.py: complete, private, never overwriting, all or nothing."""

from __future__ import annotations

import datetime
import re
import stat
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "group_vars/all/vault.yml.example"


def run(inventory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the helper as the Makefile does."""
    return subprocess.run(
        [sys.executable, ROOT / "scripts/make_secrets.py", *options, inventory],
        capture_output=True,
        text=True,
        check=False,
    )


def tree(directory: Path) -> dict[str, bytes]:
    """Return every file below ``directory`` with its content."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """A copied inventory without secrets."""
    directory = tmp_path / "production"
    directory.mkdir()
    (directory / "hosts.yml").write_text("all: {}\n")
    return directory


@pytest.fixture
def made(inventory: Path) -> Path:
    """An inventory whose secrets were just made."""
    result = run(inventory)
    assert result.returncode == 0, result.stderr
    return inventory


def decrypted(inventory: Path) -> str:
    """Return vault.yml in the clear, opened by ansible-vault itself."""
    return subprocess.run(
        [
            Path(sys.executable).parent / "ansible-vault",
            "view",
            "--vault-password-file",
            inventory / "secrets/vault_password",
            inventory / "group_vars/all/vault.yml",
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",  # not the repository: its ansible.cfg names another password
    ).stdout


def test_makes_exactly_the_promised_files_for_the_owner_alone(made: Path) -> None:
    assert set(tree(made)) == {
        "hosts.yml",
        "group_vars/all/vault.yml",
        "secrets/vault_password",
        "secrets/ca/ca.key",
        "secrets/ca/ca.crt",
        "secrets/backup_identity.txt",
        "secrets/backup_recipient.txt",
    }
    assert stat.S_IMODE((made / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((made / "secrets/ca").stat().st_mode) == 0o700
    for name in tree(made).keys() - {"hosts.yml"}:
        assert stat.S_IMODE((made / name).stat().st_mode) == 0o600, name


def test_vault_opens_with_its_password_and_names_what_the_example_names(made: Path) -> None:
    text = decrypted(made)
    passwords = yaml.safe_load(text)
    wanted = re.findall(r"^(vault_\w+): GENERATED$", EXAMPLE.read_text(), re.MULTILINE)
    assert list(passwords) == wanted
    assert {
        "vault_postgres_app_password",
        "vault_postgres_readonly_password",
        "vault_postgres_migrator_password",
    } <= set(wanted)
    assert len(set(passwords.values())) == len(passwords)
    assert all(re.fullmatch(r"[A-Za-z0-9]{32}", value) for value in passwords.values())
    assert "# vault_discord_bot_token:" in text, "the owner sees what is left to fill in"


def test_no_password_lies_in_the_clear(made: Path) -> None:
    for password in yaml.safe_load(decrypted(made)).values():
        assert not [name for name, data in tree(made).items() if password.encode() in data]
    assert (made / "group_vars/all/vault.yml").read_bytes().startswith(b"$ANSIBLE_VAULT;1.1;AES256")


def test_authority_is_strong_lasts_ten_years_and_signs_no_authority(made: Path) -> None:
    certificate = x509.load_pem_x509_certificate((made / "secrets/ca/ca.crt").read_bytes())
    key = load_pem_private_key((made / "secrets/ca/ca.key").read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.key_size >= 256
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(certificate)
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert left > datetime.timedelta(days=3650)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)


def test_identity_opens_what_the_recipient_file_seals(made: Path) -> None:
    recipient = (made / "secrets/backup_recipient.txt").read_text().strip()
    sealed = pyrage.encrypt(b"dump", [pyrage.x25519.Recipient.from_str(recipient)])
    lines = (made / "secrets/backup_identity.txt").read_text().splitlines()
    (secret,) = [line for line in lines if not line.startswith("#")]
    assert pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(secret)]) == b"dump"


def test_two_inventories_share_nothing(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "demo"
    other.mkdir()
    assert run(other).returncode == 0
    ours, theirs = tree(made / "secrets"), tree(other / "secrets")
    assert not [name for name in ours if ours[name] == theirs[name]]


def test_second_run_is_refused_and_changes_nothing(made: Path) -> None:
    before = tree(made)
    result = run(made)
    assert result.returncode == 3
    assert f"exists already: {made}/secrets, {made}/group_vars/all/vault.yml" in result.stderr
    assert "ansible-vault edit" in result.stderr
    assert tree(made) == before


@pytest.mark.parametrize("present", ["secrets/ca/ca.key", "group_vars/all/vault.yml"])
def test_one_thing_that_exists_stops_everything(inventory: Path, present: str) -> None:
    (inventory / present).parent.mkdir(parents=True)
    (inventory / present).write_text("precious")
    before = tree(inventory)
    result = run(inventory)
    assert result.returncode == 3
    assert "Nothing was changed" in result.stderr
    assert tree(inventory) == before


def test_a_failure_half_way_leaves_nothing(inventory: Path) -> None:
    (inventory / "group_vars").write_text("a file where a directory is needed")
    before = tree(inventory)
    result = run(inventory)
    assert result.returncode == 3
    assert "group_vars" in result.stderr
    assert tree(inventory) == before
    assert sorted(path.name for path in inventory.iterdir()) == ["group_vars", "hosts.yml"]


def test_an_inventory_that_was_not_copied_yet_is_named(tmp_path: Path) -> None:
    result = run(tmp_path / "prodction")
    assert result.returncode == 3
    assert "cp -r inventories/example" in result.stderr
    assert "Traceback" not in result.stderr


class TestChangeOfTheAuthority:
    def step(self, inventory: Path, step: str) -> None:
        result = run(inventory, "--ca", step)
        assert result.returncode == 0, result.stderr

    def trusted(self, inventory: Path) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates((inventory / "secrets/ca/ca.crt").read_bytes())

    def signer(self, inventory: Path) -> x509.Certificate:
        """Return the first trusted certificate, which has to be that of the key."""
        first = self.trusted(inventory)[0]
        key = load_pem_private_key((inventory / "secrets/ca/ca.key").read_bytes(), password=None)
        assert key.public_key() == first.public_key()
        return first

    @pytest.mark.parametrize("times", [1, 2])
    def test_both_are_trusted_until_the_end_however_often_a_step_is_taken(
        self, made: Path, times: int
    ) -> None:
        former = self.signer(made)
        others = {name: data for name, data in tree(made).items() if "/ca/" not in name}
        for _ in range(times):
            self.step(made, "begin")
        assert self.signer(made) == former
        assert len(self.trusted(made)) == 2
        following = self.trusted(made)[1]
        for _ in range(times):
            self.step(made, "switch")
        assert self.signer(made) == following
        assert self.trusted(made) == [following, former]
        self.step(made, "finish")
        assert self.signer(made) == following
        assert self.trusted(made) == [following]
        assert sorted(path.name for path in (made / "secrets/ca").iterdir()) == ["ca.crt", "ca.key"]
        assert others == {name: data for name, data in tree(made).items() if "/ca/" not in name}
        assert former.subject != following.subject
        for path in (made / "secrets/ca").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("before", "step", "message"),
        [
            ([], "switch", "take the step begin first"),
            ([], "finish", "take the step switch first"),
            (["begin"], "finish", "take the step switch first"),
            (["begin", "switch"], "begin", "take the step finish"),
            (["begin", "switch"], "abort", "signs already"),
            (["begin", "switch", "finish"], "finish", "take the step switch first"),
        ],
    )
    def test_a_step_out_of_turn_is_refused_and_changes_nothing(
        self, made: Path, before: list[str], step: str, message: str
    ) -> None:
        for earlier in before:
            self.step(made, earlier)
        files = tree(made)
        result = run(made, "--ca", step)
        assert result.returncode == 3
        assert message in result.stderr
        assert tree(made) == files

    def test_a_switch_that_broke_off_is_finished_by_the_next(self, made: Path) -> None:
        """The key has changed, the order of the trusted certificates has not."""
        self.step(made, "begin")
        files = tree(made / "secrets/ca")
        (made / "secrets/ca/former.key").write_bytes(files["ca.key"])
        (made / "secrets/ca/ca.key").write_bytes(files["next.key"])
        assert run(made, "--ca", "finish").returncode == 3
        self.step(made, "switch")
        self.signer(made)
        self.step(made, "finish")

    def test_begin_can_be_undone(self, made: Path) -> None:
        before = tree(made)
        self.step(made, "begin")
        self.step(made, "abort")
        assert tree(made) == before

    def test_without_secrets_there_is_nothing_to_change(self, inventory: Path) -> None:
        result = run(inventory, "--ca", "begin")
        assert result.returncode == 3
        assert "make secrets first" in result.stderr
