# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From what the user gives to sources of frames."""

import logging
import os
import os.path as osp
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from .. import media
from ..files.text import printable

FOLDERS = ('auto', 'frames', 'images')
FRAME_NAME = re.compile(r'(img_|frame_)?[0-9]+')  # case counts: cameras name photos IMG_0001.JPG
Input = str | Path | np.ndarray | int | Iterator[np.ndarray]


@dataclass(frozen=True)
class Source:
    """One input."""

    name: str  # the path as it was given, printable, or a name
    kind: str  # 'video' or 'image'
    read: Callable[[], Iterator[media.TimedFrame]]  # opens it and gives its frames, an image as one
    path: str | None = None  # the file, if it is one
    fps: float | None = None  # if it is known before it is opened
    frames: int = 0  # 0 if it is not known
    message: str = ''  # what the user should know

    @property
    def stem(self) -> str:
        """Name for the files that are written."""
        if self.path is not None:
            return osp.splitext(printable(osp.basename(self.path)))[0]
        return osp.basename(osp.normpath(self.name))


def list_sources(
    inputs: Input | Sequence[Input], folder: str = 'auto', fps: float = 25
) -> list[Source]:
    """List the sources of frames in what the user gave. Videos are not opened yet.

    Args:
        inputs (Input | Sequence[Input]): See ``ExpressionInferencer``. Folders are searched
            recursively, in natural order.
        folder (str): 'frames' if the images of a folder are the frames of one clip, 'images' if
            they are single images. Defaults to 'auto': one clip if all are named by numbers
            (``00001.jpg``, ``img_00001.jpg``, ``frame_1.png``), there are 2 or more, and all have
            one size.
        fps (float): Frames per second of arrays, iterators and folders of frames. Defaults to 25.

    Of several inputs, a file that is no media, or a folder without any, is left out with a warning.
    """
    if folder not in FOLDERS:
        raise ValueError(f'folder={folder!r}: must be one of {FOLDERS}.')
    if not fps > 0:
        raise ValueError(f'fps={fps}: must be above 0.')
    items = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    sources = []
    for i, item in enumerate(items, 1):
        found = list(_sources_of(item, i, folder, float(fps)))
        sources += found
        if not found and len(items) > 1:
            text = f'{printable(item)} is or holds no media, by the suffix; it is left out.'
            print_log(text, 'current', logging.WARNING)
    if not sources:
        raise ValueError(
            f'There is nothing to predict in {inputs!r}: videos have the suffixes '
            f'{", ".join(media.VIDEO_SUFFIXES)}, images {", ".join(media.IMAGE_SUFFIXES)}.'
        )
    return sources


def _sources_of(item: Any, number: int, folder: str, fps: float) -> Iterator[Source]:
    is_array = isinstance(item, np.ndarray)
    if isinstance(item, (str, Path)):
        yield from _path_sources(str(item), folder, fps)
    elif is_array and item.ndim == 3:
        name = f'array_{number}'
        _check_frame(item, name)
        yield Source(name, 'image', lambda: iter([media.TimedFrame(item, 0.0)]), frames=1)
    elif is_array or isinstance(item, Iterator):
        name, count = (f'array_{number}', len(item)) if is_array else (f'frames_{number}', 0)
        read = partial(_number_frames, item, name, fps)
        yield Source(name, 'video', read, fps=fps, frames=count)
    elif isinstance(item, Integral) and not isinstance(item, bool) and item >= 0:
        yield Source(f'camera_{item}', 'video', partial(_read_camera, int(item)))
    else:
        raise ValueError(
            f'Input {number} is {item!r} ({type(item).__name__}); it must be a path, an array '
            '(T, H, W, 3) or (H, W, 3), an iterator of frames, or the number of a camera.'
        )


