#!/usr/bin/env python3
"""Make the secrets of an inventory, once.

    python scripts/make_secrets.py inventories/production

writes below that inventory

    secrets/vault_password           opens vault.yml (scripts/vault_password.sh hands it to Ansible)
    secrets/ca/ca.key, ca/ca.crt     the authority that signs the database server's certificate
    secrets/backup_identity.txt      opens the backups (age, X25519)
    secrets/backup_recipient.txt     its public half, the only one that a server gets
    group_vars/all/vault.yml         generated passwords, encrypted with ansible-vault

The names in vault.yml are those of group_vars/all/vault.yml.example in this repository. Nothing is
ever overwritten: if any of it exists, nothing is written and the message says what to do. Exit
codes: 0 made, 2 usage, 3 refused or failed with nothing written.

Another authority in place of the present one, without a moment in which somebody trusts neither
(docs/certificates.md tells what to run in between):

    python scripts/make_secrets.py --ca begin inventories/production     make it; both are trusted
    python scripts/make_secrets.py --ca switch inventories/production    it signs; both are trusted
    python scripts/make_secrets.py --ca finish inventories/production    it alone is trusted
    python scripts/make_secrets.py --ca abort inventories/production     undoes begin, before switch

Each step may be repeated, and refuses to be taken out of turn. The former key is kept as
ca/former.key until the end.

KEEP A COPY of secrets/ away from this machine: without backup_identity.txt no backup opens again.
Undo: remove secrets/ and group_vars/all/vault.yml of the inventory.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import secrets
import shutil
import string
import sys
import tempfile
from pathlib import Path

import pyrage
from ansible.parsing.vault import VaultLib, VaultSecret
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

EXAMPLE = Path(__file__).parent.parent / "group_vars/all/vault.yml.example"
CA_DAYS = 3653  # ten years
PASSWORD_LENGTH = 32  # letters and digits: 190 bits, and safe in URLs and shell words
GENERATED = re.compile(r"^(vault_\w+): GENERATED$", re.MULTILINE)


class RefusedError(Exception):
    """Nothing was written; the message says why and what to do."""


def make_password(length: int = PASSWORD_LENGTH) -> str:
    """Return a random password of letters and digits."""
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(length))


def make_ca(name: str) -> tuple[bytes, bytes]:
    """Return key and self-signed certificate (PEM) of a new authority called ``name``.

    The key is EC P-384. The authority may sign servers and clients but no further authority.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # a server's clock may be behind
        .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                key_cert_sign=True,
                crl_sign=True,
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key_pem, certificate.public_bytes(serialization.Encoding.PEM)


def fill_in(example: str) -> str:
    """Return the example with a fresh password in place of every GENERATED.

    Raises:
        RefusedError: the example names nothing to generate.

    """
    filled, count = GENERATED.subn(lambda name: f'{name[1]}: "{make_password()}"', example)
    if not count:
        raise RefusedError(f"{EXAMPLE} has no line 'vault_…: GENERATED'; restore it from git.")
    return filled


def encrypt(text: str, vault_password: str) -> bytes:
    """Return ``text`` as an ansible-vault file."""
    vault = VaultLib(secrets=[("default", VaultSecret(vault_password.encode()))])
    return vault.encrypt(text)


def write(path: Path, content: str | bytes) -> None:
    """Create ``path`` with mode 0600 and its directories with 0700."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def refuse_what_exists(inventory: Path, targets: list[Path]) -> None:
    """Raise RefusedError unless ``inventory`` is a directory in which no target exists yet."""
    if not inventory.is_dir():
        raise RefusedError(
            f"{inventory} is no directory. First copy the example: "
            f"cp -r inventories/example {inventory}"
        )
    existing = [str(target) for target in targets if os.path.lexists(target)]
    if existing:
        raise RefusedError(
            f"exists already: {', '.join(existing)}. Nothing was changed. "
            "Servers and backups that were made with these secrets need them. To change a password "
            "use `ansible-vault edit`; to begin anew, move all of it away first."
        )


def make_secrets(inventory: Path) -> list[Path]:
    """Write all secrets of ``inventory`` or none, and return the two paths that were made.

    Raises:
        RefusedError: something exists already or cannot be written.

    """
    final_secrets = inventory / "secrets"
    final_vault = inventory / "group_vars/all/vault.yml"
    refuse_what_exists(inventory, [final_secrets, final_vault])

    vault_password = make_password()
    ca_key, ca_certificate = make_ca(f"{inventory.resolve().name} database CA")
    identity = pyrage.x25519.Identity.generate()
    recipient = identity.to_public()
    vault = encrypt(fill_in(EXAMPLE.read_text()), vault_password)

    # Everything is made beside its place and moved there at the end, so that a full disk or a
    # Ctrl-C leaves nothing half made.
    staging = Path(tempfile.mkdtemp(prefix=".secrets-", dir=inventory))
    try:
        made = staging / "secrets"
        write(made / "vault_password", f"{vault_password}\n")
        write(made / "ca/ca.key", ca_key)
        write(made / "ca/ca.crt", ca_certificate)
        write(
            made / "backup_identity.txt",
            f"# opens the backups; keep a copy elsewhere\n# public key: {recipient}\n{identity}\n",
        )
        write(made / "backup_recipient.txt", f"{recipient}\n")
        write(staging / "vault.yml", vault)

        final_vault.parent.mkdir(parents=True, exist_ok=True)
        made.rename(final_secrets)
        try:
            os.link(staging / "vault.yml", final_vault)  # unlike a rename, never replaces a file
        except BaseException:
            shutil.rmtree(final_secrets)
            raise
    finally:
        shutil.rmtree(staging)
    return [final_secrets, final_vault]


def replace(path: Path, content: bytes) -> None:
    """Put ``content`` in the place of ``path`` at once, mode 0600."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    write(beside, content)
    beside.replace(path)


