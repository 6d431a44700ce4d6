# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Media files, for the package and its tools: reading images and folders of frames, and
which suffixes are which."""

import os
import os.path as osp
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

EXIF_ORIENTATION = 0x0112
TRANSPARENT = (124, 117, 104, 255)
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
VIDEO_SUFFIXES = ('.mp4', '.avi', '.flv', '.mkv', '.mov', '.webm')


class MediaReadError(OSError):
    """A video, frame or image file is there but cannot be decoded."""


@contextmanager
def open_image(path: str) -> Iterator[Image.Image]:
    """Open an image file with Pillow, which, unlike OpenCV, never takes a
    truncated file for a whole one.

    Args:
        path (str): The file.

    Yields:
        PIL.Image.Image: The image, not yet decoded.

    Raises:
        MediaReadError: If the file is no image, or Pillow cannot decode it
            inside the ``with`` block. Other errors of the block stay as they
            are.
    """
    try:
        with open(path, 'rb') as f, Image.open(f) as image:
            yield image
    except Exception as e:
        if not (isinstance(e, OSError) or _of_pillow(e)):
            raise
        raise MediaReadError(f'Cannot decode image {path}: {e}') from e


def _of_pillow(error: Exception) -> bool:
    """Whether an error was raised inside of Pillow. Its type would not tell: a
    broken file can be a SyntaxError, a RuntimeError or struct.error, and
    broken EXIF data a TypeError, AttributeError or KeyError.
    """
    return any(
        frame.f_globals.get('__name__', '').startswith('PIL.')
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def is_turned(image: Image.Image, least: int = 5) -> bool:
    """Whether the EXIF orientation of an image is at least this one: 2, not
    upright; 5, turned by 90 degrees.
    """
    return image.getexif().get(EXIF_ORIENTATION) in range(least, 9)


def to_rgb(image: Image.Image) -> np.ndarray:
    """Decode an open image, turned upright as its EXIF data say.

    Args:
        image (PIL.Image.Image): The image.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3).
    """
    if is_turned(image, least=2):
        image = ImageOps.exif_transpose(image)
    if image.mode == 'LA':  # on mmcv's colour, not on black
        canvas = Image.new('RGBA', image.size, TRANSPARENT)
        image = Image.alpha_composite(canvas, image.convert('RGBA'))
    if image.mode != 'RGB':
        image = image.convert('RGB')
    return np.array(image)


def read_image(path: str) -> np.ndarray:
    """Read an image file.

    Args:
        path (str): The file.

    Returns:
        np.ndarray: RGB, uint8, (height, width, 3).

    Raises:
        MediaReadError: If the file is truncated or no image.
    """
    with open_image(path) as image:
        return to_rgb(image)


def _natural_key(name: str) -> list:
    """Sort key by which ``2.jpg`` comes before ``10.jpg``."""
    parts = re.split('([0-9]+)', name)  # text, number, text, ...
    return [int(p) if i % 2 else p for i, p in enumerate(parts)]


def list_frames(folder: str) -> list[str]:
    """Paths of the frames in a folder, in natural order.

    Args:
        folder (str): The folder. Files that are no images are skipped.

    Returns:
        list[str]: Paths.

    Raises:
        MediaReadError: If there is none.
    """
    names = [
        n
        for n in os.listdir(folder)
        if n.lower().endswith(IMAGE_SUFFIXES) and not n.startswith('.')
    ]
    if not names:
        raise MediaReadError(
            f'Frame folder {folder} has no image files ({", ".join(IMAGE_SUFFIXES)}).'
        )
    return [osp.join(folder, n) for n in sorted(names, key=_natural_key)]
