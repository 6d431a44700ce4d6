# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, its end: from labels and predictions to WAR, UAR and F1.

mmaction2's functions of this kind leave out classes that do not occur, and its mean class accuracy
counts a class as 0 that has been predicted but has no sample. Here the classes are fixed, and a
recall is only averaged where there are samples.
"""

from collections.abc import Sequence

import numpy as np


def confusion_matrix(
    labels: Sequence[int], predictions: Sequence[int], num_classes: int
) -> np.ndarray:
    """Count samples: int64 (num_classes, num_classes), rows are true classes.

    A prediction below 0, of a sample that could not be read, is not counted.
    """
    labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    pairs = (labels * num_classes + predictions)[predictions >= 0]
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def recalls(matrix: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
    """Recall of each class, 0..1; NaN for a class without samples.

    ``support`` are the samples of each class, also those without a prediction.
    """
    with np.errstate(invalid='ignore'):
        return np.diag(matrix) / _support(matrix, support)


def f1_scores(matrix: np.ndarray, support: np.ndarray | None = None) -> np.ndarray:
    """F1 score of each class, 0..1; NaN for a class without samples and predictions."""
    with np.errstate(invalid='ignore'):
        return 2 * np.diag(matrix) / (matrix.sum(axis=0) + _support(matrix, support))


def _support(matrix: np.ndarray, support: np.ndarray | None) -> np.ndarray:
    return matrix.sum(axis=1) if support is None else support


def classification_report(
    matrix: np.ndarray, support: np.ndarray | None = None
) -> dict[str, float]:
    """The numbers that are reported, in percent.

    ``WAR`` (accuracy), ``UAR`` (mean recall of the classes that have samples), ``macro_F1`` (mean
    F1 of the classes that have samples or predictions, as scikit-learn has it) and ``weighted_F1``
    (mean F1 weighted by the number of samples).
    """
    support = _support(matrix, support)
    f1 = f1_scores(matrix, support)
    values = dict(
        WAR=np.trace(matrix) / support.sum(),
        UAR=np.nanmean(recalls(matrix, support)),
        macro_F1=np.nanmean(f1),
        weighted_F1=np.nansum(f1 * support) / support.sum(),
    )
    return {name: 100.0 * float(value) for name, value in values.items()}
