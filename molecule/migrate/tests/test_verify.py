"""verify.yml finds nothing wrong with the pair, and finds what was made wrong on purpose."""

import json

import pytest
from scenario import WORLD, machine, play

ENVIRONMENT = "/etc/etlegacy-bot/environment"
RULES = "/etc/postgresql/15/main/pg_hba.conf"
OPEN = "/etc/systemd/system/etlegacy-bot.service.d"
OPEN_RULE = "host etlegacy_stats etlegacy_app 172.30.5.20/32 scram-sha-256"


def verify(name, *options):
    """Run verify.yml; return its exit code, its output, the report and the page."""
    report = WORLD / name
    # Several machines share this one's processors: how quick a query is says nothing here.
    patient = "verify_query_milliseconds=10000"
    code, said = play("verify.yml", "-e", f"verify_report={report}", "-e", patient, *options)
    found = report.with_name(f"{name}.json")
    assert found.exists(), said
    page = report.with_name(f"{name}.html").read_text()
    return code, said, json.loads(found.read_text()), page


@pytest.fixture(scope="module")
def good():
    code, said = play("playbooks/backup.yml")
    assert code == 0, said
    return verify("good", "-e", "verify_crash=true")


@pytest.fixture(scope="module")
def bad(good):  # noqa: ARG001 - only after it
    bot, database = machine("bot-vps"), machine("database-vps")
    bot.check_output(f"chmod 0644 {ENVIRONMENT}")
    bot.check_output(f"mkdir -p {OPEN} && printf '[Service]\\nIPAddressDeny=\\n' >{OPEN}/open.conf")
    bot.check_output("systemctl daemon-reload")
    database.check_output("cp -p %s /var/tmp/rules", RULES)
    database.check_output("echo %s >> %s && systemctl reload postgresql", OPEN_RULE, RULES)
    yield verify("bad")
    bot.check_output(f"chmod 0640 {ENVIRONMENT}")
    bot.check_output(f"rm {OPEN}/open.conf && systemctl daemon-reload")
    database.check_output("cp -p /var/tmp/rules %s && rm /var/tmp/rules", RULES)
    database.check_output("systemctl reload postgresql")


def test_nothing_is_wrong_with_the_pair(good):
    code, said, report, _ = good
    assert [result for result in report["results"] if result["ok"] is False] == []
    assert code == 0, said


def test_only_what_needs_more_than_this_world_has_is_not_asked(good):
    report = good[2]
    skipped = {result["id"] for result in report["results"] if result["ok"] is None}
    assert skipped == {"replication", "alerts", "monitoring"}, "no webhook, no watch"


def test_the_bot_is_not_killed_unasked(bad):
    [crash] = [result for result in bad[2]["results"] if result["id"] == "bot-crash"]
    assert crash["ok"] is None


def test_it_asks_from_every_place(good):
    places = {result["place"] for result in good[2]["results"]}
    assert places == {"bot-vps", "control machine", "database-vps", "stranger"}


def test_it_finds_a_readable_environment_file_and_a_rule_without_tls(bad):
    code, said, report, page = bad
    failed = {result["id"]: result["said"] for result in report["results"] if result["ok"] is False}
    assert code != 0
    # The rule is found in the file, and from the bot's place.
    assert set(failed) == {"secrets", "pg-hba", "plain-refused", "bot-egress"}
    assert "not denied: 10.0.0.0/8, 169.254.0.0/16" in failed["bot-egress"]
    assert f"{ENVIRONMENT} is 0644 root:etlegacy-bot" in failed["secrets"]
    assert "host lets 172.30.5.20 in without TLS" in failed["pg-hba"]
    assert failed["pg-hba"] in page
    assert "FAILED" in said


def test_no_secret_is_in_what_it_writes(good):
    _, said, report, page = good
    for text in (said, json.dumps(report), page):
        assert "molecule-migrate-" not in text
        assert "token-of-the-fake-discord" not in text
