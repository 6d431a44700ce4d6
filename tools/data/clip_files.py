# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Which clips or images a folder holds, their frames, and whose the folder is that is written."""

import json
import os
import os.path as osp
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import av
import numpy as np
from s4d_mm_alone import media
from s4d_mm_alone.files.atomic_write import atomic_write

FPS = 25  # of the mp4 made from a folder of frames
# what prepare.py writes beside the clips
OWN_NAMES = ('prepare.json', 'journal.jsonl', 'report.csv', 'contact_sheet.jpg')


class Source(NamedTuple):
    """One clip or image to prepare."""

    path: str  # relative to the folder that is prepared
    kind: str  # 'video', 'frames', 'image'; 'mixed' cannot be prepared
    file: str  # file, or folder of frames
    output: str  # relative to the folder that is written


def find_sources(src: str, input_type: str) -> Iterator[tuple[str, str, str]]:
    """Path below ``src``, kind and file of each clip or image in a folder, or of the one file."""

    def is_listed(name: str) -> bool:  # also what the report will call unreadable
        videos = name.lower().endswith(media.VIDEO_SUFFIXES)
        return videos if input_type == 'video' else media.is_picture(name)

    if osp.isfile(src) and is_listed(src):
        yield osp.basename(src), input_type, src
    for folder, folders, names in os.walk(src):
        folders[:] = [d for d in folders if not d.startswith('.')]
        names = [n for n in names if not n.startswith('.')]
        for name in filter(is_listed, names):
            file = osp.join(folder, name)
            yield osp.relpath(file, src), input_type, file
        # images beside videos are their thumbnails, not a clip
        frames = input_type == 'video' and not any(map(is_listed, names))
        if frames and any(map(media.is_picture, names)):
            path = osp.basename(src) if folder == src else osp.relpath(folder, src)
            yield path, 'frames', folder


def list_sources(src: str, input_type: str, form: str) -> list[Source]:
    """The clips or images below a folder, in natural order, and where each is written to."""
    src = osp.abspath(src)
    found = sorted(find_sources(src, input_type), key=lambda x: media.natural_key(x[0]))
    if not found:
        raise ValueError(
            f'{src} does not exist, or holds no {input_type}s; for '
            f'{"image" if input_type == "video" else "video"}s name a dataset of such'
        )
    sources: dict[str, Source] = {}
    for path, kind, file in found:
        path = path.replace(os.sep, '/')
        output = osp.splitext(path)[0] if kind == 'video' else path
        if kind != 'image' and form == 'mp4':
            output += '.mp4'
        parts = output.lower().split('/')
        if parts[0] in OWN_NAMES or any(part.endswith('.part') for part in parts):
            raise ValueError(
                f'{path} would be written to {output}, a name that prepare.py keeps for itself '
                f'({", ".join(OWN_NAMES)}, *.part); rename it'
            )
        if output in sources:
            both = f'{sources[output].path} and {path}'
            raise ValueError(f'{both} would both be written to {output}; rename one of them')
        sources[output] = Source(path, kind, file, output)
    above = {'/'.join(out.split('/')[:i]) for out in sources for i in range(1, out.count('/') + 1)}
    return [
        s._replace(kind='mixed') if s.output in above or (s.file == src and len(found) > 1) else s
        for s in sources.values()
    ]


def stamp(file: str) -> list:
    state = os.stat(file)
    return [state.st_size, state.st_mtime_ns]


def missing_numbers(numbers: Sequence[int]) -> list[range]:
    """The gaps in frame numbers; those in regular steps (0, 4, 8, ...) have none."""
    numbers = sorted(set(numbers))
    if len(numbers) < 2:
        return []
    values, counts = np.unique(np.diff(numbers), return_counts=True)
    step = int(values[counts.argmax()])
    return [range(a + step, b, step) for a, b in zip(numbers, numbers[1:]) if b - a > step]


def missing_frames(source: Source, count: int, lost_share: float) -> str:
    """The frames that are missing, by the numbers in the names or what a video says of itself."""
    if source.kind == 'video':
        said = media.video_info(source.file).frames
        return f'{said - count} of {said} at the end' if count < (1 - lost_share) * said else ''
    names = media.list_frames(source.file) if source.kind == 'frames' else []
    found = [re.findall('[0-9]+', osp.splitext(osp.basename(name))[0]) for name in names]
    numbers = [int(f[-1]) for f in found if f]
    if len(set(numbers)) < len(found):  # a name without a number, or a number twice
        return ''
    gaps = missing_numbers(numbers)
    return ' '.join(str(g[0]) if len(g) == 1 else f'{g[0]}-{g[-1]}' for g in gaps)


def frame_rate(source: Source):
    if source.kind != 'video':
        return FPS
    with av.open(source.file) as container:
        return container.streams.video[0].average_rate or FPS


def read_frames(source: Source) -> Iterator[np.ndarray]:
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
    os.makedirs(folder)
    for i, frame in enumerate(frames, 1):
        media.write_image(osp.join(folder, f'{i:05d}.jpg'), frame)


def claim_folder(out: str, marker: str, settings: dict) -> None:
    """Write the settings into the ``marker`` of a folder, which must be empty or have the same."""
    path = osp.join(out, marker)
    if osp.isfile(path):
        with open(path, encoding='utf-8') as f:
            found = json.load(f)
        changes = [
            f'{k} was {found.get(k)!r} and now is {settings.get(k)!r}'
            for k in sorted({*found, *settings})
            if found.get(k) != settings.get(k)
        ]
        if changes:
            said = '; '.join(changes)
            raise ValueError(f'{out} was made with other settings: {said}. Delete or name another')
    elif osp.exists(out) and (not osp.isdir(out) or os.listdir(out)):
        raise ValueError(
            f'{out} is not empty and was not made by this script (it has no {marker}); name a new '
            'or empty folder'
        )
    else:
        atomic_write(path, json.dumps(settings, indent=1) + '\n')
