# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, step 0 (your own videos): one square for each frame of a clip.

Where no face is followed, between two tracks and at the ends, squares are filled in, because a
prepared clip keeps all its frames. Pure functions; N frames.
"""

from collections.abc import Sequence

import numpy as np
from s4d_mm_alone.faces import PlacedFace, square_box


def find_jumps(placed: Sequence[PlacedFace | None], margin: float) -> np.ndarray:
    """How far an edge of the face's box moved from one sighting to the next.

    Args:
        placed: The face in each frame, or None.
        margin: Part of the box by which the square is larger.

    Returns:
        np.ndarray: (N,), relative to the size of the box; 0 in the first frame with a face, and
        where the same face as before is not seen.
    """
    jumps, last, number = np.zeros(len(placed)), None, None
    for t, face in enumerate(placed):
        if face is None or (not face.seen and face.face == number):
            continue
        number = face.face
        cx, cy, side, _, *height = face.square
        sides = np.array([side, *height]) / (1 + margin)
        box = np.array(square_box((cx, cy, sides[0], 0, *sides[1:])))
        if last is not None:
            jumps[t] = np.abs(box - last).max() / max(*(last[2:] - last[:2]), 1e-6)
        last = box
    return jumps


def find_cuts(
    placed: Sequence[PlacedFace | None], jumps: Sequence[float], max_jump: float
) -> list[int]:
    """Frames at which another face is followed, more than ``max_jump`` away."""
    cuts, last = [], None
    for t, face in enumerate(placed):
        if face is None:
            continue
        if last not in (None, face.face) and jumps[t] > max_jump:
            cuts.append(t)
        last = face.face
    return cuts


def fill_squares(placed: Sequence[PlacedFace | None], cuts: Sequence[int]) -> np.ndarray:
    """Fill in squares where no face is followed.

    Between two tracks the square goes in a straight line from the one to the other, unless there
    is a cut: then half of the gap goes to either side, as do the ends of the clip.

    Args:
        placed: The face in each frame, or None; in one at least there is a face.
        cuts: From :func:`find_cuts`.

    Returns:
        np.ndarray: (N, 4 or 5), as the squares are.
    """
    known = np.array([t for t, face in enumerate(placed) if face is not None])
    starts = [0]
    for cut in cuts:
        starts.append((int(known[known < cut][-1]) + cut + 1) // 2)
    numbers = len(placed[known[0]].square)
    out = np.empty((len(placed), numbers))
    for start, stop in zip(starts, [*starts[1:], len(placed)]):
        here = known[(start <= known) & (known < stop)]
        squares = np.array([placed[t].square for t in here])
        for column in range(numbers):
            out[start:stop, column] = np.interp(np.arange(start, stop), here, squares[:, column])
    return out
