# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The former place of the names of ``predict.faces`` and ``predict.tracking``, for one release."""

from .former_names import keep_former_names
from .predict.faces import *  # noqa: F403
from .predict.tracking import *  # noqa: F403

keep_former_names(
    {
        'predict.faces': 'faces.boxes faces.detector faces.settings faces.squares',
        'predict.tracking': 'faces.stream',
    }
)
