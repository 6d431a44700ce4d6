# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, step 0 (your own videos): cut the face out of clips and images.

    python tools/data/prepare.py DATASET SRC DST

    DST/...                the prepared clips or images, as they lie in SRC
    DST/report.csv         what was found in each
    DST/contact_sheet.jpg  the clips that need a look
    DST/prepare.json, DST/journal.jsonl   settings, and what is done

A run that was interrupted goes on where it stopped. See docs/data/prepare.md.
"""

import argparse
import csv
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
from clip_squares import fill_squares, find_cuts, find_jumps
from contact_sheet import draw_row, draw_sheet, sheet_frames
from output_folder import claim_folder
from s4d_mm_alone import media
from s4d_mm_alone.faces import (
    FaceDetector,
    FaceSettings,
    PlacedFace,
    check_settings,
    crop_square,
    detector_name,
    follow_faces,
)
from s4d_mm_alone.files.text import printable, safe_cell

MARKER, JOURNAL = 'prepare.json', 'journal.jsonl'
VERSION = 2  # raise when the same settings give other pictures
STATUSES = ('ok', 'no_face', 'jump', 'missing_frames', 'unreadable')
COLUMNS = ('path', 'frames', 'faces', 'largest_jump', 'missing', 'status', 'message')
SHEET_ROWS, SHEET_OK = 60, 3  # rows of troubled and of good clips
DEFAULTS = FaceSettings()
LOST_SHARE = 0.1  # of its frames that a video may be short of

_detect = None  # the detector of this process


def start_worker(make_detector: Callable) -> None:
    """Set up a process: one thread and a detector.

    It ends when the process that started it does.
    """
    global _detect
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _detect = make_detector()


def prepare_one(source: Source, dst: str, settings: dict) -> dict:
    """Prepare one clip or image; what it writes appears only when whole.

    Returns:
        dict: The line for the journal.
    """
    record = dict(
        path=source.path,
        stamp=None,
        output=None,
        frames=0,
        faces=0,
        largest_jump=0.0,
        missing='',
        status='unreadable',
        message='',
        samples=[],
    )
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
    track = follow_clip(source, face_settings(settings))
    notes = _missing_notes(source, len(track))
    jumps = find_jumps(track, settings['margin'])
    cuts = find_cuts(track, jumps, settings['max_jump'])
    count, faces = len(track), sum(f is not None and f.seen for f in track)
    record.update(
        frames=count, faces=faces, largest_jump=round(float(jumps.max()), 3), missing=notes
    )
    squares = None
    if faces == 0 or faces < settings['min_found'] * count:
        messages = [f'face in {faces} of {count} frames']
        record['status'] = 'no_face'
    else:
        record['status'] = 'jump' if cuts else 'missing_frames' if notes else 'ok'
        messages = [f'jump at frame {cut + 1}' for cut in cuts[:3]]
        if notes:
            messages.append(f'missing: {notes}')
        if faces < count:
            messages.append(f'{count - faces} frames interpolated')
        squares = fill_squares(track, cuts)
    record['message'] = '; '.join(messages)
    for i in sheet_frames(count, cuts[0] if cuts else 0):
        square = None if squares is None else squares[i].round(2).tolist()
        seen = track[i] is not None and track[i].seen
        record['samples'].append([i, square, seen])
    if squares is not None:
        _write(source, osp.join(dst, source.output), squares, settings)
        record['output'] = source.output


def face_settings(settings: dict) -> FaceSettings:
    """The settings of faces among those of a run."""
    return FaceSettings(**{k: settings[k] for k in FaceSettings._fields if k in settings})


def follow_clip(source: Source, settings: FaceSettings) -> list[PlacedFace | None]:
    """The face that is followed, in each frame of a clip or image; None where there is none.

    Raises:
        MediaReadError: If a frame cannot be decoded, or there is none.
    """
    placed = follow_faces(files.read_frames(source), _detect, settings, 'largest')
    return [faces[0] if faces else None for _, _, faces in placed]


def _missing_notes(source: Source, count: int) -> str:
    """The frames that should be there and are not, as text."""
    if source.kind == 'frames':
        gaps = files.missing_numbers(files.frame_numbers(source.file))
        return ' '.join(str(g[0]) if len(g) == 1 else f'{g[0]}-{g[-1]}' for g in gaps)
    declared = files.declared_frames(source)
    if count < (1 - LOST_SHARE) * declared:
        return f'{declared - count} of {declared} at the end'
    return ''


def _write(source: Source, target: str, squares: np.ndarray, settings: dict) -> None:
    size = settings['size']
    crops = (
        crop_square(frame, square, size)
        for frame, square in zip(files.read_frames(source), squares)
    )
    part = osp.join(osp.dirname(target), f'{os.getpid()}.part')  # its name may be the longest
    os.makedirs(osp.dirname(part), exist_ok=True)
    files.remove(part)
    try:
        if source.kind == 'image':
            media.write_image(part, next(crops), osp.splitext(target)[1])
        elif settings['format'] == 'frames':
            files.write_frames(part, crops)
            files.remove(target)  # a folder that is not empty is not replaced
        else:
            media.write_mp4(part, crops, files.frame_rate(source))
        os.replace(part, target)
    finally:
        files.remove(part)


def read_journal(dst: str) -> dict[str, dict]:
    """What is done, from the journal.

    A line that was cut off by an interruption does not count.

    Returns:
        dict[str, dict]: Path of a clip or image -> its last line.
    """
    done = {}
    if osp.isfile(osp.join(dst, JOURNAL)):
        with open(osp.join(dst, JOURNAL), 'rb') as f:
            for line in f:
                try:
                    record = json.loads(line)
                    done[record['path']] = record
                except (ValueError, KeyError, TypeError):
                    continue
    return done


def is_done(source: Source, record: dict | None, dst: str) -> bool:
    """Whether a clip need not be prepared (again).

    It was prepared, its source is the same, and its output is there. What could
    not be read is tried again.
    """
    if record is None or record['status'] == 'unreadable':
        return False
    try:
        same = record['stamp'] == files.stamp(source.file)
    except OSError:
        return False
    output = record['output']
    return same and (output is None or osp.exists(osp.join(dst, output)))


def input_type(dataset: str) -> str:
    """'video' or 'image', by the name of a registered dataset.

    Raises:
        ValueError: If there is no such dataset.
    """
    from mmengine.registry import DATASETS

    import s4d_mm  # noqa: F401

    kinds = {name: getattr(cls, 'INPUT_TYPE', None) for name, cls in DATASETS.module_dict.items()}
    if not kinds.get(dataset):
        names = ', '.join(sorted(n for n, kind in kinds.items() if kind))
        raise ValueError(f'unknown dataset {dataset!r}; there are: {names}')
    return kinds[dataset]


def prepare(
    dataset: str,
    src: str,
    dst: str,
    size: int = DEFAULTS.size,
    margin: float = DEFAULTS.margin,
    align: bool = DEFAULTS.align,
    stretch: bool = DEFAULTS.stretch,
    format: str = 'frames',
    smooth: int = DEFAULTS.smooth,
    max_jump: float = DEFAULTS.max_jump,
    min_found: float = 0.1,
    detect_every: int = DEFAULTS.detect_every,
    detect_side: int = DEFAULTS.detect_side,
    threshold: float = DEFAULTS.threshold,
    workers: int | None = None,
    make_detector: Callable | None = None,
) -> list[dict]:
    """Prepare all clips or images of a folder, or what is left of them.

    Args:
        dataset: Name of a registered dataset; it says whether ``src`` holds
            videos or images.
        src: Folder, searched recursively, or one file.
        dst: Folder to write to.
        size: Side of the result in pixels. Defaults to 224.
        margin: Part of the face's box that is added to it. Defaults to 0.3.
        align: Turn the face so that the eyes are level. Defaults to False.
        stretch: Stretch the face's box to a square. Defaults to False, a square round it.
        format: 'frames' or 'mp4', for clips. Defaults to 'frames'.
        smooth: Frames over which the square is averaged. Defaults to 9.
        max_jump: How far the box may move from one sighting to the next,
            relative to its size. Defaults to 0.5.
        min_found: Least share of the frames in which the face must be found.
            Defaults to 0.1.
        detect_every: Distance of the frames that the detector sees; between them faces are
            moved by optical flow. Defaults to 5.
        detect_side: Longer side of a frame for the detector. Defaults to 480.
        threshold: Least score of a face. Defaults to 0.5.
        workers: Number of processes; 1 works in this one. Defaults to the
            number of CPUs.
        make_detector: Function that makes another detector: a function from
            an RGB frame to a list of faces. Defaults to None, the tool's own.

    Returns:
        list[dict]: A record for each clip or image, as in the journal.

    Raises:
        ValueError: If a setting is out of range or ``dst`` is not ours.
        ImportError: If the extra ``faces`` is not installed.
    """
    faces = FaceSettings(
        size=size,
        margin=margin,
        align=align,
        stretch=stretch,
        smooth=smooth,
        max_jump=max_jump,
        detect_every=detect_every,
        detect_side=detect_side,
        threshold=threshold,
    )
    check_settings(faces)
    if not 0 <= min_found <= 1:
        raise ValueError(f'min_found={min_found}: must be 0 to 1')
    if workers is not None and workers < 1:
        raise ValueError(f'workers={workers}: must be at least 1')
    if format not in ('frames', 'mp4'):
        raise ValueError(f"format={format!r}: must be 'frames' or 'mp4'")
    if format == 'mp4' and size % 2:
        raise ValueError(f'size={size}: must be even for mp4 (H.264)')
    kind = input_type(dataset)
    here, there = osp.realpath(src), osp.realpath(dst)
    if there == here or there.startswith(here + os.sep):
        raise ValueError(f'{dst} lies in {src}; write to another place')
    sources = files.list_sources(src, kind, format)
    settings = dict(
        version=VERSION,
        source=osp.abspath(src),
        input_type=kind,
        min_found=min_found,
        **faces._asdict(),
    )
    if not stretch:  # folders of 0.2 do not name it
        del settings['stretch']
    if kind == 'video':
        settings['format'] = format
    if make_detector is None:
        settings['detector'] = detector_name()
        make_detector = partial(FaceDetector, detect_side, threshold)
    claim_folder(dst, MARKER, settings)
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


def _run(
    todo: list[Source],
    dst: str,
    settings: dict,
    workers: int,
    make_detector: Callable,
    done: dict[str, dict],
) -> None:
    """Prepare `todo`; each goes to `done` and the journal when it is done."""
    from mmengine.utils import ProgressBar

    work = partial(prepare_one, dst=dst, settings=settings)
    path = osp.join(dst, JOURNAL)
    with open(path, 'ab+') as journal:
        if journal.tell():  # after a line that was cut off: a new line
            journal.seek(-1, os.SEEK_END)
            if journal.read(1) != b'\n':
                journal.write(b'\n')
        bar = ProgressBar(len(todo))

        def finish(record: dict) -> None:
            journal.write(json.dumps(record).encode() + b'\n')
            journal.flush()
            done[record['path']] = record
            bar.update()

        if workers == 1:
            start_worker(make_detector)
            for source in todo:
                finish(work(source))
        else:
            # not forked: a fork of a process in which OpenCV has threads can
            # hang
            with ProcessPoolExecutor(
                min(workers, len(todo)),
                mp_context=multiprocessing.get_context('spawn'),
                initializer=start_worker,
                initargs=(make_detector,),
            ) as pool:
                try:
                    for future in as_completed([pool.submit(work, source) for source in todo]):
                        finish(future.result())
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        print()


def _clear_parts(dst: str) -> None:
    """Remove what an interrupted run left unfinished."""
    for folder, folders, names in os.walk(dst):
        for name in folders + names:
            if name.endswith('.part'):
                files.remove(osp.join(folder, name))
        folders[:] = [d for d in folders if not d.endswith('.part')]


def write_report(dst: str, records: list[dict]) -> None:
    """Write report.csv."""
    path = osp.join(dst, 'report.csv')
    # names need not be UTF-8
    with open(f'{path}.part', 'w', encoding='utf-8', errors='replace', newline='') as f:
        writer = csv.writer(f)
        writer.writerow(COLUMNS)
        writer.writerows([safe_cell(r[c]) for c in COLUMNS] for r in records)
    os.replace(f'{path}.part', path)


def write_sheet(dst: str, sources: list[Source], records: list[dict]) -> None:
    """Write contact_sheet.jpg: the troubled clips and some good ones.

    If there are too many troubled ones, each status has the same number.
    """
    groups = {status: [] for status in STATUSES}
    for source, record in zip(sources, records):
        groups[record['status']].append((source, record))
    chosen = groups.pop('ok')[:SHEET_OK]
    troubled = [
        (rank, order, pair)
        for order, group in enumerate(groups.values())
        for rank, pair in enumerate(group)
    ]
    troubled = sorted(troubled, key=lambda x: x[:2])[:SHEET_ROWS]
    rows = [draw_row(*pair) for _, _, pair in sorted(troubled, key=lambda x: (x[1], x[0]))]
    rows += [draw_row(*pair) for pair in chosen]
    path = osp.join(dst, 'contact_sheet.jpg')
    media.write_image(f'{path}.part', draw_sheet(rows), '.jpg')
    os.replace(f'{path}.part', path)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Cut the face out of clips and images',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        'dataset',
        help='name of a dataset, e.g. DFEW, AffectNet, ExpressionVideoDataset: videos or images',
    )
    add('src', help='folder of clips or images, or one file')
    add('dst', help='folder to write to')
    add('--size', type=int, default=DEFAULTS.size, help='side of the result, pixels')
    add(
        '--margin',
        type=float,
        default=DEFAULTS.margin,
        help="part of the face's box that is added to it",
    )
    add('--align', action='store_true', help='turn the eyes level')
    add('--stretch', action='store_true', help='stretch the box to a square')
    add('--format', choices=('frames', 'mp4'), default='frames', help='of prepared clips')
    add(
        '--smooth',
        type=int,
        default=DEFAULTS.smooth,
        help='frames over which the square is averaged; 1: not at all',
    )
    add(
        '--max-jump',
        type=float,
        default=DEFAULTS.max_jump,
        help='a larger move of the box, relative to its size, is a jump',
    )
    add(
        '--min-found',
        type=float,
        default=0.1,
        help='a face in a smaller share of the frames is no face',
    )
    add(
        '--detect-every',
        type=int,
        default=DEFAULTS.detect_every,
        help='distance of the frames that the detector sees; 1: all',
    )
    add(
        '--detect-side',
        type=int,
        default=DEFAULTS.detect_side,
        help='longer side of a frame for the detector',
    )
    add('--threshold', type=float, default=DEFAULTS.threshold, help='least score of a face')
    add('--workers', type=int, help='processes (None: all CPUs)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns its exit code."""
    args = parse_args(argv)
    start = time.time()
    try:
        records = prepare(**vars(args))
    except (ValueError, ImportError) as e:
        print(printable(f'prepare: {e}'), file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print(
            '\nprepare: a process was killed (is memory short?); run this '
            'again to go on, perhaps with fewer --workers',
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print('\nprepare: interrupted; run this again to go on', file=sys.stderr)
        return 130
    counts = Counter(r['status'] for r in records)
    print(f'{args.dst}: {len(records)} in {time.time() - start:.0f} s')
    for status in STATUSES:
        if counts[status]:
            print(f'  {status:<15}{counts[status]:>7}')
    print(
        f'  {sum(r["frames"] for r in records)} frames, face in '
        f'{sum(r["faces"] for r in records)}; see report.csv and '
        'contact_sheet.jpg there'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
