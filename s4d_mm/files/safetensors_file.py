# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoint files of safetensors: tensors with texts beside them, and nothing that could run."""

import json
import os
from collections.abc import Callable
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from s4d_mm.version import __version__

from .errors import WeightsError

TENSORS_SUFFIX = '.safetensors'


def is_tensors_file(path: str) -> bool:
    """Whether a file is one of safetensors, by its suffix or, under another name, its beginning."""
    if path.endswith(TENSORS_SUFFIX):
        return True
    with open(path, 'rb') as f:
        start = f.read(9)  # the length of the header, and the header, which is JSON
    return start[8:] == b'{' and int.from_bytes(start[:8], 'little') < os.path.getsize(path)


def read_tensors(
    path: str,
    map_location: str | Callable | torch.device | dict | None = 'cpu',
    name: str | None = None,
) -> dict[str, Any]:
    """Read a file of safetensors as a checkpoint.

    Args:
        path (str): The file.
        map_location (str | Callable | torch.device | dict, optional): As in ``torch.load``, of
            tensors on the CPU. Defaults to 'cpu'.
        name (str, optional): What messages call the file. Defaults to None, the path.

    Returns:
        dict: ``state_dict``, and ``meta`` if :func:`write_tensors` wrote the file.

    Raises:
        WeightsError: If the file is none of safetensors, or is torn.
    """
    try:
        with safe_open(path, framework='pt') as f:
            texts = f.metadata() or {}
            weights = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118, no mapping
    except (SafetensorError, OSError) as e:
        raise WeightsError(f'{name or path} is no whole file of safetensors: {e}') from e
    device = _device(map_location)
    checkpoint = dict(state_dict={key: value.to(device) for key, value in weights.items()})
    if 's4d_mm_version' in texts:
        checkpoint['meta'] = _meta_of(texts, name or path)
    return checkpoint


def _meta_of(texts: dict[str, str], name: str) -> dict[str, Any]:
    try:
        meta = json.loads(texts['meta'])
        if 'dataset_meta' in texts:
            meta['dataset_meta'] = json.loads(texts['dataset_meta'])
    except (KeyError, ValueError, TypeError) as e:
        raise WeightsError(f'The metadata of {name} is damaged: {e!r}.') from e
    if 'cfg' in texts:
        meta['cfg'] = texts['cfg']
    return meta


def write_tensors(weights: dict[str, Tensor], meta: dict[str, Any], path: str) -> None:
    """Write weights and what is known of them as safetensors.

    The metadata of the file are texts: ``cfg`` (the config), ``dataset_meta`` (JSON, with the
    names of the classes), ``meta`` (JSON, the rest of ``meta``), ``s4d_mm_version`` and
    ``format``.

    Args:
        weights (dict[str, Tensor]): The weights.
        meta (dict): The ``meta`` of a checkpoint of mmengine.
        path (str): The file.

    Raises:
        WeightsError: If there is something else than tensors among the weights, naming it.
        OSError: If it cannot be written.
    """
    for key, value in weights.items():
        if not isinstance(value, Tensor):
            raise WeightsError(
                f'safetensors holds tensors only, but {key} is of type {type(value).__name__}. '
                'Write a .pth file.'
            )
    rest = {k: v for k, v in meta.items() if k not in ('cfg', 'dataset_meta')}
    texts = dict(format='pt', s4d_mm_version=__version__, meta=json.dumps(rest, default=str))
    if meta.get('cfg') is not None:
        texts['cfg'] = str(meta['cfg'])
    if meta.get('dataset_meta') is not None:
        texts['dataset_meta'] = json.dumps(meta['dataset_meta'], default=_as_list)
    try:
        # safetensors takes no views and no tensor twice
        save_file({k: v.detach().clone().contiguous() for k, v in weights.items()}, path, texts)
    except SafetensorError as e:
        raise OSError(str(e)) from e


def _as_list(value: Any) -> Any:
    """For JSON: arrays and the like as lists, anything else as text."""
    return value.tolist() if hasattr(value, 'tolist') else str(value)


def _device(map_location: str | Callable | torch.device | dict | None) -> torch.device:
    if callable(map_location):
        storage = torch.empty(0).untyped_storage()
        return (map_location(storage, 'cpu') or storage).device
    if isinstance(map_location, dict):
        map_location = map_location.get('cpu')
    return torch.device(map_location or 'cpu')
