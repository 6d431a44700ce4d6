# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Faces as boxes, and which box of one frame is which box of the next.

A box is x1, y1, x2, y2 in pixels of the frame.
"""

from collections.abc import Sequence
from typing import NamedTuple


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


def box_size(box: Sequence[float]) -> float:
    """The longer side of a box."""
    return max(box[2] - box[0], box[3] - box[1])


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes, 0..1."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return w * h / (sum(areas) - w * h)


def jump(a: Sequence[float], b: Sequence[float]) -> float:
    """How far an edge of a box moved from ``a`` to ``b``, relative to the size of ``a``."""
    return max(abs(p - q) for p, q in zip(a, b)) / max(box_size(a), 1e-6)


def pair_faces(
    before: Sequence[Face], after: Sequence[Face], max_jump: float
) -> list[tuple[int, int]]:
    """Which face of one frame is which of a later one.

    The pair that overlaps most is taken first; pairs that do not overlap follow by nearness.

    Args:
        before (Sequence[Face]): Faces of the one frame.
        after (Sequence[Face]): Faces of the later frame.
        max_jump (float): The largest :func:`jump` of a pair.

    Returns:
        list[tuple[int, int]]: Indices of ``before`` and ``after``, each in one pair at most.
    """
    pairs = []
    for i, a in enumerate(before):
        for j, b in enumerate(after):
            moved = jump(a.box, b.box)
            if moved <= max_jump:
                pairs.append((-overlap(a.box, b.box), moved, i, j))
    taken, left, right = [], set(), set()
    for _, _, i, j in sorted(pairs):
        if i not in left and j not in right:
            taken.append((i, j))
            left.add(i)
            right.add(j)
    return taken
