# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Predictions that no model made, for tests of the pictures."""

import numpy as np

from s4d_mm.predict.results import ExpressionRecord, FaceTrack, MediaResult

CLASSES = ('happiness', 'sadness', 'neutral', 'anger')


def record(label, face=1, frames=(0, 8), fps=8.0, classes=CLASSES, share=0.7, media='clip.mp4'):
    """A record of a face; ``label`` is a place in ``classes``."""
    rest = (1 - share) / (len(classes) - 1)
    scores = {name: share if i == label else rest for i, name in enumerate(classes)}
    times = (None, None) if fps is None else tuple(frame / fps for frame in frames)
    box = None if face is None else (0.0, 0.0, 1.0, 1.0)
    return ExpressionRecord(media, face, *times, *frames, box, classes[label], scores)


def still_track(square, frames=8, start=0):
    """A face that does not move: centre x, centre y, side, angle."""
    return FaceTrack(start, np.tile(np.float64(square), (frames, 1)))


def result(records, tracks=None, kind='video', fps=8.0, frames=8, size=(320, 240), **more):
    """What was found in one input."""
    media = records[0].media if records else 'clip.mp4'
    fps = None if kind == 'image' else fps
    return MediaResult(media, kind, frames, fps, size, tracks or {}, list(records), **more)
