"""What the bot's key opens on the game server, tried from the bot's host."""

import pytest
import testinfra


@pytest.mark.parametrize(
    "attempt",
    [
        "echo put /etc/hostname /stats/x | sftp -q -b - -P 48101 {options} etstats@172.30.5.40",
        "ssh -n -p 48101 {options} etstats@172.30.5.40 id | grep uid=",
        "ssh -n -p 48101 {options} -W 127.0.0.1:22 etstats@172.30.5.40 | grep --text SSH-",
    ],
    ids=["writing", "shell", "forwarding"],
)
def test_the_game_server_lets_the_bot_do_nothing_but_read(attempt):
    options = (
        "-i /var/lib/etlegacy-bot/keys/id_ed25519 -o BatchMode=yes -o StrictHostKeyChecking=yes"
        " -o UserKnownHostsFile=/etc/etlegacy-bot/game_known_hosts -o ConnectTimeout=20"
    )
    bot = testinfra.get_host("docker://migrate-bot-vps")
    as_bot = "runuser -u etlegacy-bot -- bash -o pipefail -c %s"
    reading = f"echo ls /stats | sftp -q -b - -P 48101 {options} etstats@172.30.5.40"
    assert bot.run(as_bot, reading).rc == 0
    assert bot.run(as_bot, attempt.format(options=options)).rc != 0
