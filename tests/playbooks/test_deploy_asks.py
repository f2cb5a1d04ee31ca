"""deploy.yml asks before it brings statements that PostgreSQL refuses and that are new."""

import json
import shlex
import sys

import pytest
import yaml
from support import ansible

TASK = yaml.safe_load((ansible.ROOT / "playbooks/deploy/audit_sql.yml").read_text())[-1]
OLD = {"file": "bot/old.py", "line": 3, "message": "no table old", "new": False}
NEW = {"file": "bot/new.py", "line": 7, "message": "no table new", "new": True}


@pytest.fixture
def judge(tmp_path):
    """Run the task that judges, on these refused statements; return the exit code, the words."""

    def judge(*refused, **settings):
        audit = {"rc": 0, "stdout": json.dumps({"tried": [], "refused": refused})}
        tasks = [{"set_fact": {"__deploy_audit": audit}}, TASK]
        (tmp_path / "play.yml").write_text(
            json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}])
        )
        host = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {"bot": host}}}))
        done = ansible.play(
            tmp_path / "play.yml",
            f"--extra-vars=@{ansible.ROOT}/group_vars/all/deploy.yml",
            f"--extra-vars={json.dumps(settings)}",
            inventory=tmp_path / "hosts.json",
            repository_directory=str(ansible.ROOT),
        )
        return done.returncode, ansible.words(done)

    return judge


def test_new_statements_that_fail_are_asked_about_with_what_accepts_them(judge):
    code, said = judge(OLD, NEW, deploy_accept=["other"])
    assert code == 2
    said = said.split("PLAY RECAP")[1]
    assert "PostgreSQL would refuse 2 statements of this release, 1 of them new." in said
    assert said.index("bot/new.py, line 7: no table new") < said.index("bot/old.py, line 3")
    option = shlex.split(said[said.index("-e '") :])[1]
    accepted = json.loads(option)
    assert accepted == {"deploy_accept": ["other", "bot-sql"]}
    code, said = judge(OLD, NEW, **accepted)
    assert code == 0
    assert "(a warning" in said
    assert "bot/new.py, line 7: no table new" in said


def test_what_the_running_release_fails_with_is_a_warning(judge):
    code, said = judge(OLD)
    assert code == 0
    assert "PostgreSQL would refuse 1 statement of this release (a warning" in said
    assert judge()[0] == 0


def test_nothing_may_fail_where_that_is_wanted(judge):
    code, said = judge(OLD, deploy_audit_must_pass=True, deploy_accept=["bot-sql"])
    assert code == 2
    assert "PostgreSQL would refuse 1 statement of this release. bot/old.py, line 3" in said
    assert "deploy_accept" not in said.split("PLAY RECAP")[1]
