# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""torchrun for tools/dist_train.sh and dist_test.sh: a signal ends it with 128 + its number.

It is torch.distributed.run, which hands SIGTERM and SIGINT to its processes and waits 30 seconds
for them; SIGUSR1 is handed on as SIGTERM. Its own exit code would be 1, with a traceback.
"""

import signal
import sys
from typing import NoReturn

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

STOPPED = tuple(128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))


def _stop(number: int, frame: object) -> NoReturn:
    # its processes get the signal that the exception holds
    error = SignalException('SIGUSR1', signal.SIGTERM)
    error.exit_code = 128 + number
    raise error


if __name__ == '__main__':
    signal.signal(signal.SIGUSR1, _stop)
    try:
        run.run(run.parse_args(sys.argv[1:]))
    except SignalException as e:
        sys.exit(getattr(e, 'exit_code', 128 + e.sigval))
    except ChildFailedError as e:
        code = e.get_first_failure()[1].exitcode
        if code not in STOPPED:
            raise
        sys.exit(code)  # its processes had got the signal themselves
