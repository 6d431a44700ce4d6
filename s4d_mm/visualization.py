# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The former place of the names of ``predict.drawing`` and of the timeline, for one release."""

from .former_names import keep_former_names
from .predict.drawing import annotate_image, annotate_video
from .predict.timeline import plot_timeline

__all__ = ['annotate_image', 'annotate_video', 'plot_timeline']
keep_former_names(
    {
        'predict.drawing': 'visualization.image visualization.video',
        'predict.timeline': 'visualization.timeline',
    }
)
