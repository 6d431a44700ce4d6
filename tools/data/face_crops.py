# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""One square for each of the N frames of a clip, also where no face is followed."""

from collections.abc import Sequence

import numpy as np
from s4d_mm_alone.predict.faces import square_box
from s4d_mm_alone.predict.tracking import PlacedFace

Placed = Sequence[PlacedFace | None]  # the face in each frame


def find_jumps(placed: Placed, margin: float) -> np.ndarray:
    """How far an edge of the face's box moved since it was last seen, relative to its size, (N,).

    0 in the first frame with a face, and where the same face as before is not seen.
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


def find_cuts(placed: Placed, jumps: Sequence[float], max_jump: float) -> list[int]:
    """Frames at which another face is followed, more than ``max_jump`` away."""
    cuts, last = [], None
    for t, face in enumerate(placed):
        if face is None:
            continue
        if last not in (None, face.face) and jumps[t] > max_jump:
            cuts.append(t)
        last = face.face
    return cuts


def fill_squares(placed: Placed, cuts: Sequence[int]) -> np.ndarray:
    """A square for each frame, (N, 4 or 5); in one frame at least there must be a face.

    Between two tracks the square goes in a straight line from the one to the other, unless there
    is a cut: then half of the gap goes to either side, as do the ends of the clip.
    """
    known = np.array([t for t, face in enumerate(placed) if face is not None])
    starts = [0]
    for cut in cuts:
        starts.append((int(known[known < cut][-1]) + cut + 1) // 2)
    out = np.empty((len(placed), len(placed[known[0]].square)))
    for start, stop in zip(starts, [*starts[1:], len(placed)]):
        here = known[(start <= known) & (known < stop)]
        squares = np.array([placed[t].square for t in here])
        for column in range(out.shape[1]):
            out[start:stop, column] = np.interp(np.arange(start, stop), here, squares[:, column])
    return out
