# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Three computations of S4D agree: ours, the plain one of plain_s4d.py, and the authors'."""

import os.path as osp

import pytest
import torch
from helpers import ROOT
from plain_s4d import PlainS4D, PlainS4DPretrain, load_from_s4d_mm, random_masks
from small_models import ARCH, DECODER, FINETUNE, IMAGES, PRETRAIN, SIZE, VIDEOS, build, inputs

from s4d_mm.converters.s4d import to_authors

TOLERANCE = dict(atol=1e-5, rtol=1e-5)
ENCODER, DECODER = (tuple(arch.values()) for arch in (ARCH, DECODER))
SHAPES = dict(video=VIDEOS, image=IMAGES)
TOKENS = dict(video=8, image=4)


def both_models(stage):
    """Ours and the plain one with the same weights, also where the initial value is zero."""
    ours = build(PRETRAIN if stage == 'pretrain' else FINETUNE).train()
    for param in ours.parameters():
        param.data += 0.02 * torch.randn_like(param)
    if stage == 'pretrain':
        plain = PlainS4DPretrain(ENCODER, DECODER, **SIZE)
    else:
        plain = PlainS4D(ENCODER, 2, 4, num_classes=dict(video=7, image=8), **SIZE)
    load_from_s4d_mm(plain, ours.state_dict())
    return ours, plain.train()


def assert_same_gradients(plain, ours, stage):
    """Compare those of every parameter, under the authors' names."""
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in ours.named_parameters()
    }
    found, unplaced = to_authors(found, stage)
    assert unplaced == [] and set(found) == {name for name, _ in plain.named_parameters()}
    for name, param in plain.named_parameters():
        expected = torch.zeros_like(param) if param.grad is None else param.grad
        torch.testing.assert_close(found[name], expected, **TOLERANCE, msg=name)
    assert sum(bool(grad.any()) for grad in found.values()) > 0.8 * len(
        found
    )  # an expert may be empty


@pytest.mark.parametrize('modality', SHAPES)
def test_plain_pretraining_is_ours(modality):
    ours, plain = both_models('pretrain')
    x = inputs(SHAPES[modality])
    mask = random_masks(2, TOKENS[modality], 0.5)
    latent, float_mask, ids = ours.backbone(x, mask)
    our_loss = ours.head.loss(ours.neck(latent, ids), x, float_mask)
    plain_loss = plain.loss(x, mask)
    torch.testing.assert_close(our_loss, plain_loss, **TOLERANCE)
    our_loss.backward()
    plain_loss.backward()
    assert_same_gradients(plain, ours, 'pretrain')


@pytest.mark.parametrize('modality', SHAPES)
def test_plain_fine_tuning_is_ours(modality, monkeypatch):
    """With the same router noise in both."""
    monkeypatch.setattr(torch, 'randn_like', lambda x: inputs(x.numel()).view_as(x))
    ours, plain = both_models('finetune')
    x = inputs(SHAPES[modality])
    tokens, losses = ours.neck(ours.backbone(x), data_samples=None)
    our_scores = ours.cls_head(tokens, input_types=modality)
    plain_scores, balance = plain(x)
    torch.testing.assert_close(our_scores, plain_scores, **TOLERANCE)
    torch.testing.assert_close(losses['loss_balance'], 1e-3 * balance, **TOLERANCE)
    weights = torch.randn_like(our_scores)
    ((our_scores * weights).sum() + 1e3 * losses['loss_balance']).backward()
    ((plain_scores * weights).sum() + balance).backward()
    assert_same_gradients(plain, ours, 'finetune')


def authors(stage):
    ref = torch.load(osp.join(ROOT, 'tests', 'data', f'{stage}_a.pt'), weights_only=True)
    arch = ref['arch']
    return ref, arch, (arch['dim'], arch['depth'], arch['heads'])


@pytest.mark.parametrize('kind', ['video', 'image'])
def test_plain_pretraining_is_the_authors(kind):
    ref, arch, size = authors('pretrain')
    plain = PlainS4DPretrain(size, (arch['ddim'], arch['ddepth'], arch['dheads']), arch['img'])
    plain.load_state_dict(ref['state_dict'])
    mask = ref[f'{kind}_mask']
    with torch.no_grad():
        torch.testing.assert_close(plain(ref[kind], mask), ref[f'{kind}_pred'], **TOLERANCE)
        torch.testing.assert_close(plain.loss(ref[kind], mask), ref[f'{kind}_loss'], **TOLERANCE)


@pytest.mark.parametrize('kind', ['video', 'image'])
def test_plain_fine_tuning_is_the_authors(kind):
    ref, arch, size = authors('finetune')
    classes = dict(video=arch['nvid'], image=arch['nimg'])
    plain = PlainS4D(size, len(arch['layers']), arch['E'], arch['k'], classes, arch['img'])
    plain.load_state_dict(ref['state_dict'])
    with torch.no_grad():
        scores, _ = plain.eval()(ref[kind])
    torch.testing.assert_close(scores, ref[f'{kind}_logits'], **TOLERANCE)
