# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoint files, read, converted, and written whole or not at all."""

import datetime
import hashlib
import io
import os.path as osp
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from s4d_mm.version import __version__

from ..files.atomic_write import atomic_write
from ..files.checkpoint import (
    TENSORS_SUFFIX,
    StateDict,
    load_weights,
    pack_tensors,
    read_checkpoint,
    unwrap,
)
from ..files.errors import WeightsError
from ..models.state_dict import group_keys, known_code

NameTable = tuple[tuple[str, str], ...]
Classes = dict[str, tuple[str, ...]]  # names of each modality, in label order


class Conversion(NamedTuple):
    """Converted weights and what there is to say about them."""

    weights: StateDict
    left_out: list[str]  # keys of the source that have no place in the result
    family: str  # whose weights these are
    notes: Sequence[str] = ()  # what was changed
    classes: Classes | None = None

    def meta(self, src: str) -> dict:
        """What a checkpoint of these weights says about itself, made of the file ``src``."""
        meta = dict(converted_from=osp.basename(src), family=self.family)
        meta['s4d_mm_version'] = __version__
        return {**meta, 'dataset_meta': dict(classes=self.classes)} if self.classes else meta


def has(keys: Sequence[str], weights: StateDict) -> bool:
    """Whether weights have all these keys."""
    return all(key in weights for key in keys)


def require(weights: StateDict, keys: Sequence[str], whose: str, for_s2d: bool = False) -> None:
    """Refuse weights without these keys, and say what they look like."""
    missing = [key for key in keys if key not in weights]
    if missing:
        known = known_code(weights, for_s2d) or f'Its tensors are:\n{group_keys(weights)}'
        raise WeightsError(
            f'This is no checkpoint of {whose}: it lacks {", ".join(missing)}. {known}'
        )


def rename(key: str, prefixes: NameTable, inside: NameTable = (), reverse: bool = False) -> str:
    """A key with the first prefix that matches replaced, then the names ``inside`` anywhere in it.

    It is '' if no prefix matches. ``reverse`` reads both tables in the other direction.
    """
    step = -1 if reverse else 1
    for old, new in (pair[::step] for pair in prefixes):
        if key.startswith(old):
            key = new + key[len(old) :]
            for before, after in (pair[::step] for pair in inside):
                key = key.replace(before, after)
            return key
    return ''


def check_classes(weights: StateDict, classifiers: dict[str, str], classes: Classes) -> Classes:
    """The class names of the modalities that have a classifier, by the key of its weight.

    Raises:
        ValueError: If a classifier has another number of classes.
    """
    found = {m: tuple(n) for m, n in classes.items() if classifiers.get(m) in weights}
    for modality, names in found.items():
        count = len(weights[classifiers[modality]])
        if count != len(names):
            raise ValueError(
                f'The {modality} classifier has {count} classes, but the {modality} dataset of '
                f'the config has {len(names)}. Give the config that it was trained with, or none.'
            )
    return found


def checkpoint_bytes(checkpoint: dict, suffix: str) -> bytes:
    """What a checkpoint's file holds: safetensors for ``.safetensors``, else torch's form."""
    if suffix == TENSORS_SUFFIX:
        return pack_tensors(unwrap(checkpoint) or {}, checkpoint.get('meta') or {})
    content = io.BytesIO()
    torch.save(checkpoint, content)
    return content.getvalue()


def save_checkpoint(checkpoint: dict, path: str) -> None:
    """Write a checkpoint, as safetensors if the name ends so.

    Raises:
        FileNotWrittenError: If it cannot be written; what was at ``path`` is kept.
        WeightsError: If it holds what safetensors cannot.
    """
    atomic_write(path, checkpoint_bytes(checkpoint, osp.splitext(path)[1]))


def convert_file(
    src: str, dst: str, convert: Callable[[StateDict], Conversion], key: str = 'state_dict'
) -> int:
    """Convert a checkpoint file and print what was done; ``dst`` holds the weights under ``key``.

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
    except (ValueError, OSError, ImportError) as e:
        print(e, file=sys.stderr)
        return 1
    print(f'{dst}: wrote {len(result.weights)} parameters ({result.family}).')
    for note in result.notes:
        print(f'  {note}')
    if result.left_out:
        print(f'{len(result.left_out)} keys of {src} have no place in it:')
        print('\n'.join(f'  {name}' for name in result.left_out))
    return 0


def publish(src: str, dst: str, half: bool = False) -> str:
    """Write the weights and ``meta`` of a checkpoint, or of an address, and nothing else of it.

    With ``half`` the weights are 16-bit floats, which a model takes as 32-bit ones.

    Returns:
        str: Name of the file: ``dst`` with ``_{date}-{hash}`` before the suffix, ``.pth`` or
        ``.safetensors``.
    """
    checkpoint = read_checkpoint(src)
    weights = unwrap(checkpoint)
    if weights is None:
        raise WeightsError(f'{src} holds no weights.')
    if half:
        weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    suffix = TENSORS_SUFFIX if dst.endswith(TENSORS_SUFFIX) else '.pth'
    meta = checkpoint.get('meta') or {}
    content = checkpoint_bytes(dict(state_dict=weights, meta=meta), suffix)
    digits = hashlib.sha256(content).hexdigest()[:8]
    final = f'{dst.removesuffix(suffix)}_{datetime.date.today():%Y%m%d}-{digits}{suffix}'
    atomic_write(final, content)
    return final
