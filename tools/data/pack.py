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
from contextlib import closing
from functools import partial
from importlib.util import find_spec

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
    pictures, sizes, plain, fps = [], set(), True, 0
    if source.kind == 'video' or window:
        (top, bottom), (left, right) = window or ((0, None), (0, None))
        frames = files.read_frames(source)
        if source.kind == 'video':
            reader = media.NumberedFrames(source.file)
            frames, fps = reader.read(range(len(reader))), reader.fps
        for frame in frames:
            if window and (frame.shape[0] < bottom or frame.shape[1] < right):
                size = f'{frame.shape[0]} x {frame.shape[1]}'
                raise ValueError(f'frames of {size} pixels have no rows and columns {window}')
            sizes.add(frame.shape[:2])
            pictures.append(encode(frame[top:bottom, left:right], quality))
    for path in () if pictures else files.frame_files(source):
        with open(path, 'rb') as f:
            content = f.read()
        image = media.read_image(path, content)
        if keep or content[:2] == JPEG_START:
            plain = plain and decodes_alike(content, image)
        else:
            content = encode(image, quality)
        sizes.add(image.shape[:2])
        pictures.append(content)
    if len(sizes) > 1:
        raise ValueError(f'frames of a clip must have one size, but have {sorted(sizes)}')
    return packed.make_record(pictures, plain, fps)


def pack_one(item: tuple[str, Source], **options) -> tuple[str, bytes | None, str]:
    """Key and record of a clip or image, or what is wrong with it."""
    key, source = item
    try:
        if len(os.fsencode(key)) > MOST_KEY_BYTES:
            raise ValueError(f'its name has more than {MOST_KEY_BYTES} bytes; shorten it')
        return key, record_of(source, **options), ''
    except Exception as e:  # one file must not end the work on the others
        if isinstance(e, OSError) and e.errno == errno.ENOSPC:
            raise
        return key, None, f'{source.path}: {e if isinstance(e, (OSError, ValueError)) else repr(e)}'


class Writer(packed.PackedFolder):
    """A packed folder to write into, each part in transactions of its own."""

    def __init__(self, folder: str, parts: int) -> None:
        self.folder, self.parts = folder, parts
        self.envs = {
            part: packed.open_part(
                osp.join(folder, packed.part_name(part, parts)), map_size=MAP_SIZE // parts
            )
            for part in range(parts)
        }
        self.waiting = {part: {} for part in self.envs}
        self.bytes = 0

    def add(self, key: str, record: bytes) -> None:
        self.waiting[packed.part_of(key, self.parts)][os.fsencode(key)] = record
        self.bytes += len(record)
        if self.bytes > COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what waits; all of a part, or nothing of it."""
        from lmdb import Error

        for part, env in self.envs.items():
            try:
                with env.begin(write=True) as txn:
                    for key, record in sorted(self.waiting[part].items()):
                        txn.put(key, record)
            except Error as e:
                said = f'cannot write {env.path()} ({e}): is the disk full?'
                raise OSError(f'{said} Make room, then run this again to resume') from e
            # LMDB may leave out a free page at the end
            os.truncate(env.path(), max(osp.getsize(env.path()), packed.size_of(env)))
            self.waiting[part].clear()
        self.bytes = 0

    def close(self) -> None:
        try:
            self.commit()
        finally:
            super().close()


def list_by_key(src: str, kind: str) -> dict[str, Source]:
    sources: dict[str, Source] = {}
    for source in files.list_sources(src, kind):
        other = sources.setdefault(packed.key_of(source.path), source)
        if other is not source:
            both = f'{other.path} and {source.path} would have one name in the packed data'
            raise ValueError(f'{both}; rename one of them')
    return sources


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
    if not all(map(find_spec, ('lmdb', 'simplejpeg'))):
        raise ImportError(packed.NEEDED)
    kind = input_type(dataset)
    files.require_apart(src, dst)
    window = getattr(DATASETS.get(dataset), 'FACE_WINDOW', None)
    window = window and [list(line) for line in window]
    sources = list_by_key(src, kind)
    settings = dict(version=VERSION, input_type=kind, window=window, parts=parts)
    settings.update(quality=quality, keep=keep)
    if verify and not osp.isfile(osp.join(dst, packed.SETTINGS)):
        raise ValueError(f'{dst} is no packed folder: it has no {packed.SETTINGS}')
    files.claim_folder(dst, packed.SETTINGS, settings)
    store = packed.PackedFolder(dst) if verify else Writer(dst, parts)
    done = set(store.keys())
    todo = [item for item in sources.items() if verify or item[0] not in done]
    if len(todo) < len(sources):
        print(f'{len(sources) - len(todo)} of {len(sources)} are done')
    work = partial(pack_one, quality=quality, window=window, keep=keep)
    records = map(work, todo)
    if workers != 1 and todo:
        records = files.in_processes(work, todo, workers, partial(start_worker, str))
    wrong = []
    with closing(store):
        for key, record, message in track_iter_progress((records, len(todo))) if todo else ():
            if message:
                wrong.append(message)
            elif not verify:
                store.add(key, record)
            else:
                wrong += compare(store, key, record)
    removed = sorted(done - sources.keys()) if verify else ()
    return wrong + [f'{key}: is packed, but not in {src}' for key in removed]


def compare(store: packed.PackedFolder, key: str, record: bytes) -> list[str]:
    try:
        found = packed.PackedClip(store, key).record()
    except FileNotFoundError as e:
        return [str(e)]
    return [f'{key}: differs'] * (found != record)


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
