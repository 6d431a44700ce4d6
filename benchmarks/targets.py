# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the speed is wanted to be, next to what was measured."""

from typing import Callable, NamedTuple, Optional


def values(results: dict, part: str, key: str, **where) -> list:
    """Values of a column of the rows of a part, where other columns have
    certain values; those that were not measured are left out.
    """
    return [
        row[key]
        for row in results.get(part, ())
        if row.get(key) is not None and all(row.get(k) == v for k, v in where.items())
    ]


def lowest(results: dict, *args, **where) -> Optional[float]:
    return min(values(results, *args, **where), default=None)


def highest(results: dict, *args, **where) -> Optional[float]:
    return max(values(results, *args, **where), default=None)


class Target(NamedTuple):
    """A target.

    ``of`` takes the results and returns the figure, None if it was not
    measured; ``wanted`` is the least that it may be, the most if ``at_most``.
    """

    name: str
    wanted: float
    of: Callable
    at_most: bool = False


def step_ratio(
    stage: str, modality: str, device: str, dtype: str, plain_dtype: Optional[str] = None
) -> Callable:
    """Time of ``PlainS4D`` over ours, base size."""
    where = dict(
        stage=stage,
        modality=modality,
        arch='base',
        device=device,
        dtype=dtype,
        impl='ours',
        against=f'plain {plain_dtype or dtype}',
    )
    return lambda r: lowest(r, 'steps', 'ratio', **where)


def moae_share(modality: str, device: str = 'cpu') -> Callable:
    """What MoAE adds to the fine-tuning step, as a share of the step without
    it.
    """
    where = dict(stage='finetune', modality=modality, arch='base', device=device, dtype='float32')

    def of(results: dict) -> Optional[float]:
        over = lowest(results, 'steps', 'over_no_moae', impl='ours', **where)
        return over - 1 if over else None

    return of


def layer_ratio(experts: int) -> Callable:
    where = dict(experts=experts, tokens=1600, dim=768)
    return lambda r: lowest(r, 'moae', 'loop_ratio', **where)


def memory_ratio(stage: str, modality: str) -> Callable:
    where = dict(
        stage=stage, modality=modality, arch='base', device='cpu', dtype='float32', impl='ours'
    )
    return lambda r: highest(r, 'steps', 'memory_ratio', **where)


def pipeline_share(impl: str) -> Callable:
    where = dict(modality='video', impl=impl)
    return lambda r: lowest(r, 'data', 'share_of_raw', **where)


def pretrain_share(device: str, dtype: str) -> Callable:
    where = dict(
        stage='pretrain', modality='video', arch='base', device=device, dtype=dtype, impl='ours'
    )
    return lambda r: highest(r, 'steps', 'share_of_peak', **where)


def per_modality(name: str, wanted: float, of: Callable, **kwargs) -> list:
    return [Target(f'{name}, {m}', wanted, of(m), **kwargs) for m in ('video', 'image')]


CPU32, CPU16, GPU = (('cpu', 'float32'), ('cpu', 'bfloat16'), ('cuda', 'bfloat16'))
TARGETS = [
    Target('pre-training step, video, ratio', 1.6, step_ratio('pretrain', 'video', *CPU32)),
    Target('pre-training step, image, ratio', 2.0, step_ratio('pretrain', 'image', *CPU32)),
    Target('pre-training step, video, share of matmul peak', 0.65, pretrain_share(*CPU32)),
    Target('fine-tuning step, video, ratio', 1.15, step_ratio('finetune', 'video', *CPU32)),
    Target('fine-tuning step, image, ratio', 1.0, step_ratio('finetune', 'image', *CPU32)),
    *per_modality(
        'fine-tuning step in bfloat16 on a CPU with units for it, ratio to float32 PlainS4D',
        1.8,
        lambda m: step_ratio('finetune', m, *CPU16, 'float32'),
    ),
    *per_modality('MoAE, share added to the fine-tuning step', 0.08, moae_share, at_most=True),
    Target('MoAE layer, 8 experts, ratio to the loop', 1.5, layer_ratio(8)),
    Target('MoAE layer, 64 experts, ratio to the loop', 3.0, layer_ratio(64)),
    *per_modality(
        'peak memory of pre-training, ratio',
        0.7,
        lambda m: memory_ratio('pretrain', m),
        at_most=True,
    ),
    *per_modality(
        'peak memory of fine-tuning, ratio',
        0.7,
        lambda m: memory_ratio('finetune', m),
        at_most=True,
    ),
    Target(
        'pre-training pipeline, crops by the workers, share of raw decoding',
        0.6,
        pipeline_share('ours'),
    ),
    Target(
        'pre-training pipeline, crops on the device, share of raw decoding',
        0.85,
        pipeline_share('ours_device_crops'),
    ),
    *[
        Target(
            f'images and videos in one step, {stage}, ratio to two steps',
            1.0,
            lambda r, stage=stage: lowest(
                r, 'mixed', 'ratio', stage=stage, arch='base', impl='mixed'
            ),
        )
        for stage in ('pretrain', 'finetune')
    ],
    Target(
        'testing, ratio', 2.0, lambda r: lowest(r, 'testing', 'ratio', arch='base', impl='ours')
    ),
    *per_modality('GPU, fine-tuning step, ratio', 3.0, lambda m: step_ratio('finetune', m, *GPU)),
    *per_modality('GPU, pre-training step, ratio', 2.5, lambda m: step_ratio('pretrain', m, *GPU)),
    Target(
        'GPU, pre-training step at a large batch, share of bfloat16 matmul peak',
        0.45,
        pretrain_share(*GPU),
    ),
    # what a worker may have, with room for the allocator
    Target(
        'memory that a million annotations add to each worker, MiB',
        10.0,
        lambda r: highest(r, 'workers', 'uss_growth_mib', annotations='packed', lines=1_000_000),
        at_most=True,
    ),
]


def target_rows(results: dict) -> list[dict]:
    """A row for each target.

    Args:
        results (dict): Rows of the measurements, by subcommand of run.py.

    Returns:
        list[dict]: ``target``, ``wanted``, ``measured`` and ``met`` ('not
        measured' where there is no figure).
    """
    rows = []
    for target in TARGETS:
        found = target.of(results)
        if found is None:
            met = 'not measured'
        else:
            met = found <= target.wanted if target.at_most else found >= target.wanted
        sign = 'at most' if target.at_most else 'at least'
        rows.append(
            dict(target=target.name, wanted=f'{sign} {target.wanted:g}', measured=found, met=met)
        )
    return rows
