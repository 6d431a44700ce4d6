# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, step 0 (your own videos): from faces to one square for each frame.

Pure functions; no detector and no files.

Letters: N frames. A square is (centre x, centre y, side, angle): pixels, and
radians by which the line through the eyes is turned clockwise.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Optional

import cv2
import numpy as np

PATIENCE = 12  # frames that a face may be out of sight before it is given up


class Face(NamedTuple):
    """One face that was detected in a frame."""

    box: Sequence[float]  # x1, y1, x2, y2
    score: float = 1.0
    eyes: Optional[Sequence[Sequence[float]]] = None  # (x, y) left, right


def box_size(box: Sequence[float]) -> float:
    """The longer side of a box."""
    return max(box[2] - box[0], box[3] - box[1])


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return w * h / (sum(areas) - w * h)


def jump(a: Sequence[float], b: Sequence[float]) -> float:
    """How far an edge of a box moved, relative to the size of the box."""
    return max(abs(p - q) for p, q in zip(a, b)) / max(box_size(a), 1e-6)


def largest_face(faces: Sequence[Face]) -> Optional[Face]:
    """The face with the largest box."""
    return max(faces, key=lambda face: box_size(face.box), default=None)


def nearest_face(last: Face, faces: Sequence[Face], max_jump: float) -> Optional[Face]:
    """The face that overlaps ``last`` most, or is nearest to it if none does.

    Returns:
        Face | None: None if that one is more than ``max_jump`` away.
    """
    best = max(
        faces, key=lambda f: (overlap(last.box, f.box), -jump(last.box, f.box)), default=None
    )
    if best is None or jump(last.box, best.box) > max_jump:
        return None
    return best


def follow_face(
    detections: Sequence[Sequence[Face]], max_jump: float = 0.5
) -> list[Optional[Face]]:
    """Follow one face through a clip.

    The largest face at the start is followed. In a frame without a face near
    it, it is missing; if it does not come back within ``PATIENCE`` frames (a
    cut), the largest face there is followed from then on.

    Args:
        detections: The faces of each frame.
        max_jump: The largest :func:`jump` from one sighting to the next.
            Defaults to 0.5.

    Returns:
        list[Face | None]: The face in each frame, None where it is missing.
    """
    track, last = [], None
    for t, faces in enumerate(detections):
        if last is None:
            found = largest_face(faces)
        else:
            found = nearest_face(last, faces, max_jump)
            if faces and found is None:
                later = detections[t + 1 : t + 1 + PATIENCE]
                if not any(nearest_face(last, f, max_jump) for f in later):
                    found = largest_face(faces)
        track.append(found)
        last = found or last
    return track


def find_jumps(track: Sequence[Optional[Face]]) -> np.ndarray:
    """The :func:`jump` from the sighting before, for each frame.

    Returns:
        np.ndarray: (N,), 0 where the face is missing or first seen.
    """
    jumps, last = np.zeros(len(track)), None
    for t, face in enumerate(track):
        if face is not None and last is not None:
            jumps[t] = jump(last.box, face.box)
        last = face or last
    return jumps


def track_squares(
    track: Sequence[Optional[Face]], margin: float = 0.3, align: bool = False
) -> np.ndarray:
    """The square round each face.

    Args:
        track: The face in each frame, or None.
        margin: Part of the box that is added to it. Defaults to 0.3.
        align: Whether to turn the square so that the eyes are level.
            Defaults to False.

    Returns:
        np.ndarray: (N, 4), NaN where the face is missing.
    """
    squares = np.full((len(track), 4), np.nan)
    for t, face in enumerate(track):
        if face is None:
            continue
        x1, y1, x2, y2 = face.box
        squares[t, :3] = ((x1 + x2) / 2, (y1 + y2) / 2, box_size(face.box) * (1 + margin))
        if not align:
            squares[t, 3] = 0
        elif face.eyes is not None:
            (lx, ly), (rx, ry) = face.eyes
            squares[t, 3] = math.atan2(ry - ly, rx - lx)
    return squares


def smooth_squares(squares: np.ndarray, cuts: Sequence[int] = (), window: int = 9) -> np.ndarray:
    """Fill the gaps between sightings, then take a moving average.

    Args:
        squares: (N, 4), NaN where missing.
        cuts: Frames at which the face is another one, or elsewhere: nothing
            is mixed across them. Defaults to ().
        window: Frames of the average; 1 for none. Near the ends of a part it
            is narrower, but symmetric, so that even motion is kept.
            Defaults to 9.

    Returns:
        np.ndarray: (N, 4), without NaN if there is a sighting.
    """
    seen = np.flatnonzero(~np.isnan(squares[:, 0]))
    starts = [0]
    for cut in cuts:  # a gap before a cut: half of it to either side
        before = seen[seen < cut]
        starts.append((before[-1] + cut + 1) // 2 if len(before) else 0)
    out = squares.astype(float)
    for start, stop in zip(starts, starts[1:] + [len(squares)]):
        part = out[start:stop]
        for column in range(part.shape[1]):
            part[:, column] = _average(_fill(part[:, column]), window)
    return out


def _fill(values: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):  # no eyes anywhere: upright
        return np.zeros_like(values)
    return np.interp(np.arange(len(values)), known, values[known])


def _average(values: np.ndarray, window: int) -> np.ndarray:
    n = len(values)
    total = np.concatenate([[0], np.cumsum(values)])
    t = np.arange(n)
    half = np.minimum(np.minimum(t, n - 1 - t), window // 2)
    return (total[t + half + 1] - total[t - half]) / (2 * half + 1)


def crop_square(frame: np.ndarray, square: Sequence[float], size: int) -> np.ndarray:
    """Cut a square out of a frame; what is outside the frame is black.

    Args:
        frame: (H, W, 3).
        square: Centre x, centre y, side, angle.
        size: Side of the result in pixels.

    Returns:
        np.ndarray: (size, size, 3).
    """
    cx, cy, side, angle = (float(v) for v in square)
    # a large square is sampled finely, then averaged down: no aliasing
    fine = size * min(8, max(1, math.ceil(side / size)))
    step = side / fine
    cos, sin = step * math.cos(angle), step * math.sin(angle)
    middle = 0.5 - fine / 2
    to_frame = np.array(
        [[cos, -sin, cx - 0.5 + (cos - sin) * middle], [sin, cos, cy - 0.5 + (sin + cos) * middle]]
    )
    out = cv2.warpAffine(
        frame, to_frame, (fine, fine), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    if fine > size:
        out = cv2.resize(out, (size, size), interpolation=cv2.INTER_AREA)
    return out


def square_corners(square: Sequence[float]) -> np.ndarray:
    """The corners of a square, (4, 2), for drawing."""
    cx, cy, side, angle = square
    right = np.array([math.cos(angle), math.sin(angle)]) * side / 2
    down = np.array([-right[1], right[0]])
    return np.array([cx, cy]) + np.stack([-right - down, right - down, right + down, down - right])


def missing_numbers(numbers: Sequence[int]) -> list[range]:
    """The gaps in a sequence of frame numbers.

    Numbers that go up in regular steps (0, 4, 8, ...) have none.
    """
    numbers = sorted(set(numbers))
    steps = np.diff(numbers)
    if not len(steps):
        return []
    values, counts = np.unique(steps, return_counts=True)
    step = int(values[counts.argmax()])
    return [range(a + step, b, step) for a, b in zip(numbers, numbers[1:]) if b - a > step]
