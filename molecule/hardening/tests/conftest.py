"""The hosts, each reached as its owner would: over SSH, with the operator's key."""

import os
import subprocess
from pathlib import Path

import pytest
import testinfra

CACHE = Path(os.environ["ETL_CACHE"])
ADDRESSES = {"server": "172.30.1.10", "trixie": "172.30.1.12", "outsider": "172.30.1.11"}


class Machine:
    """A machine: its address, and testinfra's host for it as root."""

    def __init__(self, name, user, port):
        self.name = name
        self.address = ADDRESSES[name]
        self.port = port
        self.key = str(CACHE / "operator_key")
        known_hosts = CACHE / "known_hosts.hardening"
        self.host = testinfra.get_host(
            f"ssh://{user}@{self.address}:{port}",
            sudo=user != "root",
            ssh_identity_file=self.key,
            ssh_extra_args=f"-o UserKnownHostsFile={known_hosts}",
            controlpath="~/.ansible/cp-hardening/tests-%%C",
        )

    def inside(self, command):
        """Run a shell command as root past the network; it has to succeed. Return its output."""
        command = ["docker", "exec", f"hardening-{self.name}", "bash", "-c", command]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def say(self, command):
        """Run a command that has to succeed and return what it prints."""
        return self.host.check_output(command)


@pytest.fixture(scope="session")
def outsider():
    """A host that nobody trusts, with a key that opens nothing and one that opens all."""
    machine = Machine("outsider", "root", 22)
    machine.say("rm -f /root/wrong_key && ssh-keygen -q -t ed25519 -N '' -f /root/wrong_key")
    key = Path(machine.key).read_text()
    machine.say(f"umask 077; cat > /root/right_key <<'KEY'\n{key}KEY")
    return machine


@pytest.fixture(scope="session", params=["server", "trixie"])
def server(request):
    """A hardened host."""
    return Machine(request.param, "ops", 48022)


@pytest.fixture
def patient(server):
    """While this is used the host neither bans nor limits the outsider."""
    address = ADDRESSES["outsider"]
    rule = f"proto tcp from {address} to any port {server.port}"
    server.say(f"fail2ban-client set sshd addignoreip {address} && ufw prepend allow {rule}")
    yield
    server.say(f"ufw delete allow {rule} && fail2ban-client set sshd delignoreip {address}")


@pytest.fixture(scope="session")
def machines():
    """The hardened hosts by name."""
    return {name: Machine(name, "ops", 48022) for name in ("server", "trixie")}
