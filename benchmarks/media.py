# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Clips and images to decode: a textured, moving picture, which costs about what a face does."""

from collections.abc import Iterator

import av
import cv2
import numpy as np


def moving_picture(num_frames: int, size: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Frames (size, size, 3) uint8 of a texture that moves, with the noise of a camera."""
    rng = np.random.default_rng(seed)
    texture = np.full((size, size, 3), 128, np.float32)
    for cells, weight in ((4, 60), (16, 35), (64, 15), (256, 6)):
        coarse = rng.standard_normal((cells, cells, 3), dtype=np.float32)
        texture += weight * cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    for i in range(num_frames):
        frame = np.roll(texture, (3 * i, 4 * i), axis=(0, 1))
        frame += 2 * rng.standard_normal(frame.shape, dtype=np.float32)
        yield frame.clip(0, 255).astype(np.uint8)


def write_clip(path: str, num_frames: int, size: int = 224, seed: int = 0) -> str:
    """Write an H.264 mp4 as x264 does by default, with a key frame a second; return its path."""
    with av.open(path, 'w') as container:
        stream = container.add_stream('libx264', rate=25, options=dict(crf='23', g='25'))
        stream.width = stream.height = size
        for image in moving_picture(num_frames, size, seed):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
        container.mux(stream.encode())
    return path


def write_image(path: str, size: int = 400, seed: int = 0) -> str:
    """Write a jpg image; return its path."""
    cv2.imwrite(path, next(moving_picture(1, size, seed))[..., ::-1])
    return path
