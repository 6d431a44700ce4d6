# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Statistics of tests: intervals, paired differences, calibration, overlap of distributions."""

import numpy as np

NORMAL_95 = 1.959964  # quantile of the normal distribution at 97.5 %
BLOCK = 500  # rounds of a bootstrap that are in memory at once


def paired_bootstrap(
    hits_a: np.ndarray,
    hits_b: np.ndarray,
    rounds: int = 10000,
    seed: int = 0,
    labels: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """Difference b - a of two models on the same samples, and its 95 % interval.

    In percentage points, of the WAR; with the ``labels`` (samples, ) of the UAR. ``hits`` are 0 or
    1, of shape (samples, ) or (runs, samples), where runs are trainings with other seeds. A round
    draws samples with replacement, the same ones for both models and all runs, and runs likewise,
    which are pairs as well. A class that a round does not draw is left out of its mean.

    Raises:
        ValueError: If the shapes differ or there are no samples.
    """
    a, b = (np.atleast_2d(np.asarray(hits, np.float64)) for hits in (hits_a, hits_b))
    if a.shape != b.shape or a.ndim != 2 or not a.size:
        raise ValueError(f'Hits must be (runs, samples) of both, but are {a.shape} and {b.shape}.')
    runs, samples = a.shape
    labels = np.zeros(samples, np.int64) if labels is None else np.asarray(labels)
    if labels.shape != (samples,):
        raise ValueError(f'There are {samples} samples, but labels of shape {labels.shape}.')
    members = (labels[:, None] == np.unique(labels)).astype(np.float64)  # samples, classes
    gains = (b - a)[:, :, None] * members  # runs, samples, classes
    rng, drawn = np.random.default_rng(seed), []
    for start in range(0, rounds, BLOCK):
        size = min(BLOCK, rounds - start)
        times = rng.multinomial(samples, np.full(samples, 1 / samples), size).astype(np.float64)
        weights = rng.multinomial(runs, np.full(runs, 1 / runs), size) / runs
        sums = np.einsum('bn,rnc,br->bc', times, gains, weights, optimize=True)
        with np.errstate(invalid='ignore'):
            drawn.append(np.nanmean(sums / (times @ members), axis=1))
    difference = (gains.mean(axis=0).sum(axis=0) / members.sum(axis=0)).mean()
    low, high = np.quantile(np.concatenate(drawn), (0.025, 0.975))
    return 100 * float(difference), 100 * float(low), 100 * float(high)


def wilson(hits: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % Wilson interval of shares ``hits / totals``, 0..1; NaN of no samples."""
    hits, totals = np.asarray(hits, np.float64), np.asarray(totals, np.float64)
    with np.errstate(invalid='ignore', divide='ignore'):
        share, square = hits / totals, NORMAL_95**2 / totals
        middle = share + square / 2
        half = np.sqrt(share * (1 - share) * square + square**2 / 4)
        return (middle - half) / (1 + square), (middle + half) / (1 + square)


def calibration(
    confidences: np.ndarray, hits: np.ndarray, bins: int = 15
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Expected calibration error, and samples, mean confidence and accuracy of equal bins.

    Guo et al. 2017, arXiv 1706.04599, eq. 3: the mean of |accuracy - confidence|, weighted by the
    samples of a bin; all are 0..1. An empty bin has NaN.
    """
    confidences, hits = np.asarray(confidences, np.float64), np.asarray(hits, np.float64)
    places = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid='ignore'):
        confidence, accuracy = (
            np.bincount(places, values, bins) / counts for values in (confidences, hits)
        )
    error = np.nansum(counts * np.abs(accuracy - confidence)) / max(counts.sum(), 1)
    return float(error), counts, confidence, accuracy


def overlap(p: np.ndarray, q: np.ndarray) -> float:
    """One minus the Jensen-Shannon distance (base 2) of two distributions: 1 if they are equal."""
    middle, total = (p + q) / 2, 0.0
    for part in (p, q):
        kept = part > 0
        total += (part[kept] * np.log2(part[kept] / middle[kept])).sum() / 2
    return 1.0 - float(np.sqrt(max(total, 0.0)))
