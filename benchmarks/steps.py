# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""(a) Training steps: forward, backward and AdamW, ours against ``PlainS4D``.

Ours is what a user runs: the model and the optimizer of a config,
``train_step`` with the data preprocessor in it, from the uint8 pixels that the
data loader delivers. ``PlainS4D`` gets normalised float32 pixels, because its
data pipeline converts and normalises; with ``pixels='uint8'`` it too starts
from uint8, and does that within the step. Mixup or CutMix is in the
fine-tuning steps of both.
"""

import os.path as osp
from contextlib import nullcontext
from typing import Callable, NamedTuple, Optional

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

import s4d_mm  # noqa: F401

from . import plain_s4d, timing
from .flops import step_flops, tokens_of

CONFIGS = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), 'configs')
CONFIG_OF = dict(pretrain='s4d_pretrain.py', finetune='s4d_finetune_dfew.py')
MASK_RATIO = dict(image=0.9, video=0.95)
BATCH = dict(pretrain=dict(video=4, image=16), finetune=dict(video=2, image=16))


class Step(NamedTuple):
    """What a training step is made of.

    ``impl`` is 'ours', 'plain', 'no_moae' (ours without the mixture of
    experts), 'ours_cp' (ours with blocks that are recomputed, ``with_cp``),
    'in_backward' (ours with ``InBackwardOptimWrapper``) or 'in_backward_cp'
    (with both).
    """

    impl: str
    stage: str
    modality: str
    batch: int
    arch: str = 'base'
    device: str = 'cpu'
    dtype: str = 'float32'
    pixels: str = 'float'
    compile: bool = False
    frames: int = 16
    experts: int = 8


def build_step(step: Step) -> Callable:
    """A function that does one training step."""
    torch.manual_seed(0)
    np.random.seed(0)
    build = build_plain if step.impl == 'plain' else build_ours
    return build(step)


def random_pixels(step: Step) -> torch.Tensor:
    """(B, 3, [T, ]160, 160) uint8."""
    frames = (step.frames,) if step.modality == 'video' else ()
    return torch.randint(0, 256, (step.batch, 3, *frames, 160, 160), dtype=torch.uint8)


def our_config(
    stage: str, arch: str = 'base', frames: int = 16, experts: int = 8, moae: bool = True
) -> Config:
    """The project's config, for another size."""
    cfg = Config.fromfile(osp.join(CONFIGS, CONFIG_OF[stage]))
    model = cfg.model
    size, decoder = plain_s4d.SIZES[arch]
    model.backbone.update(arch=arch_config(size), num_frames=frames)
    if stage == 'pretrain':
        model.neck.update(in_channels=size[0], arch=arch_config(decoder), num_frames=frames)
        return cfg
    model.cls_head.in_channels = size[0]
    if moae:
        half = size[1] // 2
        model.backbone.depth = half
        model.neck.update(arch=arch_config(size), num_layers=half, num_experts=experts)
    else:
        model.backbone.pop('depth')
        model.pop('neck')
    return cfg


def arch_config(size: tuple) -> dict:
    """A size as ``arch`` of the project's modules."""
    return dict(zip(('embed_dims', 'num_layers', 'num_heads'), size))


def build_model(cfg: Config) -> torch.nn.Module:
    """The config's model with initial weights, without the long log."""
    if not MMLogger.check_instance_created('benchmarks'):
        MMLogger.get_instance('benchmarks', log_level='WARNING')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def autocast(step: Step):
    """The step's precision."""
    if step.dtype == 'float32':
        return nullcontext()
    return torch.autocast(step.device.split(':')[0], timing.DTYPES[step.dtype])


def build_ours(step: Step) -> Callable:
    """``train_step`` of the config's model, with the config's optimizer.

    The config's mixed precision is for a GPU; in float32, and on a CPU, the
    plain optimizer wrapper (with autocast around it) stands in.
    """
    cfg = our_config(step.stage, step.arch, step.frames, step.experts, step.impl != 'no_moae')
    if step.impl.endswith('_cp'):
        for part in (cfg.model.backbone, cfg.model.neck):
            part.with_cp = True
    model = build_model(cfg).to(step.device).train()
    wrapper = dict(cfg.optim_wrapper)
    in_backward = step.impl.startswith('in_backward')
    own_amp = step.dtype != 'float32' and (in_backward or step.device != 'cpu')
    if in_backward:
        wrapper['type'] = 'InBackwardOptimWrapper'
    elif not own_amp:
        wrapper['type'] = 'OptimWrapper'
    wrapper.pop('dtype', None)
    if own_amp:
        wrapper['dtype'] = step.dtype
    optim_wrapper = build_optim_wrapper(model, wrapper)
    if step.compile:  # as mmengine's runner does with compile=True
        model.train_step = torch.compile(model.train_step)
    pixels = random_pixels(step)
    labels = torch.randint(0, 7, (step.batch,)).tolist()

    def run() -> None:
        # a view a sample; the data samples change in blending, so new ones
        inputs = [x[None] for x in pixels]
        samples = [ActionDataSample().set_gt_label(i) for i in labels]
        with nullcontext() if own_amp else autocast(step):
            model.train_step(dict(inputs=inputs, data_samples=samples), optim_wrapper)

    run.model = model
    return run


