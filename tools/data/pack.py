# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pack clips or images for training: JPEG files, many in one file of LMDB.

    python tools/data/pack.py DATASET SRC DST
    python tools/data/pack.py DATASET SRC DST --verify

Repeat the command after an interruption: it resumes. See docs/data/pack.md.
"""

import argparse
import errno
import os
import os.path as osp
import sys
from collections.abc import Sequence
from functools import partial

import clip_files as files
import cv2
import numpy as np
from clip_files import Source
from prepare import input_type, start_worker
from s4d_mm_alone import media, packed
from s4d_mm_alone.files.text import printable

COMMIT_BYTES = 2**28  # are written at once; a kill loses no more
MAP_SIZE = 2**45  # bytes of addresses for all parts, not of memory or disk
VERSION = 1
MOST_KEY_BYTES = 511  # of LMDB
JPEG_START = b'\xff\xd8'


def encode(image: np.ndarray, quality: int) -> bytes:
    """An RGB image as a JPEG file, the colours at half the resolution."""
    return cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def decodes_alike(content: bytes, image: np.ndarray) -> bool:
    """Whether turbojpeg decodes a picture to this image, which Pillow made of it."""
    from simplejpeg import decode_jpeg, is_jpeg

    try:
        return is_jpeg(content) and np.array_equal(decode_jpeg(content), image)
    except ValueError:  # such as CMYK
        return False


def record_of(source: Source, quality: int, window: Sequence | None, keep: bool) -> bytes:
    """The record of a clip or image.

    JPEG files stay as they are; other pictures, and all that are cut, are encoded.
    """
    pictures, plain, is_video = [], True, source.kind == 'video'
    if is_video or window:
        (top, bottom), (left, right) = window or ((0, None), (0, None))
        for frame in files.read_frames(source):
            if window and (frame.shape[0] < bottom or frame.shape[1] < right):
                size = f'{frame.shape[0]} x {frame.shape[1]}'
                raise ValueError(f'frames of {size} pixels have no rows and columns {window}')
            pictures.append(encode(frame[top:bottom, left:right], quality))
    for path in () if pictures else files.frame_files(source):
        with open(path, 'rb') as f:
            content = f.read()
        image = media.read_image(path, content)
        if keep or content[:2] == JPEG_START:
            plain = plain and decodes_alike(content, image)
        else:
            content = encode(image, quality)
        pictures.append(content)
    fps = media.video_info(source.file).fps or media.ASSUMED_FPS if is_video else 0
    return packed.make_record(pictures, plain, fps)


def pack_one(source: Source, **options) -> tuple[str, bytes | None, str]:
    """Key and record of a clip or image, or what is wrong with it."""
    key = packed.key_of(source.output)
    try:
        if len(os.fsencode(key)) > MOST_KEY_BYTES:
            raise ValueError(f'its name has more than {MOST_KEY_BYTES} bytes; shorten it')
        return key, record_of(source, **options), ''
    except Exception as e:  # one file must not end the work on the others
        if isinstance(e, OSError) and e.errno == errno.ENOSPC:
            raise
        return key, None, f'{source.path}: {e if isinstance(e, (OSError, ValueError)) else repr(e)}'


class Writer:
    """Writes records into the parts of a folder, each part in transactions of its own."""

    def __init__(self, dst: str, parts: int) -> None:
        try:
            import lmdb
        except ImportError as e:
            raise ImportError(packed.NEEDED) from e

        self.waiting = [{} for _ in range(parts)]
        self.bytes = 0
        self.envs = [
            lmdb.open(path, MAP_SIZE // parts, subdir=False, lock=False)
            for path in (osp.join(dst, packed.part_name(i, parts)) for i in range(parts))
        ]

    def keys(self) -> set[str]:
        """Keys of all samples that are there."""
        found = set()
        for env in self.envs:
            with env.begin() as txn:
                found.update(os.fsdecode(key) for key in txn.cursor().iternext(values=False))
        return found

    def get(self, key: str) -> bytes | None:
        with self.envs[packed.part_of(key, len(self.envs))].begin() as txn:
            return txn.get(os.fsencode(key))

    def add(self, key: str, record: bytes) -> None:
        self.waiting[packed.part_of(key, len(self.envs))][os.fsencode(key)] = record
        self.bytes += len(record)
        if self.bytes > COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what waits; all of a part, or nothing of it."""
        for env, records in zip(self.envs, self.waiting):
            with env.begin(write=True) as txn:
                for key, record in sorted(records.items()):
                    txn.put(key, record)
            records.clear()
        self.bytes = 0

    def close(self) -> None:
        """Write what waits, and give the addresses back."""
        try:
            self.commit()
        finally:
            for env in self.envs:
                env.close()


def pack(
    dataset: str,
    src: str,
    dst: str,
    quality: int = 90,
    parts: int = 1,
    keep: bool = False,
    workers: int | None = None,
    verify: bool = False,
) -> list[str]:
    """Pack what is left of a folder, or compare what is packed; what is wrong, a line a sample.

    ``workers=1`` works in this process.
    """
    from mmengine.registry import DATASETS
    from mmengine.utils import track_iter_progress

    if not 1 <= quality <= 100 or parts < 1:
        raise ValueError(f'quality={quality} must be 1 to 100, and parts={parts} at least 1')
    kind = input_type(dataset)
    files.require_apart(src, dst)
    window = getattr(DATASETS.get(dataset), 'FACE_WINDOW', None)
    window = window and [list(line) for line in window]
    sources = files.list_sources(src, kind)
    settings = dict(version=VERSION, input_type=kind, window=window, parts=parts)
    files.claim_folder(dst, packed.SETTINGS, dict(settings, quality=quality, keep=keep))
    writer = Writer(dst, parts)
    done = set() if verify else writer.keys()
    todo = [s for s in sources if packed.key_of(s.output) not in done]
    if len(todo) < len(sources):
        print(f'{len(sources) - len(todo)} of {len(sources)} are done')
    work = partial(pack_one, quality=quality, window=window, keep=keep)
    records = map(work, todo)
    if workers != 1 and todo:
        records = files.in_processes(work, todo, workers, partial(start_worker, str))
    wrong = []
    try:
        for key, record, message in track_iter_progress((records, len(todo))) if todo else ():
            if message:
                wrong.append(message)
            elif verify:
                found = writer.get(key)
                if found != record:
                    wrong.append(f'{key}: {"differs" if found else "is missing"}')
            else:
                writer.add(key, record)
    finally:
        writer.close()
    return wrong


def main(argv: list[str] | None = None) -> int:
    shown = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=shown)
    add = parser.add_argument
    add('dataset', help='name of a dataset, e.g. VoxCeleb2, DFEW, AffectNet: videos or images')
    add('src', help='folder of clips or images')
    add('dst', help='folder to write to')
    add('--quality', type=int, default=90, help='of pictures that are no JPEG files yet, 1 to 100')
    add('--parts', type=int, default=1, help='files; as many as nodes, if each reads its own')
    add('--keep', action='store_true', help='keep .png, .bmp and others as they are')
    add('--workers', type=int, help='processes (None: all CPUs)')
    add('--verify', action='store_true', help='pack again and compare; write nothing')
    args = parser.parse_args(argv)

    def work() -> int:
        wrong = pack(**vars(args))
        print(*map(printable, wrong), sep='\n', end='\n' * bool(wrong))
        what = 'are not as in the source' if args.verify else 'could not be packed'
        print(f'{args.dst}: {len(wrong)} {what}')
        return int(bool(wrong))

    return files.run_command('pack', work)


if __name__ == '__main__':
    sys.exit(main())
