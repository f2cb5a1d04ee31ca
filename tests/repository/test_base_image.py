"""The base image: what build.sh builds anew and what it keeps; archive and tools are played."""

import json
import os
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "demo/base_image/build.sh"

# Keeps one image: its labels and when it was made.
DOCKER = """#!/usr/bin/env python3
import json, os, re, sys
from datetime import datetime, timezone
from pathlib import Path
image = Path(os.environ["IMAGE"])
if sys.argv[1] == "import":
    changes = " ".join(sys.argv)
    labels = dict(re.findall(r"(etl\\\\.\\\\w+)=(\\\\S+)", changes))
    made = datetime.now(timezone.utc).isoformat()
    image.write_text(json.dumps({"made": made, "labels": labels}))
elif sys.argv[1:3] == ["image", "inspect"]:
    if not image.exists():
        sys.exit(1)
    found, template = json.loads(image.read_text()), sys.argv[4]
    name = re.search('Labels "(.*)"', template)
    print(found["labels"].get(name[1], "") if name else found["made"])
""".replace("\\\\", "\\")

# A root directory with the release that the archive has at that moment.
MMDEBSTRAP = """#!/usr/bin/env bash
set -e
echo built >> "$BUILDS"
[ ! -e "$BUILDS.fail" ] || { echo "E: the mirror is gone" >&2; exit 1; }
lists=$(mktemp -d)
mkdir -p "$lists/var/lib/apt/lists"
cp "$BUILDS.InRelease" "$lists/var/lib/apt/lists/h_dists_bookworm-security_InRelease"
tar -C "$lists" -cf "${@: -1}" ./var
rm -r "$lists"
"""


class Archive:
    """A security archive whose release has a date, and that may be slow."""

    def __init__(self, directory):
        self.file = directory / "builds.InRelease"
        self.delay = threading.Event()
        archive = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):  # the name that http.server asks for
                if archive.slow:
                    archive.delay.wait(20)
                content = archive.file.read_bytes()
                self.send_response(200 if "/bookworm-security/InRelease" in self.path else 404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.slow = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.address = f"http://127.0.0.1:{self.server.server_port}/debian-security"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.release(datetime.now(UTC) - timedelta(days=3))

    def release(self, when):
        """Publish a release of this date."""
        stamp = format_datetime(when).replace("+0000", "UTC")
        self.file.write_text(f"Hash: SHA256\n\nOrigin: Debian\nDate: {stamp}\nSHA256:\n")

    def close(self):
        """Answer no more."""
        self.delay.set()
        self.server.shutdown()
        self.server.server_close()


class Workshop:
    """Runs build.sh with the played tools and counts what was built."""

    def __init__(self, directory, archive):
        self.image, self.builds = directory / "image.json", directory / "builds"
        self.fail = directory / "builds.fail"
        tools = directory / "tools"
        tools.mkdir()
        for name, text in (("docker", DOCKER), ("mmdebstrap", MMDEBSTRAP)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "PATH": f"{tools}:{os.environ['PATH']}",
            "IMAGE": str(self.image),
            "BUILDS": str(self.builds),
            "ETL_SECURITY_ARCHIVE": archive.address,
            "ETL_ARCHIVE_PATIENCE": "2",
        }

    def run(self):
        """Return what build.sh says and how many images were built for it."""
        before = self.built()
        command = [str(BUILD), "bookworm"]
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, self.built() - before

    def built(self):
        return len(self.builds.read_text().splitlines()) if self.builds.exists() else 0

    def age(self, **ago):
        """Let the image be as old as this."""
        made = json.loads(self.image.read_text())
        made["made"] = (datetime.now(UTC) - timedelta(**ago)).isoformat()
        self.image.write_text(json.dumps(made))


@pytest.fixture
def archive(tmp_path):
    archive = Archive(tmp_path)
    yield archive
    archive.close()


@pytest.fixture
def workshop(tmp_path, archive):
    workshop = Workshop(tmp_path, archive)
    said, built = workshop.run()
    assert built == 1, said
    return workshop


def test_an_image_of_today_is_kept_in_silence(workshop):
    workshop.age(hours=23)
    assert workshop.run() == ("base image etl-base:bookworm: ready\n", 0)


def test_an_image_older_than_a_day_is_built_anew(workshop):
    workshop.age(hours=25)
    assert workshop.run()[1] == 1
    assert workshop.run()[1] == 0


def test_a_newer_release_of_the_security_archive_leads_to_a_new_image(workshop, archive):
    archive.release(datetime.now(UTC))
    assert workshop.run()[1] == 1
    assert workshop.run()[1] == 0


def test_a_mirror_that_lags_behind_is_no_reason(workshop, archive):
    archive.release(datetime.now(UTC) - timedelta(days=9))
    assert workshop.run()[1] == 0


@pytest.mark.parametrize("fault", ["unreachable", "slow"])
def test_without_the_archive_the_image_is_kept_and_told(workshop, archive, fault):
    workshop.age(days=8)
    if fault == "slow":
        archive.slow = True
    else:
        archive.close()
    started = time.monotonic()
    said, built = workshop.run()
    assert built == 0
    assert "kept as of" in said
    assert f"{archive.address} does not answer within 2 s" in said
    assert time.monotonic() - started < 10


def test_an_image_that_cannot_be_built_anew_is_kept_and_told(workshop):
    workshop.age(days=8)
    workshop.fail.touch()
    said, built = workshop.run()
    assert built == 1
    assert "kept as of" in said
    assert "could not be built" in said