def build_plain(step: Step) -> Callable:
    """A step of ``PlainS4D``, in a plain training loop."""
    size, decoder = plain_s4d.SIZES[step.arch]
    if step.stage == 'pretrain':
        model = plain_s4d.PlainS4DPretrain(size, decoder, num_frames=step.frames)
        groups = plain_s4d.parameter_groups(model, 1e-3)
        betas = (0.9, 0.95)
    else:
        model = plain_s4d.PlainS4D(
            size, moae_layers=size[1] // 2, experts=step.experts, num_frames=step.frames
        )
        groups = plain_s4d.parameter_groups(model, 1e-4, layer_decay=0.75)
        betas = (0.9, 0.999)
    model.to(step.device).train()
    optimizer = torch.optim.AdamW(groups, betas=betas)
    pixels = random_pixels(step)
    labels = torch.randint(0, 7, (step.batch,))
    mask = plain_s4d.random_masks(
        step.batch, tokens_of(step.modality, step.frames), MASK_RATIO[step.modality]
    )
    if step.pixels == 'float':
        pixels = normalise(pixels)

    def run() -> None:
        x = pixels if step.pixels == 'float' else normalise(pixels)
        x = x.to(step.device)
        optimizer.zero_grad()
        with autocast(step):
            if step.stage == 'pretrain':
                loss = model.loss(x, mask.to(step.device))
            else:
                x, target = plain_s4d.mix(x, labels.to(step.device))
                loss = model.loss(x, target)
        loss.backward()
        optimizer.step()
        loss.item()  # for the log

    run.model = model
    return run


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """(B, 3, [T, ]H, W) uint8 -> float32, sample by sample on the CPU."""
    shape = (3,) + (1,) * (pixels.ndim - 2)
    mean = torch.tensor(plain_s4d.MEAN).view(shape)
    std = torch.tensor(plain_s4d.STD).view(shape)
    return torch.stack([x.float().div(255).sub_(mean).div_(std) for x in pixels])


def measure(
    stage: str,
    modality: str,
    peaks: dict[str, float],
    batch: Optional[int] = None,
    impls: tuple = ('plain', 'ours'),
    repeats: int = 5,
    warmup: int = 2,
    memory: bool = True,
    threads: Optional[int] = None,
    dtype: str = 'float32',
    plain_dtype: Optional[str] = None,
    **options,
) -> list[dict]:
    """Time and memory of a step for each implementation.

    Args:
        stage (str): 'pretrain' or 'finetune'.
        modality (str): 'video' or 'image'.
        peaks (dict[str, float]): FLOP/s of the machine for each dtype, of
            :func:`benchmarks.timing.matmul_peak`.
        batch (int, optional): Samples. Defaults to None, that of ``BATCH``.
        impls (tuple[str]): Of :class:`Step`; ratios are against the first.
            Defaults to ('plain', 'ours').
        repeats (int): Rounds. Defaults to 5.
        warmup (int): Rounds before them. Defaults to 2.
        memory (bool): Whether to measure memory. Defaults to True.
        threads (int, optional): For the processes that measure memory.
        dtype (str): Defaults to 'float32'.
        plain_dtype (str, optional): Another one for ``PlainS4D``. Defaults to
            None, the same.
        **options: Of :class:`Step`.

    Returns:
        list[dict]: A row for each.
    """
    batch = batch or BATCH[stage][modality]
    steps = [
        Step(
            impl,
            stage,
            modality,
            batch,
            dtype=plain_dtype or dtype if impl == 'plain' else dtype,
            **options,
        )
        for impl in impls
    ]
    runs = {step.impl: build_step(step) for step in steps}
    times = timing.interleave(runs, repeats, warmup, steps[0].device)
    rows = []
    for step in steps:
        needed = step_flops(
            stage, modality, batch, step.arch, step.frames, step.experts, step.impl != 'no_moae'
        )
        t = times[step.impl]
        row = dict(
            stage=stage,
            modality=modality,
            arch=step.arch,
            batch=batch,
            device=step.device,
            dtype=step.dtype,
            impl=step.impl,
            seconds=t.median,
            spread=t.spread,
            against=f'{steps[0].impl} {steps[0].dtype}',
            ratio=timing.median_ratio(times[impls[0]], t),
            over_no_moae=timing.median_ratio(t, times['no_moae']) if 'no_moae' in times else None,
            gflop=needed / 1e9,
            counted_gflop=None,
            gflop_s=needed / t.median / 1e9,
            share_of_peak=needed / t.median / peaks[step.dtype],
        )
        if not step.compile:
            row['counted_gflop'] = timing.count_flops(runs[step.impl]) / 1e9
        rows.append(row)
        if step.device != 'cpu':
            row['host_syncs'] = timing.count_syncs(runs[step.impl])
        # weights, gradients and the two moments of AdamW
        row['state_gib'] = (
            4
            * sum(p.numel() * p.element_size() for p in runs[step.impl].model.parameters())
            / timing.GIB
        )
    runs.clear()
    for step, row in zip(steps, rows):
        row['peak_gib'] = row['memory_ratio'] = None
        if not memory:
            continue
        row['peak_gib'] = (
            timing.peak_memory(build_step, step, device=step.device, threads=threads) / timing.GIB
        )
        row['memory_ratio'] = row['peak_gib'] / rows[0]['peak_gib']
    return rows
