"""What a database server gives to be signed or trusted, against the tasks that sign and trust."""

import base64
import json
import subprocess
import sys

import yaml
from support import ansible

TASKS = ansible.ROOT / "roles/postgres_server/tasks"
NAMES = ["vps1.example", "database-vps"]
SAN = [f"DNS:{name}" for name in ("localhost", *NAMES)]
USUAL = {
    "subjectAltName": ",".join(SAN),
    "keyUsage": "critical,digitalSignature",
    "extendedKeyUsage": "serverAuth",
}
# With what a hostile server could become an authority, a client, or another server.
HOSTILE = {
    "authority": USUAL | {"basicConstraints": "critical,CA:TRUE"},
    "signs": USUAL | {"keyUsage": "critical,digitalSignature,keyCertSign"},
    "client": USUAL | {"extendedKeyUsage": "serverAuth,clientAuth"},
    "anything": {"subjectAltName": USUAL["subjectAltName"]},
    "others": USUAL | {"subjectAltName": f"{USUAL['subjectAltName']},DNS:vps2.example"},
    "unknown": USUAL | {"1.2.3.4": "ASN1:UTF8String:x"},
}
KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"k" * 32).decode()


def request(extensions, subject=f"/CN={NAMES[0]}"):
    """Make a request as the role does, with these extensions."""
    added = [part for pair in extensions.items() for part in ("-addext", "=".join(pair))]
    return subprocess.run(
        ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", "/dev/null", "-subj", subject, *added],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def tasks_of(file, *names):
    """Return the tasks of a file that begin with these words."""

    def every(tasks):
        for task in tasks:
            yield task
            yield from every(task.get("block", []))

    found = [
        task
        for task in every(yaml.safe_load((TASKS / file).read_text()))
        if task["name"].startswith(names)
    ]
    assert len(found) == len(names)
    return found


def play(tmp_path, hosts, tasks):
    """Run tasks on all of these hosts at once; return which came through, and all words."""
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (tmp_path / "hosts.json").write_text(
        json.dumps({"all": {"hosts": {name: here | more for name, more in hosts.items()}}})
    )
    plays = [{"hosts": "all", "gather_facts": False, "any_errors_fatal": False, "tasks": tasks}]
    (tmp_path / "play.json").write_text(json.dumps(plays))
    done = ansible.play(tmp_path / "play.json", inventory=tmp_path / "hosts.json")
    words = ansible.words(done)
    recap = words.split("PLAY RECAP")[1]
    return {name for name in hosts if "failed=0" in recap.split(f"{name} : ")[1][:90]}, words


def test_the_authority_signs_a_servers_certificate_and_nothing_else(tmp_path):
    asked = {"usual": request(USUAL), "subject": request(USUAL, "/CN=postgres/O=x")}
    asked |= {name: request(extensions) for name, extensions in HOSTILE.items()}
    hosts = {
        name: {
            "postgres_server_tls_names": NAMES,
            "__postgres_server_san": SAN,
            "__postgres_server_request": {"stdout": text},
        }
        for name, text in asked.items()
    }
    passed, words = play(tmp_path, hosts, tasks_of("certificate.yml", "The server asks for"))
    assert passed == {"usual"}, words
    assert "client asked for another certificate than a server's for DNS:localhost" in words
    names = [
        task["name"]
        for task in yaml.safe_load((TASKS / "certificate.yml").read_text())[-1]["block"]
    ]
    assert names.index("The server asks for its own names only") + 1 == names.index(
        "The authority signs"
    )


def test_a_server_adds_one_signer_for_its_own_database(tmp_path):
    texts = {
        "usual": f"{KEY} signs backups of stats on vps1",
        "two": f'{KEY} x\nother_database namespaces="postgres-backup" {KEY}',
        "none": "x",
    }
    path = "/etc/postgres-backup.d/signing_key"
    hosts = {
        name: {
            "postgres_server_database": "stats",
            "postgres_server_backup_signers": str(tmp_path / "signers"),
            "__postgres_server_signing_key": path,
            "__postgres_server_found": {"texts": {f"{path}.pub": text}},
        }
        for name, text in texts.items()
    }
    tasks = tasks_of("backup.yml", "Note its public half", "Check that it is one", "Trust what")
    passed, words = play(tmp_path, hosts, tasks)
    assert passed == {"usual"}, words
    assert "What two gives as its public SSH key is not one line with one key" in words
    assert (tmp_path / "signers").read_text() == (
        f'stats namespaces="postgres-backup" {KEY} signs backups of stats on vps1\n'
    )


def test_a_developers_known_hosts_has_one_key_of_one_host():
    text = (ansible.ROOT / "playbooks/dev_access/present.yml").read_text()
    line = next(line for line in text.splitlines() if "dev_host_key.content" in line)
    assert "| b64decode | public_key_of(inventory_hostname) }}\\n" in line
