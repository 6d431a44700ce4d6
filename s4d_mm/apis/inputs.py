# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Prediction, its beginning: from what the user gives to sources of frames."""

import logging
import os
import os.path as osp
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log

from ..files.text import printable
from ..media import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    MediaReadError,
    TimedFrame,
    is_turned,
    list_frames,
    natural_key,
    open_image,
    read_image,
    read_timed,
    video_info,
)

FOLDERS = ('auto', 'frames', 'images')
FRAME_NAME = re.compile(r'(img_|frame_)?[0-9]+')  # case counts: cameras name photos IMG_0001.JPG
Input = str | Path | np.ndarray | int | Iterator[np.ndarray]
KINDS = (
    'a path of a video, an image or a folder, an array (T, H, W, 3) or (H, W, 3), an iterator of '
    'frames (H, W, 3), the number of a camera, or a list of these'
)


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        name (str): The path as it was given, but for what no terminal and no table can hold, or a
            name.
        kind (str): 'video' or 'image'.
        read (Callable): Opens it and gives its frames, an image as one.
        path (str | None): The file, if it is one.
        fps (float | None): Frames per second, if they are known before it is opened.
        frames (int): Number of frames, 0 if it is not known.
        message (str): What the user should know.
    """

    name: str
    kind: str
    read: Callable[[], Iterator[TimedFrame]]
    path: str | None = None
    fps: float | None = None
    frames: int = 0
    message: str = ''

    @property
    def stem(self) -> str:
        """Name for the files that are written."""
        if self.path is not None:
            return osp.splitext(printable(osp.basename(self.path)))[0]
        return osp.basename(osp.normpath(self.name))


class NotMediaError(ValueError):
    """A file or folder is there, but is none that is read."""


def list_sources(
    inputs: Input | Sequence[Input], folder: str = 'auto', fps: float = 25
) -> list[Source]:
    """List the sources of frames in what the user gave. Videos are not opened yet.

    Args:
        inputs (Input | Sequence[Input]): Paths (str or Path) of videos, images or folders; arrays
            (T, H, W, 3) or (H, W, 3), RGB, uint8; an iterator of such frames; the number of a
            camera; a list or tuple of these. Folders are searched recursively.
        folder (str): 'frames' if the images of a folder are the frames of one clip, 'images' if
            each is one for itself. Defaults to 'auto': one clip if all are named by numbers
            (``00001.jpg``, ``img_00001.jpg``, ``frame_1.png``), there are 2 or more, and all have
            one size.
        fps (float): Frames per second of arrays, iterators and folders of frames. Defaults to 25.

    Returns:
        list[Source]: In the order of the inputs; those of a folder in natural order.

    Raises:
        ValueError: If an input is of no such kind, with what it is. Of several, a file that is no
            media, or a folder without any, is left out with a warning.
    """
    if folder not in FOLDERS:
        raise ValueError(f'folder={folder!r}: must be one of {FOLDERS}.')
    if not fps > 0:
        raise ValueError(f'fps={fps}: must be above 0.')
    items = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    sources = []
    for i, item in enumerate(items, 1):
        try:
            sources += _sources_of(item, i, folder, float(fps))
        except NotMediaError as e:
            if len(items) == 1:
                raise
            print_log(f'{e} It is left out.', 'current', logging.WARNING)
    if not sources:
        raise ValueError(f'There is nothing to predict in {inputs!r}.')
    return sources


def _sources_of(item: Any, number: int, folder: str, fps: float) -> list[Source]:
    if isinstance(item, (str, Path)):
        return _path_sources(str(item), folder, fps)
    if isinstance(item, np.ndarray):
        return [_array_source(item, f'array_{number}', fps)]
    if isinstance(item, Integral) and not isinstance(item, bool) and item >= 0:
        return [_camera_source(int(item))]
    if isinstance(item, Iterator):
        name = f'frames_{number}'
        return [Source(name, 'video', lambda: _number_frames(item, name, fps), fps=fps)]
    raise ValueError(f'Input {number} is {item!r} ({type(item).__name__}); it must be {KINDS}.')


def _path_sources(path: str, folder: str, fps: float) -> list[Source]:
    if '://' in path:
        raise ValueError(f'{path} is an address; download it and give the path of the file.')
    name = printable(path)
    if osp.isdir(path):
        sources = list(_folder_sources(path, folder, fps))
        if not sources:
            raise NotMediaError(
                f'Folder {name} holds no videos ({", ".join(VIDEO_SUFFIXES)}) and no images '
                f'({", ".join(IMAGE_SUFFIXES)}).'
            )
        return sources
    suffix = osp.splitext(path)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return [_image_source(path)]
    if suffix in VIDEO_SUFFIXES or not osp.exists(path):  # reading says that there is none
        return [Source(name, 'video', lambda: _read_file(path), path)]
    raise NotMediaError(
        f'{name} has the suffix {suffix!r}; videos have {", ".join(VIDEO_SUFFIXES)}, images '
        f'{", ".join(IMAGE_SUFFIXES)}.'
    )


def _folder_sources(root: str, folder: str, fps: float) -> Iterator[Source]:
    """Yield the videos and images in a folder and its folders."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted((f for f in folders if not f.startswith('.')), key=natural_key)
        names = sorted((n for n in names if not n.startswith('.')), key=natural_key)
        images = [osp.join(place, n) for n in names if n.lower().endswith(IMAGE_SUFFIXES)]
        one_clip = folder == 'frames' or (folder == 'auto' and are_frames(images))
        if images and one_clip:
            yield _frames_source(place, fps, len(images), folder)
        for name in names:
            path = osp.join(place, name)
            if name.lower().endswith(VIDEO_SUFFIXES):
                yield from _path_sources(path, folder, fps)
            elif not one_clip and path in images:
                yield _image_source(path)


