# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Clips in which white squares stand for faces, and a detector of them."""

import os
import os.path as osp

import cv2
import numpy as np
from helpers import encode
from s4d_mm_alone.predict.faces import Face

WHITE, GREY = 255, 60  # the "face" of these tests is a white square


def find_white(frame):
    """A stand-in for the detector: every white square is a face."""
    mask = (frame.min(-1) > 180).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    return [
        Face((x, y, x + w, y + h), 1.0, ((x, y + h / 3), (x + w, y + h / 3)))
        for x, y, w, h, area in stats[1:count].tolist()
        if area > 50
    ]


def make_finder():
    return find_white


def scene(*squares, height=96, width=128):
    """A frame with white squares (x, y, side)."""
    frame = np.full((height, width, 3), GREY, np.uint8)
    for x, y, side in squares:
        frame[y : y + side, x : x + side] = WHITE
    return frame


def write_clip(path, frames):
    encode(path, frames, fps=10, crf=10, faststart=True)


def write_folder(folder, frames, numbers=None):
    os.makedirs(folder)
    for i, frame in zip(numbers or range(1, len(frames) + 1), frames):
        cv2.imwrite(osp.join(folder, f'frame{i}.png'), frame[..., ::-1])
