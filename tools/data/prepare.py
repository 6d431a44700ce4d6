# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Cut the face out of clips and images of your own.

    python tools/data/prepare.py DATASET SRC DST

    DST/...                                the prepared clips or images, as they lie in SRC
    DST/report.csv, DST/contact_sheet.jpg  what was found in each; the clips that need a look
    DST/prepare.json, DST/journal.jsonl    settings, and what is done

Repeat the command after an interruption: it resumes. See docs/data/prepare.md.
"""

import argparse
import contextlib
import errno
import json
import multiprocessing
import os
import os.path as osp
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import clip_files as files
import cv2
import numpy as np
from clip_files import Source
from face_crops import fill_squares, find_cuts, find_jumps
from prepare_report import sheet_frames, write_report, write_sheet
from s4d_mm_alone import media
from s4d_mm_alone.files.atomic_write import atomic_path, remove
from s4d_mm_alone.files.text import printable
from s4d_mm_alone.predict.faces import (
    FaceDetector,
    FaceSettings,
    check_settings,
    crop_square,
    detector_name,
)
from s4d_mm_alone.predict.tracking import follow_faces

MARKER, JOURNAL = 'prepare.json', 'journal.jsonl'
VERSION = 2  # raise when the same settings give other pictures
LOST_SHARE = 0.1  # of its frames that a video may be short of
OPTIONS = dict(  # of FaceSettings
    size='side of the result, pixels',
    margin="part of the face's box that is added to it",
    smooth='frames over which the square is averaged; 1: not at all',
    max_jump='a larger move of the box, relative to its size, is a jump',
    detect_every='distance of the frames that the detector sees; 1: all',
    detect_side='longer side of a frame for the detector',
    threshold='least score of a face',
)

_detect = None  # the detector of this process


def start_worker(make_detector: Callable) -> None:
    """Set up a process, which ends when the one that started it does."""
    global _detect
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _detect = make_detector()


def prepare_one(source: Source, dst: str, settings: dict) -> dict:
    record = dict(path=source.path, stamp=None, output=None, frames=0, faces=0, largest_jump=0.0)
    record.update(missing='', status='unreadable', message='', samples=[])
    try:
        _prepare(source, dst, settings, record)
    except Exception as e:  # one file must not end the work on the others
        if isinstance(e, OSError) and e.errno == errno.ENOSPC:
            raise
        said = str(e) if isinstance(e, OSError) else f'{type(e).__name__}: {e}'
        record.update(status='unreadable', message=said, samples=[])
    return record


def _prepare(source: Source, dst: str, settings: dict, record: dict) -> None:
    record['stamp'] = files.stamp(source.file)
    wanted = FaceSettings(**{k: settings[k] for k in FaceSettings._fields if k in settings})
    placed = follow_faces(files.read_frames(source), _detect, wanted, 'largest')
    track = [faces[0] if faces else None for _, _, faces in placed]  # of each frame
    count, faces = len(track), sum(f is not None and f.seen for f in track)
    missing = files.missing_frames(source, count, LOST_SHARE)
    jumps = find_jumps(track, settings['margin'])
    cuts = find_cuts(track, jumps, settings['max_jump'])
    record.update(frames=count, faces=faces, missing=missing)
    record['largest_jump'] = round(float(jumps.max()), 3)
    if faces == 0 or faces < settings['min_found'] * count:
        squares, messages = None, [f'face in {faces} of {count} frames']
        record['status'] = 'no_face'
    else:
        squares = fill_squares(track, cuts)
        record['status'] = 'jump' if cuts else 'missing_frames' if missing else 'ok'
        messages = [f'jump at frame {cut + 1}' for cut in cuts[:3]]
        messages += [f'missing: {missing}'] * bool(missing)
        messages += [f'{count - faces} frames interpolated'] * (faces < count)
    record['message'] = '; '.join(messages)
    for i in sheet_frames(count, cuts[0] if cuts else 0):
        square = None if squares is None else squares[i].round(2).tolist()
        record['samples'].append([i, square, track[i] is not None and track[i].seen])
    if squares is not None:
        _write(source, osp.join(dst, source.output), squares, settings)
        record['output'] = source.output


def _write(source: Source, target: str, squares: np.ndarray, settings: dict) -> None:
    pairs = zip(files.read_frames(source), squares)
    crops = (crop_square(frame, square, settings['size']) for frame, square in pairs)
    with atomic_path(target) as part:
        remove(part)
        if source.kind == 'image':
            media.write_image(part, next(crops), osp.splitext(target)[1])
        elif settings['format'] == 'frames':
            files.write_frames(part, crops)
            remove(target)  # a folder that is not empty is not replaced
        else:
            media.write_mp4(part, crops, files.frame_rate(source))


def read_journal(dst: str) -> dict[str, dict]:
    """The last line of each clip or image in the journal; a line that was cut off is left out."""
    done = {}
    if osp.isfile(osp.join(dst, JOURNAL)):
        with open(osp.join(dst, JOURNAL), 'rb') as f:
            for line in f:
                with contextlib.suppress(ValueError):
                    record = json.loads(line)
                    done[record['path']] = record
    return done


def is_done(source: Source, record: dict | None, dst: str) -> bool:
    if record is None or record['status'] == 'unreadable':  # which is tried again
        return False
    output = record['output']
    there = output is None or osp.exists(osp.join(dst, output))
    return there and record['stamp'] == files.stamp(source.file)


def input_type(dataset: str) -> str:
    from mmengine.registry import DATASETS

    import s4d_mm  # noqa: F401

    kind = getattr(DATASETS.get(dataset), 'INPUT_TYPE', None)
    if kind is None:
        names = (n for n, cls in DATASETS.module_dict.items() if hasattr(cls, 'INPUT_TYPE'))
        raise ValueError(f'unknown dataset {dataset!r}; there are: {", ".join(sorted(names))}')
    return kind


def prepare(
    dataset: str,
    src: str,
    dst: str,
    format: str = 'frames',
    min_found: float = 0.1,
    workers: int | None = None,
    make_detector: Callable | None = None,
    **options,
) -> list[dict]:
    """Prepare what is left of a folder; a record for each clip or image, as in the journal.

    ``workers=1`` works in this process; ``options`` are those of ``FaceSettings``.
    """
    faces = FaceSettings(**options)
    check_settings(faces)
    if not 0 <= min_found <= 1:
        raise ValueError(f'min_found={min_found}: must be 0 to 1')
    if format == 'mp4' and faces.size % 2:
        raise ValueError(f'size={faces.size}: must be even for mp4 (H.264)')
    kind = input_type(dataset)
    here, there = osp.realpath(src), osp.realpath(dst)
    if there == here or there.startswith(here + os.sep):
        raise ValueError(f'{dst} lies in {src}; write to another place')
    sources = files.list_sources(src, kind, format)
    settings = dict(version=VERSION, source=osp.abspath(src), input_type=kind, min_found=min_found)
    settings.update(faces._asdict())
    if not faces.stretch:  # folders of 0.2 do not name it
        del settings['stretch']
    if kind == 'video':
        settings['format'] = format
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
            _clear_parts(dst)
            _run(todo, dst, settings, workers or os.cpu_count(), make_detector, done)
    finally:  # also where a process was killed
        records = [done[s.path] for s in sources if s.path in done]
        write_report(dst, records)
    write_sheet(dst, sources, records)
    return records


def _run(todo: list, dst: str, settings: dict, workers: int, make_detector, done: dict) -> None:
    from mmengine.utils import ProgressBar

    work = partial(prepare_one, dst=dst, settings=settings)
    with open(osp.join(dst, JOURNAL), 'ab') as journal:
        bar = ProgressBar(len(todo))

        def finish(record: dict) -> None:
            journal.write(b'\n' + json.dumps(record).encode())  # a line that was cut off ends here
            journal.flush()
            done[record['path']] = record
            bar.update()

        if workers == 1:
            start_worker(make_detector)
            for source in todo:
                finish(work(source))
        else:
            # not forked: a fork of a process in which OpenCV has threads can hang
            context = multiprocessing.get_context('spawn')
            count = min(workers, len(todo))
            with ProcessPoolExecutor(count, context, start_worker, (make_detector,)) as pool:
                try:
                    for future in as_completed([pool.submit(work, source) for source in todo]):
                        finish(future.result())
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        print()


def _clear_parts(dst: str) -> None:
    for folder, folders, names in os.walk(dst):
        for name in folders + names:
            if name.endswith('.part'):
                remove(osp.join(folder, name))
        folders[:] = [d for d in folders if not d.endswith('.part')]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    shown = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=shown)
    add = parser.add_argument
    add('dataset', help='name of a dataset, e.g. DFEW, ExpressionVideoDataset: videos or images')
    add('src', help='folder of clips or images, or one file')
    add('dst', help='folder to write to')
    for name, text in OPTIONS.items():
        default = getattr(FaceSettings(), name)
        add(f'--{name.replace("_", "-")}', type=type(default), default=default, help=text)
    add('--align', action='store_true', help='turn the eyes level')
    add('--stretch', action='store_true', help='stretch the box to a square')
    add('--format', choices=('frames', 'mp4'), default='frames', help='of prepared clips')
    add('--min-found', type=float, default=0.1, help='least share of the frames with the face')
    add('--workers', type=int, help='processes (None: all CPUs)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    start = time.time()
    try:
        records = prepare(**vars(args))
    except (ValueError, ImportError, OSError) as e:
        print(printable(f'prepare: {e}'), file=sys.stderr)
        return 1
    except (BrokenProcessPool, KeyboardInterrupt) as e:
        print(f'\nprepare: {type(e).__name__}; run this again to resume', file=sys.stderr)
        return 1
    counts = Counter(r['status'] for r in records)
    print(f'{args.dst}: {len(records)} in {time.time() - start:.0f} s')
    print(', '.join(f'{status} {count}' for status, count in sorted(counts.items())))
    frames, faces = (sum(r[key] for r in records) for key in ('frames', 'faces'))
    print(f'{frames} frames, face in {faces}; see report.csv and contact_sheet.jpg there')
    return 0


if __name__ == '__main__':
    sys.exit(main())
