# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Which clips or images a folder holds, their frames, and whose the folder is that is written."""

import csv
import io
import json
import multiprocessing
import os
import os.path as osp
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from s4d_mm_alone import media
from s4d_mm_alone.files.atomic_write import atomic_write
from s4d_mm_alone.files.text import printable

LOST_SHARE = 0.1  # of its frames that a video may be short of


class Source(NamedTuple):
    """One clip or image to prepare."""

    path: str  # relative to the folder that is prepared
    kind: str  # 'video', 'frames', 'image'
    file: str  # file, or folder of frames
    output: str  # relative to the folder that is written


def list_sources(src: str, input_type: str) -> list[Source]:
    """The clips or images below a folder, in natural order, and where each is written to."""

    def is_listed(name: str) -> bool:  # also what the report will call unreadable
        videos = name.lower().endswith(media.VIDEO_SUFFIXES)
        return videos if input_type == 'video' else media.is_picture(name)

    src = osp.abspath(src)
    found = [(osp.basename(src), input_type, src)] if osp.isfile(src) and is_listed(src) else []
    for folder, folders, names in os.walk(src):
        folders[:] = [d for d in folders if not d.startswith('.')]
        names = [n for n in names if not n.startswith('.')]
        files = [osp.join(folder, name) for name in filter(is_listed, names)]
        found += [(osp.relpath(file, src), input_type, file) for file in files]
        # images beside videos or above folders are thumbnails, not a clip
        if input_type == 'video' and not (files or folders) and any(map(media.is_picture, names)):
            path = osp.basename(src) if folder == src else osp.relpath(folder, src)
            found.append((path, 'frames', folder))
    if not found:
        what = 'images' if input_type == 'image' else 'video files or folders of frames'
        raise ValueError(f'{src} does not exist or holds no {what}; give another folder or kind')
    sources: dict[str, Source] = {}
    for path, kind, file in sorted(found, key=lambda source: media.natural_key(source[0])):
        path = path.replace(os.sep, '/')
        output = osp.splitext(path)[0] if kind == 'video' else path
        if output in sources:
            both = f'{sources[output].path} and {path} would both'
            raise ValueError(f'{both} be written to {output}; rename one of them')
        sources[output] = Source(path, kind, file, output)
    return list(sources.values())


def stamp(file: str) -> list:
    state = os.stat(file)
    return [state.st_size, state.st_mtime_ns]


def frame_numbers(frames: Iterable[str]) -> list[int]:
    """The last number in the name of each frame file; [] unless they are one series."""
    found = [re.fullmatch('(.*?)([0-9]{1,18})[^0-9]*', osp.basename(path)) for path in frames]
    is_series = all(found) and len({match[1] for match in found}) == 1
    return [int(match[2]) for match in found] if is_series else []


def missing_numbers(numbers: Iterable[int]) -> str:
    """The gaps in frame numbers, '14-16 22'; those in regular steps (0, 4, 8, ...) have none."""
    numbers = sorted(set(numbers))
    if len(numbers) < 2:
        return ''
    steps, counts = np.unique(np.diff(numbers), return_counts=True)
    step = int(steps[counts.argmax()])
    gaps = [range(a + step, b, step) for a, b in zip(numbers, numbers[1:]) if b - a > step]
    return ' '.join(str(g[0]) if len(g) == 1 else f'{g[0]}-{g[-1]}' for g in gaps)


def missing_frames(source: Source, count: int) -> str:
    """The frames that are missing, by the numbers in the names or what a video says of itself."""
    if source.kind == 'video':
        said = media.video_info(source.file).frames
        return f'{said - count} of {said} at the end' if count < (1 - LOST_SHARE) * said else ''
    return missing_numbers(frame_numbers(frame_files(source)))


def frame_files(source: Source) -> list[str]:
    return [source.file] if source.kind == 'image' else media.list_frames(source.file)


def read_frames(source: Source) -> Iterator[np.ndarray]:
    if source.kind == 'video':
        return media.read_video(source.file)
    return map(media.read_image, frame_files(source))


def csv_text(rows: Iterable[Sequence]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def require_apart(src: str, dst: str) -> None:
    here, there = osp.realpath(src), osp.realpath(dst)
    if there == here or there.startswith(here + os.sep):
        raise ValueError(f'{dst} lies in {src}; write to another place')


def claim_folder(out: str, marker: str, settings: dict) -> None:
    """Write the settings into the ``marker`` of a folder, which must be empty or have the same."""
    path = osp.join(out, marker)
    if osp.isfile(path):
        try:
            found = dict(json.loads(Path(path).read_text(encoding='utf-8')))
        except (ValueError, TypeError) as e:
            raise ValueError(f'{path} is damaged: {e}. Name a new folder') from e
        other = [k for k in sorted({*found, *settings}) if found.get(k) != settings.get(k)]
        said = '; '.join(f'{k} was {found.get(k)!r} and now is {settings.get(k)!r}' for k in other)
        if other:
            raise ValueError(f'{out} was made with other settings: {said}. Delete or name another')
    elif osp.exists(out) and (not osp.isdir(out) or os.listdir(out)):
        raise ValueError(f'{out} is not empty and has no {marker}; name a new folder')
    else:
        atomic_write(path, json.dumps(settings, indent=1) + '\n')


def in_processes(work: Callable, todo: Sequence, workers: int | None, start: Callable) -> Iterator:
    """What ``work`` gives for each of ``todo``, as it comes; ``start`` sets a process up."""
    # not forked: a fork of a process in which OpenCV has threads can hang
    context = multiprocessing.get_context('spawn')
    left, ahead = iter(todo), 4 * (workers or os.cpu_count())  # results wait in memory
    with ProcessPoolExecutor(workers, context, start) as pool:
        running = {pool.submit(work, one) for one in islice(left, ahead)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(work, one) for one in islice(left, len(done))}
                yield from (future.result() for future in done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_command(tool: str, work: Callable[[], int]) -> int:
    """The exit code of a tool; what is wrong with its input is said in a line."""
    try:
        return work()
    except (ValueError, ImportError, OSError) as e:
        print(printable(f'{tool}: {e}'), file=sys.stderr)
    except (BrokenProcessPool, KeyboardInterrupt) as e:
        print(f'\n{tool}: {type(e).__name__}; run this again to resume', file=sys.stderr)
    return 1
