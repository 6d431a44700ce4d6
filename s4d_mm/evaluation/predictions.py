# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Predictions that ``tools/test.py --dump`` saved: read without running code, and their figures.

The figures are those of :class:`ExpressionMetric`, for tools that work on saved files.
"""

import io
import json
import os.path as osp
import pickle
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from ..files.errors import reason_of
from .functional import classification_report, confusion_matrix

PICKLES = ('.pkl', '.pickle')
# what a pickle of predictions may ask for: tensors, arrays and plain types
PLAIN_NAMES = frozenset(
    [
        'torch._utils._rebuild_tensor_v2',
        'torch.Size',
        'torch.device',
        'collections.OrderedDict',
        '_codecs.encode',  # of text to bytes, as pickle protocol 2 writes arrays
        *(f'numpy.{name}' for name in ('ndarray', 'dtype')),
        *(
            f'numpy.{core}.multiarray.{name}'
            for core in ('core', '_core')
            for name in ('_reconstruct', 'scalar')
        ),
        *(f'numpy.{core}.numeric._frombuffer' for core in ('core', '_core')),
        *(
            f'{module}.{name}'
            for module in ('builtins', '__builtin__')
            for name in ('set', 'frozenset', 'bytearray', 'complex')
        ),
    ]
)


class PlainUnpickler(pickle.Unpickler):
    """Reads tensors, arrays and plain types, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of a name, if it is one of these.

        Raises:
            UnpicklingError: If it is not, naming it.
        """
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return load_storage
        full = f'{module}.{name}'
        is_dtype = module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype)
        if full in PLAIN_NAMES or is_dtype:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(full)


def load_storage(data: bytes) -> Any:
    """The numbers of a tensor; torch's own function of this kind would run code in them."""
    try:
        return torch.load(io.BytesIO(data), map_location='cpu', weights_only=True)
    except Exception as e:  # torch raises many types
        raise ValueError(f'the numbers of a tensor are damaged: {reason_of(e)}') from e


def read_predictions(path: str) -> list[dict]:
    """Read the predictions that ``tools/test.py --dump`` saved, or mmaction2's.

    Args:
        path (str): The ``.json`` file, or the ``.pkl`` beside it.

    Returns:
        list[dict]: One for each sample; see :func:`figures_by_modality`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no predictions, or asks for a class that might run code.
    """
    path = str(path)
    if not osp.isfile(path):
        raise FileNotFoundError(f'There is no file of predictions {path}.')
    samples = _read_pickle(path) if path.endswith(PICKLES) else _read_json(path)
    if not isinstance(samples, list) or not all(
        isinstance(s, dict) and {'gt_label', 'pred_score'} <= set(s) for s in samples
    ):
        raise ValueError(
            f'{path} holds no predictions: a list is expected, of one dict for each sample with '
            'gt_label and pred_score, as tools/test.py --dump writes it.'
        )
    return samples


def _read_pickle(path: str) -> Any:
    try:
        with open(path, 'rb') as f:
            return PlainUnpickler(f).load()
    except Exception as e:  # a stranger's bytes raise whatever they like
        raise ValueError(f'{path} cannot be read as predictions: {_why(e)}') from e


def _why(error: Exception) -> str:
    text = str(error)
    if type(error) is pickle.UnpicklingError and ' ' not in text:
        return (
            f'it asks for {text}, but only tensors, arrays and plain types are read from a '
            'pickle, because anything else might run code. Give the .json file beside it.'
        )
    return text or type(error).__name__


def _read_json(path: str) -> Any:
    try:
        with open(path, encoding='utf-8') as f:
            return json.load(f)
    except ValueError as e:
        raise ValueError(f'{path} cannot be read as predictions: it is no JSON ({e}).') from e


def class_names_of_test(cfg: Config) -> dict[str, tuple]:
    """Class names of the test data of a config.

    Args:
        cfg (Config): The config; the annotation files must be there.

    Returns:
        dict[str, tuple[str]]: Names in label order, by modality.
    """
    init_default_scope(cfg.get('default_scope', 'mmaction'))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    classes = dataset.metainfo['classes']
    if isinstance(classes, dict):
        return classes
    return {getattr(dataset, 'INPUT_TYPE', 'video'): classes}


def predicted_class(sample: dict) -> int:
    """Number of the class with the highest score, the first of equal ones, as the metric has it."""
    return int(torch.as_tensor(sample['pred_score']).float().numpy().argmax())


def figures_by_modality(samples: list[dict], classes: dict[str, tuple]) -> dict[str, dict]:
    """Metrics of saved predictions. A sample that could not be read counts as wrong.

    Args:
        samples (list[dict]): The saved predictions: ``gt_label`` (1, ),
            ``pred_score`` (classes, ), tensors, arrays or lists, and, if there
            are, ``input_type`` and ``unreadable``.
        classes (dict[str, tuple[str]]): Class names, by modality. Samples
            without ``input_type`` are of the first.

    Returns:
        dict[str, dict]: For each modality that has samples: ``classes``,
        ``samples`` (their number), ``matrix`` (counts of what could be read,
        rows are true classes), ``support`` (samples of each class) and
        ``metrics`` in percent.
    """
    groups = {name: [] for name in classes}
    for sample in samples:
        groups[sample.get('input_type') or next(iter(classes))].append(sample)
    found = {}
    for modality, group in groups.items():
        if not group:
            continue
        names = classes[modality]
        labels = [int(s['gt_label'][0]) for s in group]
        read = [(n, s) for n, s in zip(labels, group) if not s.get('unreadable')]
        matrix = confusion_matrix(
            [n for n, _ in read], [predicted_class(s) for _, s in read], len(names)
        )
        support = np.bincount(labels, minlength=len(names))
        found[modality] = dict(
            classes=list(names),
            samples=len(group),
            matrix=matrix.tolist(),
            support=support.tolist(),
            metrics=classification_report(matrix, support),
        )
    return found
