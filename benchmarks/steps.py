# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Training steps: forward, backward and AdamW; also of S2D, with its predictions.

Ours is what a user runs: the model and the optimizer of a config, ``train_step`` with the data
preprocessor in it, from the uint8 pixels that the data loader delivers. The plain models have the
same weights, but get normalised float32 pixels, as their data pipeline would have converted them.
"""

import os.path as osp
from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

import s4d_mm  # noqa: F401  (registers the models)
from s4d_mm.weights.s2d import to_s2d_authors
from s4d_mm.weights.s4d import to_authors

from . import timing
from .plain_s2d import PlainS2D
from .plain_s4d import MEAN, STD, PlainS4D, mixup

CONFIGS = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), 'configs')
BATCH = dict(pretrain=dict(video=4, image=16), finetune=dict(video=2, image=16))
MASKS = dict(video=(800, 0.95), image=(100, 0.9))  # tokens, and the masked share
SIZES = {  # dim, depth, heads; the same of the decoder
    'tiny': ((64, 2, 2), (32, 1, 2)),  # for tests
    'small': ((384, 12, 6), (192, 4, 3)),
    'base': ((768, 12, 12), (384, 4, 6)),
    'large': ((1024, 24, 16), (512, 4, 8)),
}


def measure(
    stage='all', modality='all', batch=0, repeats=5, arch='base', device='cpu', dtype='float32'
) -> list[dict]:
    """Measure steps of each implementation; a ``batch`` of 0 is that of ``BATCH``."""
    rows = []
    stages = BATCH if stage == 'all' else (stage,)
    for kind, media in product(stages, ('video', 'image') if modality == 'all' else (modality,)):
        size = batch or BATCH[kind][media]
        impls = 'plain', 'ours', 'no_experts' if kind == 'finetune' else 'decoder_masking'
        steps = {i: build_step(i, kind, media, size, arch, device, dtype) for i in impls}
        rows += timing.compare(steps, repeats, device, stage=kind, modality=media, batch=size)
    return rows


def measure_s2d(clips: int = 1, repeats: int = 5) -> list[dict]:
    """Measure training steps and predictions of S2D, base size, on a CPU; clips of 16 frames."""
    steps = {impl: build_step(impl, 's2d', 'video', clips) for impl in ('plain', 'ours')}
    rows = timing.compare(steps, repeats, task='training step', clips=clips)
    predict = {impl: step.predict for impl, step in steps.items()}
    with torch.no_grad():
        return rows + timing.compare(predict, repeats, task='prediction', clips=clips)


def build_step(
    impl: str, stage: str, modality: str, batch: int, arch='base', device='cpu', dtype='float32'
) -> Callable:
    """Make the function that does one training step, whose ``weights`` are those it trains.

    ``impl`` is 'plain', 'ours', 'no_experts' (ours without experts) or 'decoder_masking' (ours,
    whose decoder predicts half of the masked tokens).
    """
    torch.manual_seed(0)
    np.random.seed(0)
    side = 224 if stage == 's2d' else 160
    frames = (16,) if modality == 'video' else ()
    pixels = torch.randint(0, 256, (batch, 3, *frames, side, side), dtype=torch.uint8)
    labels, x = torch.randint(0, 7, (batch,)), normalise(pixels).to(device)
    cfg = our_config(stage, arch, with_experts=impl != 'no_experts')
    if impl == 'decoder_masking':
        cfg.model.neck.mask_ratio = 0.5
    model = build_model(cfg).to(device).train()
    if impl != 'plain':
        run = our_step(cfg, model, pixels, labels, dtype)
        run.predict = lambda: model.eval().cls_head(model.backbone(x))  # of S2D
        return run
    if stage == 's2d':
        weights, _ = to_s2d_authors(model.state_dict())
        plain = PlainS2D(weights, depth=12, heads=(12, 8), landmark=model.backbone.landmark)
    else:
        weights, _ = to_authors(model.state_dict(), stage)
        plain = PlainS4D(weights, *(size[1:] for size in SIZES[arch]))
    mask = None
    if stage == 'pretrain':
        tokens, ratio = MASKS[modality]
        mask = torch.rand(batch, tokens, device=device).argsort(dim=1) < int(ratio * tokens)
    run = plain_step(plain, x, labels.to(device), mask, dtype)
    run.predict = lambda: plain.scores(x)
    return run


def our_step(cfg: Config, model: nn.Module, pixels: Tensor, labels: Tensor, dtype: str) -> Callable:
    """Make ``train_step`` of a model, with the optimizer of its config."""
    precision = dict(type='OptimWrapper') if dtype == 'float32' else dict(dtype=dtype)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper | precision)

    def run() -> None:
        # a view a sample; blending changes the data samples, so each step gets new ones
        samples = [ActionDataSample().set_gt_label(i) for i in labels.tolist()]
        data = dict(inputs=[x[None] for x in pixels], data_samples=samples)
        model.train_step(data, optim_wrapper)

    run.weights = [p for p in model.parameters() if p.requires_grad]
    return run


def plain_step(plain, x: Tensor, labels: Tensor, mask: Tensor | None, dtype: str) -> Callable:
    """Make a step of a plain model, in a plain training loop; masked in pre-training."""
    weights = [w for w in plain.weights.values() if w.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, getattr(torch, dtype), enabled=dtype != 'float32'):
            if mask is None:
                loss = plain.finetune_loss(*mixup(x, labels))
            else:
                loss = plain.pretrain_loss(x, mask)
        loss.backward()
        optimizer.step()
        loss.item()  # for the log

    run.weights = weights
    return run


def our_config(stage: str, arch: str = 'base', with_experts: bool = True) -> Config:
    """Read the config of a stage; ``arch``, a key of :data:`SIZES`, is for S4D."""
    names = dict(pretrain='s4d_pretrain', finetune='s4d_finetune_dfew', s2d='s2d_finetune_dfew')
    cfg = Config.fromfile(f'{CONFIGS}/{names[stage]}.py')
    if stage == 's2d':
        return cfg
    model, keys = cfg.model, ('embed_dims', 'num_layers', 'num_heads')
    encoder, decoder = (dict(zip(keys, size)) for size in SIZES[arch])
    model.backbone.arch = encoder
    if stage == 'pretrain':
        model.neck.update(in_channels=encoder['embed_dims'], arch=decoder)
        return cfg
    model.cls_head.in_channels = encoder['embed_dims']
    half = encoder['num_layers'] // 2
    model.backbone.depth = half
    model.neck.update(arch=encoder, num_layers=half)
    if not with_experts:
        del model.backbone['depth'], model['neck']
    return cfg


def build_model(cfg: Config) -> nn.Module:
    """Build the config's model with initial weights, without the long log."""
    if not MMLogger.check_instance_created('benchmarks'):
        MMLogger.get_instance('benchmarks', log_level='ERROR')
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    if hasattr(model.backbone, 'landmark'):
        model.backbone.landmark.has_weights = True  # random ones are as fast
    return model


def normalise(pixels: Tensor) -> Tensor:
    """Turn (B, 3, [T, ]H, W) uint8 into float32 with ImageNet's mean and deviation."""
    mean, std = (torch.tensor(v).view(3, *[1] * (pixels.ndim - 2)) for v in (MEAN, STD))
    return (pixels / 255 - mean) / std
