# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, step 0 (your own videos): which clips or images a folder holds.

Also their frames, and how the cropped frames are written.
"""

import os
import os.path as osp
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import av
import numpy as np
from s4d_mm_alone import media

FPS = 25  # of the mp4 made from a folder of frames
# what lies beside the clips: settings, journal, report, sheet, and in the end a name of a part
OWN_NAMES = ('prepare.json', 'journal.jsonl', 'report.csv', 'contact_sheet.jpg')


class Source(NamedTuple):
    """One clip or image to prepare."""

    path: str  # relative to the folder that is prepared
    kind: str  # 'video', 'frames', 'image'; 'mixed' cannot be prepared
    file: str  # file, or folder of frames
    output: str  # relative to the folder that is written


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
        ValueError: If there are none, two would be written to one place, or one to the place
            of a file of the tool's own.
    """
    suffixes = media.VIDEO_SUFFIXES if input_type == 'video' else media.IMAGE_SUFFIXES

    def is_listed(name: str) -> bool:  # also what the report will call unreadable
        return name.lower().endswith(suffixes) if input_type == 'video' else media.is_picture(name)

    if not osp.exists(src):
        raise ValueError(f'{src} does not exist')
    src = osp.abspath(src)
    found = []
    if osp.isfile(src):
        if is_listed(src):
            found = [(osp.basename(src), input_type, src)]
    else:
        for folder, folders, names in os.walk(src):
            folders[:] = sorted(d for d in folders if not d.startswith('.'))
            names = [n for n in names if not n.startswith('.')]
            for name in names:
                if is_listed(name):
                    file = osp.join(folder, name)
                    found.append((osp.relpath(file, src), input_type, file))
            # images beside videos are their thumbnails, not a clip
            if (
                input_type == 'video'
                and not any(n.lower().endswith(media.VIDEO_SUFFIXES) for n in names)
                and any(map(media.is_picture, names))
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
    for path, kind, file in sorted(found, key=lambda x: media.natural_key(x[0])):
        path = path.replace(os.sep, '/')
        output = path
        if kind != 'image':
            stem = osp.splitext(path)[0] if kind == 'video' else path
            output = stem if form == 'frames' else f'{stem}.mp4'
        check_output(path, output)
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


def check_output(path: str, output: str) -> None:
    """Refuse a clip or image that would be written where the tool keeps files of its own.

    Args:
        path: The clip or image, relative to the folder that is prepared.
        output: What it would be called, relative to the folder that is written.

    Raises:
        ValueError: If it is so.
    """
    parts = output.lower().split('/')
    if parts[0] in OWN_NAMES or any(part.endswith('.part') for part in parts):
        raise ValueError(
            f'{path} would be written to {output}, a name that prepare.py keeps for itself '
            f'({", ".join(OWN_NAMES)}, *.part); rename it'
        )


def _parents(path: str) -> Iterator[str]:
    while '/' in path:
        path = path.rsplit('/', 1)[0]
        yield path


def stamp(file: str) -> list:
    """Changes when a file, or what is listed in a folder, changes."""
    state = os.stat(file)
    return [state.st_size, state.st_mtime_ns]


def frame_numbers(folder: str) -> list[int]:
    """The last number in the name of each frame of a folder.

    Returns:
        list[int]: [] if a name has none, or a number comes twice.
    """
    names = [osp.splitext(osp.basename(path))[0] for path in media.list_frames(folder)]
    found = [re.findall('[0-9]+', name) for name in names]
    numbers = [int(f[-1]) for f in found if f]
    return numbers if len(set(numbers)) == len(found) else []


def missing_numbers(numbers: Sequence[int]) -> list[range]:
    """The gaps in a sequence of frame numbers.

    Numbers that go up in regular steps (0, 4, 8, ...) have none.
    """
    numbers = sorted(set(numbers))
    steps = np.diff(numbers)
    if not len(steps):
        return []
    values, counts = np.unique(steps, return_counts=True)
    step = int(values[counts.argmax()])
    return [range(a + step, b, step) for a, b in zip(numbers, numbers[1:]) if b - a > step]


def declared_frames(source: Source) -> int:
    """How many frames a video says that it has; 0 if it does not say."""
    return media.video_info(source.file).frames if source.kind == 'video' else 0


def frame_rate(source: Source):
    """Frames per second, for writing."""
    if source.kind != 'video':
        return FPS
    with av.open(source.file) as container:
        return container.streams.video[0].average_rate or FPS


def read_frames(source: Source) -> Iterator[np.ndarray]:
    """The RGB frames of a clip, or the one of an image.

    Raises:
        MediaReadError: If one cannot be decoded, or there is none.
    """
    if source.kind == 'mixed':
        raise media.MediaReadError(
            'there are other clips below it; move its frames to a folder of their own'
        )
    if source.kind == 'video':
        yield from media.read_video(source.file)
    elif source.kind == 'image':
        yield media.read_image(source.file)
    else:
        yield from map(media.read_image, media.list_frames(source.file))


def write_frames(folder: str, frames: Iterable[np.ndarray]) -> None:
    """Write RGB frames as 00001.jpg, 00002.jpg, ..."""
    os.makedirs(folder)
    for i, frame in enumerate(frames, 1):
        media.write_image(osp.join(folder, f'{i:05d}.jpg'), frame)


def remove(path: str) -> None:
    """Remove a file or a folder, if it is there."""
    if osp.isdir(path):
        shutil.rmtree(path)
    elif osp.exists(path):
        os.remove(path)
