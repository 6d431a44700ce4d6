# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""torch.compile, which mmengine's Runner applies to ``train_step`` with
``compile=True``: both modalities, without compiling again at each switch."""

import copy

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from small_models import FINETUNE, PRETRAIN, build, samples


def steps(cfg, compiled):
    """Losses of steps that alternate between the modalities, and how many
    graphs there are after each."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    model = build(cfg).train()
    optim = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True))
    step = model.train_step
    if compiled:
        step = torch.compile(step, backend='aot_eager')
    torch.manual_seed(0)
    np.random.seed(0)
    generator = torch.Generator().manual_seed(0)
    losses, graphs = [], []
    for kind in ('video', 'image') * 3:
        shape = (1, 3, 4, 32, 32) if kind == 'video' else (1, 3, 32, 32)
        batch = dict(
            inputs=[
                torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
                for _ in range(2)
            ],
            data_samples=samples(kind, [1, 6]),
        )
        losses.append(step(batch, optim)['loss'].item())
        graphs.append(counters['stats']['unique_graphs'])
    return losses, graphs


@pytest.mark.parametrize('name', ['pretrain', 'finetune'])
def test_switching_modality_does_not_compile_again(name):
    cfg = copy.deepcopy(PRETRAIN if name == 'pretrain' else FINETUNE)
    arch = dict(embed_dims=32, num_layers=2, num_heads=4)
    cfg['backbone']['arch'] = arch
    cfg['neck']['arch'] = arch
    cfg['data_preprocessor'] = dict(
        type='DualModalDataPreprocessor',
        mean=[128.0] * 3,
        std=[64.0] * 3,
        merge_views=name == 'pretrain',
    )
    if name == 'finetune':
        cfg['backbone']['depth'] = 1
        cfg['neck'].update(num_layers=1, noisy=False)
        cfg['data_preprocessor']['blending'] = {
            kind: dict(
                type='RandomBatchAugment',
                augments=[
                    dict(type='MixupBlending', alpha=0.8, num_classes=count),
                    dict(type='CutmixBlending', alpha=1.0, num_classes=count),
                ],
            )
            for kind, count in cfg['cls_head']['num_classes'].items()
        }
    losses, graphs = steps(cfg, True)
    assert graphs[0] > 0
    assert graphs[3:] == graphs[3:4] * 3  # both known after two steps of each
    if name == 'finetune':  # no random numbers on the device
        expected, _ = steps(cfg, False)
        assert losses == pytest.approx(expected, rel=1e-4)
