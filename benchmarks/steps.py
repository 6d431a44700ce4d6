# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Training steps: forward, backward and AdamW.

Ours is what a user runs: the model and the optimizer of a config, ``train_step`` with the data
preprocessor in it, from the uint8 pixels that the data loader delivers. The plain S4D
(plain_s4d.py) gets normalised float32 pixels, because its data pipeline would have
converted them. Mixup or CutMix is in the fine-tuning steps of both.
"""

import os.path as osp
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

import s4d_mm  # noqa: F401  (registers the models)

from . import plain_s4d, timing

CONFIGS = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), 'configs')
CONFIG_OF_STAGE = dict(pretrain='s4d_pretrain.py', finetune='s4d_finetune_dfew.py')
TOKENS, MASK_RATIO = dict(video=800, image=100), dict(video=0.95, image=0.9)
BATCH = dict(pretrain=dict(video=4, image=16), finetune=dict(video=2, image=16))


class Step(NamedTuple):
    """What a training step is made of.

    ``impl`` is 'plain', 'ours', 'no_experts' (ours without the mixture of experts) or
    'decoder_masking' (ours, whose decoder predicts half of the masked tokens).
    """

    impl: str
    stage: str
    modality: str
    batch: int
    arch: str = 'base'
    device: str = 'cpu'
    dtype: str = 'float32'
    compile: bool = False


def measure(
    stage: str,
    modality: str,
    peak: float,
    batch: int | None = None,
    repeats: int = 5,
    memory: bool = True,
    device: str = 'cpu',
    **options,
) -> list[dict]:
    """Measure a step of each implementation.

    Args:
        stage (str): 'pretrain' or 'finetune'.
        modality (str): 'video' or 'image'.
        peak (float): FLOP/s of the machine, of :func:`benchmarks.timing.matmul_peak`.
        batch (int, optional): Samples. Defaults to None, that of ``BATCH``.
        repeats (int): Rounds. Defaults to 5.
        memory (bool): Whether to measure memory. Defaults to True.
        device (str): 'cpu' or 'cuda'. Defaults to 'cpu'.
        **options: Of :class:`Step`.

    Returns:
        list[dict]: A row for each implementation.
    """
    batch = batch or BATCH[stage][modality]
    impls = ('plain', 'ours', 'no_experts' if stage == 'finetune' else 'decoder_masking')
    steps = {i: Step(i, stage, modality, batch, device=device, **options) for i in impls}
    runs = {impl: build_step(step) for impl, step in steps.items()}
    seconds = timing.interleave(runs, repeats, device)
    rows = []
    for impl, run in runs.items():
        row = dict(stage=stage, modality=modality, batch=batch, impl=impl)
        row.update(timing.summary(seconds[impl], seconds['plain']))
        row['to_no_experts'] = None
        if 'no_experts' in runs:
            row['to_no_experts'] = 1 / timing.summary(seconds[impl], seconds['no_experts'])['ratio']
        # a compiled step hides its products from the counter
        flops = None if steps[impl].compile and impl != 'plain' else timing.count_flops(run)
        row['gflop'] = flops and flops / 1e9
        row['share_of_peak'] = flops and flops / row['median_s'] / peak
        row['host_waits'] = timing.count_syncs(run) if device == 'cuda' else None
        rows.append(row)
    runs.clear()
    for row, step in zip(rows, steps.values()):
        row['peak_gib'] = None
        if memory:
            peak_bytes = timing.peak_memory(build_step, step, device=device)
            row['peak_gib'] = peak_bytes / timing.GIB
    return rows


def build_step(step: Step) -> Callable:
    """Make the function that does one training step; its ``model`` is the model."""
    torch.manual_seed(0)
    np.random.seed(0)
    return _build_plain(step) if step.impl == 'plain' else _build_ours(step)


def _build_ours(step: Step) -> Callable:
    """Make ``train_step`` of the config's model, with the config's optimizer.

    The config's mixed precision needs a GPU. In float32, and on a CPU, the plain optimizer
    wrapper stands in, with autocast around it.
    """
    cfg = our_config(step.stage, step.arch, with_experts=step.impl != 'no_experts')
    if step.impl == 'decoder_masking':
        cfg.model.neck.mask_ratio = 0.5
    model = build_model(cfg).to(step.device).train()
    wrapper = {k: v for k, v in cfg.optim_wrapper.items() if k not in ('dtype', 'loss_scale')}
    if step.device == 'cuda' and step.dtype != 'float32':
        wrapper['dtype'] = step.dtype
    else:
        wrapper['type'] = 'OptimWrapper'
    optim_wrapper = build_optim_wrapper(model, wrapper)
    if step.compile:  # as mmengine's runner does with compile=True
        model.train_step = torch.compile(model.train_step)
    pixels = _random_pixels(step)
    labels = torch.randint(0, 7, (step.batch,)).tolist()

    def run() -> None:
        # a view a sample; blending changes the data samples, so each step gets new ones
        samples = [ActionDataSample().set_gt_label(i) for i in labels]
        data = dict(inputs=[x[None] for x in pixels], data_samples=samples)
        with nullcontext() if 'dtype' in wrapper else autocast(step.device, step.dtype):
            model.train_step(data, optim_wrapper)

    run.model = model
    return run


def our_config(stage: str, arch: str = 'base', with_experts: bool = True) -> Config:
    """Read the project's config and give its model another size.

    Args:
        stage (str): 'pretrain' or 'finetune'.
        arch (str): Key of ``plain_s4d.SIZES``. Defaults to 'base'.
        with_experts (bool): Whether the last half of the blocks has experts. Defaults to True.

    Returns:
        Config: The whole config.
    """
    cfg = Config.fromfile(osp.join(CONFIGS, CONFIG_OF_STAGE[stage]))
    model = cfg.model
    keys = ('embed_dims', 'num_layers', 'num_heads')
    encoder, decoder = (dict(zip(keys, size)) for size in plain_s4d.SIZES[arch])
    model.backbone.arch = encoder
    if stage == 'pretrain':
        model.neck.update(in_channels=encoder['embed_dims'], arch=decoder)
        return cfg
    model.cls_head.in_channels = encoder['embed_dims']
    if with_experts:
        half = encoder['num_layers'] // 2
        model.backbone.depth = half
        model.neck.update(arch=encoder, num_layers=half)
    else:
        del model.backbone['depth'], model['neck']
    return cfg


def build_model(cfg: Config) -> torch.nn.Module:
    """Build the config's model with initial weights, without the long log."""
    if not MMLogger.check_instance_created('benchmarks'):
        MMLogger.get_instance('benchmarks', log_level='WARNING')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def _build_plain(step: Step) -> Callable:
    """Make a step of the plain S4D, in a plain training loop."""
    size, decoder = plain_s4d.SIZES[step.arch]
    if step.stage == 'pretrain':
        model = plain_s4d.PlainS4DPretrain(size, decoder)
        groups = plain_s4d.parameter_groups(model, 1e-3)
    else:
        model = plain_s4d.PlainS4D(size, moae_layers=size[1] // 2)
        groups = plain_s4d.parameter_groups(model, 1e-4, layer_decay=0.75)
    model.to(step.device).train()
    optimizer = torch.optim.AdamW(groups)
    pixels = normalise(_random_pixels(step))
    labels = torch.randint(0, 7, (step.batch,))
    mask = plain_s4d.random_masks(step.batch, TOKENS[step.modality], MASK_RATIO[step.modality])

    def run() -> None:
        x = pixels.to(step.device)
        optimizer.zero_grad()
        with autocast(step.device, step.dtype):
            if step.stage == 'pretrain':
                loss = model.loss(x, mask.to(step.device))
            else:
                loss = model.loss(*plain_s4d.mix(x, labels.to(step.device)))
        loss.backward()
        optimizer.step()
        loss.item()  # for the log

    run.model = model
    return run


def _random_pixels(step: Step) -> torch.Tensor:
    """Draw (B, 3, [T, ]160, 160) uint8."""
    frames = (16,) if step.modality == 'video' else ()
    return torch.randint(0, 256, (step.batch, 3, *frames, 160, 160), dtype=torch.uint8)


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """Turn (B, 3, [T, ]H, W) uint8 into float32 with ImageNet's mean and deviation."""
    shape = (3,) + (1,) * (pixels.ndim - 2)
    mean = torch.tensor(plain_s4d.MEAN).view(shape)
    std = torch.tensor(plain_s4d.STD).view(shape)
    return pixels.float().div(255).sub_(mean).div_(std)


def autocast(device: str, dtype: str) -> torch.autocast:
    """Make the context of a precision."""
    return torch.autocast(device, timing.DTYPES[dtype], enabled=dtype != 'float32')
