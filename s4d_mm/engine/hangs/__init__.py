# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What ends a run that stands still: where it is, who reads what, and the limit."""

from .board import RankBoard
from .limit import HANG_TIMEOUT, group_timeout, hang_timeout
from .loader_errors import loader_errors_as_messages
from .readers import describe_readers
from .watchdog import Watchdog

__all__ = [
    'HANG_TIMEOUT',
    'RankBoard',
    'Watchdog',
    'describe_readers',
    'group_timeout',
    'hang_timeout',
    'loader_errors_as_messages',
]
