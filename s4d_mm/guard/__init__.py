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
from typing import Any, Callable, Optional

from mmengine.fileio import LocalBackend
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader, Runner, checkpoint

from ..files.atomic_write import atomic_write
from ..files.checkpoint import MapLocation, read_checkpoint
from ..files.last_checkpoint import find_checkpoint

# what mmengine's checkpoint hook removes files by, and the names that it gives them
NAMES_TO_REMOVE = re.compile(r'last_ckpt|best_ckpt.*|outdated_ckpts|keep_ckpt_ids')
CHECKPOINT_NAME = re.compile(r'(best_[^/\\]+_)?(epoch|iter)_\d+\.pth')


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


def find_latest_checkpoint(path: str) -> Optional[str]:
    """Mmengine's function, by :func:`~s4d_mm.files.last_checkpoint.find_checkpoint`."""
    return find_checkpoint(str(path))


def resume_without_code(resume: Callable) -> Callable:
    """Wrap ``Runner.resume``: what a checkpoint says is compared or checked, never run.

    mmengine runs ``meta['config']`` to read ``gpu_ids`` from it, a setting of earlier versions
    that no config here has, and removes the files that the message hub names.
    """

    @functools.wraps(resume)
    def resume_safely(self: Runner, *args, **kwargs) -> None:
        load = self.load_checkpoint

        def load_checked(*args, **kwargs) -> dict:
            loaded = load(*args, **kwargs)
            loaded['meta'].pop('config', None)
            drop_foreign_names(loaded.get('message_hub') or {})
            return loaded

        self.load_checkpoint = load_checked
        try:
            resume(self, *args, **kwargs)
        finally:
            del self.load_checkpoint

    return resume_safely


def drop_foreign_names(message_hub: dict) -> None:
    """Drop names of files from a message hub that a checkpoint hook cannot have written.

    Args:
        message_hub (dict): State of a message hub. Changed in place.
    """
    infos = message_hub.get('runtime_info') or {}
    for key in filter(NAMES_TO_REMOVE.fullmatch, list(infos)):
        values = infos[key] if isinstance(infos[key], (list, tuple)) else [infos[key]]
        if key == 'keep_ckpt_ids':
            known = all(type(value) is int for value in values)
        else:
            known = all(
                value is None
                or (isinstance(value, str) and CHECKPOINT_NAME.fullmatch(osp.basename(value)))
                for value in values
            )
        if not known:
            said = f'{key}={infos[key]!r} of the checkpoint is ignored: no name of a checkpoint.'
            print_log(said, 'current', logging.WARNING)
            del infos[key]


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
    if not hasattr(Runner.resume, '__wrapped__'):
        Runner.resume = resume_without_code(Runner.resume)


switch_on()
