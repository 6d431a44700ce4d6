# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the data measurements compare with: the pre-training and test pipelines
in float32, in the way of VideoMAE's research code.

Frames are decoded once for all crops, but each crop is resized frame by
frame, stacked, converted to float32 and normalised here, on the CPU. OpenCV
resizes (faster than Pillow, which much research code uses).
"""

import cv2
import decord
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .plain_s4d import MEAN, STD


def to_float_tensor(frames: list[np.ndarray]) -> Tensor:
    """Frames (H, W, 3) uint8 -> (3, T, H, W) float32, normalised."""
    x = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).contiguous()
    x = x.float().div(255)
    mean = torch.tensor(MEAN).view(3, 1, 1, 1)
    std = torch.tensor(STD).view(3, 1, 1, 1)
    return x.sub_(mean).div_(std)


def random_resized_crop(
    frames: list[np.ndarray], size: int, scale: tuple, interpolation: int = cv2.INTER_LINEAR
) -> list[np.ndarray]:
    """The same random window (torchvision's rule) of all frames, resized."""
    height, width = frames[0].shape[:2]
    for _ in range(10):
        area = height * width * np.random.uniform(*scale)
        ratio = np.exp(np.random.uniform(np.log(3 / 4), np.log(4 / 3)))
        w = int(round(np.sqrt(area * ratio)))
        h = int(round(np.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w = h = min(height, width)
    top = np.random.randint(height - h + 1)
    left = np.random.randint(width - w + 1)
    return [
        cv2.resize(f[top : top + h, left : left + w], (size, size), interpolation=interpolation)
        for f in frames
    ]


def pretrain_clip(path: str, frame_inds: np.ndarray, crops: int = 4) -> Tensor:
    """(crops, 3, T, 160, 160) of chosen frames of a VoxCeleb2 clip."""
    reader = decord.VideoReader(path, num_threads=1)
    frames = reader.get_batch(frame_inds).asnumpy()
    frames = [f[0:160, 32:192] for f in frames]
    frames = [cv2.resize(f, (192, 192)) for f in frames]
    return torch.stack(
        [to_float_tensor(random_resized_crop(frames, 160, (0.08, 1.0))) for _ in range(crops)]
    )


def pretrain_image(path: str) -> Tensor:
    """(3, 160, 160) of an AffectNet image."""
    with Image.open(path) as image:
        frame = np.asarray(image.convert('RGB'))
    frame = random_resized_crop([frame], 160, (0.2, 1.0), cv2.INTER_CUBIC)[0]
    if np.random.rand() < 0.5:
        frame = np.ascontiguousarray(frame[:, ::-1])
    return to_float_tensor([frame])[:, 0]


def protocol_views(
    path: str, clip_len: int = 16, interval: int = 4, temporal: int = 2, spatial: int = 2
) -> Tensor:
    """(temporal * spatial, 3, T, 160, 160), the views of the authors' test.

    As there, each view is a sample of its own, which decodes the clip again,
    and the spatial views are the same pixels.
    """
    return torch.stack(
        [
            one_test_view(path, t, clip_len, interval)
            for t in range(temporal)
            for _ in range(spatial)
        ]
    )


def one_test_view(path: str, temporal_view: int, clip_len: int = 16, interval: int = 4) -> Tensor:
    """(3, T, 160, 160): the first (0) or last (1) frames of every
    ``interval``-th.
    """
    reader = decord.VideoReader(path, num_threads=1)
    inds = np.arange(0, len(reader), interval)
    inds = np.pad(inds, (0, max(clip_len - len(inds), 0)), mode='edge')
    frames = reader.get_batch(inds).asnumpy()
    frames = frames[-clip_len:] if temporal_view else frames[:clip_len]
    return to_float_tensor([cv2.resize(f, (160, 160)) for f in frames])
