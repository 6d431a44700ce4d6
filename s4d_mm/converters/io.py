# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Conversion step: checkpoint files, read, converted, and written whole or not at all."""

import datetime
import os
import os.path as osp
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from s4d_mm.version import __version__

from ..files.checkpoint import StateDict, load_weights, read_checkpoint, unwrap
from ..files.download import digest_of
from ..files.errors import WEIGHTS_ERRORS, WeightsError
from ..files.safetensors_file import TENSORS_SUFFIX, write_tensors


class Conversion(NamedTuple):
    """Converted weights and what there is to say about them."""

    weights: StateDict
    left_out: list[str]  # keys of the source that have no place in the result
    family: str  # whose weights these are
    notes: Sequence[str] = ()  # what was changed
    classes: dict[str, tuple[str, ...]] | None = None  # names of each modality, if known

    def meta(self, src: str) -> dict:
        """What a checkpoint of these weights says about itself, made of the file ``src``."""
        meta = dict(
            converted_from=osp.basename(src), family=self.family, s4d_mm_version=__version__
        )
        if self.classes:
            meta['dataset_meta'] = dict(classes=self.classes)
        return meta


def save_checkpoint(checkpoint: dict, path: str) -> None:
    """Write a checkpoint. A failed attempt leaves nothing at ``path``, or what was there.

    Args:
        checkpoint (dict): What to write: weights and ``meta``.
        path (str): Where. A name that ends in ``.safetensors`` asks for that format.

    Raises:
        OSError: If it cannot be written, naming ``path``.
        WeightsError: If it holds what safetensors cannot.
    """
    part = f'{path}.part'
    try:
        if path.endswith(TENSORS_SUFFIX):
            write_tensors(unwrap(checkpoint) or {}, checkpoint.get('meta') or {}, part)
        else:
            torch.save(checkpoint, part)
        os.replace(part, path)
    except (OSError, RuntimeError) as e:  # torch raises both
        if osp.isfile(part):
            os.remove(part)
        raise OSError(f'{path} cannot be written: {e}') from e


def convert_file(
    src: str, dst: str, convert: Callable[[StateDict], Conversion], key: str = 'state_dict'
) -> int:
    """Convert a checkpoint file and print what was done: the body of the commands.

    Args:
        src (str): File to read.
        dst (str): File to write.
        convert (Callable): Turns weights into a :class:`Conversion`.
        key (str): Under which name ``dst`` holds the weights. Defaults to 'state_dict'.

    Returns:
        int: Exit code: 1 after an error, with its message on stderr.
    """
    try:
        weights = load_weights(src)
        try:
            result = convert(weights)
        except ValueError as e:
            raise ValueError(f'{src}: {e}') from e
        save_checkpoint({key: result.weights, 'meta': result.meta(src)}, dst)
    except (ValueError, OSError, *WEIGHTS_ERRORS) as e:
        print(e, file=sys.stderr)
        return 1
    print(f'{dst}: wrote {len(result.weights)} parameters ({result.family}).')
    for note in result.notes:
        print(f'  {note}')
    if result.left_out:
        print(f'{len(result.left_out)} keys of {src} have no place in it:')
        print('\n'.join(f'  {name}' for name in result.left_out))
    return 0


def publish(src: str, dst: str) -> str:
    """Write a checkpoint without what only the training needs, named by date and hash.

    Args:
        src (str): Checkpoint of mmengine, or its address.
        dst (str): Where to; ``_{date}-{hash}`` is put before the suffix, ``.safetensors`` (with
            names of classes and config as its metadata) or ``.pth``.

    Returns:
        str: Name of the file that was written.

    Raises:
        OSError: If there is no such checkpoint, or the file cannot be written.
        WeightsError: If the checkpoint cannot be read, or holds no weights.
    """
    checkpoint = read_checkpoint(src)
    if unwrap(checkpoint) is None:
        raise WeightsError(f'{src} holds no weights.')
    for key in ('message_hub', 'optimizer', 'param_schedulers', 'hook_msgs'):
        checkpoint.pop(key, None)
    suffix = TENSORS_SUFFIX if dst.endswith(TENSORS_SUFFIX) else '.pth'
    stem = dst.removesuffix(suffix)
    unnamed = f'{stem}.tmp{suffix}'
    save_checkpoint(checkpoint, unnamed)
    final = f'{stem}_{datetime.date.today():%Y%m%d}-{digest_of(unnamed)[:8]}{suffix}'
    os.replace(unnamed, final)
    return final


def group_keys(keys: Iterable[str]) -> str:
    """Keys for a message: a line for those that differ in numbers only.

    Args:
        keys (Iterable[str]): The keys.

    Returns:
        str: Lines such as ``'  blocks.*.attn.scale (12)'``.
    """
    groups = {}
    for key in keys:
        groups.setdefault(re.sub(r'(?<=\.)\d+(?=\.|$)', '*', key), []).append(key)
    return first_lines(
        group[0] if len(group) == 1 else f'{name} ({len(group)})' for name, group in groups.items()
    )


def first_lines(lines: Iterable[str], most: int = 20) -> str:
    """Indented lines for a message, of which the rest is only counted."""
    lines = [f'  {line}' for line in lines]
    if len(lines) > most:
        lines[most:] = [f'  and {len(lines) - most} more']
    return '\n'.join(lines)
