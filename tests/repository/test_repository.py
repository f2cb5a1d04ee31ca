"""Promises that the repository makes about itself."""

import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COLLECTIONS = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]


@pytest.mark.parametrize("collection", COLLECTIONS, ids=lambda item: item["name"])
def test_galaxy_and_the_python_package_agree_on_the_version(collection):
    namespace, name = collection["name"].split(".")
    manifest = files("ansible_collections") / namespace / name / "MANIFEST.json"
    installed = yaml.safe_load(manifest.read_text())["collection_info"]["version"]
    assert collection["version"] == installed


def test_every_collection_in_use_is_named():
    named = {collection["name"] for collection in COLLECTIONS} | {"ansible.builtin"}
    used = set()
    for path in [
        *ROOT.glob("roles/*/*/*.yml"),
        *ROOT.glob("playbooks/**/*.yml"),
        *ROOT.glob("molecule/**/*.yml"),
    ]:
        used |= set(
            re.findall(
                r"^\s*(?:- )?((?:ansible|community)\.\w+)\.\w+:", path.read_text(), re.MULTILINE
            )
        )
    assert used <= named


@pytest.mark.parametrize(
    "target", ["help", "lint", "test-fast", "test", "demo", "demo-rollback", "demo-clean"]
)
def test_the_makefile_has_what_the_readme_names(target):
    help_text = subprocess.run(
        ["make", "-C", str(ROOT), "help"], check=True, capture_output=True, text=True
    ).stdout
    assert re.search(rf"^\s*make {target}\s", help_text, re.MULTILINE)


def test_every_make_target_in_the_documents_exists():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")]:
        named = set(re.findall(r"`make ([a-z][a-z-]*)", page.read_text()))
        assert named <= targets, page


def test_every_link_in_the_documents_leads_somewhere():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]
    for page in [*pages, *ROOT.glob("roles/*/README.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_requirements_are_pinned_by_hash():
    for path in [
        ROOT / "requirements.txt",
        ROOT / "ferry/requirements.txt",
        ROOT / "reference_bot/requirements.txt",
    ]:
        for requirement in re.findall(
            r"^[a-z0-9][^\n]*(?:\n    [^\n]*)*", path.read_text(), re.MULTILINE
        ):
            assert "--hash=sha256:" in requirement, requirement


def test_no_secret_is_tracked():
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], check=True, capture_output=True, text=True
    ).stdout
    assert not re.search(
        r"(^inventories/.*secrets/|vault\.yml$|ca\.key$|backup_identity)", tracked, re.MULTILINE
    )
