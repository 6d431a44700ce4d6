# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Faces: found in frames, followed through a clip, cut out.

:func:`follow_faces` is the whole way from frames to squares, :func:`crop_square` the cut.
``tools/data/prepare.py`` and prediction use the same two with the same settings, so that both
see the same pixels. Nothing here imports torch or the toolbox.
"""

from .boxes import Face
from .detector import FaceDetector, detector_name
from .settings import FaceSettings, check_settings
from .squares import crop_square, square_box, square_corners
from .stream import PlacedFace, follow_faces
from .tracker import PATIENCE

__all__ = [
    'PATIENCE',
    'Face',
    'FaceDetector',
    'FaceSettings',
    'PlacedFace',
    'check_settings',
    'crop_square',
    'detector_name',
    'follow_faces',
    'square_box',
    'square_corners',
]
