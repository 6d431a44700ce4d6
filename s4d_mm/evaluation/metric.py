# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, its end: from the predictions of a run to its metrics."""

import csv
import os.path as osp
from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS
from mmengine.utils import mkdir_or_exist

from ..files.errors import NonFiniteError
from ..files.text import safe_cell
from .functional import classification_report, confusion_matrix, recalls

FIGURES = ('WAR', 'UAR', 'macro_F1', 'weighted_F1')


@METRICS.register_module()
class ExpressionMetric(BaseMetric):
    """WAR, UAR, macro and weighted F1 and recall of each class in percent, and confusion matrix.

    A sample that could not be read counts as wrong. The names are ``WAR``, ``UAR``, ``macro_F1``,
    ``weighted_F1``, ``recall/<class>`` (of classes that have samples) and ``unreadable`` (number of
    samples, if there are any); if there are videos and images, ``video/WAR``, ``image/WAR`` and so
    on. The confusion matrices (counts of what was read, rows are true classes) are logged, and kept
    in :attr:`confusion_matrices` of the main process, by modality.

    Args:
        classes (Sequence[str] | dict[str, Sequence[str]], optional): Class names in label order, or
            those of each modality. Defaults to None, those of the dataset.
        out_csv (str, optional): File for the predictions: ``sample_id``, ``modality``, ``label``,
            ``prediction`` (class names) and ``score_<class>``. Each evaluation replaces it.
            Defaults to None.
        **kwargs: ``collect_device`` and ``prefix`` of :class:`mmengine.evaluator.BaseMetric`.
    """

    default_prefix = ''

    def __init__(
        self,
        classes: Sequence[str] | dict[str, Sequence[str]] | None = None,
        out_csv: str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.classes = classes
        self.out_csv = out_csv
        self.confusion_matrices: dict[str, np.ndarray] = {}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep ``gt_label`` (1, ) and ``pred_score`` (classes, ) of each sample."""
        for sample in data_samples:
            name = sample.get('sample_id', '(without sample_id)')
            modality = sample.get('input_type')
            classes = self._classes_of(modality, name)
            score = sample['pred_score'].detach().float().cpu().numpy()
            label = sample['gt_label'].cpu().numpy()
            if score.shape != (len(classes),):
                raise ValueError(
                    f'The scores of sample {name!r} have the shape {score.shape}, but there are '
                    f'{len(classes)} classes: set num_classes and average_clips of the head.'
                )
            if not np.isfinite(score).all():
                raise NonFiniteError(f'The scores of sample {name!r} are not finite: {score}.')
            if label.shape != (1,) or not 0 <= label[0] < len(classes):
                raise ValueError(
                    f'The label of sample {name!r} is {label}, but must be one id from 0 to '
                    f'{len(classes) - 1}.'
                )
            self.results.append(
                dict(
                    sample_id=name,
                    modality=modality or '',
                    label=int(label[0]),
                    score=score,
                    prediction=-1 if sample.get('unreadable') else int(score.argmax()),
                )
            )

    def _classes_of(self, modality: str | None, sample_id: str) -> tuple[str, ...]:
        classes = self.classes or (self.dataset_meta or {}).get('classes')
        if isinstance(classes, dict):
            if modality not in classes:
                raise ValueError(
                    f'Sample {sample_id!r} has the input_type {modality!r}, but there are classes '
                    f'of {tuple(classes)}. Put input_type into meta_keys of PackActionInputs.'
                )
            classes = classes[modality]
        if not classes:
            raise ValueError('ExpressionMetric needs class names: metainfo=dict(classes=(...)).')
        return tuple(classes)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics of all processes' results, in the main process only."""
        groups: dict[str, list[dict]] = {}
        for result in results:
            groups.setdefault(result['modality'], []).append(result)
        classes = {m: self._classes_of(m, group[0]['sample_id']) for m, group in groups.items()}
        self.confusion_matrices, metrics = {}, {}
        for modality, group in groups.items():
            prefix = f'{modality}/' if len(groups) > 1 else ''
            values = self._metrics_of(modality, group, classes[modality])
            metrics.update({prefix + name: value for name, value in values.items()})
        if self.out_csv is not None:
            self._write_csv(results, classes)
        return metrics

    def _metrics_of(
        self, modality: str, group: list[dict], classes: tuple[str, ...]
    ) -> dict[str, float]:
        labels = [r['label'] for r in group]
        matrix = confusion_matrix(labels, [r['prediction'] for r in group], len(classes))
        # what could not be read is wrong, not left out
        support = np.bincount(labels, minlength=len(classes))
        class_recalls = recalls(matrix, support)
        self.confusion_matrices[modality] = matrix
        print_log(
            f'Confusion matrix, {matrix.sum()} samples {modality} (rows: true class, columns: '
            f'prediction)\n{format_matrix(matrix, classes, class_recalls)}',
            logger='current',
        )
        values = classification_report(matrix, support)
        if matrix.sum() < len(group):
            values['unreadable'] = float(len(group) - matrix.sum())
        for name, recall in zip(classes, class_recalls):
            if not np.isnan(recall):
                values[f'recall/{name}'] = 100.0 * float(recall)
        return values

    def _write_csv(self, results: list[dict], classes: dict) -> None:
        # the modalities may differ in their classes
        names = list(dict.fromkeys(sum(classes.values(), ())))
        mkdir_or_exist(osp.dirname(osp.abspath(self.out_csv)))
        with open(self.out_csv, 'w', newline='', encoding='utf-8') as f:
            writer = csv.writer(f)
            header = ['sample_id', 'modality', 'label', 'prediction']
            writer.writerow([*header, *(f'score_{name}' for name in names)])
            for r in results:
                own = classes[r['modality']]
                scores = {name: f'{value:.6f}' for name, value in zip(own, r['score'])}
                prediction = '' if r['prediction'] < 0 else own[r['prediction']]
                row = [r['sample_id'], r['modality'], own[r['label']], prediction]
                writer.writerow(map(safe_cell, [*row, *(scores.get(name, '') for name in names)]))
        print_log(f'Predictions are saved to {self.out_csv}.', logger='current')


def format_matrix(
    matrix: np.ndarray, classes: Sequence[str], class_recalls: np.ndarray | None = None
) -> str:
    """A confusion matrix as text, with the recall (0..1 or NaN) at the end of each row."""
    if class_recalls is None:
        class_recalls = recalls(matrix)
    names = [f'{i} {name}' for i, name in enumerate(classes)]
    name_width = max(map(len, names))
    width = max(4, len(str(matrix.max())) + 1)

    def line(name, values, last):
        return f'{name:<{name_width}}' + ''.join(f'{v:>{width}}' for v in values) + f'{last:>9}'

    lines = [line('', range(len(names)), 'recall')]
    for name, row, recall in zip(names, matrix, class_recalls):
        lines.append(line(name, row, '-' if np.isnan(recall) else f'{100 * recall:.2f}'))
    return '\n'.join(lines)
