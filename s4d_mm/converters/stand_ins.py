# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Conversion step: what a checkpoint holds beside its weights, read as inert stand-ins.

Training code stores its settings with the weights: parsed arguments, or a config of omegaconf in
the optimizer. ``torch.load(weights_only=True)`` refuses such classes. Here their names are known to
torch, during one load, as those of :class:`StandIn`, so that neither their code nor their package
is needed.
"""

import contextlib
import pickletools
from collections.abc import Iterator
from typing import Optional

import torch

from .errors import WeightsError

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
def stand_ins_for(path: str, name: Optional[str] = None) -> Iterator[None]:
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
