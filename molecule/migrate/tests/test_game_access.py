"""playbooks/game_access.yml: what it refuses, and what the bot's key opens for it."""

import json
import re
import shlex

import pytest
from scenario import machine, play

BOT, GAME = machine("bot-vps"), machine("game-server")
ADDRESS = "172.30.5.40"
ANOTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJD3KTau/C5C6TTmlieUk+0UrjaNaeixX/kHPJ7FXGhF"
OPTIONS = (
    "-i /var/lib/etlegacy-bot/keys/id_ed25519 -o BatchMode=yes -o StrictHostKeyChecking=yes"
    " -o UserKnownHostsFile=/etc/etlegacy-bot/game_known_hosts -o ConnectTimeout=20"
)


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    """Run the playbook with settings of the game server's host in an inventory."""
    laid_over = tmp_path_factory.mktemp("inventory") / "hosts.yml"

    def run(*options, **settings):
        game = {"hosts": {"game-server": settings}}
        laid_over.write_text(json.dumps({"all": {"children": {"game": game}}}))
        code, said = play("playbooks/game_access.yml", "-i", str(laid_over), *options)
        return code, " ".join(said.split())

    return run


def tried(command):
    """Run a command as the bot, with its way to the game server in it for {ssh} and {sftp}."""
    command = command.format(
        ssh=f"ssh -n -p 48101 {OPTIONS}", sftp=f"sftp -q -b - -P 48101 {OPTIONS}"
    )
    return BOT.run("runuser -u etlegacy-bot -- bash -o pipefail -c %s", command)


def fetched(user, *commands):
    """Give sftp some commands, as the bot; the first that fails ends it."""
    lines = shlex.quote("\n".join(commands))
    return tried(f"printf '%s\\n' {lines} | {{sftp}} {user}@{ADDRESS}")


def whole_state():
    """Return what a run could change on the game server."""
    return GAME.check_output(
        "cat /etc/passwd /etc/ssh/sshd_config.d/* /srv/*/.ssh/*; ls -lnd /srv /srv/* /home/*"
    )


# --- refused, with nothing changed ---


@pytest.fixture
def accounts():
    """Accounts that are not for the bot: a person's, and a service's, which is at work."""
    GAME.check_output("useradd --create-home --shell /bin/bash person")
    GAME.check_output("useradd --create-home --shell /usr/sbin/nologin gameserver")
    GAME.check_output("systemd-run --quiet --unit=gameserver --uid=gameserver sleep infinity")
    yield
    GAME.check_output("systemctl stop gameserver && userdel -r gameserver && userdel -r person")


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        (
            {"game_user": "newcomer", "game_host_key": ANOTHER_KEY},
            ["does not have the host key that the inventory pins (game_host_key)"],
        ),
        (
            {"game_user": "person"},
            ["has the shell /bin/bash", "Set game_user to a name of its own"],
        ),
        (
            {"game_user": "gameserver"},
            [
                "/home/gameserver belongs to gameserver, and sleep runs as it",
                "Set game_user to a name of its own",
            ],
        ),
    ],
    ids=["another host key", "an account to log in with", "the account of a service"],
)
def test_refused(access, settings, messages):
    before = whole_state()
    code, said = access(**settings)
    assert code != 0
    for message in [*messages, "Nothing was changed."]:
        assert message in said
    assert whole_state() == before


# --- a game server that Ansible does not manage ---


@pytest.fixture
def owners_account():
    """An account for files as its owner has made it: in its own home, without a chroot."""
    GAME.check_output("useradd --create-home --shell /usr/sbin/nologin owners")
    GAME.check_output("mkdir -p /stats && touch /stats/round.txt")
    yield
    GAME.check_output("userdel -r owners && rm -r /stats")


@pytest.mark.usefixtures("owners_account")
def test_unmanaged_is_left_alone_and_the_line_that_it_prints_is_enough(access):
    before = whole_state()
    code, said = access(game_managed=False, game_user="owners")
    assert code != 0
    assert "Its owner has to add this line to the file authorized_keys of owners there" in said
    assert "The bot may nothing on the game server; it should be reading alone." in said
    assert whole_state() == before

    line = re.search(r'restrict,command="internal-sftp -R" ssh-ed25519 \S+( \S+@\S+)?', said)[0]
    GAME.check_output("install -d -m 700 -o owners -g owners /home/owners/.ssh")
    GAME.check_output(
        "install -o owners -g owners /dev/null /home/owners/.ssh/authorized_keys"
        " && echo %s > /home/owners/.ssh/authorized_keys",
        line,
    )
    code, said = access(game_managed=False, game_user="owners")
    assert code == 0, said
    assert "reading works, writing refused, shell refused, forwarding refused" in said