class Authority:
    """The authority in ``secrets/ca`` of an inventory, and the one that takes its place.

    ca.crt holds the certificates that are trusted; the first of them is that of ca.key, which
    signs. next.key and next.crt exist from begin to finish.
    """

    def __init__(self, inventory: Path) -> None:
        self.directory = inventory / "secrets/ca"
        self.key = self.directory / "ca.key"
        self.trusted = self.directory / "ca.crt"
        self.former_key = self.directory / "former.key"
        self.next_key = self.directory / "next.key"
        self.next_certificate = self.directory / "next.crt"
        self.name = f"{inventory.resolve().name} database CA"
        if not (self.key.is_file() and self.trusted.is_file()):
            raise RefusedError(f"there is no authority in {self.directory} yet; make secrets first")

    def certificates(self) -> list[bytes]:
        """Return the trusted certificates (PEM) in their order."""
        return [
            certificate.public_bytes(serialization.Encoding.PEM)
            for certificate in x509.load_pem_x509_certificates(self.trusted.read_bytes())
        ]

    def is_signed_by(self, key: Path) -> bool:
        """Return whether ``key`` is the private half of the first trusted certificate."""
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        first = x509.load_pem_x509_certificate(self.certificates()[0])
        return private.public_key() == first.public_key()

    def begin(self) -> str:
        """Make the next authority and trust both."""
        if self.former_key.exists():
            raise RefusedError("the next authority signs already; take the step finish")
        if not self.next_certificate.exists():
            self.next_key.unlink(missing_ok=True)
            key, certificate = make_ca(f"{self.name} {datetime.date.today():%Y-%m-%d}")
            write(self.next_key, key)
            write(self.next_certificate, certificate)
        present = self.certificates()[0]
        replace(self.trusted, present + self.next_certificate.read_bytes())
        return (
            "Both authorities are trusted. Run site.yml, so that every client knows; then switch."
        )

    def switch(self) -> str:
        """Let the next authority sign; both stay trusted."""
        if not self.next_certificate.exists():
            raise RefusedError("there is no next authority; take the step begin first")
        following = self.next_certificate.read_bytes()
        certificates = self.certificates()
        if following not in certificates:
            raise RefusedError("the next authority is not trusted yet; take the step begin again")
        if not self.former_key.exists():
            write(self.former_key, self.key.read_bytes())
        replace(self.key, self.next_key.read_bytes())
        former = next(certificate for certificate in certificates if certificate != following)
        replace(self.trusted, following + former)
        return "The next authority signs. Run site.yml for new server certificates; then finish."

    def finish(self) -> str:
        """Trust the next authority alone and forget the former one."""
        if not self.former_key.exists() or not self.is_signed_by(self.key):
            raise RefusedError("the next authority does not sign yet; take the step switch first")
        replace(self.trusted, self.certificates()[0])
        for path in (self.next_key, self.next_certificate, self.former_key):
            path.unlink(missing_ok=True)
        return (
            "The former authority is trusted no longer. Run site.yml; keep a new copy of secrets/."
        )

    def abort(self) -> str:
        """Forget the next authority before it has signed anything."""
        if self.former_key.exists():
            raise RefusedError(
                "the next authority signs already; finish, and begin anew if need be"
            )
        replace(self.trusted, self.certificates()[0])
        for path in (self.next_key, self.next_certificate):
            path.unlink(missing_ok=True)
        return "All is as it was. Run site.yml if you have run it since begin."


def main() -> int:
    """Run from the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        description="Make vault password, database CA, backup identity and passwords "
        "of an inventory. Overwrites nothing."
    )
    parser.add_argument("inventory", type=Path, help="directory, e.g. inventories/production")
    steps = ["begin", "switch", "finish", "abort"]
    parser.add_argument("--ca", choices=steps, help="a step of the change to another authority")
    arguments = parser.parse_args()
    try:
        if arguments.ca:
            print(getattr(Authority(arguments.inventory), arguments.ca)())
            return 0
        made = make_secrets(arguments.inventory)
    except (RefusedError, OSError, ValueError) as error:
        print(f"make_secrets: {error}", file=sys.stderr)
        return 3
    print(f"made {made[0]}/ and {made[1]}")
    print(f"Keep a copy of {made[0]}/ on another machine: without it no backup can be opened.")
    print(
        "Add what only you know (Discord token, …): ansible-vault edit "
        f"--vault-password-file {made[0]}/vault_password {made[1]}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
