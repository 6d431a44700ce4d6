# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, step 0 (your own videos): which clips or images a folder holds,
their frames, and how the cropped frames are written.
"""

import os
import os.path as osp
import re
import shutil
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import av
import cv2
import numpy as np
from PIL import Image, ImageOps

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp')
# not imported from s4d_mm: that would load torch into each worker
VIDEO_SUFFIXES = ('.mp4', '.avi', '.flv', '.mkv', '.mov', '.webm')
FPS = 25  # of the mp4 made from a folder of frames


class ReadError(Exception):
    """A file is there but cannot be decoded."""


class Source(NamedTuple):
    """One clip or image to prepare."""

    path: str  # relative to the folder that is prepared
    kind: str  # 'video', 'frames', 'image'; 'mixed' cannot be prepared
    file: str  # file, or folder of frames
    output: str  # relative to the folder that is written


def natural_key(name: str) -> list:
    """Sort key by which ``2.jpg`` comes before ``10.jpg``."""
    parts = re.split('([0-9]+)', name)
    return [int(p) if i % 2 else p for i, p in enumerate(parts)]


def list_sources(src: str, input_type: str, form: str) -> list[Source]:
    """Find the clips or images.

    Args:
        src: A folder, searched recursively, or one file. Names that start
            with a dot are skipped.
        input_type: 'video' or 'image'.
        form: 'frames' or 'mp4', the form of prepared clips.

    Returns:
        list[Source]: In natural order of their paths.

    Raises:
        ValueError: If there are none, or two would be written to one place.
    """
    suffixes = VIDEO_SUFFIXES if input_type == 'video' else IMAGE_SUFFIXES
    if not osp.exists(src):
        raise ValueError(f'{src} does not exist')
    src = osp.abspath(src)
    found = []
    if osp.isfile(src):
        if src.lower().endswith(suffixes):
            found = [(osp.basename(src), input_type, src)]
    else:
        for folder, folders, names in os.walk(src):
            folders[:] = sorted(d for d in folders if not d.startswith('.'))
            names = [n for n in names if not n.startswith('.')]
            for name in names:
                if name.lower().endswith(suffixes):
                    file = osp.join(folder, name)
                    found.append((osp.relpath(file, src), input_type, file))
            # images beside videos are their thumbnails, not a clip
            if (
                input_type == 'video'
                and not any(n.lower().endswith(VIDEO_SUFFIXES) for n in names)
                and any(n.lower().endswith(IMAGE_SUFFIXES) for n in names)
            ):
                path = osp.relpath(folder, src)
                path = osp.basename(src) if path == '.' else path
                found.append((path, 'frames', folder))
    if not found:
        other = 'image' if input_type == 'video' else 'video'
        also = ' or folders of frames' if input_type == 'video' else ''
        raise ValueError(
            f'{src} holds no {input_type}s ({", ".join(suffixes)}){also}; for '
            f'{other}s name a dataset of {other}s'
        )
    sources, owners = [], {}
    for path, kind, file in sorted(found, key=lambda x: natural_key(x[0])):
        path = path.replace(os.sep, '/')
        output = path
        if kind != 'image':
            stem = osp.splitext(path)[0] if kind == 'video' else path
            output = stem if form == 'frames' else f'{stem}.mp4'
        if output in owners:
            raise ValueError(
                f'{owners[output]} and {path} would both be written to '
                f'{output}; rename or move one of them'
            )
        owners[output] = path
        sources.append(Source(path, kind, file, output))
    above = {p for output in owners for p in _parents(output)}
    alone = len(sources) == 1
    return [
        s._replace(kind='mixed') if s.output in above or (s.file == src and not alone) else s
        for s in sources
    ]


def _parents(path: str) -> Iterator[str]:
    while '/' in path:
        path = path.rsplit('/', 1)[0]
        yield path


def stamp(file: str) -> list:
    """Changes when a file, or what is listed in a folder, changes."""
    state = os.stat(file)
    return [state.st_size, state.st_mtime_ns]


def frame_names(folder: str) -> list[str]:
    """File names of the frames in a folder, in natural order."""
    names = (
        n
        for n in os.listdir(folder)
        if n.lower().endswith(IMAGE_SUFFIXES) and not n.startswith('.')
    )
    return sorted(names, key=natural_key)


def frame_numbers(folder: str) -> list[int]:
    """The numbers in the names of frames, [] if a name has none or one comes
    twice.
    """
    found = [re.findall('[0-9]+', osp.splitext(n)[0]) for n in frame_names(folder)]
    numbers = [int(f[-1]) for f in found if f]
    return numbers if len(set(numbers)) == len(found) else []


def declared_frames(source: Source) -> int:
    """How many frames a video says that it has; 0 if it does not say."""
    if source.kind != 'video':
        return 0
    with av.open(source.file) as container:
        return container.streams.video[0].frames


def frame_rate(source: Source):
    """Frames per second, for writing."""
    if source.kind != 'video':
        return FPS
    with av.open(source.file) as container:
        return container.streams.video[0].average_rate or FPS


def read_frames(source: Source) -> Iterator[np.ndarray]:
    """The RGB frames of a clip, or the one of an image.

    Raises:
        ReadError: If one cannot be decoded, or there is none.
    """
    if source.kind == 'frames':
        for name in frame_names(source.file):
            yield _read_image(osp.join(source.file, name))
    elif source.kind == 'image':
        yield _read_image(source.file)
    elif source.kind == 'mixed':
        raise ReadError('there are other clips below it; move its frames to a folder of their own')
    else:
        yield from _read_video(source.file)


def _read_image(file: str) -> np.ndarray:
    try:  # Pillow never takes a truncated file for a whole one
        with Image.open(file) as image:
            return np.array(ImageOps.exif_transpose(image).convert('RGB'))
    except Exception as e:  # Pillow raises many types
        raise ReadError(f'cannot decode {osp.basename(file)}: {e}') from e


def _reason(error: Exception) -> str:
    """What FFmpeg says, without the last line of its log, which PyAV adds only
    if there is one and which may be of another file.
    """
    return str(error).split('; last error log')[0]


def _read_video(file: str) -> Iterator[np.ndarray]:
    try:
        container = av.open(file)
    except (av.FFmpegError, OSError, ValueError) as e:
        raise ReadError(f'cannot open: {_reason(e)}') from e
    with container:
        if not container.streams.video:
            raise ReadError('has no video stream')
        count = 0
        decoded = container.decode(container.streams.video[0])
        while True:
            try:
                frame = next(decoded).to_ndarray(format='rgb24')
            except StopIteration:
                break
            except (av.FFmpegError, OSError, ValueError) as e:
                raise ReadError(f'cannot decode frame {count}: {_reason(e)}') from e
            count += 1
            yield frame
    if not count:
        raise ReadError('has no frames')


def write_image(file: str, picture: np.ndarray, suffix: str) -> None:
    """Write an RGB picture in the format of a suffix, e.g. ``.jpg``."""
    _, data = cv2.imencode(suffix.lower(), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    with open(file, 'wb') as f:
        f.write(data.tobytes())


def write_frames(folder: str, frames: Iterable[np.ndarray]) -> None:
    """Write RGB frames as 00001.jpg, 00002.jpg, ..."""
    os.makedirs(folder)
    for i, frame in enumerate(frames, 1):
        write_image(osp.join(folder, f'{i:05d}.jpg'), frame, '.jpg')


def write_mp4(file: str, frames: Iterable[np.ndarray], size: int, rate) -> None:
    """Write RGB frames as H.264 (yuv420p)."""
    with av.open(file, 'w', format='mp4') as container:
        stream = container.add_stream('libx264', rate=rate)
        stream.height = stream.width = size
        stream.pix_fmt = 'yuv420p'
        stream.options = dict(crf='18', preset='veryfast', threads='1')
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format='rgb24')
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def remove(path: str) -> None:
    """Remove a file or a folder, if it is there."""
    if osp.isdir(path):
        shutil.rmtree(path)
    elif osp.exists(path):
        os.remove(path)
