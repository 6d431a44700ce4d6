# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What published OpenMMLab releases lack to start at all, added when ``s4d_mm`` is imported."""

import functools
import importlib.util
import os.path as osp
import sys
import types
from collections.abc import Callable
from pickle import UnpicklingError

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

DRN_ISSUE = 'https://github.com/open-mmlab/mmaction2/issues/2714'
OWN_CONFIGS = osp.join(osp.dirname(osp.abspath(__file__)), '.mim', 'configs')


def provide_mmaction_drn() -> bool:
    """Add a stand-in for the folder ``drn``, which the wheel of mmaction2 1.2.0 lacks.

    Without it ``import mmaction.models`` fails (open-mmlab/mmaction2#2714). To be deleted when the
    oldest supported wheel carries the folder. Returns whether it was needed.
    """
    package = 'mmaction.models.localizers.drn'
    spec = importlib.util.find_spec('mmaction')
    if spec is None or package in sys.modules:
        return False
    localizers = osp.join(next(iter(spec.submodule_search_locations)), 'models', 'localizers')
    if osp.exists(osp.join(localizers, 'drn')) or not osp.exists(localizers):
        return False

    from mmaction.registry import MODELS

    class DRN:
        """Says why mmaction2's ``DRN`` is not there."""

        def __init__(self, *args, **kwargs) -> None:
            raise ImportError(f'The PyPI wheel of mmaction2 lacks {package}: {DRN_ISSUE}')

    MODELS.register_module(name='DRN', module=DRN, force=True)
    parent, child = types.ModuleType(package), types.ModuleType(f'{package}.drn')
    parent.__path__, parent.drn, parent.DRN, child.DRN = [], child, DRN, DRN
    sys.modules.update({package: parent, child.__name__: child})
    return True


def allow_mmengine_checkpoints() -> None:
    """Add the classes of mmengine's own checkpoints to torch's safe globals.

    mmengine <= 0.10.7 stores its message hub in every checkpoint, and torch >= 2.6 refuses its
    classes (open-mmlab/mmengine#1655). To be deleted when mmengine adds them itself.
    """
    try:  # numpy 2 moved its core package
        from numpy._core import multiarray
    except ImportError:
        from numpy.core import multiarray
    numbers = np.typecodes['AllInteger'] + np.typecodes['Float'] + '?'
    # pickle refers to the methods of a class by getattr
    allowed = [(history_buffer_method, f'{name}.getattr') for name in ('builtins', '__builtin__')]
    allowed += [HistoryBuffer, np.ndarray, np.dtype, *{type(np.dtype(t)) for t in numbers}]
    for function in (multiarray._reconstruct, multiarray.scalar):
        for core in ('core', '_core'):  # also of a machine with the other numpy
            allowed.append((function, f'numpy.{core}.multiarray.{function.__name__}'))
    torch.serialization.add_safe_globals(allowed)


def history_buffer_method(owner: type, name: str) -> Callable:
    """Stand in for ``getattr`` in checkpoints, for the methods of ``HistoryBuffer`` only."""
    if owner is HistoryBuffer and name in HistoryBuffer.__dict__:
        return getattr(owner, name)
    raise UnpicklingError(
        f'The checkpoint asks for attribute {name!r} of {owner!r}. Only '
        'methods of mmengine.logging.HistoryBuffer are allowed.'
    )


def find_own_configs() -> None:
    """Let ``_base_`` name the recipes of this package, as ``s4d_mm::s4d_finetune_dfew.py``.

    mmengine (0.10.7) knows a fixed list of packages. Other names go to its own function. To be
    deleted when it takes any installed package in the scope of the config.
    """
    get_path = Config._get_cfg_path
    if hasattr(get_path, '__wrapped__'):
        return

    @functools.wraps(get_path)
    def get_own_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        package, _, name = cfg_path.partition('::')
        if package != 's4d_mm':
            return get_path(cfg_path, filename)
        return osp.join(OWN_CONFIGS, name), None

    Config._get_cfg_path = staticmethod(get_own_path)


def apply() -> None:
    """Apply every repair. Safe to call more than once."""
    provide_mmaction_drn()
    allow_mmengine_checkpoints()
    find_own_configs()
