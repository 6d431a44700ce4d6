# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Squares round faces, and face crops."""

import cv2
import numpy as np
import pytest

from s4d_mm.predict.faces import (
    Face,
    FaceSettings,
    crop_square,
    face_square,
    square_box,
    square_corners,
)


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
    square = face_square(Face((30, 20, 90, 80), 1.0, eyes), FaceSettings(margin=0, align=True))
    crop = crop_square(frame, square, 60)[..., 0] > 128
    left, right = (np.argwhere(half).mean(0) for half in (crop[:, :30], crop[:, 30:]))
    assert abs(left[0] - right[0]) < 1.5 and left[1] < 30
    (x1, y1), (x2, y2), _, _ = square_corners(square)
    assert np.degrees(np.arctan2(y2 - y1, x2 - x1)) == pytest.approx(degrees)


def test_an_angle_is_of_the_same_turn_as_the_last_one():
    align = FaceSettings(margin=0, align=True)
    upside_down = Face((0, 0, 10, 10), 1.0, ((8, 5), (2, 4.9)))
    assert 3.1 < face_square(upside_down, align, 3.1)[3] < 3.2  # not -3.1, which would spin
    assert face_square(Face((0, 0, 10, 10)), align, 0.3)[3] == 0.3


def test_a_box_is_stretched():
    """As the S4D authors cut: the box without margin, eyes level, to a square."""
    frame = np.random.default_rng(0).integers(1, 255, (60, 80, 3), np.uint8)
    stretch = FaceSettings(margin=0, align=True, stretch=True)
    square = face_square(Face((30, 10, 50, 50)), stretch)
    assert square.tolist() == [40, 30, 20, 0, 40] and square_box(square) == (30, 10, 50, 50)
    want = cv2.resize(frame[10:50, 30:50], (40, 40), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(crop_square(frame, square, 40) - want)[:, 1:-1].max() <= 2  # beside the edge
    eyes = [(36, 26), (44, 34)]  # 45 degrees
    assert face_square(Face((30, 10, 50, 50)), FaceSettings())[2] == 52
    turned = face_square(Face((30, 10, 50, 50), 1.0, eyes), stretch._replace(margin=0.5))
    np.testing.assert_allclose(turned, [40, 30, 30, np.pi / 4, 60])
