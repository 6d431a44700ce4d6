# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Both models asked the same questions, and the head of the fine-tuning model."""

import copy
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper
from small_models import (
    DECODER_MASKING,
    FINETUNE,
    IMAGES,
    PRETRAIN,
    VIDEOS,
    build,
    inputs,
    run,
    samples,
)
from torch._dynamo.utils import counters

MODELS = dict(pre=PRETRAIN, masking=DECODER_MASKING, fine=FINETUNE)


@pytest.mark.parametrize('cfg', MODELS.values(), ids=MODELS)
@pytest.mark.parametrize('shape', [IMAGES, VIDEOS], ids=['image', 'video'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_every_parameter_gets_a_gradient(cfg, shape, dtype):
    model = build(cfg).train()
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        out = run(model, shape)
    loss, _ = model.parse_losses(out)
    assert torch.isfinite(loss)
    loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize('cfg', MODELS.values(), ids=MODELS)
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


def test_aux_loss_in_training_only():
    model = build(FINETUNE)
    # two blocks, each at least 1 (even load) and at most 4 (4 experts)
    assert 2e-3 <= run(model.train(), VIDEOS)['loss_balance'].item() <= 8e-3
    assert model.neck.eval()(model.backbone(inputs(VIDEOS)))[1] == {}


def test_prediction_is_deterministic_and_independent():
    model, x = build(FINETUNE).eval(), inputs((4, 2, *VIDEOS[1:]))  # two views

    def predict(x):
        with torch.no_grad():
            out = model(x, samples('video', [0] * len(x)), mode='predict')
        return [sample.pred_score for sample in out]

    one = predict(x[1:2])[0]
    torch.testing.assert_close(predict(x)[1], one)
    assert one.shape == (7,) and one.sum().item() == pytest.approx(1)
    views = [predict(x[1:2, v : v + 1])[0] for v in range(2)]
    torch.testing.assert_close(one, sum(views) / 2)


def test_soft_and_hard_labels():
    head, x = build(FINETUNE).cls_head, inputs((2, 4, 32))
    hard = head.loss(x, samples('image', [3, 0]))
    soft = [F.one_hot(torch.tensor(y), 8).float() for y in (3, 0)]
    assert torch.equal(head.loss(x, samples('image', soft))['loss_cls'], hard['loss_cls'])
    expected = F.cross_entropy(head(x, 'image'), torch.tensor([3, 0]), label_smoothing=0.1)
    torch.testing.assert_close(hard['loss_cls'], expected)
    hits = head(x, 'image').argmax(1) == torch.tensor([3, 0])
    assert hard['image_top1_acc'] == hits.float().mean()


def test_views_of_the_loss_and_of_predictions():
    head, x = build(FINETUNE).cls_head.eval(), inputs((4, 4, 32))
    loss = head.loss(x, samples('video', [1, 2]))['loss_cls']  # two views of two samples
    labels = torch.tensor([1, 1, 2, 2])
    torch.testing.assert_close(loss, F.cross_entropy(head(x, 'video'), labels, label_smoothing=0.1))
    packed = samples('video', [0, 1])
    for sample, views in zip(packed, (1, 3)):
        sample.set_metainfo(dict(num_views=views))
    head.predict(x, packed)
    probabilities = head(x, 'video').softmax(-1)
    torch.testing.assert_close(packed[0].pred_score, probabilities[0])
    torch.testing.assert_close(packed[1].pred_score, probabilities[1:].mean(0))


def test_segments_are_averaged_and_a_class_token_is_used():
    head = build(FINETUNE['cls_head']).eval()
    maps, two = torch.randn(6, 32, 2, 2), samples('video', [1, 2])
    pooled = maps.mean((2, 3)).view(2, 3, 32).mean(1)
    loss = head.loss(maps, two, num_segs=3)['loss_cls']
    torch.testing.assert_close(loss, head.loss(pooled, two)['loss_cls'])
    score = head.predict(maps, two, num_segs=3)[1].pred_score
    torch.testing.assert_close(score, head(pooled, 'video')[1].softmax(0))
    pair = [torch.randn(2, 32, 2, 3, 3), torch.randn(2, 32)]
    assert torch.equal(head.features((pair,)), head.fc_norm(pair[1]))


def test_switching_modality_does_not_compile_again():
    """By torch.compile, as mmengine's Runner applies it; the losses are those without it."""
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
