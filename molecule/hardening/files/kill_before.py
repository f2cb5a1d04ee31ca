"""Callback for Ansible: the run dies, as if the control machine lost power, before a named task.

Environment: KILL_BEFORE is the task's name; KILL_OCCURRENCE (default 1) which one of that name.
"""

import os
import signal

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: kill_before
type: aggregate
short_description: kills the run before a task
description: see the module
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kill_before"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self):
        super().__init__()
        self.left = int(os.environ.get("KILL_OCCURRENCE", "1"))

    def v2_playbook_on_task_start(self, task, is_conditional):  # noqa: ARG002 - Ansible's signature
        if task.name == os.environ["KILL_BEFORE"]:
            self.left -= 1
            if not self.left:
                os.killpg(os.getpgid(0), signal.SIGKILL)
