# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The mixture of adapter experts: router, balance loss, experts, and routers of one's own."""

import os.path as osp

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT
from mmengine.config import Config
from small_models import FINETUNE, VIDEOS, build, run

from s4d_mm.models.moae import (
    MoAE,
    NoisyTopKRouter,
    dense_experts,
    drop_over_capacity,
    load_balance_loss,
    sorted_experts,
)

WAYS = ['loop', 'dense'] + ['grouped'] * hasattr(F, 'grouped_mm')


def run_experts(way, layer, x_SC, gates_SK, experts_SK):
    """The experts of a layer, in one of the ways."""
    params = (layer.fc1_weight, layer.fc1_bias, layer.fc2_weight, layer.fc2_bias)
    if way == 'dense':
        return dense_experts(x_SC, gates_SK, experts_SK, params)
    return sorted_experts(x_SC, gates_SK, experts_SK, params, grouped=way == 'grouped')


def by_the_formula(layer, x_SC, gates_SK, experts_SK):
    """Each expert on all tokens, with the gates of those that chose it."""
    out = torch.zeros_like(x_SC)
    for e in range(layer.num_experts):
        hidden = F.gelu(x_SC @ layer.fc1_weight[e] + layer.fc1_bias[e])
        y = hidden @ layer.fc2_weight[e] + layer.fc2_bias[e]
        out = out + (gates_SK * (experts_SK == e)).sum(1, keepdim=True) * y
    return out


def random_layer(**kwargs):
    torch.manual_seed(0)
    layer = MoAE(32, **kwargs)
    for bias in (layer.fc1_bias, layer.fc2_bias):
        torch.nn.init.normal_(bias)
    return layer


def test_routing_by_the_formula_and_gradient_of_the_noise():
    router, x_SC = NoisyTopKRouter(4, 3, top_k=2), torch.randn(5, 4)
    torch.manual_seed(1)
    routing = router(x_SC)
    torch.manual_seed(1)
    noise_SE = torch.randn(5, 3)
    logits_SE = router.gate(x_SC) + noise_SE * F.softplus(router.noise(x_SC))
    torch.testing.assert_close(routing.probs, logits_SE.softmax(-1))
    kept, expected = logits_SE.topk(2)
    assert torch.equal(routing.experts, expected)
    torch.testing.assert_close(routing.weights, kept.softmax(-1))
    torch.testing.assert_close(routing.loss, load_balance_loss(routing.probs, routing.experts))
    for parameter in router.parameters():
        grad = torch.autograd.grad(routing.weights[:, 0].sum(), parameter, retain_graph=True)[0]
        assert grad.abs().max() > 0


def test_no_noise_in_evaluation_or_without_it_and_float32():
    x_SC, noisy = torch.randn(50, 8), NoisyTopKRouter(8, 4, 2)
    plain = NoisyTopKRouter(8, 4, 2, noisy=False)
    plain.load_state_dict(noisy.state_dict(), strict=False)
    assert not torch.equal(noisy(x_SC).probs, noisy(x_SC).probs)
    assert torch.equal(noisy.eval()(x_SC).probs, plain.train()(x_SC).probs)
    with torch.autocast('cpu', torch.bfloat16):
        inside = noisy(x_SC)
    assert all(torch.equal(a, b) for a, b in zip(inside, noisy(x_SC)))


def test_balance_by_the_formula():
    even, one = torch.full((8, 4), 0.25), torch.eye(4)[[0] * 8]
    assert load_balance_loss(even, torch.arange(16).view(8, 2) % 4).item() == 2
    assert load_balance_loss(one, torch.tensor([[0, 1]] * 8)).item() == 4
    probs_SE = torch.rand(7, 5).softmax(-1)
    experts_SK = probs_SE.topk(2).indices
    routed = [(experts_SK == e).sum().item() / 7 for e in range(5)]  # f_e
    expected = 5 * sum(f * p for f, p in zip(routed, probs_SE.mean(0).tolist()))
    assert load_balance_loss(probs_SE, experts_SK).item() == pytest.approx(expected)


