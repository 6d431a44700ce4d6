# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Records of one face, which may overlap, as pieces of time that do not."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ..apis.results import ExpressionRecord


class Pieces(NamedTuple):
    """What is known of one face: constant from one edge to the next.

    Attributes:
        edges (np.ndarray): (n + 1, ) frame numbers, ascending.
        scores (np.ndarray): (n, classes) probabilities, 0..1: the mean of the records that cover
            the piece; NaN where none does.
        seconds (np.ndarray | None): (n + 1, ) times of the edges; None for an image.
    """

    edges: np.ndarray
    scores: np.ndarray
    seconds: np.ndarray | None

    def at(self, frame: int) -> int | None:
        """Number of the piece that holds a frame; None if no record does."""
        index = int(np.searchsorted(self.edges, frame, side='right')) - 1
        if not 0 <= index < len(self.scores) or np.isnan(self.scores[index, 0]):
            return None
        return index

    @property
    def frames(self) -> int:
        """Number of frames that records cover."""
        return int(np.diff(self.edges)[~np.isnan(self.scores[:, 0])].sum())


def face_pieces(records: Sequence['ExpressionRecord']) -> Pieces:
    """Cut the time that records of one face cover at all their borders.

    Args:
        records (Sequence[ExpressionRecord]): At least one, all of one face and input.

    Returns:
        Pieces: Their mean, piece by piece.
    """
    spans = np.array([(r.start_frame, r.end_frame) for r in records])
    scores = np.array([[*r.probabilities.values(), 1.0] for r in records])  # 1.0: to count by
    edges = np.unique(spans)
    change = np.zeros((len(edges), scores.shape[1]))
    np.add.at(change, np.searchsorted(edges, spans[:, 0]), scores)
    np.subtract.at(change, np.searchsorted(edges, spans[:, 1]), scores)
    total = np.cumsum(change, axis=0)[:-1]
    count = np.round(total[:, -1:])
    mean = np.where(count > 0, total[:, :-1] / np.maximum(count, 1), np.nan)
    seconds = None
    if records[0].start is not None:
        times = {r.start_frame: r.start for r in records}
        times.update({r.end_frame: r.end for r in records if r.end_frame not in times})
        seconds = np.array([times[edge] for edge in edges.tolist()])
    return Pieces(edges, np.clip(mean, 0, 1), seconds)


def pieces_by_face(records: Sequence['ExpressionRecord']) -> dict[int | None, Pieces]:
    """The pieces of each face of an input, by its number."""
    groups = {}
    for record in records:
        groups.setdefault(record.face, []).append(record)
    return {face: face_pieces(group) for face, group in groups.items()}