# --- an account made from nothing, in which the files would be writable ---


@pytest.fixture(scope="module")
def newcomer(access):
    """Let the bot in by an account that was not there, as an operator does it; take it away."""
    code, said = access(game_user="newcomer")
    assert code != 0
    assert "There is no folder /srv/newcomer/stats on game-server" in said
    assert "bind,ro 0 0" in said

    GAME.check_output("install -d -o newcomer /srv/newcomer/stats")
    GAME.check_output("cd /srv/newcomer/stats && echo kills > round.txt && ln -s /etc out")
    GAME.check_output("chown -h newcomer /srv/newcomer/stats/*")
    code, said = access(game_user="newcomer")
    assert code == 0, said
    assert "reading works, writing refused, shell refused, forwarding refused" in said
    yield "newcomer"
    GAME.check_output("userdel newcomer && rm -r /srv/newcomer")
    GAME.check_output("rm /etc/ssh/sshd_config.d/50-stats-files-newcomer.conf")
    GAME.check_output("systemctl reload ssh")


def test_the_bot_fetches_what_is_there(newcomer):
    fetch = fetched(newcomer, "get /stats/round.txt /tmp/fetched.txt")
    assert fetch.rc == 0, fetch.stderr
    assert BOT.check_output("cat /tmp/fetched.txt && rm /tmp/fetched.txt") == "kills"


@pytest.mark.parametrize(
    "command",
    [
        "put /etc/hostname /stats/new.txt",
        "put /etc/hostname /stats/round.txt",
        "rename /stats/round.txt /stats/old.txt",
        "rm /stats/round.txt",
        "mkdir /stats/new",
        "chmod 600 /stats/round.txt",
        "symlink /stats/round.txt /stats/link",
    ],
)
def test_the_bot_changes_no_file(newcomer, command):
    before = GAME.check_output("ls -lnR /srv/newcomer")
    done = fetched(newcomer, "ls /stats", command)
    assert done.rc != 0
    assert "/stats/round.txt" in done.stdout, "it did get in"
    assert "Permission denied" in done.stderr or "denied" in done.stderr, done.stderr
    assert GAME.check_output("ls -lnR /srv/newcomer") == before


@pytest.mark.parametrize("path", ["/etc/hostname", "/../../etc/hostname", "/stats/out/hostname"])
def test_the_bot_sees_nothing_but_that_home(newcomer, path):
    done = fetched(newcomer, "ls /", f"get {path} /tmp/fetched.txt")
    assert done.rc != 0
    assert "/stats" in done.stdout, "it did get in"
    assert "not found" in done.stderr


@pytest.mark.parametrize(
    "attempt",
    [
        "{ssh} %s id | grep uid=",
        "{ssh} -tt %s | grep --text .",
        "{ssh} -W 127.0.0.1:22 %s | grep --text SSH-",
        "{ssh} -o ExitOnForwardFailure=yes -R 7999:127.0.0.1:22 %s -s sftp",
        "echo put /etc/hostname /stats/new | {sftp} -s /usr/lib/openssh/sftp-server %s",
    ],
    ids=["command", "terminal", "tunnel out", "tunnel in", "another server"],
)
@pytest.mark.parametrize("user", ["etstats", "newcomer"])
@pytest.mark.usefixtures("newcomer")
def test_the_key_opens_nothing_else(user, attempt):
    assert fetched(user, "ls /stats").rc == 0
    assert tried(attempt % f"{user}@{ADDRESS}").rc != 0


def test_a_second_run_changes_nothing(access, newcomer):
    code, said = access(game_user=newcomer)
    assert code == 0
    assert re.search(r"game-server : ok=\d+ changed=0 ", said)


def test_the_way_in_is_taken_away_and_nobody_elses(access, newcomer):
    keys = "/srv/newcomer/.ssh/authorized_keys"
    GAME.check_output(f"echo %s >> {keys}", ANOTHER_KEY)
    code, said = access("-e", "game_access_state=absent", game_user=newcomer)
    assert code == 0, said
    assert "reading refused" in said
    assert fetched(newcomer, "ls /stats").rc != 0
    assert GAME.file(keys).content_string.strip() == ANOTHER_KEY
    assert fetched("etstats", "ls /stats").rc == 0, "another account's is untouched"


def test_a_state_that_there_is_not_is_refused(access):
    code, said = access("-e", "game_access_state=absnet")
    assert code != 0
    assert 'game_access_state is "absnet"; it has to be present or absent' in said
