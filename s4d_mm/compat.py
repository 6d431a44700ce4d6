# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Repairs for published OpenMMLab releases, applied when ``s4d_mm`` is imported.

Each function answers one upstream issue, says when it can be deleted, and
does nothing where the installed upstream package is whole.
"""

import functools
import importlib
import importlib.util
import inspect
import os
import os.path as osp
import re
import sys
import types
import warnings
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any, Optional

import numpy as np
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend, file_client
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, checkpoint

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


def read_local_files() -> None:
    """Let mmengine read local checkpoints with :func:`~s4d_mm.converters.loader.load_from_local`.

    Its own reader stops at every class that it does not know, such as the parsed arguments in the
    files of other training code, with advice to let the file run code
    (open-mmlab/mmengine#1655).

    Can be deleted when mmengine reads such files with ``weights_only=True``; the authors' files
    must then be converted first.
    """
    from .converters.loader import load_from_local

    CheckpointLoader.register_scheme('', load_from_local, force=True)


def read_addresses() -> None:
    """Let mmengine read addresses with :func:`~s4d_mm.converters.loader.load_from_address`.

    Its own reader of ``http(s)://`` runs the code of the file, because torch.hub's downloads are
    read with ``weights_only=False`` (open-mmlab/mmengine#1655), and keeps it by the last part of
    its address, so that ``/b/epoch.pth`` gives the weights of ``/a/epoch.pth``
    (pytorch/pytorch#27830). ``torchvision://``, ``openmmlab://`` and ``mmcls://`` end in the same
    function. ``hf://`` is new.

    Can be deleted when mmengine reads addresses with ``weights_only=True`` and keeps them apart.
    """
    from .converters.loader import load_from_address

    CheckpointLoader.register_scheme(
        ('http://', 'https://', 'hf://'), load_from_address, force=True
    )
    checkpoint.load_from_http = load_from_address


def write_files_whole() -> None:
    """Let mmengine write local files with :func:`~s4d_mm.whole_files.write_whole`.

    It writes in place, so that a run that is killed while it saves leaves a torn checkpoint under
    the final name, and a full disk takes the one that was there (mmengine 0.10.7,
    ``LocalBackend.put``, by which every runner, strategy and hook saves).

    Can be deleted when mmengine writes under another name and renames.
    """
    from . import whole_files

    LocalBackend.put, LocalBackend.put_text = whole_files.put, whole_files.put_text


def resume_from_whole_files() -> None:
    """Let mmengine's ``resume=True`` find its file with ``find_checkpoint``.

    It takes what the note ``last_checkpoint`` says, torn or missing (mmengine 0.10.7). Where there
    is no checkpoint at all, it starts from scratch as before; ``tools/train.py`` refuses to.

    Can be deleted when mmengine looks at the files.
    """

    def find_latest_checkpoint(path: str) -> Optional[str]:
        from .engine.resume import find_checkpoint

        return find_checkpoint(str(path))

    for name in ('', '.checkpoint', '.runner', '._flexible_runner'):
        module = importlib.import_module(f'mmengine.runner{name}')
        module.find_latest_checkpoint = find_latest_checkpoint


def silence_misleading_warnings() -> None:
    """Leave out warnings that ask for something which nobody here needs.

    mmcv-lite says at its import that a detector's attention needs ``mmcv``
    (open-mmlab/mmcv#1975).

    Can be deleted when mmcv says it where somebody builds that attention.
    """
    warnings.filterwarnings(
        'ignore',
        message='Fail to import ``MultiScaleDeformableAttention``',
        module=r'mmcv\.cnn\.bricks\.transformer',
    )


def silence_file_client_notes() -> None:
    """Leave out two notes on classes of mmengine's that its own hooks use.

    Each run warned that ``FileClient`` and ``HardDiskBackend`` will be deprecated: the toolbox's
    ``CheckpointHook`` and ``LoggerHook`` call them (mmengine 0.10.7). No config can change that.

    Can be deleted when mmengine's hooks use ``get_file_backend`` alone.
    """
    log = file_client.print_log
    if hasattr(log, '__wrapped__'):
        return

    @functools.wraps(log)
    def print_log(message: str, *args, **kwargs) -> None:
        if not str(message).startswith(('"FileClient" will be', '"HardDiskBackend" is the alias')):
            log(message, *args, **kwargs)

    file_client.print_log = print_log


def refuse_video_configs_in_image_inferencers() -> None:
    """Let mmpretrain's inferencers say what to use for a config of mmaction2.

    They build its test pipeline in their own scope, and stop at the first step of it with the list
    of all steps that they know.

    Can be deleted when mmpretrain compares ``default_scope`` with its own.
    """
    from mmpretrain.apis import ImageClassificationInferencer

    build = ImageClassificationInferencer._init_pipeline
    if hasattr(build, '__wrapped__'):
        return

    @functools.wraps(build)
    def checked(self: ImageClassificationInferencer, cfg: Config) -> Callable:
        if cfg.get('default_scope') == 'mmaction':
            raise ValueError(
                f"{cfg.filename} is a config of mmaction2, whose steps mmpretrain's "
                'ImageClassificationInferencer does not know. Use '
                's4d_mm.apis.ExpressionInferencer, which takes images, too.'
            )
        return build(self, cfg)

    ImageClassificationInferencer._init_pipeline = checked


def let_inference_model_take_configs() -> None:
    """Let mmpretrain's ``inference_model`` take configs, and models of ``get_model``.

    It promises to, but knows only the models whose names are in its own index (mmpretrain 1.2.0).

    Can be deleted when it does.
    """
    from mmpretrain import apis

    if hasattr(apis.inference_model, '__wrapped__'):
        return
    by_name, inferencer = apis.inference_model, apis.ImageClassificationInferencer

    @functools.wraps(by_name)
    def inference_model(model: Any, *args, **kwargs) -> Any:
        is_config = isinstance(model, Config) or str(model).endswith('.py')
        if not is_config and getattr(model, '_metainfo', by_name) is not None:
            return by_name(model, *args, **kwargs)
        of_init = set(kwargs) & set(inspect.signature(inferencer).parameters)
        built = inferencer(model, **{name: kwargs.pop(name) for name in of_init})
        return built(*args, **kwargs)[0]

    for module in (apis.model, apis, sys.modules['mmpretrain']):
        module.inference_model = inference_model


def guard_environment_values() -> None:
    """Let ``{{$NAME:default}}`` in a config file take plain values only.

    mmengine (0.10.7) puts the value of the environment variable into the Python code of the file:
    a quotation mark in a path ends the string, and what follows it is run.

    Can be deleted when mmengine puts such values in as values. The configs of ``s4d_mm`` read
    ``os.environ`` themselves, which is safe everywhere.
    """
    substitute = Config._substitute_env_variables
    if getattr(substitute, 'is_guarded', False):
        return

    def substitute_plain_values(filename: str, temp_config_name: str) -> dict:
        with open(filename, encoding='utf-8') as f:
            names = re.findall(r'\{\{[\'"]?\s*\$(\w+)\s*:', f.read())
        for name in names:
            check_environment_value(name, os.environ.get(name, ''))
        return substitute(filename, temp_config_name)

    substitute_plain_values.is_guarded = True
    Config._substitute_env_variables = staticmethod(substitute_plain_values)


# ends a string, a comment or a statement, or calls
REFUSED_IN_CODE = frozenset('\'"`\\#;()[]{}')


def check_environment_value(name: str, value: str) -> None:
    """Refuse a value that would be more than a part of a string or a number in Python code.

    Args:
        name (str): Name of the environment variable.
        value (str): Its value.

    Raises:
        ValueError: If it has quotation marks, backslashes, line breaks, brackets,
            ``;`` or ``#``.
    """
    found = [c for c in value if c in REFUSED_IN_CODE or not c.isprintable()]
    if found:
        raise ValueError(
            f'The environment variable {name} is {value!r}, but a config file puts it into its '
            f'code by {{{{${name}:...}}}}, where it may not have the character {found[0]!r}. '
            f'Give it another value, or write __import__("os").environ[{name!r}] in the config.'
        )


def apply() -> None:
    """Apply every repair. Safe to call more than once."""
    silence_misleading_warnings()
    silence_file_client_notes()
    provide_mmaction_drn()
    allow_mmengine_checkpoints()
    read_local_files()
    read_addresses()
    write_files_whole()
    resume_from_whole_files()
    refuse_video_configs_in_image_inferencers()
    let_inference_model_take_configs()
    guard_environment_values()
