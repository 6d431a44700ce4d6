# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Clips and images to decode: a textured, moving picture, which costs a
decoder about what a face does.
"""

import os
import os.path as osp

import av
import cv2
import numpy as np


def moving_picture(num_frames: int, size: int = 224, seed: int = 0):
    """Frames (size, size, 3) uint8 of a window that wanders over a texture of
    several scales, with camera noise.
    """
    rng = np.random.default_rng(seed)
    texture = np.zeros((2 * size, 2 * size, 3), np.float32)
    for cells, weight in ((4, 60), (16, 35), (64, 15), (256, 6)):
        coarse = rng.standard_normal((cells, cells, 3), dtype=np.float32)
        texture += weight * cv2.resize(coarse, texture.shape[:2], interpolation=cv2.INTER_CUBIC)
    for i in range(num_frames):
        angle = 2 * np.pi * i / 90
        top = int(size / 2 * (1 + 0.8 * np.sin(angle)))
        left = int(size / 2 * (1 + 0.8 * np.cos(1.3 * angle)))
        frame = texture[top : top + size, left : left + size] + 128
        frame = frame + 2 * rng.standard_normal(frame.shape, dtype=np.float32)
        yield frame.clip(0, 255).astype(np.uint8)


def write_clip(
    path: str, num_frames: int = 150, size: int = 224, gop: int = 25, seed: int = 0
) -> str:
    """Write an H.264 mp4 as x264 does by default, with a key frame a
    second.
    """
    os.makedirs(osp.dirname(path), exist_ok=True)
    with av.open(path, 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.width = stream.height = size
        stream.pix_fmt = 'yuv420p'
        stream.options = dict(crf='23', g=str(gop))
        for image in moving_picture(num_frames, size, seed):
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_frames(folder: str, num_frames: int = 112, size: int = 224, seed: int = 0) -> str:
    """Write a folder of jpg frames, as DFEW has."""
    os.makedirs(folder, exist_ok=True)
    for i, image in enumerate(moving_picture(num_frames, size, seed)):
        cv2.imwrite(osp.join(folder, f'{i:05d}.jpg'), image[..., ::-1])
    return folder


def write_image(path: str, size: int = 400, seed: int = 0) -> str:
    """Write a jpg image."""
    os.makedirs(osp.dirname(path), exist_ok=True)
    cv2.imwrite(path, next(moving_picture(1, size, seed))[..., ::-1])
    return path
