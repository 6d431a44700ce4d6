# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Squares round faces, and cutting them out.

A square is (centre x, centre y, side, angle): pixels, and radians by which the line through the
eyes is turned clockwise. With a fifth number, its height, it is a box that is stretched to one.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from .boxes import Face, box_size


def face_square(
    face: Face, margin: float, align: bool, last_angle: float = 0.0, stretch: bool = False
) -> np.ndarray:
    """The square round a face.

    Args:
        face (Face): The face.
        margin (float): Part of the box that is added to it.
        align (bool): Whether to turn the square so that the eyes are level.
        last_angle (float): Of the square before: the angle is that of the same turn, and it
            stays where the eyes are not known. Defaults to 0.
        stretch (bool): Whether to keep width and height of the box. Defaults to False.

    Returns:
        np.ndarray: (4, ), or (5, ) with ``stretch``, float64.
    """
    x1, y1, x2, y2 = face.box
    angle = 0.0
    if align:
        angle = last_angle
        if face.eyes is not None:
            (lx, ly), (rx, ry) = face.eyes
            angle += math.remainder(math.atan2(ry - ly, rx - lx) - last_angle, 2 * math.pi)
    sides = np.array([x2 - x1, y2 - y1] if stretch else [box_size(face.box)]) * (1 + margin)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, sides[0], angle, *sides[1:]], dtype=np.float64)


def square_corners(square: Sequence[float]) -> np.ndarray:
    """The corners of a square, for drawing.

    Args:
        square (Sequence[float]): Centre x, centre y, side, angle, and perhaps height.

    Returns:
        np.ndarray: (4, 2), x and y, clockwise from the one above the left eye.
    """
    cx, cy, side, angle, height = [*square, square[2]][:5]
    right = np.array([math.cos(angle), math.sin(angle)]) * side / 2
    down = np.array([-math.sin(angle), math.cos(angle)]) * height / 2
    return np.array([cx, cy]) + np.stack([-right - down, right - down, right + down, down - right])


def square_box(square: Sequence[float]) -> tuple[float, float, float, float]:
    """The smallest upright box that holds a square.

    Args:
        square (Sequence[float]): Centre x, centre y, side, angle.

    Returns:
        tuple[float, float, float, float]: x1, y1, x2, y2; it may reach out of the frame.
    """
    corners = square_corners(square)
    return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())


def crop_square(frame: np.ndarray, square: Sequence[float], size: int) -> np.ndarray:
    """Cut a square out of a frame; what is outside the frame is black.

    Args:
        frame (np.ndarray): (height, width, 3).
        square (Sequence[float]): Centre x, centre y, side, angle, and perhaps height.
        size (int): Side of the result in pixels.

    Returns:
        np.ndarray: (size, size, 3).
    """
    cx, cy, side, angle, height = [float(v) for v in (*square, square[2])][:5]
    # a large square is sampled finely, then averaged down: no aliasing
    fine = size * min(8, max(1, math.ceil(max(side, height) / size)))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turn *= np.array([side, height]) / fine
    to_frame = np.column_stack([turn, (cx - 0.5, cy - 0.5) + turn.sum(axis=1) * (0.5 - fine / 2)])
    out = cv2.warpAffine(
        frame, to_frame, (fine, fine), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    if fine > size:
        out = cv2.resize(out, (size, size), interpolation=cv2.INTER_AREA)
    return out
