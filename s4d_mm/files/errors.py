# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What can be wrong with weights and numbers, and how a command says it."""

import contextlib
import sys
from collections.abc import Iterator
from pickle import UnpicklingError


class WeightsError(ValueError):
    """Weights that cannot be used: no checkpoint, refused, torn, of another model, not finite."""


class WeightsNotFoundError(FileNotFoundError):
    """There is no file at this path or address."""


class DownloadError(ConnectionError):
    """An address that does not answer, or not to the end."""


class HubMissingError(ImportError):
    """An ``hf://`` address, and no huggingface_hub to read it."""


class NonFiniteError(ValueError):
    """A loss, a gradient, weights or scores that are NaN or infinite, while a command runs."""


def reason_of(error: Exception) -> str:
    """Why torch did not read a file, in a line, without its advice to let the file's code run."""
    cause = error
    if isinstance(error, UnpicklingError) and error.__context__:
        cause = error.__context__
    return (str(cause).splitlines() or [''])[0] or type(cause).__name__


WEIGHTS_ERRORS = (WeightsError, WeightsNotFoundError, DownloadError, HubMissingError)
MESSAGES = (*WEIGHTS_ERRORS, NonFiniteError)


@contextlib.contextmanager
def weights_errors_as_messages() -> Iterator[None]:
    """End the command with the message alone, without a traceback, where weights are at fault.

    Raises:
        SystemExit: In place of one of :data:`MESSAGES`; the exit code is 1.
    """
    try:
        yield
    except MESSAGES as e:
        sys.exit(str(e))
