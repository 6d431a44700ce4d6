# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Predictions as pictures: annotated images and videos, and plots over time.

It draws what is in a :class:`~s4d_mm.apis.results.MediaResult` and needs neither a model nor
torch. mmaction2's ``ActionVisualizer`` keeps all frames of a video in memory, draws one text for
the whole of it, by matplotlib, and loses the sound; OpenCV and Pillow draw here, frame by frame.
"""

from .image import annotate_image
from .timeline import plot_timeline
from .video import annotate_video

__all__ = ['annotate_image', 'annotate_video', 'plot_timeline']
