"""Run a command on a terminal, as somebody who sits there: answer its one question.

    operator.py QUESTION DOING COMMAND…

When QUESTION appears in the command's output, DOING is run by the shell and the last line that it
prints is typed. The command's output is this one's, and so is its exit status; 99 if it ended
without the question.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys


def main() -> int:
    """Run as a program."""
    question, doing, *command = sys.argv[1:]
    seen = b""
    typed = False

    def read(terminal: int) -> bytes:
        nonlocal seen, typed
        data = os.read(terminal, 65_536)
        seen += data
        # Its lines are as long as the terminal is wide.
        if not typed and question.encode() in b" ".join(seen.split()):
            typed = True
            answer = subprocess.run(["/bin/sh", "-euc", doing], check=True, capture_output=True)
            os.write(terminal, answer.stdout.splitlines()[-1] + b"\r")
        return data

    code = os.waitstatus_to_exitcode(pty.spawn(command, read))
    return code if typed else 99


if __name__ == "__main__":
    sys.exit(main())
