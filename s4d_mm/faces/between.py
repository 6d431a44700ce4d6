# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Faces of every frame, with the detector on every n-th.

Between two detections the faces are moved by sparse optical flow (pyramidal Lucas-Kanade,
OpenCV), and what is left over at the second detection is spread evenly over the frames between.
Where that cannot be trusted, the detector sees the frames between as well: a face came or went,
or the flow ends too far from where the face is, as it does at a cut or behind a hand.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from .boxes import Face, pair_faces

Detect = Callable[[np.ndarray], list[Face]]

FLOW_SIDE = 320  # longer side of the grey frames of the flow, pixels
GRID = 7  # points of the flow a side of the box, in its middle
MIDDLE = 0.7  # part of the box that they fill
LEAST_POINTS = 12  # of the GRID * GRID
MAX_DRIFT = 0.1  # how far an edge may be off at the end of the flow, relative to the box


class _Key(NamedTuple):
    """A frame that the detector saw, and its faces."""

    frame: np.ndarray
    faces: list[Face]


def faces_of_frames(
    frames: Iterable[np.ndarray], detect: Detect, every: int
) -> Iterator[tuple[np.ndarray, list[Face]]]:
    """The faces of each frame.

    Args:
        frames (Iterable[np.ndarray]): RGB, uint8, (height, width, 3).
        detect (Callable): From a frame to its faces; it sees the frames 0, ``every``,
            2 * ``every``, ... and the last one, and others where that is not enough.
        every (int): Distance of the frames that the detector sees; 1 for all.

    Yields:
        tuple: Frame, and list of faces. At most ``every`` frames are held back.
    """
    last, waiting = None, []
    for number, frame in enumerate(frames):
        waiting.append(frame)
        if number % every == 0:
            last = yield from _finish(last, waiting, detect)
            waiting = []
    if waiting:
        yield from _finish(last, waiting, detect)


def _finish(last: _Key | None, frames: list[np.ndarray], detect: Detect) -> Iterator[tuple]:
    """Give out the frames up to the next one that the detector sees; returns that one."""
    key = _Key(frames[-1], detect(frames[-1]))
    between = frames[:-1]
    if between:
        faces = move_faces(last, between, key)
        if faces is None:
            faces = [detect(frame) for frame in between]
        yield from zip(between, faces)
    yield key.frame, key.faces
    return key


def move_faces(first: _Key, between: Sequence[np.ndarray], last: _Key) -> list | None:
    """The faces of the frames between two detections, by optical flow.

    Args:
        first (_Key): The frame of the detection before, and its faces.
        between (Sequence[np.ndarray]): The frames after it.
        last (_Key): The frame of the next detection, and its faces.

    Returns:
        list[list[Face]] | None: The faces of each frame of ``between``; None if the faces of the
        two detections are not the same, or the flow does not lead from the ones to the others.
    """
    if len(first.faces) != len(last.faces):
        return None
    if not first.faces:
        return [[] for _ in between]
    if any(f.shape != first.frame.shape for f in (*between, last.frame)):
        return None
    moved = _flow([first.frame, *between, last.frame], first.faces)
    if moved is None:
        return None
    pairs = pair_faces([steps[-1] for steps in moved], last.faces, MAX_DRIFT)
    if len(pairs) < len(moved):
        return None
    paths = [_corrected(moved[i], last.faces[j]) for i, j in sorted(pairs)]
    return [list(faces) for faces in zip(*paths)]


def _flow(frames: Sequence[np.ndarray], faces: Sequence[Face]) -> list[list[Face]] | None:
    """Move faces of the first frame along; for each the faces of all later frames, or None."""
    scale = min(1.0, FLOW_SIDE / max(frames[0].shape[:2]))
    grey = [_grey(frame, scale) for frame in frames]
    moved = [[face] for face in faces]
    for before, after in zip(grey, grey[1:]):
        for steps in moved:
            motion = _motion(before, after, steps[-1], scale)
            if motion is None:
                return None
            steps.append(_transformed(steps[-1], motion))
    return [steps[1:] for steps in moved]


def _grey(frame: np.ndarray, scale: float) -> np.ndarray:
    if scale < 1:
        frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def _motion(before: np.ndarray, after: np.ndarray, face: Face, scale: float) -> np.ndarray | None:
    """Shift, turn and growth of a face from one grey frame to the next, (2, 3); None if unclear."""
    x1, y1, x2, y2 = face.box
    steps = np.linspace((1 - MIDDLE) / 2, (1 + MIDDLE) / 2, GRID)
    grid = np.stack(np.meshgrid(x1 + steps * (x2 - x1), y1 + steps * (y2 - y1)), axis=-1)
    points = (grid.reshape(-1, 2) * scale).astype(np.float32)
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        before, after, points, None, winSize=(15, 15), maxLevel=2
    )
    kept = status[:, 0] == 1
    if kept.sum() < LEAST_POINTS:
        return None
    motion, _ = cv2.estimateAffinePartial2D(points[kept], found[kept])
    if motion is not None:
        motion[:, 2] /= scale
    return motion


def _transformed(face: Face, motion: np.ndarray) -> Face:
    """Move a face; its box grows, but stays upright."""
    x1, y1, x2, y2 = face.box
    growth = float(np.hypot(motion[0, 0], motion[1, 0]))
    cx, cy = motion @ ((x1 + x2) / 2, (y1 + y2) / 2, 1)
    w, h = (x2 - x1) / 2 * growth, (y2 - y1) / 2 * growth
    eyes = face.eyes
    if eyes is not None:
        eyes = [(motion @ (*eye, 1)).tolist() for eye in eyes]
    return Face((cx - w, cy - h, cx + w, cy + h), face.score, eyes)


def _corrected(moved: Sequence[Face], found: Face) -> list[Face]:
    """Spread what is left over at the detection evenly over the frames before it."""
    end = moved[-1]
    off = np.subtract(found.box, end.box)
    eyes_known = end.eyes is not None and found.eyes is not None
    eyes_off = np.subtract(found.eyes, end.eyes) if eyes_known else None
    faces = []
    for i, face in enumerate(moved[:-1], 1):
        part = i / len(moved)
        eyes = (np.array(face.eyes) + part * eyes_off).tolist() if eyes_known else None
        box = np.array(face.box) + part * off
        faces.append(Face(tuple(box.tolist()), min(face.score, found.score), eyes))
    return faces
