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


WEIGHTS_ERRORS = (WeightsError, WeightsNotFoundError, DownloadError, HubMissingError)


def reason_of(error: Exception) -> str:
    """Why torch did not read a file, in a line, without its advice to let the file's code run."""
    if isinstance(error, UnpicklingError) and error.__context__:
        error = error.__context__
    lines = str(error).splitlines() or ['']
    return lines[0].partition(' Please use')[0] or type(error).__name__


@contextlib.contextmanager
def weights_errors_as_messages() -> Iterator[None]:
    """End the command with the message alone where weights or numbers are at fault."""
    try:
        yield
    except (*WEIGHTS_ERRORS, NonFiniteError) as e:
        sys.exit(str(e))
