# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Every model and part, asked the same questions."""

import copy
from unittest import mock

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from small_models import FINETUNE, IMAGES, PRETRAIN, VIDEOS, build, run


@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain'])
@pytest.mark.parametrize(
    'name',
    [
        'S4DViT',
        'S4DMAEViT',
        'S4DMAEDecoder',
        'S4DMAEHead',
        'MoAENeck',
        'DualModalHead',
        'DualModalDataPreprocessor',
    ],
)
def test_names_resolve_without_prefix(scope, name):
    init_default_scope(scope)
    if scope == 'mmaction':
        from mmaction.registry import MODELS as registry
    else:
        from mmpretrain.registry import MODELS as registry
    assert registry.get(name).__name__ == name
    assert MODELS.get(name).__name__ == name


@pytest.mark.parametrize('cfg', [PRETRAIN, FINETUNE], ids=['pre', 'fine'])
@pytest.mark.parametrize('shape', [IMAGES, VIDEOS], ids=['image', 'video'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_every_parameter_gets_a_gradient(cfg, shape, dtype):
    model = build(cfg).train()
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        out = run(model, shape)
    loss, _ = model.parse_losses(out)
    assert torch.isfinite(loss)
    loss.backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert missing == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize('cfg', [PRETRAIN, FINETUNE], ids=['pre', 'fine'])
def test_state_dict_round_trip(cfg, tmp_path):
    model, other = build(cfg, seed=0), build(cfg, seed=1)
    torch.save(model.state_dict(), tmp_path / 'm.pth')
    other.load_state_dict(torch.load(tmp_path / 'm.pth'), strict=True)
    for a, b in zip(model.state_dict().values(), other.state_dict().values()):
        assert torch.equal(a, b)


@pytest.mark.parametrize('cfg', [PRETRAIN, FINETUNE], ids=['pre', 'fine'])
def test_checkpointing_gives_the_same_gradients(cfg):
    grads = []
    for with_cp in (False, True):
        cfg = copy.deepcopy(cfg)
        cfg['backbone']['with_cp'] = cfg['neck']['with_cp'] = with_cp
        model = build(cfg).train()
        block = model.backbone.blocks[1]
        with mock.patch.object(block, 'forward', wraps=block.forward) as forward:
            torch.manual_seed(1)
            model.parse_losses(run(model, VIDEOS))[0].backward()
        assert forward.call_count == 1 + with_cp  # once more in the backward pass
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
