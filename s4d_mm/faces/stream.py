# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The whole way from frames to the squares of the faces in them, as a stream."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from .between import Detect, faces_of_frames
from .settings import FaceSettings, check_settings
from .tracker import Tracker


class PlacedFace(NamedTuple):
    """Where one face is in one frame.

    Attributes:
        face (int): Number of the face, from 1, in the order in which they appear; of several that
            appear in one frame the largest first.
        square (np.ndarray): See :mod:`s4d_mm.faces.squares`; in pixels of the frame.
        seen (bool): Whether it was found in this frame, by the detector or between two
            detections; else the square bridges a gap.
    """

    face: int
    square: np.ndarray
    seen: bool


def follow_faces(
    frames: Iterable[np.ndarray],
    detect: Detect,
    settings: FaceSettings | None = None,
    which: str = 'auto',
) -> Iterator[tuple[int, np.ndarray, list[PlacedFace]]]:
    """Find the faces of a clip and follow them.

    A frame is given out when no later frame can change its squares: after
    ``PATIENCE + smooth // 2 + detect_every`` frames at most, which is also how many frames are
    held in memory. Nothing is averaged or interpolated from one track to another, so that
    nothing is mixed across a cut.

    Args:
        frames (Iterable[np.ndarray]): RGB, uint8, (height, width, 3). One image is a clip of
            one frame.
        detect (Callable): From a frame to a list of :class:`Face`, such as a
            :class:`FaceDetector` of ``settings.detect_side`` and ``settings.threshold``.
        settings (FaceSettings, optional): How. Defaults to None, all defaults.
        which (str): 'auto' for all faces; 'largest' for one at a time: the largest at the start
            until its track ends, then the largest there, with the next number.
            Defaults to 'auto'.

    Yields:
        tuple[int, np.ndarray, list[PlacedFace]]: Number of the frame, from 0, in order; the
        frame; and the faces in it, by number.

    Raises:
        ValueError: If a setting is out of range, or ``which`` is neither of the two.
    """
    settings = FaceSettings() if settings is None else settings
    check_settings(settings)
    if which not in ('auto', 'largest'):
        raise ValueError(f"which={which!r}: must be 'auto' or 'largest'")
    placed = _place(frames, detect, settings)
    return placed if which == 'auto' else _largest(placed)


def _place(frames: Iterable[np.ndarray], detect: Detect, settings: FaceSettings) -> Iterator[tuple]:
    tracker, waiting, out = Tracker(settings), deque(), 0
    for frame, faces in faces_of_frames(frames, detect, settings.detect_every):
        tracker.update(out + len(waiting), faces)
        waiting.append(frame)
        while waiting and tracker.is_known(out):
            yield out, waiting.popleft(), [PlacedFace(*p) for p in tracker.take(out)]
            out += 1
    tracker.finish(out + len(waiting))
    while waiting:
        yield out, waiting.popleft(), [PlacedFace(*p) for p in tracker.take(out)]
        out += 1


def _largest(placed: Iterator[tuple]) -> Iterator[tuple]:
    """Keep one face of each frame; a face that is followed later gets the next number."""
    chosen, number = None, 0
    for t, frame, faces in placed:
        face = next((f for f in faces if f.face == chosen), None)
        if face is None and faces:
            face = max(faces, key=lambda f: f.square[2])
            chosen, number = face.face, number + 1
        yield t, frame, [] if face is None else [face._replace(face=number)]
