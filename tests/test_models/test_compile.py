# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""torch.compile, as mmengine's Runner applies it with ``compile=True``."""

import copy

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from small_models import FINETUNE, build, samples


def test_switching_modality_does_not_compile_again():
    """Both modalities have the losses that they have without it."""
    from torch._dynamo.utils import counters

    cfg = copy.deepcopy(FINETUNE)
    arch = dict(embed_dims=32, num_layers=2, num_heads=4)
    cfg['backbone'].update(arch=arch, depth=1)
    cfg['neck'].update(arch=arch, num_layers=1, noisy=False)  # no random numbers on the device
    mixup = dict(type='MixupBlending', alpha=0.8, num_classes=7)
    pixels = dict(mean=[128.0] * 3, std=[64.0] * 3, blending=dict(video=mixup))
    cfg['data_preprocessor'] = dict(type='DualModalDataPreprocessor', **pixels)
    found = []
    for compiled in (True, False):
        torch._dynamo.reset()
        counters.clear()
        model = build(cfg).train()
        optim = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True))
        step = model.train_step
        if compiled:
            step = torch.compile(step, backend='aot_eager')
        torch.manual_seed(0)
        np.random.seed(0)
        losses, graphs = [], []
        for kind in ('video', 'image') * 3:
            shape = (2, 1, 3, 4, 32, 32) if kind == 'video' else (2, 1, 3, 32, 32)
            pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
            batch = dict(inputs=list(pixels), data_samples=samples(kind, [1, 6]))
            losses.append(step(batch, optim)['loss'].item())
            graphs.append(counters['stats']['unique_graphs'])
        found.append(losses)
        if compiled:
            assert graphs[0] > 0
            assert graphs[3:] == graphs[3:4] * 3  # both known after two steps of each
    assert found[0] == pytest.approx(found[1], rel=1e-4)
