"""The typo guard that every role's validate.yml calls."""

import pytest
import yaml
from support import ansible

SPEC = {
    "argument_specs": {
        "main": {"options": {"web_port": {"type": "int"}, "web_name": {"type": "str"}}},
        "connect": {"options": {"web_user": {"type": "str"}}},
    }
}

PLAYBOOK = [
    {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [{"name": "Run it", "ansible.builtin.include_role": {"name": "web"}}],
    }
]

TASKS = [
    {
        "name": "No setting is misspelt",
        "ansible.builtin.assert": {
            "that": "found | length == 0",
            "fail_msg": "{{ found | join(' ') }}",
        },
        "vars": {
            "found": "{{ query('misspelt_settings', 'web', renamed={'web_host': 'web_name'}) }}"
        },
    }
]


@pytest.fixture
def run_role(tmp_path):
    """Run a small role with extra variables, return the exit code and all words it said."""
    role = tmp_path / "roles" / "web"
    for name, content in {
        "meta/argument_specs.yml": SPEC,
        "tasks/main.yml": TASKS,
        "../../play.yml": PLAYBOOK,
    }.items():
        (role / name).parent.mkdir(parents=True, exist_ok=True)
        (role / name).resolve().write_text(yaml.safe_dump(content), encoding="utf-8")

    def run(**settings):
        done = ansible.play(
            tmp_path / "play.yml",
            inventory="localhost,",
            environment={"ANSIBLE_ROLES_PATH": str(tmp_path / "roles")},
            **settings,
        )
        return done.returncode, ansible.words(done)

    return run


def test_real_settings_of_all_entry_points_pass(run_role):
    code, output = run_role(web_port=1, web_name="x", web_user="y", website="other", __web_x=1)
    assert code == 0, output


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("web_prot", "web_prot is not a setting of the role web; did you mean web_port?"),
        ("web_xyzzy_quux", "web_xyzzy_quux is not a setting of the role web; see roles/web/README"),
        ("web_host", "web_host is now called web_name: rename it in your inventory."),
    ],
)
def test_another_name_is_refused_with_advice(run_role, setting, message):
    code, output = run_role(**{setting: 1})
    assert code != 0
    assert message in output


def test_a_role_without_spec_is_an_error(run_role, tmp_path):
    (tmp_path / "roles" / "web" / "meta" / "argument_specs.yml").write_text("[]")
    code, output = run_role()
    assert code != 0
    assert "is not a readable argument spec" in output
