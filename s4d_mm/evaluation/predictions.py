# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Figures of the predictions that ``tools/test.py --dump`` saved.

They are those of :class:`ExpressionMetric`, for tools that work on saved files.
"""

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from .functional import classification_report, confusion_matrix


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


def figures_by_modality(samples: list[dict], classes: dict[str, tuple]) -> dict[str, dict]:
    """Metrics of saved predictions. A sample that could not be read counts as wrong.

    Args:
        samples (list[dict]): The saved predictions: ``gt_label``,
            ``pred_score``, and, if there are, ``input_type`` and
            ``unreadable``.
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
            [n for n, _ in read], [int(s['pred_score'].argmax()) for _, s in read], len(names)
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