def test_capacity():
    """The first in batch order are taken, in training only."""
    experts_SK = torch.tensor([[0, 1], [0, 2], [1, 0], [0, 1], [2, 1]])
    gates_SK = torch.full((5, 2), 0.5)
    kept = drop_over_capacity(gates_SK, experts_SK, 3, factor=0.6)  # ceil(0.6 * 10 / 3) = 2
    assert kept.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.5, 0], [0, 0], [0.5, 0]]
    full = random_layer(num_experts=2, top_k=1, noisy=False)
    small = random_layer(num_experts=2, top_k=1, noisy=False, capacity_factor=0.5)
    x = torch.randn(1, 40, 32)
    assert (small.train()(x)[0][0].abs().sum(1) == 0).sum() == 20
    assert torch.equal(small.eval()(x)[0], full.eval()(x)[0])


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(
    'experts, top_k, tokens', [(8, 2, 200), (4, 1, 7), (64, 4, 300), (1, 1, 5), (6, 2, 1)]
)
def test_all_ways_follow_the_formula(way, experts, top_k, tokens):
    """Output and gradients; with few tokens some experts have none."""
    layer = random_layer(num_experts=experts, top_k=top_k).eval()
    x_SC = torch.randn(tokens, 32, requires_grad=True)
    grad_SC, results = torch.randn(tokens, 32), []
    for function in (lambda *args: run_experts(way, *args), by_the_formula):
        layer.zero_grad()
        x_SC.grad = None
        routing = layer.router(x_SC)
        out = function(layer, x_SC, routing.weights, routing.experts)
        out.backward(grad_SC)
        grads = [p.grad.clone() for n, p in layer.named_parameters() if 'noise' not in n]
        results.append([out, x_SC.grad, *grads])
    for ours, expected in zip(*results):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_the_layer_on_a_cpu():
    layer, x = random_layer(num_experts=6, noisy=False), torch.randn(2, 30, 32)
    # a token does not depend on its neighbours
    torch.testing.assert_close(layer(x)[0][1:], layer(x[1:])[0], atol=1e-6, rtol=1e-5)
    # experts without tokens get zero gradients
    layer.router.gate.bias.data[[1, 4]] += 100
    layer(x)[0].sum().backward()
    for p in (layer.fc1_weight, layer.fc1_bias, layer.fc2_weight, layer.fc2_bias):
        used = p.grad.flatten(1).abs().sum(1) > 0
        assert used.tolist() == [e in (1, 4) for e in range(6)]


def test_autocast_and_tracing():
    layer, x = random_layer().eval(), torch.randn(2, 50, 32, requires_grad=True)
    exact = layer(x)[0]
    with torch.autocast('cpu', torch.bfloat16):
        out = layer(x)[0]
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact, atol=3e-2 * exact.abs().max().item(), rtol=0)
    out.float().sum().backward()
    assert layer.fc1_weight.grad.dtype == x.grad.dtype == torch.float32
    # exported shapes and operations do not depend on the tokens' experts
    program, other = torch.export.export(layer, (x.detach(),)), torch.randn(2, 50, 32)
    for ours, expected in zip(program.module()(other), layer(other)):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def test_each_block_has_experts_of_its_own():
    """One dict for all blocks, or one for each; what a dict leaves out is the neck's."""
    plain = dict(type='NoisyTopKRouter', noisy=False)
    each = [dict(num_experts=6, top_k=3), dict(expert_ratio=0.5, router=plain)]
    neck = build({**FINETUNE['neck'], 'moae': each})
    first, second = (block.moae for block in neck.blocks)
    assert first.fc1_weight.shape == (6, 32, 8) and first.router.top_k == 3
    assert second.fc1_weight.shape == (4, 32, 16) and second.router.top_k == 2
    assert first.router.noise is not None and second.router.noise is None
    assert list(neck.routers()) == [2, 3]
    one = build({**FINETUNE['neck'], 'moae': dict(num_experts=3), 'router': plain})
    assert [b.moae.num_experts for b in one.blocks] == [3, 3]
    assert all(b.moae.router.noise is None for b in one.blocks)


def test_a_router_of_one_s_own(tmp_path, monkeypatch):
    """The file and the config that docs/mixing.md shows train a step."""
    with open(osp.join(ROOT, 'docs', 'mixing.md'), encoding='utf-8') as f:
        blocks = [part.split('```')[0] for part in f.read().split('```python\n')[1:]]
    (router,) = (block for block in blocks if 'class SigmoidRouter' in block)
    (config,) = (block for block in blocks if "type='SigmoidRouter'" in block)
    (tmp_path / 'sigmoid_router.py').write_text(router)
    (tmp_path / 'config.py').write_text(config)
    monkeypatch.syspath_prepend(tmp_path)
    cfg = Config.fromfile(tmp_path / 'config.py')
    neck = {**FINETUNE['neck'], **cfg.neck, 'arch': FINETUNE['neck']['arch'], 'num_layers': 2}
    model = build(dict(FINETUNE, neck=neck)).train()
    assert {type(r).__name__ for r in model.neck.routers().values()} == {'SigmoidRouter'}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = {k: v.clone() for k, v in model.named_parameters()}
    losses = run(model, VIDEOS)
    assert losses['loss_balance'] > 0
    model.parse_losses(losses)[0].backward()
    optimizer.step()
    changed = [k for k, v in model.named_parameters() if not torch.equal(v, before[k])]
    assert any('router' in k for k in changed) and any('moae.fc1_weight' in k for k in changed)
