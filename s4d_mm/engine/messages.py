# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What a command says where its config is at fault: one sentence, and exit code 2."""

import contextlib
import os
import sys
from collections.abc import Iterator

# functions in which a config is read, its parts are built, and what they are is checked
OF_CONFIG = frozenset(
    (
        *(
            'make_config',
            'init_model',
            'build_runner',
            'build_from_cfg',
            'build_dataloader',
            'require_batches',
        ),
        *('before_run', 'before_train', 'before_val', 'before_test', 'after_load_checkpoint'),
    )
)
# of what Python says of a call that does not fit
OF_A_CALL = ('unexpected keyword argument', 'required positional argument')


@contextlib.contextmanager
def config_errors_as_messages() -> Iterator[None]:
    """End the command with the message alone, where the config is at fault.

    With the environment variable ``S4D_MM_TRACEBACK=1`` the traceback is shown as well.

    Raises:
        SystemExit: In place of an error that was raised while the parts of the config were built
            or checked; the exit code is 2.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, OSError) as e:
        if os.environ.get('S4D_MM_TRACEBACK') or not is_of_config(e):
            raise
        text = e.args[0] if isinstance(e, KeyError) and e.args else e
        print(f'{os.path.basename(sys.argv[0])}: {text}', file=sys.stderr)
        sys.exit(2)


def is_of_config(error: Exception) -> bool:
    """Whether an error was raised while the parts of a config were built or checked.

    Args:
        error (Exception): The error, with its traceback.

    Returns:
        bool: Whether it was.
    """
    if isinstance(error, TypeError) and not any(text in str(error) for text in OF_A_CALL):
        return False
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name in OF_CONFIG:
            return True
        trace = trace.tb_next
    return False