def are_frames(paths: list[str]) -> bool:
    """Whether images look like the frames of one clip, by their names and sizes.

    Args:
        paths (list[str]): The images of one folder.

    Returns:
        bool: See :func:`list_sources`.
    """
    stems = [osp.splitext(osp.basename(path))[0] for path in paths]
    if len(paths) < 2 or not all(FRAME_NAME.fullmatch(stem) for stem in stems):
        return False
    sizes = set()
    for path in paths:
        try:
            with open_image(path) as image:
                sizes.add(image.size[::-1] if is_turned(image) else image.size)
        except MediaReadError:
            continue  # said when it is read
        if len(sizes) > 1:
            return False
    return True


def _read_file(path: str) -> Iterator[TimedFrame]:
    _require(path)
    return read_timed(path)


def _require(path: str) -> None:
    if not osp.exists(path):
        raise FileNotFoundError(f'There is no file or folder {path}.')


def _image_source(path: str) -> Source:
    def read() -> Iterator[TimedFrame]:
        _require(path)
        yield TimedFrame(read_image(path), 0.0)

    return Source(printable(path), 'image', read, path, frames=1)


def _frames_source(path: str, fps: float, count: int, folder: str) -> Source:
    def read() -> Iterator[TimedFrame]:
        images = (read_image(file) for file in list_frames(path))
        try:
            yield from _number_frames(images, path, fps)
        except ValueError as e:
            raise MediaReadError(f"{e} Give folder='images' if they are no clip.") from e

    message = ''
    if folder == 'auto':
        message = f"{count} numbered images are read as one clip (folder='images' if they are none)"
    return Source(printable(path), 'video', read, fps=fps, frames=count, message=message)


def _array_source(array: np.ndarray, name: str, fps: float) -> Source:
    if array.ndim == 3:
        check_frame(array, name)
        return Source(name, 'image', lambda: iter([TimedFrame(array, 0.0)]), frames=1)
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8 or not array.size:
        raise ValueError(
            f'{name} has dtype {array.dtype} and shape {array.shape}; it must be uint8 and '
            '(T, H, W, 3) for a video or (H, W, 3) for an image, RGB.'
        )
    read = _number_frames
    return Source(name, 'video', lambda: read(array, name, fps), fps=fps, frames=len(array))


def check_frame(frame: Any, name: str) -> None:
    """Raise a ``ValueError`` if a frame is no RGB uint8 array (H, W, 3)."""
    good = isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
    if not good or frame.shape[2] != 3 or not frame.size:
        found = f'dtype {frame.dtype} and shape {frame.shape}' if hasattr(frame, 'dtype') else frame
        raise ValueError(f'{name} has {found}; it must be an array of uint8, (H, W, 3), RGB.')


def _number_frames(frames: Iterable[np.ndarray], name: str, fps: float) -> Iterator[TimedFrame]:
    """Give frames their times; all must have one size."""
    size = None
    for i, frame in enumerate(frames):
        check_frame(frame, f'Frame {i} of {name}')
        size = size or frame.shape
        if frame.shape != size:
            raise ValueError(f'Frame {i} of {name} has the shape {frame.shape}, frame 0 {size}.')
        yield TimedFrame(frame, i / fps)
    if size is None:
        raise ValueError(f'{name} has no frames.')


def _camera_source(number: int) -> Source:
    name = f'camera_{number}'

    def read() -> Iterator[TimedFrame]:
        import cv2

        camera = cv2.VideoCapture(number)
        try:
            if not camera.isOpened():
                raise MediaReadError(
                    f'Camera {number} cannot be opened. Is it connected, and free?'
                )
            with interrupts() as interrupted:
                start = time.monotonic()
                while not interrupted.is_set():
                    there, frame = camera.read()
                    if not there:
                        break
                    yield TimedFrame(
                        cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), time.monotonic() - start
                    )
        finally:
            camera.release()

    return Source(name, 'video', read)


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Make the first Ctrl-C set an event; the second one stops the program, as always.

    Yields:
        threading.Event: The event. Outside of the main thread Ctrl-C stays as it is.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(*args: Any) -> None:
        signal.signal(signal.SIGINT, before)
        event.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def described(source: Source) -> Source:
    """The source with the frame rate and the number of frames that its video file declares.

    Args:
        source (Source): Any source.

    Returns:
        Source: A video file is opened for it; others stay as they are.

    Raises:
        FileNotFoundError: If there is no such file.
        MediaReadError: If it cannot be opened.
    """
    if source.kind != 'video' or source.path is None:
        return source
    _require(source.path)
    info = video_info(source.path)
    return replace(source, fps=info.fps, frames=info.frames)
