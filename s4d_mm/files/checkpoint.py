# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoint files of any code, read without running code.

Training code stores its settings with the weights: parsed arguments, or a config of omegaconf in
the optimizer. ``torch.load(weights_only=True)`` refuses such classes. Here their names are known to
torch, during one load, as those of :class:`StandIn`, so that neither their code nor their package
is needed.
"""

import contextlib
import os.path as osp
import pickletools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from .download import forget, is_address, local_file
from .errors import WeightsError, WeightsNotFoundError, reason_of
from .safetensors_file import is_tensors_file, read_tensors

StateDict = dict[str, Tensor]
MapLocation = str | Callable | torch.device | None

# packages of classes that only hold data; nothing of them is imported
HARMLESS_PACKAGES = ('argparse', 'collections', 'numpy', 'omegaconf', 'pathlib', 'typing')
# the types that omegaconf's metadata names
HARMLESS_BUILTINS = frozenset(
    f'builtins.{name}'
    for name in ('bool', 'bytes', 'dict', 'float', 'int', 'list', 'object', 'str', 'tuple')
)


class StandIn:
    """Takes the place of an object of a foreign class and forgets what it held."""

    def __new__(cls, *args, **kwargs) -> 'StandIn':
        """Make one, whatever the foreign class was made of."""
        return super().__new__(cls)

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __setstate__(self, state) -> None:
        """Forget the state."""


def plain_dict(*args) -> dict:
    """Stand in for ``collections.defaultdict``: torch fills nothing but plain dicts."""
    return {}


@contextlib.contextmanager
def stand_ins_for(path: str, name: str | None = None) -> Iterator[None]:
    """Let ``torch.load(path, weights_only=True)`` read what the file holds beside its weights.

    Args:
        path (str): The checkpoint. Its list of classes is read without loading it.
        name (str, optional): What the message calls it, such as its address. Defaults to None,
            the path.

    Raises:
        WeightsError: If the file asks for a class or function that is not known to be harmless,
            naming it.
    """
    names = foreign_names(path)
    refused = sorted(name for name in names if not is_harmless(name))
    if refused:
        raise WeightsError(
            f'{name or path} cannot be read with weights_only=True: beside weights it holds '
            f'{", ".join(refused)}, which is not known to be plain data and might run code. If '
            'you know where the file comes from, save the weights alone with the code that wrote '
            'it: torch.save(model.state_dict(), PATH).'
        )
    stand_ins = [(plain_dict if n == 'collections.defaultdict' else StandIn, n) for n in names]
    with torch.serialization.safe_globals(stand_ins):
        yield


def foreign_names(path: str) -> list[str]:
    """Classes and functions that a checkpoint asks for and torch does not allow.

    Args:
        path (str): The checkpoint.

    Returns:
        list[str]: Full names. None if the file has not the form that torch writes since 1.6;
        ``torch.load`` then says what it is.
    """
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # torch raises many types
        return []


def names_in_pickles(path: str) -> list[str]:
    """Classes and functions that a plain pickle, or a checkpoint older than torch 1.6, asks for.

    Args:
        path (str): The file. It is read without running it.

    Returns:
        list[str]: Full names of those that are not known to be harmless. [] if it is no pickle.
    """
    found, strings = [], []
    with open(path, 'rb') as f, contextlib.suppress(ValueError):
        while True:  # torch put several pickles into a file
            for op, value, _ in pickletools.genops(f):
                if op.name in ('GLOBAL', 'INST'):
                    found.append('.'.join(value.split(' ', 1)))
                elif op.name == 'STACK_GLOBAL':  # its operands are the last two strings
                    found.append('.'.join(strings[-2:]))
                elif isinstance(value, str):
                    strings.append(value)
    return sorted({n for n in found if not is_harmless(n) and not n.startswith('torch.')})


def is_harmless(name: str) -> bool:
    """Whether a stand-in may take the place of a class, by its full name."""
    return name in HARMLESS_BUILTINS or name.split('.')[0] in HARMLESS_PACKAGES


def read_checkpoint(path: str, map_location: MapLocation = 'cpu') -> Any:
    """Read a checkpoint with ``weights_only=True``, or a file of safetensors.

    Args:
        path (str): File that torch wrote, by whatever code, or one of safetensors; or its address
            (:func:`~s4d_mm.files.download.local_file`).
        map_location (str | Callable, optional): As in ``torch.load``. Defaults to 'cpu'.

    Returns:
        Any: What it holds. Objects of foreign classes, such as the parsed arguments of a training
        script, are inert (:class:`StandIn`). Of safetensors see
        :func:`~s4d_mm.files.safetensors_file.read_tensors`.

    Raises:
        WeightsNotFoundError: If there is no such file.
        DownloadError: If an address cannot be reached.
        WeightsError: If it is no checkpoint, or asks for a class that might run code.
    """
    path = str(path)
    file = local_file(path)
    if not osp.isfile(file):
        raise WeightsNotFoundError(f'There is no checkpoint {path}.')
    if is_tensors_file(file):
        return read_tensors(file, map_location, path)
    with stand_ins_for(file, path):
        try:
            return torch.load(file, map_location=map_location, weights_only=True)
        except Exception as e:  # torch raises many types
            reason, asked = reason_of(e), names_in_pickles(file)
            if asked:
                reason = f'it asks for {", ".join(asked)}'
            elif is_address(path):
                forget(path)  # the server may not have said that it sent a part only
            raise WeightsError(
                f'{path} is no checkpoint that can be read with weights_only=True: {reason}'
            ) from e


def unwrap(checkpoint: Any) -> StateDict | None:
    """Find the weights in what a checkpoint holds.

    Args:
        checkpoint (Any): A state dict, or a dict with one in ``state_dict``, ``model``,
            ``module`` or ``model_state_dict``.

    Returns:
        dict[str, Tensor] | None: The weights, without the prefix ``module.`` of distributed
        training; None if there are none.
    """
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
    """Read the weights of a checkpoint with ``weights_only=True``.

    Args:
        path (str): File in one of the forms that :func:`unwrap` knows, or its address.

    Returns:
        dict[str, Tensor]: The weights, on the CPU.

    Raises:
        WeightsNotFoundError: If there is no such file.
        DownloadError: If an address cannot be reached.
        WeightsError: If the file cannot be read with ``weights_only=True`` or holds no weights.
    """
    checkpoint = read_checkpoint(path)
    weights = unwrap(checkpoint)
    if weights is None:
        raise WeightsError(
            f'{path} holds no weights: it is a {type(checkpoint).__name__} without tensors.'
        )
    return weights
