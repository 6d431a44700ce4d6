# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What can be wrong with weights, and how a command says it."""

import contextlib
import sys
from collections.abc import Iterator


class WeightsError(ValueError):
    """Weights that cannot be used: no checkpoint, refused, torn, of another model, not finite."""


class WeightsNotFoundError(FileNotFoundError):
    """There is no file at this path or address."""


class DownloadError(ConnectionError):
    """An address that does not answer, or not to the end."""


class HubMissingError(ImportError):
    """An ``hf://`` address, and no huggingface_hub to read it."""


WEIGHTS_ERRORS = (WeightsError, WeightsNotFoundError, DownloadError, HubMissingError)


@contextlib.contextmanager
def weights_errors_as_messages() -> Iterator[None]:
    """End the command with the message alone, without a traceback, where weights are at fault.

    Raises:
        SystemExit: In place of one of :data:`WEIGHTS_ERRORS`; the exit code is 1.
    """
    try:
        yield
    except WEIGHTS_ERRORS as e:
        sys.exit(str(e))
