# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Statistics of tests: intervals, paired differences, calibration, overlap of distributions."""

import numpy as np

NORMAL_95 = 1.959964  # quantile of the normal distribution at 97.5 %


def paired_bootstrap(
    hits_a: np.ndarray,
    hits_b: np.ndarray,
    rounds: int = 10000,
    seed: int = 0,
    labels: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """Difference b - a of the WAR in percentage points, and the ends of its 95 % interval.

    Hits are 0 or 1, (samples, ) or (runs, samples), where runs are trainings with other seeds. A
    round draws samples with replacement, the same for both models and all runs, and runs, which
    are pairs as well. With the ``labels`` (samples, ) it is the UAR; a class that a round does not
    draw is left out. Raises a ``ValueError`` if the shapes differ.
    """
    a, b = (np.atleast_2d(np.asarray(hits, np.float64)) for hits in (hits_a, hits_b))
    if a.shape != b.shape or not a.size:
        raise ValueError(f'Hits must be (runs, samples) of both, but are {a.shape} and {b.shape}.')
    runs, samples = a.shape
    labels = np.zeros(samples) if labels is None else np.asarray(labels)
    members = (labels[:, None] == np.unique(labels)).astype(np.float64)  # samples, classes
    gains = (b - a)[:, :, None] * members  # runs, samples, classes
    rng, drawn = np.random.default_rng(seed), []
    for start in range(0, rounds, 500):  # so many are in memory at once
        size = min(500, rounds - start)
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
    with np.errstate(invalid='ignore', divide='ignore'):
        share, square = np.divide(hits, totals), NORMAL_95**2 / np.asarray(totals)
        half = np.sqrt(share * (1 - share) * square + square**2 / 4)
        return tuple((share + square / 2 + sign * half) / (1 + square) for sign in (-1, 1))


def calibration(
    confidences: np.ndarray, hits: np.ndarray, bins: int = 10
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Expected calibration error, 0..1 (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    Then the samples, mean confidence and accuracy of each of the equal bins; NaN of an empty one.
    """
    places = np.clip(np.ceil(np.asarray(confidences) * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid='ignore'):
        confidence, accuracy = (np.bincount(places, x, bins) / counts for x in (confidences, hits))
    error = np.nansum(counts * np.abs(accuracy - confidence)) / counts.sum()
    return float(error), counts, confidence, accuracy


def overlap(p: np.ndarray, q: np.ndarray) -> float:
    """One minus the Jensen-Shannon distance (base 2) of two distributions: 1 if they are equal."""
    middle = (p + q) / 2
    parts = [np.sum(x[x > 0] * np.log2(x[x > 0] / middle[x > 0])) / 2 for x in (p, q)]
    return 1 - max(sum(parts), 0) ** 0.5
