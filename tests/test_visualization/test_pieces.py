# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
import numpy as np
import pytest
from made_up_results import record

from s4d_mm.visualization.pieces import face_pieces, pieces_by_face


def test_overlapping_records_are_averaged():
    pieces = face_pieces([record(0, frames=(0, 8)), record(1, frames=(4, 12))])
    assert pieces.edges.tolist() == [0, 4, 8, 12]
    assert pieces.seconds.tolist() == [0, 0.5, 1, 1.5]
    assert pieces.scores[1] == pytest.approx([0.4, 0.4, 0.1, 0.1])
    assert pieces.scores[2] == pytest.approx([0.1, 0.7, 0.1, 0.1])
    assert pieces.frames == 12


def test_gap_is_no_piece():
    pieces = face_pieces([record(0, frames=(2, 4)), record(1, frames=(8, 12))])
    assert np.isnan(pieces.scores[1]).all() and pieces.frames == 6
    found = [pieces.at(frame) for frame in (1, 2, 3, 4, 7, 8, 11, 12)]
    assert found == [None, 0, 0, None, None, 2, 2, None]


def test_faces_are_apart():
    pieces = pieces_by_face([record(0, 1), record(1, 2), record(2, 1, (8, 16))])
    assert list(pieces) == [1, 2] and len(pieces[1].scores) == 2
