"""Let everybody see the data that waits in the staging schema, and begin to compare it once more.

    publish.py WISH      as root on the bot server, with the system's Python

WISH is JSON: ``schema`` (staging), ``state_file`` and ``state`` (what the record of the migration
is from now on; on the disk before the new bot may be started), ``unit``, ``user`` and ``command``
(the comparison and its transient unit), ``python`` (of ferry's venv) and ``program``
(publish_database.py, which does as that user what needs the database).

Root speaks to systemd alone: it neither runs what is in a venv nor writes in ferry's folder. The
comparison starts when the tables are visible, and this returns as soon as its transaction has begun
to read: it sees the database as it is at that moment, whatever is written later. There it is
stopped, so that the new bot starts with nothing beside it; SIGCONT lets it go on, and after
``REST`` seconds a timer does. Standard library only.
"""

import json
import os
import subprocess
import sys
from typing import Any

REST = 90  # seconds


def compare(wish: dict[str, Any]) -> None:
    """Start the comparison as a unit that outlives this connection."""
    for verb in ("stop", "reset-failed"):  # of an earlier run
        subprocess.run(["systemctl", verb, wish["unit"]], check=False, capture_output=True)
    names = [name for name in os.environ if name.startswith("PG")]
    subprocess.run(
        [
            "systemd-run",
            "--quiet",
            f"--unit={wish['unit']}",
            f"--uid={wish['user']}",
            "--nice=19",  # the bot comes first
            *(f"--setenv={name}={os.environ[name]}" for name in names),
            *wish["command"],
        ],
        check=True,
    )


def rest(unit: str) -> None:
    """Stop the comparison for a while; by itself it goes on if nobody is left to tell it."""
    go_on = ["systemctl", "kill", "--signal=CONT", unit]
    subprocess.run(
        ["systemd-run", "--quiet", "--collect", f"--on-active={REST}", *go_on], check=True
    )
    # It may be at its end already.
    subprocess.run(["systemctl", "kill", "--signal=STOP", unit], check=False, capture_output=True)


def main() -> None:
    """Publish, record, compare."""
    wish = json.loads(sys.argv[1])
    program = wish.pop("program")
    command = ["runuser", "-u", wish["user"], "--", wish["python"], "-I", "-c", program]
    with subprocess.Popen(
        [*command, json.dumps(wish)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as database:
        if database.stdout.readline() == "published\n":
            compare(wish)
            database.communicate("compared\n")
    if database.returncode:
        raise SystemExit(database.returncode)
    rest(wish["unit"])


if __name__ == "__main__":
    main()
