# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Clips and images to decode: a textured, moving picture, which costs about what a face does."""

from collections.abc import Iterator

import av
import cv2
import numpy as np


def moving_picture(num_frames: int, size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Draw a window that wanders over a texture of several scales, with camera noise.

    Args:
        num_frames (int): Number of frames.
        size (int): Height and width.
        seed (int): Of the texture. Defaults to 0.

    Yields:
        np.ndarray: (size, size, 3) uint8.
    """
    rng = np.random.default_rng(seed)
    texture = np.full((2 * size, 2 * size, 3), 128, np.float32)
    for cells, weight in ((4, 60), (16, 35), (64, 15), (256, 6)):
        coarse = rng.standard_normal((cells, cells, 3), dtype=np.float32)
        texture += weight * cv2.resize(coarse, texture.shape[:2], interpolation=cv2.INTER_CUBIC)
    for i in range(num_frames):
        angle = 2 * np.pi * i / 90
        top = int(size / 2 * (1 + 0.8 * np.sin(angle)))
        left = int(size / 2 * (1 + 0.8 * np.cos(1.3 * angle)))
        frame = texture[top : top + size, left : left + size]
        frame = frame + 2 * rng.standard_normal(frame.shape, dtype=np.float32)
        yield frame.clip(0, 255).astype(np.uint8)


def write_clip(path: str, num_frames: int, size: int = 224, seed: int = 0) -> str:
    """Write an H.264 mp4 as x264 does by default, with a key frame a second; return its path."""
    with av.open(path, 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.width = stream.height = size
        stream.pix_fmt = 'yuv420p'
        stream.options = dict(crf='23', g='25')
        for image in moving_picture(num_frames, size, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode())
    return path


def write_image(path: str, size: int = 400, seed: int = 0) -> str:
    """Write a jpg image; return its path."""
    cv2.imwrite(path, next(moving_picture(1, size, seed))[..., ::-1])
    return path
