# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Files that are whole or not there: written under another name, then renamed."""

import contextlib
import errno
import os
import os.path as osp
import shutil
from collections.abc import Iterator

# "<name>.<number of the process>.part"; what a killed process leaves
PART_SUFFIX = '.part'
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class FileNotWrittenError(OSError):
    """A file that could not be written; what was there under its name is untouched."""


@contextlib.contextmanager
def atomic_path(path: str) -> Iterator[str]:
    """Yield a name beside ``path`` to write a file or folder under, which then gets its name.

    If the block ends in an error, what was written is removed. A link stays one.
    """
    target = osp.realpath(path)
    folder, name = osp.split(target)
    os.makedirs(folder, exist_ok=True)
    name = os.fsdecode(os.fsencode(name)[-200:])  # a name has at most 255 bytes
    part = osp.join(folder, f'{name}.{os.getpid()}{PART_SUFFIX}')
    try:
        yield part
        os.replace(part, target)
    except BaseException:
        remove(part)
        raise


def atomic_write(path: str, content: bytes | str, encoding: str = 'utf-8') -> None:
    """Write a file so that its name shows the old content or the whole new one, at any moment.

    The content is flushed to the disk (fsync) before it gets its name, and the folder after that,
    so that this also holds if the machine stops.

    Raises:
        FileNotWrittenError: If it cannot be written, with the size of the file and the free space.
    """
    data = content.encode(encoding) if isinstance(content, str) else content
    folder = osp.dirname(osp.realpath(path))
    try:
        if osp.exists(path) and not osp.isfile(path):  # a device or a pipe
            with open(path, 'wb') as f:
                f.write(data)
            return
        with atomic_path(path) as part, open(part, 'wb') as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        error = FileNotWrittenError(
            f'{path} ({len(data) / 1e6:.1f} MB) cannot be written: {e.strerror or e}. '
            f'{free_space(folder)} What was there before is kept.'
        )
        error.errno = e.errno
        raise error from e
    with contextlib.suppress(OSError):  # not every system lets a folder be flushed
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: str) -> None:
    """Remove a file or a folder, if it is there."""
    if osp.isdir(path) and not osp.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def free_space(folder: str) -> str:
    """How much can still be written in a folder, as a sentence."""
    while not osp.isdir(folder) and osp.dirname(folder) != folder:
        folder = osp.dirname(folder)
    return f'The disk of {folder} has {shutil.disk_usage(folder).free / 1e6:.0f} MB free.'
