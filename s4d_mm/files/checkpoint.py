# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoint files of any code, of torch or safetensors, read without running code.

``torch.load(weights_only=True)`` refuses the classes of settings that training code stores beside
the weights. Here their names are known to torch, during one load, as those of :class:`StandIn`, so
that neither their code nor their package is needed.
"""

import json
import os
import os.path as osp
from collections.abc import Callable
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from s4d_mm.version import __version__

from .download import forget, local_file
from .errors import WeightsError, WeightsNotFoundError, reason_of

StateDict = dict[str, Tensor]
MapLocation = str | Callable | torch.device | dict | None
TENSORS_SUFFIX = '.safetensors'
# packages of classes that only hold data; nothing of them is imported
HARMLESS_PACKAGES = ('argparse', 'collections', 'numpy', 'omegaconf', 'pathlib', 'typing')
# the types that omegaconf's metadata names
HARMLESS_BUILTINS = ('bool', 'bytes', 'dict', 'float', 'int', 'list', 'object', 'str', 'tuple')


class StandIn:
    """Takes the place of an object of a foreign class and forgets what it held."""

    def __new__(cls, *args, **kwargs) -> 'StandIn':
        """Make one, whatever the foreign class was made of."""
        return super().__new__(cls)

    def __setstate__(self, state) -> None:
        """Forget the state."""


def plain_dict(*args) -> dict:
    """Stand in for ``collections.defaultdict``: torch fills nothing but plain dicts."""
    return {}


def is_harmless(name: str) -> bool:
    """Whether a stand-in may take the place of a class, by its full name."""
    package, _, rest = name.partition('.')
    return rest in HARMLESS_BUILTINS if package == 'builtins' else package in HARMLESS_PACKAGES


def read_checkpoint(path: str, map_location: MapLocation = 'cpu') -> Any:
    """Read a checkpoint with ``weights_only=True``, or a file of safetensors.

    Objects of foreign classes, such as the parsed arguments of a training script, are inert
    (:class:`StandIn`).

    Args:
        path (str): File of torch or safetensors, or its address
            (:func:`~s4d_mm.files.download.local_file`, whose errors it may raise).
        map_location (str | Callable, optional): As in ``torch.load``. Defaults to 'cpu'.

    Raises:
        WeightsNotFoundError: If there is no such file.
        WeightsError: If it is no checkpoint, or asks for a class that might run code.
    """
    path = str(path)
    file = local_file(path)
    if not osp.isfile(file):
        raise WeightsNotFoundError(f'There is no checkpoint {path}.')
    try:
        if is_tensors_file(file):
            return _read_tensors(file, map_location)
        return _read_pickle(file, map_location)
    except WeightsError as e:
        raise WeightsError(f'{path} {e}') from e
    except Exception as e:  # torch raises many types
        with open(file, 'rb') as f:
            page = f.read(100).lstrip().startswith(b'<')
        forget(path)  # a download may have ended early
        raise WeightsError(
            f'{path} is no checkpoint that can be read with weights_only=True: '
            + ('it is a web page; give the address of the file itself' if page else reason_of(e))
        ) from e


def _read_pickle(file: str, map_location: MapLocation) -> Any:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # of a form before torch 1.6, or no checkpoint: torch.load says what it is
        names = []
    refused = sorted(name for name in names if not is_harmless(name))
    if refused:
        raise WeightsError(
            f'cannot be read with weights_only=True: beside weights it holds {", ".join(refused)}, '
            'which is not known to be plain data and might run code. If you know where the file '
            'comes from, save the weights alone with the code that wrote it: '
            'torch.save(model.state_dict(), PATH).'
        )
    known = [(plain_dict if n == 'collections.defaultdict' else StandIn, n) for n in names]
    with torch.serialization.safe_globals(known):
        return torch.load(file, map_location=map_location, weights_only=True)


def is_tensors_file(path: str) -> bool:
    """Whether a file is one of safetensors, by its suffix or, under another name, its beginning."""
    if path.endswith(TENSORS_SUFFIX):
        return True
    with open(path, 'rb') as f:
        start = f.read(9)  # the length of the header, and the header, which is JSON
    return start[8:] == b'{' and int.from_bytes(start[:8], 'little') < os.path.getsize(path)


def _read_tensors(file: str, map_location: MapLocation) -> dict[str, Any]:
    """``state_dict``, and ``meta`` if :func:`pack_tensors` made the file."""
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    with safe_open(file, framework='pt') as f:
        texts = f.metadata() or {}
        weights = {key: f.get_tensor(key).to(device) for key in f.keys()}  # noqa: SIM118
    if 's4d_mm_version' not in texts:
        return dict(state_dict=weights)
    meta = json.loads(texts['meta'])
    if 'dataset_meta' in texts:
        meta['dataset_meta'] = json.loads(texts['dataset_meta'])
    if 'cfg' in texts:
        meta['cfg'] = texts['cfg']
    return dict(state_dict=weights, meta=meta)


def pack_tensors(weights: StateDict, meta: dict[str, Any]) -> bytes:
    """Weights and the ``meta`` of a checkpoint of mmengine as the content of a safetensors file.

    Its metadata are texts: ``cfg``, ``dataset_meta`` (JSON) and ``meta`` (JSON, the rest).
    """
    rest = {k: v for k, v in meta.items() if k not in ('cfg', 'dataset_meta')}
    texts = dict(format='pt', s4d_mm_version=__version__, meta=json.dumps(rest, default=str))
    if meta.get('cfg') is not None:
        texts['cfg'] = str(meta['cfg'])
    if meta.get('dataset_meta') is not None:
        # arrays and the like as lists, anything else as text
        plain = lambda v: v.tolist() if hasattr(v, 'tolist') else str(v)  # noqa: E731
        texts['dataset_meta'] = json.dumps(meta['dataset_meta'], default=plain)
    odd = ', '.join(key for key, value in weights.items() if not isinstance(value, Tensor))
    if odd:
        raise WeightsError(f'{odd}: no tensors, which safetensors cannot hold. Write a .pth file.')
    # it takes no views and no tensor twice either
    return save({k: v.detach().clone().contiguous() for k, v in weights.items()}, texts)


def unwrap(checkpoint: Any) -> StateDict | None:
    """The weights in what a checkpoint holds, without the prefix ``module.``; None if none."""
    for key in ('state_dict', 'model', 'module', 'model_state_dict'):
        if isinstance(checkpoint, dict) and isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    if not isinstance(checkpoint, dict) or not any(
        isinstance(v, Tensor) for v in checkpoint.values()
    ):
        return None
    return {k.removeprefix('module.'): v for k, v in checkpoint.items()}


def load_weights(path: str) -> StateDict:
    """Read the weights of a checkpoint (:func:`read_checkpoint`, :func:`unwrap`) on the CPU."""
    checkpoint = read_checkpoint(path)
    weights = unwrap(checkpoint)
    if weights is None:
        raise WeightsError(
            f'{path} holds no weights: it is a {type(checkpoint).__name__} without tensors.'
        )
    return weights
