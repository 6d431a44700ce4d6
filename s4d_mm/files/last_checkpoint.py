# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Which checkpoint of a folder a training resumes from: the newest whole one."""

import os
import os.path as osp
import re
import zipfile
from collections.abc import Iterator

import torch
from mmengine.logging import print_log

from .errors import reason_of

NOTE = 'last_checkpoint'
# what mmengine's and our hooks write to resume from; not best_*.pth, which have no optimizer
NAMES = re.compile(r'(?:epoch|iter)_\d+\.pth')


class ResumeError(ValueError):
    """A training that cannot be resumed, or begun, as it was asked for."""


def is_plain_name(name: object) -> bool:
    """Whether something is the name of a checkpoint, without a folder."""
    return isinstance(name, str) and re.fullmatch(r'[^/\\]+\.pth', name) is not None


def checkpoints_in(folder: str) -> list[str]:
    """Paths of the checkpoints in a folder that a training may be resumed from, by their names."""
    names = os.listdir(folder) if osp.isdir(folder) else []
    return [osp.join(folder, name) for name in sorted(names) if NAMES.fullmatch(name)]


def check_whole(path: str) -> None:
    """Raise a ValueError if a checkpoint is torn or changed, by the sums that torch put into it."""
    try:
        with zipfile.ZipFile(path) as f:
            damaged = f.testzip()
    except (OSError, zipfile.BadZipFile) as e:
        raise ValueError(f'{osp.basename(path)}: {reason_of(e)}') from e
    if damaged:
        raise ValueError(f'{osp.basename(path)}: its part {damaged} is damaged')


def noted(folder: str) -> str | None:
    """Path in the note ``last_checkpoint`` of a folder; None if there is no note or it is empty."""
    try:
        with open(osp.join(folder, NOTE), encoding='utf-8') as f:
            return f.read().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def find_checkpoint(work_dir: str, out_dir: str | None = None) -> str | None:
    """The checkpoint that a training in a folder resumes from; None if there is none.

    It is the one that the note ``last_checkpoint`` names. If that is missing or torn, it is the
    whole one with the most iterations, and the log says so. The folder may have been moved: files
    in it come before those where the note says. ``out_dir`` is that of ``CheckpointHook``.

    Raises:
        ResumeError: If there are some, but none is whole.
    """
    note = noted(work_dir)
    folders = [work_dir]
    if out_dir is not None:
        folders.append(osp.join(out_dir, osp.basename(osp.abspath(work_dir))))
    if note is not None:
        folders.append(osp.dirname(note))
    folder = next((f for f in folders if checkpoints_in(f)), None)
    last = osp.join(folder or work_dir, osp.basename(note)) if note else None
    candidates = checkpoints_in(folder) if folder else []
    if last is not None and not osp.exists(last):
        last = note if osp.exists(note) and not candidates else None  # another name elsewhere
    if last is None and not candidates:
        return None

    reasons, whole = {}, None
    if last is None:
        reasons[note or osp.join(work_dir, NOTE)] = 'it is missing'
    for path in _newest_first(last, candidates):
        try:
            check_whole(path)
            whole = path
            break
        except ValueError as e:
            reasons[path] = str(e)
    said = '; '.join(f'{name}: {reason}' for name, reason in reasons.items())
    if whole is None:
        raise ResumeError(
            f'None of the checkpoints in {folder or work_dir} is whole ({said}), so there is '
            'nothing to resume from. Begin in another --work-dir, or remove them.'
        )
    if reasons:
        print_log(f'Resuming from {whole}, the newest whole checkpoint ({said}).', 'current', 30)
    return whole


def _newest_first(last: str | None, paths: list[str]) -> Iterator[str]:
    if last is not None:
        yield last
    yield from sorted((path for path in paths if path != last), key=_progress, reverse=True)


def _progress(path: str) -> tuple[int, int]:
    # iterations and epochs; a file that cannot be read comes last
    try:
        meta = torch.load(path, map_location='cpu', weights_only=True, mmap=True)['meta']
        return int(meta['iter']), int(meta['epoch'])
    except Exception:  # torch raises many types
        return -1, -1
