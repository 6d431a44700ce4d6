# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The former place of the names of ``predict.faces`` and ``predict.tracking``, for one release."""

from .predict.faces import *  # noqa: F403
from .predict.tracking import *  # noqa: F403
