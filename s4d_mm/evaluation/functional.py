# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, its end: from labels and predictions to WAR, UAR and F1.

mmaction2's functions of this kind leave out classes that do not occur, and
its mean class accuracy counts a class as 0 that has been predicted but has no
sample. Here the classes are fixed, and a recall is only averaged where there
are samples.
"""
from typing import Dict, Sequence

import numpy as np


def confusion_matrix(labels: Sequence[int], predictions: Sequence[int],
                     num_classes: int) -> np.ndarray:
    """Count samples by label and prediction.

    Args:
        labels (Sequence[int]): True class of each sample.
        predictions (Sequence[int]): Predicted class of each sample.
        num_classes (int): Number of classes.

    Returns:
        np.ndarray: int64 (num_classes, num_classes), rows are true classes.
    """
    pairs = np.asarray(labels, np.int64) * num_classes + np.asarray(
        predictions, np.int64)
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def recalls(matrix: np.ndarray) -> np.ndarray:
    """Recall of each class.

    Args:
        matrix (np.ndarray): Confusion matrix.

    Returns:
        np.ndarray: 0..1, NaN for a class without samples.
    """
    with np.errstate(invalid='ignore'):
        return np.diag(matrix) / matrix.sum(axis=1)


def f1_scores(matrix: np.ndarray) -> np.ndarray:
    """F1 score of each class.

    Args:
        matrix (np.ndarray): Confusion matrix.

    Returns:
        np.ndarray: 0..1, NaN for a class without samples and predictions.
    """
    with np.errstate(invalid='ignore'):
        return 2 * np.diag(matrix) / (matrix.sum(axis=0) + matrix.sum(axis=1))


def classification_report(matrix: np.ndarray) -> Dict[str, float]:
    """The numbers that are reported, in percent.

    Args:
        matrix (np.ndarray): Confusion matrix of at least one sample.

    Returns:
        dict[str, float]: ``WAR`` (accuracy), ``UAR`` (mean recall of the
        classes that have samples), ``macro_F1`` (mean F1 of the classes that
        have samples or predictions, as scikit-learn has it) and
        ``weighted_F1`` (mean F1 weighted by the number of samples).
    """
    support = matrix.sum(axis=1)
    f1 = f1_scores(matrix)
    values = dict(
        WAR=np.trace(matrix) / matrix.sum(),
        UAR=np.nanmean(recalls(matrix)),
        macro_F1=np.nanmean(f1),
        weighted_F1=np.nansum(f1 * support) / support.sum())
    return {name: 100. * float(value) for name, value in values.items()}
