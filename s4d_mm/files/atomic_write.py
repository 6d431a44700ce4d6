# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Files that are whole or not there: written under another name, flushed, then renamed."""

import contextlib
import errno
import os
import os.path as osp
import shutil
from typing import NoReturn

# "<name>.<number of the process>.part"; what a killed process leaves
PART_SUFFIX = '.part'
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class FileNotWrittenError(OSError):
    """A file that could not be written; what was there under its name is untouched."""


def atomic_write(path: str, content: bytes | str, encoding: str = 'utf-8') -> None:
    """Write a file so that its name shows the old content or the whole new one, at any moment.

    The content is written beside it, flushed to the disk (fsync) and renamed, and the folder is
    flushed too, so that this also holds if the machine stops. A link stays one.

    Args:
        path (str): The file. Missing folders are made.
        content (bytes | str): All of it.
        encoding (str): Of text. Defaults to 'utf-8'.

    Raises:
        FileNotWrittenError: If it cannot be written, with the size of the file and the free
            space. Nothing of the attempt is left.
    """
    data = content.encode(encoding) if isinstance(content, str) else content
    target = osp.realpath(path)
    folder = osp.dirname(target)
    part = f'{target}.{os.getpid()}{PART_SUFFIX}'
    try:
        os.makedirs(folder, exist_ok=True)
        if osp.exists(target) and not osp.isfile(target):  # a device or a pipe
            with open(target, 'wb') as f:
                f.write(data)
            return
        with open(part, 'wb') as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, target)
    except BaseException as e:
        with contextlib.suppress(OSError):
            os.remove(part)
        if isinstance(e, OSError):
            _explain(e, str(path), folder, len(data))
        raise
    _flush_folder(folder)


def _explain(error: OSError, path: str, folder: str, size: int) -> NoReturn:
    message = (
        f'{path} ({in_bytes(size)}) cannot be written: {error.strerror or error}. '
        f'{free_space(folder)} What was there before is kept.'
    )
    explained = FileNotWrittenError(message)
    explained.errno = error.errno
    raise explained from error


def free_space(folder: str) -> str:
    """How much can still be written in a folder, as a sentence."""
    while not osp.isdir(folder) and osp.dirname(folder) != folder:
        folder = osp.dirname(folder)
    return f'The disk of {folder} has {in_bytes(shutil.disk_usage(folder).free)} free.'


def in_bytes(size: int) -> str:
    """A size for people: ``1.2 GB``."""
    value = float(size)
    for unit in ('bytes', 'kB', 'MB'):
        if value < 1000:
            return f'{value:.0f} {unit}' if unit == 'bytes' else f'{value:.1f} {unit}'
        value /= 1000
    return f'{value:.1f} GB'


def _flush_folder(folder: str) -> None:
    """Write the new name to the disk, where the system lets a folder be flushed."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
