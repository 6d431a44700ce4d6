# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Images and videos in one step: the same as the two passes it replaces."""

import copy

import pytest
import torch
from small_models import FINETUNE, IMAGES, PRETRAIN, VIDEOS, build, inputs, samples

from s4d_mm.models.layers import pack, unpack


def test_pack_and_unpack():
    parts = [torch.randn(2, 5, 3), torch.randn(4, 2, 3)]
    tokens, sizes = pack(parts)
    assert tokens.shape == (18, 3) and sizes == ((2, 5), (4, 2))
    for a, b in zip(unpack(tokens, sizes), parts):
        assert torch.equal(a, b)


def gradients(model):
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in model.named_parameters()
    }


def close(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize('neck', [True, False])
@pytest.mark.parametrize('with_cp', [True, False])
def test_finetuning_step_equals_two(neck, with_cp):
    cfg = copy.deepcopy(FINETUNE)
    cfg.update(
        type='DualModalRecognizer',
        data_preprocessor=dict(type='DualModalDataPreprocessor', mean=[0.0] * 3, std=[1.0] * 3),
    )
    cfg['neck'].update(noisy=False, with_cp=with_cp)
    cfg['backbone']['with_cp'] = with_cp
    if not neck:
        del cfg['neck']
    model = build(cfg).train()
    x = dict(video=inputs(VIDEOS)[:, None], image=inputs((3, *IMAGES[1:]))[:, None])
    y = dict(video=samples('video', [1, 6]), image=samples('image', [0, 3, 7]))
    feats = model.extract_feat(x)[0]
    alone = {}
    for name in x:
        model.zero_grad()
        torch.testing.assert_close(
            feats[name], model.extract_feat(x[name])[0], atol=1e-5, rtol=1e-4
        )
        losses = model(x[name], y[name], mode='loss')
        model.parse_losses(losses)[0].backward()
        alone[name] = losses, gradients(model)
    model.zero_grad()
    both = model(x, y['video'] + y['image'], mode='loss')
    model.parse_losses(both)[0].backward()
    for key in ('loss_cls', 'loss_balance')[: 1 + neck]:
        torch.testing.assert_close(both[key], sum(losses[key] for losses, _ in alone.values()) / 2)
    for name in x:
        assert both[f'{name}_top1_acc'] == alone[name][0][f'{name}_top1_acc']
    close(
        gradients(model),
        {n: (alone['video'][1][n] + alone['image'][1][n]) / 2 for n in alone['video'][1]},
    )


def test_pretraining_step_equals_two():
    model = build(PRETRAIN).train()
    x = dict(video=inputs(VIDEOS), image=inputs((3, *IMAGES[1:])))
    mask = dict(
        video=torch.tensor([[0, 1] * 4, [1, 1, 1, 1, 0, 0, 0, 0]]),
        image=torch.tensor([[0, 0, 1, 1]] * 3),
    )
    alone, grads = [], []
    for name in x:
        model.zero_grad()
        latent, m, ids = model.backbone(x[name], mask[name])
        loss = model.head.loss(model.neck(latent, ids), x[name], m)
        loss.backward()
        alone.append(loss)
        grads.append(gradients(model))
    model.zero_grad()
    latent, m, ids = model.backbone(x, mask)
    loss = model.head.loss(model.neck(latent, ids), x, m)
    loss.backward()
    torch.testing.assert_close(loss, sum(alone) / 2)
    close(gradients(model), {n: (grads[0][n] + grads[1][n]) / 2 for n in grads[0]})


def test_stochastic_depth_drops_whole_samples():
    block = build(dict(FINETUNE['backbone'], drop_path_rate=0.9)).blocks[1]
    block.drop_path.drop_prob = 0.5
    torch.manual_seed(0)
    parts = [torch.randn(4, 8, 32), torch.randn(12, 4, 32)]
    tokens, sizes = pack(parts)
    out = unpack(block.train()(tokens, sizes), sizes)
    kept, dropped = 0, 0
    for after, before in zip(out, parts):
        same = (after == before).all(-1)  # B N
        assert torch.equal(same.any(1), same.all(1))
        dropped, kept = dropped + same.all(1).sum(), kept + (~same).all(1).sum()
    assert dropped > 0 and kept > 0 and dropped + kept == 16
