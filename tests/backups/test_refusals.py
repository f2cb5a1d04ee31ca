"""Bad input about backups stops the roles before they touch the host, with one message."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import ansible

SOURCE = {
    "name": "stats",
    "key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJD3KTau/C5C6TTmlieUk+0UrjaNaeixX/kHPJ7FXGhF me",
    "signer": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJD3KTau/C5C6TTmlieUk+0UrjaNaeixX/kHPJ7FXGhF s",
    "addresses": ["192.0.2.1"],
}
FEDORA = {
    "distribution": "Fedora",
    "distribution_version": "44",
    "distribution_major_version": "44",
}
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: { name: ROLE }
"""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backup_keeper_sources": None}, "backup_keeper_sources"),
        ({"backup_keeper_user_name": "x"}, "did you mean backup_keeper_user?"),
        ({"backup_keeper_user": "root"}, "is a user of its own"),
        (
            {"backup_keeper_sources": [{**SOURCE, "name": "../stats"}]},
            'consist of letters, digits, ".", "-" and "_"',
        ),
        ({"backup_keeper_sources": [SOURCE, SOURCE]}, "The names in backup_keeper_sources"),
        (
            {"backup_keeper_sources": [{**SOURCE, "key": f"no-pty {SOURCE['key']}"}]},
            "with no options before it",
        ),
        (
            {"backup_keeper_sources": [{**SOURCE, "key": "-----BEGIN OPENSSH PRIVATE KEY-----"}]},
            "the key must be one public key",
        ),
        (
            {"backup_keeper_sources": [{**SOURCE, "signer": "ssh-ed25519 AAAA you"}]},
            "and so must signer be",
        ),
        ({"backup_keeper_sources": [{**SOURCE, "addresses": []}]}, "there must be addresses"),
        (
            {"backup_keeper_sources": [{**SOURCE, "addresses": ["0.0.0.0/0"]}]},
            "IP addresses or networks of /8 or smaller",
        ),
        ({"backup_keeper_max_age_hours": 0}, "backup_keeper_max_age_hours is more than 0"),
        (
            {
                "backup_keeper_keep_days": 0,
                "backup_keeper_keep_weeks": 0,
                "backup_keeper_keep_months": 0,
            },
            "and not all 0",
        ),
        ({"ansible_facts": FEDORA}, "is Fedora 44; backup_keeper supports Debian 12, Debian 13"),
    ],
)
def test_backup_keeper_refuses(tmp_path: Path, settings: dict, message: str) -> None:
    refused(tmp_path, "backup_keeper", {"backup_keeper_sources": [SOURCE]} | settings, message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"postgres_server_backup_max_age_hours": 0}, "max_age_hours is more than 0"),
        ({"postgres_server_backup_shrink_percent": 150}, "shrink_percent is 0 to 100"),
        ({"postgres_server_backup_rclone_remote": "bucket"}, "it must be remote:path"),
        (
            {
                "postgres_server_backup_rclone_remote": "b2:bucket",
                "postgres_server_backup_rclone_config": "[s3]\ntype = s3\n",
            },
            "must have the section [remote]",
        ),
        (
            {"postgres_server_archive_enabled": True},
            "postgres_server_archive_password is empty, shorter than 16 characters",
        ),
        (
            {
                "postgres_server_archive_enabled": True,
                "postgres_server_archive_password": "change-me-please-now",
            },
            "or a placeholder",
        ),
    ],
)
def test_postgres_server_refuses(tmp_path: Path, settings: dict, message: str) -> None:
    for name in ("ca.key", "ca.crt"):
        (tmp_path / name).touch()
    password = "aQ7xK2mZ9rT4wP6v"
    good = {
        "postgres_server_database": "stats",
        "postgres_server_owner_role": "stats_owner",
        "postgres_server_app_role": "stats_app",
        "postgres_server_app_password": f"{password}a",
        "postgres_server_readonly_role": "stats_readonly",
        "postgres_server_readonly_password": f"{password}b",
        "postgres_server_migrator_role": "stats_migrator",
        "postgres_server_migrator_password": f"{password}c",
        "postgres_server_ca_directory": str(tmp_path),
        "postgres_server_tls_names": ["192.0.2.1"],
        "postgres_server_backup_signers": str(tmp_path / "backup_signers"),
        "postgres_server_backup_recipients": [
            "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
        ],
    }
    refused(tmp_path, "postgres_server", good | settings, message)


def refused(tmp_path: Path, role: str, settings: dict, message: str) -> None:
    play = tmp_path / "play.yml"
    play.write_text(PLAY.replace("ROLE", role))
    done = ansible.play(play, inventory="localhost,", **settings)
    assert done.returncode != 0
    assert message in ansible.words(done)
    assert "changed=0" in done.stdout
