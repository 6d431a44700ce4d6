# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Packed data: clips and images as JPEG files, many in one LMDB file (``tools/data/pack.py``).

A packed folder has ``packed.json`` and ``part-00000-of-00002.lmdb``, ... A sample lies in the part
that the checksum of its name says. Its record is ``<IIf`` (1 if all pictures are JPEG files that
turbojpeg decodes as Pillow does, 0 if Pillow must decode them; number of pictures; frames per
second), then the size of each picture in bytes (``<I``), then the pictures.

It needs nothing of the package but :mod:`s4d_mm.media`.
"""

import json
import os
import os.path as osp
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .media import VIDEO_SUFFIXES, MediaReadError, read_image

SETTINGS = 'packed.json'
HEAD = struct.Struct('<IIf')
NEEDED = 'Packed data needs lmdb and simplejpeg: pip install "s4d_mm[pack]"'
_folders: dict[str, str] = {}  # real paths of the packed folders that are known
_opened: dict[str, tuple[int, 'PackedFolder']] = {}  # by real path; the process that opened it


def part_name(part: int, parts: int) -> str:
    """Name of the file of a part, counted from 0."""
    return f'part-{part:05d}-of-{parts:05d}.lmdb'


def part_of(key: str, parts: int) -> int:
    """The part in which a sample lies."""
    return zlib.crc32(os.fsencode(key)) % parts


def key_of(name: str) -> str:
    """Key of a sample: its path below the packed folder, of a video file without the suffix."""
    key = name.replace(os.sep, '/')
    return osp.splitext(key)[0] if key.lower().endswith(VIDEO_SUFFIXES) else key


def make_record(pictures: Sequence[bytes], is_plain_jpeg: bool, fps: float) -> bytes:
    """The record of a sample from its pictures, which are files as bytes."""
    sizes = np.array([len(picture) for picture in pictures], '<u4')
    head = HEAD.pack(is_plain_jpeg, len(pictures), fps)
    return b''.join((head, sizes.tobytes(), *pictures))


def open_part(path: str, **options: Any) -> Any:
    """Open a part as an environment of LMDB, with its options.

    Raises:
        ImportError: Without lmdb.
        MediaReadError: If the file is no such part, or is cut off.
    """
    try:
        import lmdb
    except ImportError as e:
        raise ImportError(f'{path}: {NEEDED}') from e
    try:
        env = lmdb.open(path, subdir=False, **options)
        if osp.getsize(path) < size_of(env):  # reading beyond the end would kill the process
            raise ValueError('it is cut off')
    except (lmdb.Error, ValueError) as e:
        raise MediaReadError(f'Cannot open packed data {path}: {e}. Copy it anew.') from e
    return env


def size_of(env: Any) -> int:
    """Bytes that the file of an environment of LMDB must have."""
    return (env.info()['last_pgno'] + 1) * env.stat()['psize']


class PackedFolder:
    """The parts of a packed folder that are here, open for reading.

    Raises:
        MediaReadError: If a file is no such part, or is damaged.
    """

    def __init__(self, folder: str) -> None:
        self.folder, self.envs = folder, {}
        try:
            with open(osp.join(folder, SETTINGS), encoding='utf-8') as f:
                settings = json.load(f)
            self.parts, self.window = settings['parts'], settings['window']
        except (ValueError, KeyError, TypeError) as e:
            raise MediaReadError(f'{folder}/{SETTINGS} is damaged: {e!r}. Copy it anew.') from e
        for part in range(self.parts):
            path = osp.join(folder, part_name(part, self.parts))
            if osp.exists(path):
                self.envs[part] = open_part(path, readonly=True, lock=False)

    def env_of(self, key: str) -> Any:
        """LMDB environment of the part in which a sample lies.

        Raises:
            FileNotFoundError: If the part is not here.
        """
        part = part_of(key, self.parts)
        if part not in self.envs:
            name = part_name(part, self.parts)
            raise FileNotFoundError(
                f'{key} lies in {name}, which is not in {self.folder}. Copy it there, or set '
                'node_parts of DualModalSampler, by which each node reads its own part.'
            )
        return self.envs[part]

    def keys(self) -> list[str]:
        """Names of all samples in the parts that are here."""
        keys = []
        for env in self.envs.values():
            with env.begin() as txn:
                keys += [os.fsdecode(key) for key in txn.cursor().iternext(values=False)]
        return sorted(keys)

    def close(self) -> None:
        """Give the addresses of the files back."""
        for env in self.envs.values():
            env.close()


class PackedClip:
    """The frames of a packed clip by number, or a packed image as its only frame.

    Attributes:
        fps (float): Frames per second of the video; 0 of a folder of frames or an image.
        window (list | None): Rows and columns of the video's frames that were kept.

    Raises:
        FileNotFoundError: If there is no such sample.
    """

    def __init__(self, folder: PackedFolder, key: str) -> None:
        self.path, self.window = f'{folder.folder}/{key}', folder.window
        self.env, self.key = folder.env_of(key), os.fsencode(key)
        with self.env.begin(buffers=True) as txn:
            record = txn.get(self.key)
            if record is None:
                raise FileNotFoundError(f'{key} is not in the packed data {folder.folder}.')
            self.is_plain_jpeg, count, self.fps = HEAD.unpack_from(record)
            sizes = np.frombuffer(record, '<u4', count, HEAD.size).astype(np.int64)
        start = HEAD.size + 4 * count
        self.ends = np.cumsum([start, *sizes]).tolist()

    def __len__(self) -> int:
        return len(self.ends) - 1

    def record(self) -> bytes:
        """The whole record."""
        with self.env.begin() as txn:
            return txn.get(self.key)

    def read(self, numbers: Iterable[int]) -> Iterator[np.ndarray]:
        """Decode the frames of some numbers; RGB, uint8, (height, width, 3), upright.

        Raises:
            MediaReadError: If one is damaged.
        """
        with self.env.begin(buffers=True) as txn:
            record = txn.get(self.key)
            files = [bytes(record[self.ends[i] : self.ends[i + 1]]) for i in numbers]
        if not self.is_plain_jpeg:
            yield from (read_image(self.path, file) for file in files)
            return
        from simplejpeg import decode_jpeg

        for file in files:
            try:
                frame = decode_jpeg(file)
            except ValueError as e:
                raise MediaReadError(f'{self.path}: a frame is damaged: {e}') from e
            yield frame


def packed_folder(path: str) -> str | None:
    """The packed folder in which a path lies, or that it is; None if it is a file or in none."""
    folder = path = osp.normpath(path)
    for known in _folders:
        if path.startswith(known + os.sep):
            return known
    while folder and not osp.exists(osp.join(folder, SETTINGS)):
        above = osp.dirname(folder)
        folder = above if above != folder and not osp.exists(folder) else ''
    if folder:
        _folders[folder] = osp.realpath(folder)
    return folder or None


def open_folder(folder: str) -> PackedFolder:
    """Open a folder that :func:`packed_folder` gave, once in each process."""
    path = _folders[folder]
    process, opened = _opened.get(path, (0, None))
    if process != os.getpid():
        if opened:
            opened.close()  # LMDB forbids to use after a fork what was opened before it
        opened = PackedFolder(path)
        _opened[path] = os.getpid(), opened
    return opened


def find_packed(path: str) -> PackedClip | None:
    """The packed sample that a path names; None if the path is not in a packed folder."""
    folder = packed_folder(path)
    return folder and PackedClip(open_folder(folder), key_of(osp.relpath(path, folder)))


def is_there(path: str) -> bool:
    """Whether a path is a file, a folder or a packed sample."""
    try:
        return find_packed(path) is not None or osp.exists(path)
    except FileNotFoundError:
        return False


def in_parts(paths: Sequence[str]) -> list[list[int]]:
    """Numbers, from 0, of the samples in each part of the packed folder that the paths share.

    Raises:
        ValueError: If it is no packed folder.
    """
    folder = packed_folder(paths[0])
    if folder is None:
        raise ValueError(f'{paths[0]} is not in a packed folder, of tools/data/pack.py.')
    parts = [[] for _ in range(open_folder(folder).parts)]
    for number, path in enumerate(paths):
        parts[part_of(key_of(osp.relpath(path, folder)), len(parts))].append(number)
    return parts
