# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Cut the face out of clips and images of your own.

    python tools/data/prepare.py DATASET SRC DST

Repeat the command after an interruption: it resumes. See docs/data/prepare.md.
"""

import argparse
import errno
import json
import multiprocessing
import os
import os.path as osp
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import clip_files as files
import cv2
import numpy as np
from clip_files import Source
from s4d_mm_alone import media
from s4d_mm_alone.files.atomic_write import atomic_path, atomic_write, remove
from s4d_mm_alone.files.text import safe_cell
from s4d_mm_alone.predict.faces import (
    FaceDetector,
    FaceSettings,
    check_settings,
    crop_square,
    detector_name,
    square_box,
)
from s4d_mm_alone.predict.tracking import PlacedFace, follow_faces

MARKER, JOURNAL = 'prepare.json', 'journal.jsonl'
VERSION = 2  # raise when the same settings give other pictures
COLUMNS = ('path', 'frames', 'faces', 'missing', 'status', 'message')
Placed = Sequence[PlacedFace | None]  # the face in each frame
_detect = None  # the detector of this process


def start_worker(make_detector: Callable) -> None:
    """Set up a process, which ends when the one that started it does."""
    global _detect
    cv2.setNumThreads(0)
    parent = multiprocessing.parent_process()
    if parent is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _detect = make_detector()


def prepare_one(source: Source, dst: str, settings: dict) -> dict:
    record = dict(path=source.path, stamp=None, output=None, frames=0, faces=0, missing='')
    record.update(status='unreadable', message='')
    try:
        _prepare(source, dst, settings, record)
    except Exception as e:  # one file must not end the work on the others
        if isinstance(e, OSError) and e.errno == errno.ENOSPC:
            raise
        said = str(e) if isinstance(e, OSError) else f'{type(e).__name__}: {e}'
        record.update(status='unreadable', message=said)
    return record


def _prepare(source: Source, dst: str, settings: dict, record: dict) -> None:
    record['stamp'] = files.stamp(source.file)
    wanted = FaceSettings(**{k: settings[k] for k in FaceSettings._fields if k in settings})
    placed = follow_faces(files.read_frames(source), _detect, wanted, 'largest')
    track = [faces[0] if faces else None for _, _, faces in placed]  # of each frame
    count, faces = len(track), sum(f is not None and f.seen for f in track)
    missing = files.missing_frames(source, count)
    cuts = find_cuts(track, settings['margin'], settings['max_jump'])
    record.update(frames=count, faces=faces, missing=missing)
    if faces == 0 or faces < settings['min_found'] * count:
        record.update(status='no_face', message=f'face in {faces} of {count} frames')
        return
    record['status'] = 'jump' if cuts else 'missing_frames' if missing else 'ok'
    messages = [f'jump at frame {cut + 1}' for cut in cuts[:3]]
    messages += [f'{count - faces} frames interpolated'] * (faces < count)
    record['message'] = '; '.join(messages)
    squares = fill_squares(track, cuts)
    _write(source, osp.join(dst, source.output), squares, settings['size'])
    record['output'] = source.output


def find_cuts(placed: Placed, margin: float, max_jump: float) -> list[int]:
    """Frames at which another face is followed, whose box is elsewhere.

    That is: an edge is more than ``max_jump`` away, relative to the size of the face before.
    """
    cuts, last, number = [], None, None
    for t, face in enumerate(placed):
        if face is None or (not face.seen and face.face == number):
            continue
        cx, cy, side, _, *height = face.square
        sides = np.array([side, *height]) / (1 + margin)
        box = np.array(square_box((cx, cy, sides[0], 0, *sides[1:])))
        if last is not None and face.face != number:
            size = max(*(last[2:] - last[:2]), 1e-6)
            cuts += [t] * bool(np.abs(box - last).max() > max_jump * size)
        last, number = box, face.face
    return cuts


def fill_squares(placed: Placed, cuts: Sequence[int]) -> np.ndarray:
    """A square for each frame, (N, 4 or 5); in one frame at least there must be a face.

    Between two tracks the square goes in a straight line from the one to the other, unless there
    is a cut: then half of the gap goes to either side, as do the ends of the clip.
    """
    known = np.array([t for t, face in enumerate(placed) if face is not None])
    starts = [0]
    for cut in cuts:
        starts.append((int(known[known < cut][-1]) + cut + 1) // 2)
    out = np.empty((len(placed), len(placed[known[0]].square)))
    for start, stop in zip(starts, [*starts[1:], len(placed)]):
        here = known[(start <= known) & (known < stop)]
        squares = np.array([placed[t].square for t in here])
        for column in range(out.shape[1]):
            out[start:stop, column] = np.interp(np.arange(start, stop), here, squares[:, column])
    return out


def _write(source: Source, target: str, squares: np.ndarray, size: int) -> None:
    pairs = zip(files.read_frames(source), squares)
    crops = (crop_square(frame, square, size) for frame, square in pairs)
    with atomic_path(target) as part:
        remove(part)
        if source.kind == 'image':
            media.write_image(part, next(crops), osp.splitext(target)[1])
            return
        os.makedirs(part)
        for i, crop in enumerate(crops, 1):
            media.write_image(osp.join(part, f'{i:05d}.jpg'), crop)
        remove(target)  # a folder that is not empty is not replaced


def write_report(dst: str, records: list[dict]) -> None:
    text = files.csv_text([COLUMNS, *([safe_cell(r[c]) for c in COLUMNS] for r in records)])
    # names need not be UTF-8
    atomic_write(osp.join(dst, 'report.csv'), text.encode('utf-8', 'replace'))


def read_journal(dst: str) -> dict[str, dict]:
    """The last line of each clip or image in the journal; a line that was cut off is left out."""
    done, path = {}, Path(dst, JOURNAL)
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            record = json.loads(line)
            done[record['path']] = record
    return done


def is_done(source: Source, record: dict | None, dst: str) -> bool:
    if record is None or record['status'] == 'unreadable':  # which is tried again
        return False
    there = record['output'] is None or osp.exists(osp.join(dst, record['output']))
    return there and record['stamp'] == files.stamp(source.file)


def input_type(dataset: str) -> str:
    from mmengine.registry import DATASETS

    import s4d_mm  # noqa: F401

    kind = getattr(DATASETS.get(dataset), 'INPUT_TYPE', None)
    if kind is None:
        raise ValueError(f'{dataset!r} is no dataset such as ExpressionVideoDataset, RAFDB or DFEW')
    return kind


def prepare(
    dataset: str, src: str, dst: str, workers: int | None = None, make_detector=None, **options
) -> list[dict]:
    """Prepare what is left of a folder; a record for each clip or image, as in the journal.

    ``workers=1`` works in this process; ``options`` are those of the command and ``FaceSettings``.
    """
    from mmengine.utils import track_iter_progress

    min_found = options.pop('min_found', 0.1)
    faces = FaceSettings(**options)
    check_settings(faces)
    if not 0 <= min_found <= 1:
        raise ValueError(f'min_found={min_found}: must be 0 to 1')
    kind = input_type(dataset)
    files.require_apart(src, dst)
    sources = files.list_sources(src, kind)
    settings = dict(version=VERSION, source=osp.abspath(src), input_type=kind, min_found=min_found)
    settings.update(faces._asdict())
    if not faces.stretch:  # folders of 0.2 do not name it
        del settings['stretch']
    if kind == 'video':
        settings['format'] = 'frames'  # there was another one
    if make_detector is None:
        settings['detector'] = detector_name()
        make_detector = partial(FaceDetector, faces.detect_side, faces.threshold)
    files.claim_folder(dst, MARKER, settings)
    done = read_journal(dst)
    todo = [s for s in sources if not is_done(s, done.get(s.path), dst)]
    if len(todo) < len(sources):
        print(f'{len(sources) - len(todo)} of {len(sources)} are done')
    try:
        if todo:
            for path in list(Path(dst).rglob('*.part')):
                remove(str(path))
            work = partial(prepare_one, dst=dst, settings=settings)
            start = partial(start_worker, make_detector)
            if workers == 1:
                start()
                records = map(work, todo)
            else:
                records = files.in_processes(work, todo, workers, start)
            with open(osp.join(dst, JOURNAL), 'ab') as journal:
                for record in track_iter_progress((records, len(todo))):
                    # a line that was cut off ends here
                    journal.write(b'\n' + json.dumps(record).encode())
                    journal.flush()
                    done[record['path']] = record
    finally:  # also where a process was killed
        records = [done[s.path] for s in sources if s.path in done]
        write_report(dst, records)
    return records


def main(argv: list[str] | None = None) -> int:
    shown = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=shown)
    add = parser.add_argument
    add('dataset', help='name of a dataset, e.g. DFEW, ExpressionVideoDataset: videos or images')
    add('src', help='folder of clips or images, or one file')
    add('dst', help='folder to write to')
    said = dict(re.findall(r'(\w+) \(\w+\): (.+?)\. ', ' '.join(FaceSettings.__doc__.split())))
    for name, default in FaceSettings()._asdict().items():
        how = dict(action='store_true') if default is False else dict(type=type(default))
        add(f'--{name.replace("_", "-")}', help=said[name], default=default, **how)
    add('--min-found', type=float, default=0.1, help='least share of the frames with the face')
    add('--workers', type=int, help='processes (None: all CPUs)')
    args = parser.parse_args(argv)

    def work() -> int:
        counts = Counter(record['status'] for record in prepare(**vars(args)))
        said = ', '.join(f'{status} {count}' for status, count in sorted(counts.items()))
        print(f'{args.dst}/report.csv: {said}')
        return 0

    return files.run_command('prepare', work)


if __name__ == '__main__':
    sys.exit(main())
