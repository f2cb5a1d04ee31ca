"""What root does on the hosts: see docs/threat-model.md, "Rules that hold everywhere"."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TASKS = [path for top in ("playbooks", "roles") for path in sorted((ROOT / top).rglob("*.yml"))]
PYTHON = re.compile(
    r"""(?:python3|host_python\ \}\}|ferry/current/venv/bin/python)["']?,?\s+["']?
        (?!-I\b)(?:-(?:c|m|\s|["'])|(?:\{\{.*?\}\}|[\w/"$.-])+\.py\b)""",
    re.VERBOSE,
)


def careless(text):
    """Return the places where a Python of a host is started without -I."""
    return [found.group() for found in PYTHON.finditer(re.sub(r"\n\s+- ", ", ", text))]


def test_python_starts_without_what_lies_about_on_a_host():
    """Else it takes a json.py from the working directory, which may be another user's."""
    found = {str(path.relative_to(ROOT)): careless(path.read_text()) for path in TASKS}
    assert {path: places for path, places in found.items() if places} == {}
    for text in ('argv: [python3, "-", x]', "python3 - unpack", "[python3, -c, x]",
                 "- python3\n      - -c\n", 'python3, "{{ x }}/freeze.py"', "python3 snapshot.py a",
                 'argv: ["{{ __bot_server_host_python }}", "-", x]'):  # fmt: skip
        assert careless(text), text
    for text in ('argv: [python3, -I, "-", x]', "python3 -I - unpack", "- python3\n      - -I\n"):
        assert not careless(text), text


def test_no_temporary_path_is_predictable():
    """What anybody can make before us is not used."""
    fixed = re.compile(r"(?<![\w-])/(?:var/)?tmp/[\w{]")
    assert [path for path in TASKS if fixed.search(path.read_text())] == []


def test_what_travels_lies_in_directories_of_root():
    text = (ROOT / "group_vars/all/migration.yml").read_text()
    for name in ("migration_legacy_directory", "parcel_directory"):
        (value,) = re.findall(rf"^{name}: (.*)$", text, re.MULTILINE)
        assert "{{ '/var/lib/etl-" in value
        assert "else migration_artifacts ~" in value
