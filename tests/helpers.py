# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What tests share: small real media files, and runs of the tools.

Every frame of a test video says which one it is: :func:`frame_number` reads the
number back, also after lossy compression and resizing. The right half is red,
so that a flipped frame and swapped colour channels show too.
"""

import os
import os.path as osp
import runpy
import struct
import sys
from collections.abc import Sequence
from unittest import mock

import av
import cv2
import numpy as np
from mmengine.config import Config

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
RED = (220, 30, 40)
# options of a training, a validation and a test, which then read their data themselves
ONE_PROCESS = [
    f'{stage}_dataloader.{option}'
    for stage in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]


def config_path(name: str) -> str:
    """A config of the repository by its name, such as ``own/own_clips``."""
    return osp.join(ROOT, 'configs', f'{name}.py')


def read_config(name: str) -> Config:
    return Config.fromfile(config_path(name))


def without_workers(cfg: Config) -> Config:
    """Let a config's loaders read their data themselves; the config."""
    for stage in ('train', 'val', 'test'):
        if cfg.get(f'{stage}_dataloader'):
            cfg[f'{stage}_dataloader'].update(num_workers=0, persistent_workers=False)
    return cfg


def make_frame(number: int = 0, height: int = 48, width: int = 64):
    """A frame that carries its number (0..255) in its left half.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3).
    """
    frame = np.empty((height, width, 3), dtype=np.uint8)
    frame[:, width // 2 :] = RED
    frame[: height // 2, : width // 2] = number % 16 * 16 + 8
    frame[height // 2 :, : width // 2] = number // 16 * 16 + 8
    return frame


def frame_number(frame: np.ndarray) -> int:
    """The number that :func:`make_frame` was given; -1 if the frame is
    flipped from left to right."""
    h, w = frame.shape[:2]
    if is_red(frame[h // 3 : -h // 3, : w // 3]):
        return -1
    low = frame[h // 8 : h * 3 // 8, w // 8 : w * 3 // 8].mean()
    high = frame[h * 5 // 8 : h * 7 // 8, w // 8 : w * 3 // 8].mean()
    return int(low // 16) + 16 * int(high // 16)


def is_red(pixels: np.ndarray) -> bool:
    """Whether RGB pixels have the colour of the right half."""
    return bool(np.abs(pixels.reshape(-1, 3).mean(0) - RED).max() < 40)


def write_video(
    path: str,
    num_frames: int = 24,
    height: int = 48,
    width: int = 64,
    fps: int = 25,
    faststart: bool = False,
    first: int = 0,
) -> str:
    """Write an H.264 (libx264, yuv420p) mp4 of :func:`make_frame` frames.

    ``faststart`` puts the index before the frames, so that a truncated copy can still be opened.
    """
    frames = [make_frame(first + i, height, width) for i in range(num_frames)]
    return encode(path, frames, fps, faststart=faststart)


def encode(
    path: str,
    frames: Sequence[np.ndarray],
    fps: int = 25,
    codec: str = 'libx264',
    faststart: bool = False,
    **options,
) -> str:
    """Write RGB frames as :func:`write_video` does, or with another codec and its options."""
    path = _make_folder_of(path)
    if codec == 'libx264':
        options = dict(crf=12, preset='ultrafast', threads=1) | options
    how = dict(movflags='faststart') if faststart else {}
    with av.open(path, 'w', options=how) as container:
        options = {name: str(value) for name, value in options.items()}
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = 'yuv420p'
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def set_rotation(path: str, degrees: int) -> str:
    """Write the rotation flag of phones (clockwise degrees) into an mp4 of :func:`encode`."""
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    with open(path, 'rb') as f:
        data = f.read()
    start = data.index(b'tkhd') + 44  # ISO/IEC 14496-12, track header box of version 0
    with open(path, 'wb') as f:
        f.write(data[:start] + struct.pack('>9i', *matrix) + data[start + 36 :])
    return path


def write_image(path: str, height: int = 48, width: int = 64, number: int = 0) -> str:
    """Write one :func:`make_frame` picture; the suffix (.jpg, .png, .bmp) says how."""
    path = _make_folder_of(path)
    image = make_frame(number, height, width)
    if not cv2.imwrite(path, image[..., ::-1]):
        raise OSError(f'cannot write {path}')
    return path


def write_frames(
    folder: str,
    num_frames: int = 24,
    height: int = 48,
    width: int = 64,
    pattern: str = '{:05d}.jpg',
) -> str:
    """Write a folder of frames; the pattern ``'{}.png'`` needs natural sorting."""
    for i in range(num_frames):
        write_image(osp.join(folder, pattern.format(i)), height, width, number=i)
    return str(folder)


def write_text(path: str, *lines: str) -> str:
    """Write lines of text, for example an annotation file."""
    path = _make_folder_of(path)
    with open(path, 'w', encoding='utf-8') as f:
        f.writelines(f'{line}\n' for line in lines)
    return path


def truncate(path: str, keep: float = 0.5) -> str:
    """Cut the end off a file, as an interrupted download does."""
    path = str(path)
    os.truncate(path, int(osp.getsize(path) * keep))
    return path


def make_public_layout(root):
    """Write miniatures of the datasets into ``root/data``, where the recipes expect them."""
    data = osp.join(root, 'data')
    splits = dict(
        DFEW=['set_1_train.csv', 'set_1_test.csv'],
        FERV39k=['train.csv', 'test.csv'],
        MAFW=['set_1_train.csv', 'set_1_test.csv'],
    )
    for name, files in splits.items():
        clips = [
            (f'Crime/Angry/{i:04d}' if name == 'FERV39k' else f'{i:05d}', i % 7) for i in range(2)
        ]
        for (clip, _), num_frames in zip(clips, (70, 12)):
            write_frames(
                osp.join(data, name, 'frames', clip),
                num_frames,
                pattern='{:05d}.png' if name == 'MAFW' else '{:05d}.jpg',
            )
        for file in files:
            write_text(
                osp.join(data, name, 'annotations', file),
                *[f'{clip},{label}' for clip, label in clips],
            )
    for i in range(4):
        write_image(osp.join(data, 'AffectNet', 'images', 'a', f'{i}.jpg'))
        write_video(
            osp.join(data, 'VoxCeleb2', 'videos', 'id1', f'{i}.mp4'), 70, height=224, width=224
        )
    images = [f'a/{i}.jpg {i % 7}' for i in range(4)]
    for name in ('train_7', 'train_8', 'test_7'):
        write_text(osp.join(data, 'AffectNet', 'annotations', f'{name}.txt'), *images)
    write_text(
        osp.join(data, 'VoxCeleb2', 'annotations', 'train.txt'), *[f'id1/{i}.mp4' for i in range(4)]
    )


def run_script(path: str, *arguments) -> None:
    """Run a tool (path from the root) in this process, which saves the seconds of the imports."""
    path = osp.join(ROOT, path)
    with mock.patch.object(sys, 'argv', [path, *map(str, arguments)]):
        runpy.run_path(path, run_name='__main__')


def process_env(**variables) -> dict[str, str]:
    """Environment in which ``python`` is this interpreter and the package that of this tree."""
    path = os.pathsep.join((osp.dirname(sys.executable), os.environ.get('PATH', '')))
    return dict(os.environ, PATH=path, PYTHONPATH=ROOT, OMP_NUM_THREADS='1', **variables)


def _make_folder_of(path: str) -> str:
    path = str(path)
    os.makedirs(osp.dirname(path) or '.', exist_ok=True)
    return path
