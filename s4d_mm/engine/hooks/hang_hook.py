# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From the first step to the last: a run in which no step is finished ends, with its stacks."""

import builtins
import faulthandler
import sys
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

HANG_TIMEOUT = 1800.0  # seconds


def check_seconds(name: str, value: float) -> float:
    """Refuse a setting that is no number of seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ValueError(
            f'{name} must be a number of seconds, 0 for no limit, but is {value!r}. '
            'Write, for example, 1800.'
        )
    return float(value)


@HOOKS.register_module()
class HangHook(Hook):
    """End a process in which no step of training, validation or test is finished for a long time.

    Python's ``faulthandler`` writes the stacks of its threads to the terminal and ends it with code
    1, also while a thread holds Python's lock. torch's process group then ends the other ranks. In
    an interactive session, where an error does not end the process, there is no limit.

    Args:
        timeout (float): Seconds, also before the first step; 0 for no limit. Defaults to 1800.

    Raises:
        ValueError: If it is no number of seconds.
    """

    priority = 'LOWEST'  # what other hooks do after a step belongs to the step

    def __init__(self, timeout: float = HANG_TIMEOUT) -> None:
        self.timeout = check_seconds('timeout of HangHook', timeout)
        if hasattr(sys, 'ps1') or hasattr(builtins, 'get_ipython'):
            self.timeout = 0.0

    def _wait_again(self, *args: Any, **kwargs: Any) -> None:
        """Begin to wait for the end of the next step."""
        if self.timeout:
            faulthandler.dump_traceback_later(self.timeout, exit=True, file=2)

    before_train_epoch = before_val_epoch = before_test_epoch = _wait_again
    after_train_iter = after_val_iter = after_test_iter = _wait_again
    after_train_epoch = after_val_epoch = after_test_epoch = _wait_again

    def after_run(self, *args: Any) -> None:
        """Wait no more. After an error the training loop, or the end of the process, does this."""
        faulthandler.cancel_dump_traceback_later()
