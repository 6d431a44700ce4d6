# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""(f) A batch of videos and one of images: two steps, or one with both.

Ours in both cases, as in :mod:`benchmarks.steps`; 'alternating' makes a step
with each batch, 'mixed' one with both (``batching='mixed'``).
"""

from typing import Callable, Optional

import torch
from mmaction.structures import ActionDataSample
from mmengine.optim import build_optim_wrapper

from . import timing
from .steps import BATCH, Step, autocast, build_model, our_config


def build(step: Step) -> Callable:
    """A function that trains on both batches. ``step.impl`` is 'alternating'
    or 'mixed'; ``step.batch`` is a number of videos, with 4 times the images.
    """
    torch.manual_seed(0)
    mixed = step.impl == 'mixed'
    cfg = our_config(step.stage, step.arch)
    cfg.model.data_preprocessor.mixed = mixed
    if mixed and step.stage == 'finetune':
        cfg.model.type = 'DualModalRecognizer'
    model = build_model(cfg).to(step.device).train()
    optim_wrapper = build_optim_wrapper(model, dict(cfg.optim_wrapper, type='OptimWrapper'))
    videos = torch.randint(0, 256, (step.batch, 1, 3, 16, 160, 160), dtype=torch.uint8)
    images = torch.randint(0, 256, (4 * step.batch, 1, 3, 160, 160), dtype=torch.uint8)
    batches = [list(videos), list(images)]
    if mixed:
        batches = [batches[0] + batches[1]]

    def run() -> None:
        for inputs in batches:
            samples = [
                ActionDataSample(
                    metainfo=dict(input_type='video' if x.ndim == 5 else 'image')
                ).set_gt_label(0)
                for x in inputs
            ]
            with autocast(step):
                model.train_step(dict(inputs=inputs, data_samples=samples), optim_wrapper)

    return run


def measure(
    stage: str,
    arch: str = 'base',
    batch: Optional[int] = None,
    repeats: int = 5,
    warmup: int = 1,
    device: str = 'cpu',
    dtype: str = 'float32',
) -> list[dict]:
    """Samples per second both ways.

    Args:
        stage (str): 'pretrain' or 'finetune'.
        arch (str): Size. Defaults to 'base'.
        batch (int, optional): Videos, with 4 times the images. Defaults to
            None, those of ``BATCH``.
        repeats (int): Rounds. Defaults to 5.
        warmup (int): Rounds before them. Defaults to 1.
        device (str): Defaults to 'cpu'.
        dtype (str): Defaults to 'float32'.

    Returns:
        list[dict]: A row for each.
    """
    batch = batch or BATCH[stage]['video']
    steps = [
        Step(impl, stage, 'both', batch, arch, device, dtype) for impl in ('alternating', 'mixed')
    ]
    times = timing.interleave({s.impl: build(s) for s in steps}, repeats, warmup, device)
    return [
        dict(
            stage=stage,
            arch=arch,
            videos=batch,
            images=4 * batch,
            device=device,
            dtype=dtype,
            impl=name,
            samples_s=5 * batch / t.median,
            spread=t.spread,
            ratio=timing.median_ratio(times['alternating'], t),
        )
        for name, t in times.items()
    ]
