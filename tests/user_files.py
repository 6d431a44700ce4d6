# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What a user of a trained model has: a config, a checkpoint, and files with faces in them."""

import os
import os.path as osp

import numpy as np
import torch
from helpers import config_path, encode
from make_quickstart import DFEW, draw_clip, draw_image, list_samples
from mmengine.config import Config
from small_models import build

from s4d_mm.datasets.config import config_classes
from s4d_mm.media import write_image

CONFIG = config_path('quickstart/s4d_quickstart_finetune')
CLASSES = DFEW
FACE = 5  # the sample that the detector finds best
SIZE = (240, 320)


def write_checkpoint(path):
    """Random weights of the quickstart's model, with the names of the classes; its path."""
    cfg = Config.fromfile(CONFIG)
    classes = {kind: list(names) for kind, names in config_classes(cfg).items()}
    weights = build(cfg.model).state_dict()
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=classes))), path)
    return str(path)


def write_clip(path, frames=24, faces=1, fps=25):
    """A video of at most 41 frames with drawn faces next to each other, or none; its path."""
    drawn = draw_clip(list_samples('video', 7)[FACE], seed=0, size=160, fps=25)[-frames:]
    return encode(path, [_on_grey([frame] * faces) for frame in drawn], fps)


def write_picture(path, faces=1):
    """An image with drawn faces next to each other, or none; its path."""
    drawn = draw_image(list_samples('image', 7)[FACE], seed=0, size=160)
    write_image(str(path), _on_grey([drawn] * faces))
    return str(path)


def _on_grey(pictures):
    height, width = SIZE
    canvas = np.full((height, width * max(1, len(pictures)), 3), 90, np.uint8)
    for i, picture in enumerate(pictures):
        side = len(picture)
        top, left = (height - side) // 2, width * i + (width - side) // 2
        canvas[top : top + side, left : left + side] = picture
    return canvas


def write_own_data(folder, persons=3):
    """``raw/clips`` and ``raw/images``: one file of each person and class, all of one face."""
    for i, label in enumerate(('anger', 'happiness', 'neutral')):
        for person in range(1, persons + 1):
            name = f'p{person}_{label}'
            write_clip(osp.join(folder, 'raw', 'clips', label, f'{name}.mp4'), 16 + 3 * i + person)
            os.makedirs(osp.join(folder, 'raw', 'images', label), exist_ok=True)
            write_picture(osp.join(folder, 'raw', 'images', label, f'{name}.jpg'))
