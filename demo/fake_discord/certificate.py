"""A certificate for Discord's names, signed by an authority that the bot's host trusts."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# What discord.py and most other libraries talk to. All of them go into the hosts file.
NAMES = ("discord.com", "gateway.discord.gg", "cdn.discordapp.com", "discordapp.com")
DAYS = 90


def make(
    directory: Path, authority: tuple[Path, Path] | None, addresses: Sequence[str] = ()
) -> None:
    """Write server.crt, server.key and ca.crt into a directory.

    Args:
        directory: made if need be.
        authority: certificate and key (PEM, no passphrase) of the CA that signs; None makes a CA
            for this one certificate, whose key is forgotten at once.
        addresses: IP addresses by which it is reached too.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: a file is no PEM, or an address none.

    """
    directory.mkdir(parents=True, exist_ok=True)
    if authority is None:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        name = _name("Discord without Discord")
        ca = (
            _builder(name, name, ca_key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(ca_key, hashes.SHA256())
        )
    else:
        ca = x509.load_pem_x509_certificate(authority[0].read_bytes())
        ca_key = serialization.load_pem_private_key(authority[1].read_bytes(), password=None)
    key = ec.generate_private_key(ec.SECP256R1())
    names = [
        *map(x509.DNSName, NAMES),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
    ]
    certificate = (
        _builder(_name(NAMES[0]), ca.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "ca.crt").write_bytes(ca.public_bytes(pem))
    (directory / "server.crt").write_bytes(certificate.public_bytes(pem))
    key_file = directory / "server.key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    moment = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - datetime.timedelta(days=1))
        .not_valid_after(moment + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
