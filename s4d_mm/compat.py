# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Repairs for published OpenMMLab releases, applied when ``s4d_mm`` is imported.

Each function answers one upstream issue, says when it can be deleted, and
does nothing where the installed upstream package is whole.
"""

import functools
import importlib
import importlib.util
import os.path as osp
import sys
import types
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

DRN_ISSUE = 'https://github.com/open-mmlab/mmaction2/issues/2714'


def provide_mmaction_drn() -> bool:
    """Put a stand-in for ``mmaction.models.localizers.drn`` into ``sys.modules``.

    The ``mmaction2==1.2.0`` wheel on PyPI was packed without that folder, so
    that ``import mmaction.models`` fails (open-mmlab/mmaction2#2714). Building
    the stand-in ``DRN`` localizer raises an error that says why.

    Can be deleted when the oldest supported mmaction2 wheel carries ``drn``.

    Returns:
        bool: Whether the stand-in was needed.
    """
    package = 'mmaction.models.localizers.drn'
    spec = importlib.util.find_spec('mmaction')
    if spec is None or package in sys.modules:
        return False
    root = list(spec.submodule_search_locations)[0]
    localizers = osp.join(root, 'models', 'localizers')
    if osp.exists(osp.join(localizers, 'drn')) or not osp.exists(localizers):
        return False

    from mmaction.registry import MODELS

    class DRN:
        """Stand-in for mmaction2's ``DRN`` localizer."""

        def __init__(self, *args, **kwargs) -> None:
            raise ImportError(
                'The DRN localizer is not part of the installed mmaction2 '
                f'package: its PyPI wheel lacks {package} (see {DRN_ISSUE}). '
                'Install mmaction2 from source to use DRN.'
            )

    MODELS.register_module(name='DRN', module=DRN, force=True)
    parent = types.ModuleType(package)
    parent.__path__ = []
    child = types.ModuleType(f'{package}.drn')
    parent.drn, parent.DRN, child.DRN = child, DRN, DRN
    sys.modules[package] = parent
    sys.modules[child.__name__] = child
    return True


def allow_mmengine_checkpoints() -> None:
    """Register the classes of mmengine's own checkpoints as torch safe globals.

    Since torch 2.6 ``torch.load`` defaults to ``weights_only=True``, and
    mmengine <= 0.10.7 stores its message hub (``HistoryBuffer`` objects with
    numpy arrays, and references to its own methods) in every checkpoint, so
    that ``load_from`` and ``resume`` fail (open-mmlab/mmengine#1655).
    ``weights_only`` itself stays on.

    Can be deleted when mmengine registers these classes itself.
    """
    try:  # numpy 2 moved its core package
        from numpy._core import multiarray
    except ImportError:
        from numpy.core import multiarray
    numbers = np.typecodes['AllInteger'] + np.typecodes['Float'] + '?'
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            np.ndarray,
            np.dtype,
            # pickle refers to the methods of a class by getattr
            (get_history_buffer_method, 'builtins.getattr'),
            (get_history_buffer_method, '__builtin__.getattr'),
            *{type(np.dtype(t)) for t in numbers},
            # a checkpoint may come from a machine with the other numpy
            *(
                (fn, f'numpy.{core}.multiarray.{fn.__name__}')
                for fn in (multiarray._reconstruct, multiarray.scalar)
                for core in ('core', '_core')
            ),
        ]
    )


def get_history_buffer_method(owner: type, name: str) -> Callable:
    """Stand in for ``getattr`` in checkpoints, for the methods of ``HistoryBuffer`` only.

    Args:
        owner (type): The class whose attribute the checkpoint asks for.
        name (str): Name of the attribute.

    Returns:
        Callable: The method.

    Raises:
        UnpicklingError: If it is any other attribute.
    """
    if owner is HistoryBuffer and name in HistoryBuffer.__dict__:
        return getattr(owner, name)
    raise UnpicklingError(
        f'The checkpoint asks for attribute {name!r} of {owner!r}. Only '
        'methods of mmengine.logging.HistoryBuffer are allowed.'
    )


def find_own_configs() -> None:
    """Let ``_base_`` name the recipes of this package, as ``s4d_mm::s4d_finetune_dfew.py``.

    mmengine (0.10.7) knows a fixed list of packages, wants a folder in the name, and builds the
    parts of such a config in a scope with the name of the package, which the recipes do not want.

    Can be deleted when mmengine takes any installed package in the scope of the config.
    """
    get_path = Config._get_cfg_path
    if hasattr(get_path, '__wrapped__'):
        return

    @functools.wraps(get_path)
    def get_own_path(cfg_path: str, filename: str) -> tuple[str, Optional[str]]:
        package, _, name = cfg_path.partition('::')
        if package != 's4d_mm':
            return get_path(cfg_path, filename)
        return osp.join(osp.dirname(osp.abspath(__file__)), '.mim', 'configs', name), None

    Config._get_cfg_path = staticmethod(get_own_path)


def apply() -> None:
    """Apply every repair. Safe to call more than once."""
    provide_mmaction_drn()
    allow_mmengine_checkpoints()
    find_own_configs()
