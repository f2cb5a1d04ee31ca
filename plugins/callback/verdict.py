# Part of the repository's own tooling; used as stdout_callback in ansible.cfg.
"""Ansible's default output, with the verdict of the run as the last thing on the screen."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.utils.fqcn import add_internal_fqcns

if TYPE_CHECKING:
    from ansible.executor.stats import AggregateStats
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.playbook.play import Play
    from ansible.playbook.task import Task

DOCUMENTATION = """
name: verdict
type: stdout
short_description: default output that ends with the verdict of the run
description:
  - The output of ansible.builtin.default. After the recap comes what the run has to say, in its own
    words - the custom statistic C(verdict) (ansible.builtin.set_stats) where all went well, the
    message of the task that ended the run where it did not.
  - The banner of a play that was imported with a condition is printed when the play does something.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

# What a module of a host returns may hold "ansible_stats" too, so only this action is listened to.
_SAY_THE_VERDICT = add_internal_fqcns(("set_stats",))
# Their messages are written for the operator.
_SPEAK_FOR_THEMSELVES = add_internal_fqcns(("fail", "assert"))
# What "command" says where a program failed; the program itself says more.
_SAYS_NOTHING = {"", "non-zero return code", "One or more items failed", "All items completed"}


def _lines(message: object) -> list[str]:
    """Return a message as lines; some are lists."""
    if isinstance(message, str):
        return message.strip().splitlines()
    if isinstance(message, list | tuple):
        return [line for part in message for line in _lines(part)]
    return [str(message)]


def reason(result: dict[str, Any]) -> list[str]:
    """Return what a failed task says of itself, in lines; nothing if it says nothing."""
    message = result.get("msg", "")
    if isinstance(message, list) or str(message).strip() not in _SAYS_NOTHING:
        return _lines(message)
    for item in result.get("results", []):
        if item.get("failed"):
            return reason(item)
    program = str(result.get("stderr") or result.get("stdout") or "").strip().splitlines()
    return program[-5:]


class CallbackModule(Default):
    """The default output; the verdict comes last."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "verdict"

    def __init__(self) -> None:
        super().__init__()
        self._waiting: Play | None = None
        self._ended_by: list[str] = []
        self._verdict: list[str] = []

    # ------------------------------------------------------------------------ banners that wait

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """Keep the banner of a play that perhaps does nothing, since its import has a condition."""
        self._play = play
        if getattr(play, "_included_conditional", None):
            self._waiting = play
        else:
            self._waiting = None
            super().v2_playbook_on_play_start(play)

    def _begin_play(self) -> None:
        if self._waiting is not None:
            play, self._waiting = self._waiting, None
            super().v2_playbook_on_play_start(play)

    def _print_task_banner(self, task: Task) -> None:
        self._begin_play()
        super()._print_task_banner(task)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        """Print the play's banner first."""
        self._begin_play()
        super().v2_playbook_on_include(included_file)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Say so, but not of a play whose banner waits."""
        if self._waiting is None:
            super().v2_playbook_on_no_hosts_matched()

    # --------------------------------------------------------------------------------- verdict

    def _note(self, result: CallbackTaskResult) -> None:
        said = reason(dict(result.result))
        head = f"{result.task.get_name().strip()} ({result.host.get_name()}):"
        self._ended_by = said if result.task.action in _SPEAK_FOR_THEMSELVES else [head, *said]

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """Remember a verdict that the playbook itself gives."""
        if result.task.action in _SAY_THE_VERDICT:
            said = result.result.get("ansible_stats", {}).get("data", {})
            self._verdict = _lines(said.get("verdict", self._verdict))
        super().v2_runner_on_ok(result)

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """Remember why."""
        if not ignore_errors:
            self._note(result)
        super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """Remember why."""
        if not result.task.ignore_unreachable:
            self._note(result)
        super().v2_runner_on_unreachable(result)

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """Print the recap, and below it how the run ended."""
        verdict = self._verdict
        recap = copy(stats)
        recap.custom = {}
        super().v2_playbook_on_stats(recap)
        if any(stats.failures.values()):
            verdict = []  # of before the failure
        for line in verdict:
            self._display.display(line, color=C.COLOR_OK)
        if any(stats.failures.values()) or any(stats.dark.values()):
            for line in self._ended_by:
                self._display.display(line, color=C.COLOR_ERROR)
