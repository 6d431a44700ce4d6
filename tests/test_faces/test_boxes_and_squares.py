# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Boxes that belong together, squares round faces, and the cut."""

import cv2
import numpy as np
import pytest

from s4d_mm.faces import Face, crop_square, square_box, square_corners
from s4d_mm.faces.boxes import jump, overlap, pair_faces
from s4d_mm.faces.squares import face_square


def box(x, y, side=10):
    return Face((x, y, x + side, y + side))


def test_overlap_and_jump():
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert jump((0, 0, 10, 10), (0, 0, 10, 20)) == 1


def test_the_pair_that_overlaps_most_is_taken_first():
    before = [box(0, 0), box(6, 0)]
    # the second one moved onto the place between, the first one left
    assert pair_faces(before, [box(4, 0)], 0.5) == [(1, 0)]
    assert sorted(pair_faces(before, [box(7, 0), box(1, 0)], 0.5)) == [(0, 1), (1, 0)]
    assert pair_faces([box(0, 0)], [box(14, 0), box(12, 0)], 1.5) == [(0, 1)]  # the nearer
    assert pair_faces([box(0, 0)], [box(12, 0)], 0.5) == []


def test_crop_is_the_square_and_black_outside():
    frame = np.random.default_rng(0).integers(1, 255, (60, 80, 3), np.uint8)
    same = crop_square(frame, (40, 30, 20, 0), 20)
    np.testing.assert_array_equal(same, frame[20:40, 30:50])
    half = crop_square(frame, (40, 30, 40, 0), 20).astype(float)
    want = cv2.resize(frame[10:50, 20:60], (20, 20), interpolation=3)
    assert np.abs(half - want).max() <= 1
    edge = crop_square(frame, (0, 30, 20, 0), 20)
    assert not edge[:, :9].any() and edge[:, 11:].all()


@pytest.mark.parametrize('degrees', (-30, 20))
def test_aligned_eyes_are_level(degrees):
    angle = np.radians(degrees)
    middle, half = np.array([60, 50]), 14
    step = half * np.array([np.cos(angle), np.sin(angle)])
    eyes = [middle - step, middle + step]
    frame = np.zeros((100, 120, 3), np.uint8)
    for eye in eyes:
        cv2.circle(frame, eye.round().astype(int).tolist(), 3, (255,) * 3, -1)
    square = face_square(Face((30, 20, 90, 80), 1.0, eyes), 0, align=True)
    crop = crop_square(frame, square, 60)[..., 0] > 128
    halves = crop[:, :30], crop[:, 30:]
    left, right = (np.argwhere(half).mean(0) for half in halves)
    assert abs(left[0] - right[0]) < 1.5 and left[1] < 30
    corners = square_corners(square)
    top = corners[1] - corners[0]
    assert np.degrees(np.arctan2(top[1], top[0])) == pytest.approx(degrees)


def test_angles_go_on_from_the_last_one():
    upside_down = Face((0, 0, 10, 10), 1.0, ((8, 5), (2, 4.9)))
    angle = face_square(upside_down, 0, True, last_angle=3.1)[3]
    assert 3.1 < angle < 3.2  # not -3.1, which would spin on the way
    assert face_square(Face((0, 0, 10, 10)), 0, True, last_angle=0.3)[3] == 0.3
    assert face_square(upside_down, 0, False, last_angle=3.1)[3] == 0


def test_box_of_a_turned_square():
    assert square_box((50, 40, 20, 0)) == (40, 30, 60, 50)
    side = 10 * 2**0.5
    turned = square_box((50, 40, 20, np.pi / 4))
    np.testing.assert_allclose(turned, (50 - side, 40 - side, 50 + side, 40 + side))


def test_a_box_is_stretched():
    """As the S4D authors cut: the box without margin, eyes level, to a square."""
    frame = np.random.default_rng(0).integers(1, 255, (60, 80, 3), np.uint8)
    square = face_square(Face((30, 10, 50, 50)), 0, align=True, stretch=True)
    assert square.tolist() == [40, 30, 20, 0, 40]
    want = cv2.resize(frame[10:50, 30:50], (40, 40), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(crop_square(frame, square, 40) - want)[:, 1:-1].max() <= 2  # beside the edge
    assert square_box(square) == (30, 10, 50, 50)
    eyes = [(36, 26), (44, 34)]  # 45 degrees
    turned = face_square(Face((30, 10, 50, 50), 1.0, eyes), 0.5, align=True, stretch=True)
    np.testing.assert_allclose(turned, [40, 30, 30, np.pi / 4, 60])
    corners = square_corners(turned)
    sides = np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1)
    np.testing.assert_allclose(sides, [30, 60, 30, 60])