def _path_sources(path: str, folder: str, fps: float) -> Iterator[Source]:
    suffix = osp.splitext(path)[1].lower()
    if '://' in path:
        raise ValueError(f'{path} is an address; download it and give the path of the file.')
    if osp.isdir(path):
        yield from _folder_sources(path, folder, fps)
    elif suffix in media.IMAGE_SUFFIXES:
        yield Source(printable(path), 'image', partial(_read_image, path), path, frames=1)
    elif suffix in media.VIDEO_SUFFIXES or not osp.exists(path):  # reading says that there is none
        yield Source(printable(path), 'video', partial(media.read_timed, path), path)


def _folder_sources(root: str, folder: str, fps: float) -> Iterator[Source]:
    for place, folders, names in os.walk(root):
        folders[:] = sorted((f for f in folders if not f.startswith('.')), key=media.natural_key)
        names = sorted((n for n in names if not n.startswith('.')), key=media.natural_key)
        images = [osp.join(place, n) for n in names if n.lower().endswith(media.IMAGE_SUFFIXES)]
        one_clip = folder == 'frames' or (folder == 'auto' and _are_frames(images))
        if images and one_clip:
            note = "numbered images are read as one clip (folder='images' if they are none)"
            message = f'{len(images)} {note}' if folder == 'auto' else ''
            read = partial(_read_frames, place, fps)
            yield Source(printable(place), 'video', read, None, fps, len(images), message)
        for path in (osp.join(place, n) for n in names):
            if path.lower().endswith(media.VIDEO_SUFFIXES) or path in images and not one_clip:
                yield from _path_sources(path, folder, fps)


def _are_frames(paths: list[str]) -> bool:
    stems = [osp.splitext(osp.basename(path))[0] for path in paths]
    if len(paths) < 2 or not all(FRAME_NAME.fullmatch(stem) for stem in stems):
        return False
    sizes = set()
    for path in paths:
        try:
            with media.open_image(path) as image:
                sizes.add(image.size[::-1] if media.is_turned(image) else image.size)
        except media.MediaReadError:
            continue  # said when it is read
    return len(sizes) <= 1


def _read_image(path: str) -> Iterator[media.TimedFrame]:
    yield media.TimedFrame(media.read_image(path), 0.0)


def _read_frames(path: str, fps: float) -> Iterator[media.TimedFrame]:
    try:
        yield from _number_frames(map(media.read_image, media.list_frames(path)), path, fps)
    except ValueError as e:
        raise media.MediaReadError(f"{e} Give folder='images' if they are no clip.") from e


def _check_frame(frame: Any, name: str) -> None:
    good = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
    if not good or frame.shape[2] != 3 or not frame.size:
        found = f'dtype {frame.dtype} and shape {frame.shape}' if hasattr(frame, 'dtype') else frame
        raise ValueError(f'{name} has {found}; it must be an array of uint8, (H, W, 3), RGB.')


def _number_frames(frames: Iterable, name: str, fps: float) -> Iterator[media.TimedFrame]:
    """Give frames their times; all must have one size."""
    size = None
    for i, frame in enumerate(frames):
        _check_frame(frame, f'Frame {i} of {name}')
        size = size or frame.shape
        if frame.shape != size:
            raise ValueError(f'Frame {i} of {name} has the shape {frame.shape}, frame 0 {size}.')
        yield media.TimedFrame(frame, i / fps)
    if size is None:
        raise ValueError(f'{name} has no frames.')


def _read_camera(number: int) -> Iterator[media.TimedFrame]:
    """Read until the camera ends or, in the main thread, Ctrl-C; the second one is as always."""
    import cv2

    stop, before = threading.Event(), signal.getsignal(signal.SIGINT)

    def end(*args: Any) -> None:
        signal.signal(signal.SIGINT, before)
        stop.set()

    is_main = threading.current_thread() is threading.main_thread()
    camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise media.MediaReadError(f'Camera {number} cannot be opened. Is it free?')
        if is_main:
            signal.signal(signal.SIGINT, end)
        start = time.monotonic()
        while not stop.is_set():
            there, frame = camera.read()
            if not there:
                break
            yield media.TimedFrame(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), time.monotonic() - start)
    finally:
        camera.release()
        if is_main:
            signal.signal(signal.SIGINT, before)
