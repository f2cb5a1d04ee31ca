"""Run a command on a terminal, as somebody who sits there and answers its questions in turn.

    at_terminal.py QUESTION DOING [QUESTION DOING]… -- COMMAND…

When QUESTION appears in the command's output, DOING is run by the shell and the last line that it
prints is typed, a second later, and again after five where nothing but its echo came: Ansible drops
what was typed before its terminal was ready, which is after it has shown the question. The
command's output is this one's, and so is its exit status; 99 if it ended without one of the
questions.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading

ECHO = 40  # bytes; what a run says next is longer than the answer that the terminal shows


def main() -> int:
    """Run as a program."""
    at = sys.argv.index("--")
    words, command = sys.argv[1:at], sys.argv[at + 1 :]
    open_questions = list(zip(words[::2], words[1::2], strict=True))
    seen = b""
    ended = threading.Event()

    def type_it(terminal: int, answer: bytes) -> None:
        left, over = len(open_questions), ended.wait(1)
        while not over and len(open_questions) == left:
            before = len(seen)
            os.write(terminal, answer)
            over = ended.wait(5) or len(seen) - before >= ECHO

    def read(terminal: int) -> bytes:
        nonlocal seen
        data = os.read(terminal, 65_536)
        seen += data
        # Its lines are as long as the terminal is wide.
        if open_questions and open_questions[0][0].encode() in b" ".join(seen.split()):
            _, doing = open_questions.pop(0)
            seen = b""
            answer = subprocess.run(["/bin/sh", "-euc", doing], check=True, capture_output=True)
            typed = answer.stdout.splitlines()[-1] + b"\r"
            threading.Thread(target=type_it, args=(terminal, typed), daemon=True).start()
        return data

    code = os.waitstatus_to_exitcode(pty.spawn(command, read))
    ended.set()
    return 99 if open_questions else code


if __name__ == "__main__":
    sys.exit(main())
