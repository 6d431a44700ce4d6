# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The plain S4D of the benchmarks computes what ours computes."""

import copy

import pytest
import torch
from small_models import ARCH, DECODER, FINETUNE, IMAGES, PRETRAIN, VIDEOS, build, inputs

from benchmarks.plain_s4d import PlainS4D
from s4d_mm.weights.s4d import to_authors

TOLERANCE = dict(atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('stage', ['pretrain', 'finetune'])
@pytest.mark.parametrize('shape', [VIDEOS, IMAGES], ids=['video', 'image'])
def test_plain_s4d_is_ours(stage, shape, monkeypatch):
    """Losses and every gradient, with the same mask or router noise."""
    monkeypatch.setattr(torch, 'randn_like', lambda x: inputs(x.numel()).view_as(x))
    cfg = copy.deepcopy(PRETRAIN if stage == 'pretrain' else FINETUNE)
    if stage == 'finetune':
        cfg['cls_head']['num_classes'] = dict(video=7, image=7)
    ours, x = build(cfg).train(), inputs(shape)
    for param in ours.parameters():  # also where the initial value is zero
        param.data += 0.02 * inputs(param.shape)
    sizes = [(arch['num_layers'], arch['num_heads']) for arch in (ARCH, DECODER)]
    plain = PlainS4D(to_authors(ours.state_dict(), stage)[0], *sizes)
    if stage == 'pretrain':
        tokens = 8 if len(shape) == 5 else 4
        mask = torch.rand(2, tokens).argsort(dim=1) < tokens // 2
        latent, float_mask, ids = ours.backbone(x, mask)
        losses = ours.head.loss(ours.neck(latent, ids), x, float_mask), plain.pretrain_loss(x, mask)
    else:
        tokens, extra = ours.neck(ours.backbone(x), data_samples=None)
        scores = ours.cls_head(tokens, 'image' if len(shape) == 4 else 'video')
        target = torch.eye(7)[[1, 5]] * 0.8 + 0.2 / 7
        loss = torch.nn.functional.cross_entropy(scores, target) + extra['loss_balance']
        losses = loss, plain.finetune_loss(x, target)
    torch.testing.assert_close(*losses, **TOLERANCE)
    for loss in losses:
        loss.backward()
    found, _ = to_authors(
        {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in ours.named_parameters()},
        stage,
    )
    for name, param in plain.weights.items():
        expected = torch.zeros_like(param) if param.grad is None else param.grad
        torch.testing.assert_close(found[name], expected, **TOLERANCE, msg=name)
