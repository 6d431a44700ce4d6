# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Conversion step: checkpoint files, read without running code and written
whole or not at all.
"""

import argparse
import os
import os.path as osp
import sys
from typing import Callable

import torch
from torch import Tensor

from s4d_mm.version import __version__


def load_weights(path: str) -> dict[str, Tensor]:
    """Read the weights of a checkpoint with ``weights_only=True``.

    Args:
        path (str): A state dict, or a dict with one in ``state_dict``,
            ``model`` or ``module``.

    Returns:
        dict[str, Tensor]: The weights, on the CPU, without the prefix
        ``module.`` of distributed training.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read with ``weights_only=True`` or
            holds no weights.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f'There is no checkpoint {path}.')
    # the authors' training scripts store their parsed arguments
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
        except Exception as e:  # torch raises many types
            reason = (str(e).splitlines() or [type(e).__name__])[0]
            raise ValueError(
                f'is no checkpoint that can be read with weights_only=True: {reason}'
            ) from e
    for key in ('state_dict', 'model', 'module'):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    if not isinstance(checkpoint, dict) or not any(
        isinstance(v, Tensor) for v in checkpoint.values()
    ):
        raise ValueError(
            f'{path} holds no weights: it is a {type(checkpoint).__name__} without tensors.'
        )
    # saved from a model that was wrapped for distributed training
    return {k[len('module.') :] if k.startswith('module.') else k: v for k, v in checkpoint.items()}


def save_checkpoint(checkpoint: dict, path: str) -> None:
    """Write a checkpoint. A failed attempt leaves nothing at ``path``, or
    what was there.

    Args:
        checkpoint (dict): What to write.
        path (str): Where.

    Raises:
        OSError: If it cannot be written, naming ``path``.
    """
    part = f'{path}.part'
    try:
        torch.save(checkpoint, part)
        os.replace(part, path)
    except (OSError, RuntimeError) as e:  # torch raises both
        if osp.isfile(part):
            os.remove(part)
        raise OSError(f'{path} cannot be written: {e}') from e


def print_unplaced(unplaced: list[str], path: str) -> None:
    """List the keys of ``path`` that found no place."""
    if unplaced:
        print(f'{len(unplaced)} keys of {path} found no place:')
        print('\n'.join(f'  {key}' for key in unplaced))


def convert_file(src: str, dst: str, convert: Callable) -> int:
    """Convert a checkpoint file and print what was done: the body of the
    commands.

    Args:
        src (str): File to read.
        dst (str): File to write.
        convert (Callable): Turns weights into a ``Conversion``.

    Returns:
        int: Exit code, 1 after an error, with its message on stderr.
    """
    try:
        result = convert(load_weights(src))
        meta = dict(
            converted_from=osp.basename(src), family=result.family, s4d_mm_version=__version__
        )
        save_checkpoint(dict(state_dict=result.weights, meta=meta), dst)
    except (ValueError, OSError) as e:
        print(f'{src}: {e}', file=sys.stderr)
        return 1
    print(f'{dst}: wrote {len(result.weights)} parameters ({result.family}).')
    for note in result.notes:
        print(f'  {note}')
    print_unplaced(result.unplaced, src)
    return 0
