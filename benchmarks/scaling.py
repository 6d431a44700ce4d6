# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""(e) How time and memory of a training step grow with the frames of a clip,
the number of experts and the batch.
"""

import sys
from collections.abc import Sequence
from typing import Optional

from . import steps, timing

FRAMES = (8, 16, 32, 64)
EXPERTS = (2, 4, 8, 16, 32, 64)
BATCH = (1, 2, 4, 8, 16, 32, 64)


def measure(
    peaks: dict[str, float],
    stage: str = 'finetune',
    modality: str = 'video',
    frames: Sequence[int] = FRAMES,
    experts: Sequence[int] = EXPERTS,
    batch: Sequence[int] = BATCH,
    base_batch: int = 1,
    memory_limit_gib: Optional[float] = None,
    **options,
) -> list[dict]:
    """A step at each size; the other sizes are 16 frames, 8 experts and
    ``base_batch``.

    Args:
        peaks (dict[str, float]): FLOP/s of the machine for each dtype.
        stage (str): Defaults to 'finetune'; experts are in it alone.
        modality (str): Defaults to 'video'.
        frames (Sequence[int]): Defaults to 8 .. 64.
        experts (Sequence[int]): Defaults to 2 .. 64.
        batch (Sequence[int]): Defaults to 1 .. 64.
        base_batch (int): Defaults to 1.
        memory_limit_gib (float, optional): An axis ends where the memory of
            its last two sizes says that the next would need more. Defaults to
            None, no limit.
        **options: Of :func:`benchmarks.steps.measure`.

    Returns:
        list[dict]: A row for each size and implementation.
    """
    axes = dict(
        frames=frames if modality == 'video' else (),
        experts=experts if stage == 'finetune' else (),
        batch=batch,
    )
    rows = []
    for axis, values in axes.items():
        used = []  # (value, GiB) of the hungriest implementation
        for value in values:
            expected = _extrapolate(used, value)
            if memory_limit_gib and expected > memory_limit_gib:
                rows.append(
                    dict(axis=axis, value=value, impl=f'left out: would take {expected:.1f} GiB')
                )
                break
            size = {'batch': base_batch, axis: value}
            found = steps.measure(stage, modality, peaks, **size, **options)
            # minutes a size: say how far it is
            print(
                f'{stage}, {modality}, {axis} {value}: '
                + ', '.join(f'{r["impl"]} {timing.cell(r["seconds"])} s' for r in found),
                file=sys.stderr,
            )
            used.append((value, max(r['peak_gib'] or 0 for r in found)))
            rows += [
                dict(
                    axis=axis,
                    value=value,
                    **{
                        k: row[k]
                        for k in (
                            'impl',
                            'seconds',
                            'spread',
                            'ratio',
                            'share_of_peak',
                            'peak_gib',
                            'memory_ratio',
                        )
                    },
                )
                for row in found
            ]
    return rows


def _extrapolate(used: list, value: int) -> float:
    """A straight line through the last two sizes."""
    if len(used) < 2:
        return 0.0
    (a, low), (b, high) = used[-2:]
    return high + (high - low) * (value - b) / (b - a)
