# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Saved predictions: writing and reading them, their figures, and which checkpoint they are of."""

import json
import os.path as osp
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS
from torch import Tensor

from ..files.atomic_write import atomic_write
from .functional import classification_report, confusion_matrix

FIELDS = ('sample_id', 'input_type', 'gt_label', 'pred_label', 'pred_score', 'unreadable')
LAST = 'last'


@METRICS.register_module()
class PredictionsFile(BaseMetric):
    """Write the predictions as JSON, a list with an object for each sample.

    The objects have those of :data:`FIELDS` that the samples have; labels and scores are lists of
    numbers. mmengine's ``DumpResults`` writes a pickle, which may run code where it is read.
    """

    default_prefix = ''

    def __init__(self, out_file_path: str, collect_device: str = 'cpu') -> None:
        super().__init__(collect_device=collect_device)
        self.out_file_path = out_file_path

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep what is to be written of each sample."""
        for sample in data_samples:
            kept = {name: sample[name] for name in FIELDS if name in sample}
            self.results.append(
                {k: v.tolist() if isinstance(v, Tensor) else v for k, v in kept.items()}
            )

    def compute_metrics(self, results: list) -> dict:
        """Write the file, in the main process."""
        atomic_write(self.out_file_path, json.dumps(results, ensure_ascii=False))
        print_log(f'Predictions are saved to {self.out_file_path}.', logger='current')
        return {}


def read_predictions(path: str) -> list[dict]:
    """Read the ``.json`` file of ``tools/test.py --dump``: a dict for each sample.

    Raises:
        ValueError: If the file holds no predictions.
    """
    try:
        with open(path, encoding='utf-8') as f:
            samples = json.load(f)
        if all({'gt_label', 'pred_score'} <= set(sample) for sample in samples):
            return samples
    except (ValueError, TypeError):  # a pickle may run code, so none is read
        pass
    raise ValueError(
        f'{path} holds no predictions: give the .json file that tools/test.py --dump writes beside '
        'the .pkl, with gt_label and pred_score of each sample.'
    )


def figures_by_modality(samples: list[dict], classes: dict[str, tuple]) -> dict[str, dict]:
    """Metrics of saved predictions, with the class names of each modality.

    A sample that could not be read counts as wrong; one without ``input_type`` is of the first
    modality. For each modality that has samples: ``classes``, ``samples`` (their number),
    ``matrix`` (counts of what could be read, rows are true classes), ``support`` (samples of each
    class) and ``metrics`` in percent.
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
        scores = [np.asarray(s['pred_score'], np.float32) for s in group]  # as the metric has them
        predicted = [-1 if s.get('unreadable') else v.argmax() for s, v in zip(group, scores)]
        matrix = confusion_matrix(labels, predicted, len(names))
        support = np.bincount(labels, minlength=len(names))
        found[modality] = dict(
            classes=list(names),
            samples=len(group),
            matrix=matrix.tolist(),
            support=support.tolist(),
            metrics=classification_report(matrix, support),
        )
    return found


def name_of_best(cfg: Config) -> str:
    """Name of the epoch that the validation chose: on a split of its own, or on the test split."""
    validation = set(_annotation_files(cfg.get('val_dataloader')))
    test = set(_annotation_files(cfg.get('test_dataloader')))
    apart = validation and validation.isdisjoint(test)
    return f'best on the {"validation" if apart else "test"} split'


def _annotation_files(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get('ann_file'):
            yield osp.join(node.get('data_root') or '', node['ann_file'])
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for part in node:
            yield from _annotation_files(part)


def kind_of_checkpoint(path: str, cfg: Config) -> str | None:
    """:data:`LAST` or :func:`name_of_best`, by the name of the file; None if it does not tell."""
    name = osp.basename(path)
    if name.startswith('best_'):
        return name_of_best(cfg)
    epoch = re.fullmatch(r'epoch_(\d+)\.pth', name)
    if epoch and int(epoch[1]) == (cfg.get('train_cfg') or {}).get('max_epochs'):
        return LAST
    return None
