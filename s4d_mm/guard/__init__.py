# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Protection of a run, for the whole process: importing this module switches it on.

The commands of ``s4d_mm`` import it. A config does by
``custom_imports = dict(imports=['s4d_mm', 's4d_mm.guard'])``. It replaces functions of mmengine
(0.10.7), and nothing else in ``s4d_mm`` does; ``docs/reliability.md`` lists them. It uses
:mod:`s4d_mm.files` and no other part of the package.
"""

import functools
import importlib
import logging
import os.path as osp
import re
from collections.abc import Callable
from typing import Any

from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader, FlexibleRunner, Runner, checkpoint

from ..files.atomic_write import atomic_write
from ..files.checkpoint import MapLocation, read_checkpoint
from ..files.last_checkpoint import find_checkpoint, is_plain_name

# what mmengine's checkpoint hook removes files by
NAMES_TO_REMOVE = re.compile(r'last_ckpt|best_ckpt.*|outdated_ckpts|keep_ckpt_ids')


def load_from_safe(filename: str, map_location: MapLocation = None, **_: Any) -> Any:
    """Read a checkpoint for mmengine, from a path or an address, without running code of it.

    Args:
        filename (str): A path, ``http(s)://...`` or ``hf://OWNER/REPO/FILE``.
        map_location (str | Callable, optional): As in ``torch.load``. Defaults to None.
        **_: What mmengine's readers of addresses take besides; not used.

    Returns:
        Any: What the file holds, unchanged.
    """
    return read_checkpoint(osp.expanduser(filename), map_location)


def put(self: LocalBackend, obj: bytes, filepath: str) -> None:
    """``LocalBackend.put``, by :func:`~s4d_mm.files.atomic_write.atomic_write`."""
    atomic_write(str(filepath), obj)


def put_text(self: LocalBackend, obj: str, filepath: str, encoding: str = 'utf-8') -> None:
    """``LocalBackend.put_text``, by :func:`~s4d_mm.files.atomic_write.atomic_write`."""
    atomic_write(str(filepath), obj, encoding)


def find_latest_checkpoint(path: str) -> str | None:
    """Mmengine's function, by :func:`~s4d_mm.files.last_checkpoint.find_checkpoint`."""
    return find_checkpoint(str(path))


class CheckedCheckpoint(Hook):
    """Takes from a checkpoint, before it is used, what mmengine would run or remove files by.

    mmengine runs ``meta['config']`` to read ``gpu_ids`` from it, a setting of earlier versions
    that no config here has, and removes the files that the message hub names.
    """

    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Drop the one, and keep the other to the folders of the run."""
        (checkpoint.get('meta') or {}).pop('config', None)
        name = osp.basename(osp.abspath(runner.work_dir))
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        outside = [osp.join(hook.out_dir, name) for hook in hooks if hook.out_dir]
        folders = [osp.abspath(path) for path in (runner.work_dir, *outside)]
        keep_to_folder(checkpoint.get('message_hub') or {}, folders)


def resume_checked(resume: Callable) -> Callable:
    """Wrap ``resume`` of a runner: within it, :class:`CheckedCheckpoint` is one of its hooks."""

    @functools.wraps(resume)
    def resume_with_hook(self: Runner, *args, **kwargs) -> None:
        hook = CheckedCheckpoint()
        self.register_hook(hook)
        try:
            resume(self, *args, **kwargs)
        finally:
            self.hooks.remove(hook)

    return resume_with_hook


def keep_to_folder(message_hub: dict, folders: list[str]) -> None:
    """Let a message hub name checkpoints of this run's folders only.

    Args:
        message_hub (dict): State of a message hub. Changed in place: a path in another folder, as
            after a move, becomes one in the first folder; what is no name of a checkpoint is
            dropped.
        folders (list[str]): Where the run keeps checkpoints.
    """

    def checked(key: str, value: Any) -> Any:
        if key == 'keep_ckpt_ids':
            return value if type(value) is int else None
        name = osp.basename(str(value))
        if not is_plain_name(name) or (key == 'outdated_ckpts' and name != value):
            return None
        in_folder = key == 'outdated_ckpts' or osp.dirname(osp.abspath(value)) in folders
        return value if in_folder else osp.join(folders[0], name)

    infos = message_hub.get('runtime_info') or {}
    for key in filter(NAMES_TO_REMOVE.fullmatch, list(infos)):
        given = infos[key]
        if isinstance(given, (list, tuple)):
            found = [checked(key, value) for value in given]
            kept = [value for value in found if value is not None]
        else:
            kept = None if given is None else checked(key, given)
        if kept != given:
            said = f'{key}={given!r} of the checkpoint becomes {kept!r}: not in {folders[0]}.'
            print_log(said, 'current', logging.WARNING)
            infos[key] = kept


def switch_on() -> None:
    """Replace what ``docs/reliability.md`` lists. Safe to call more than once."""
    CheckpointLoader.register_scheme(
        ('', 'http://', 'https://', 'hf://'), load_from_safe, force=True
    )
    checkpoint.load_from_http = load_from_safe
    LocalBackend.put, LocalBackend.put_text = put, put_text
    for name in ('', '.checkpoint', '.runner', '._flexible_runner'):
        module = importlib.import_module(f'mmengine.runner{name}')
        module.find_latest_checkpoint = find_latest_checkpoint
    for runner in (Runner, FlexibleRunner):
        if not hasattr(runner.resume, '__wrapped__'):
            runner.resume = resume_checked(runner.resume)


switch_on()
