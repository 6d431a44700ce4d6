# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The mixture of adapter experts: router, balance loss, experts."""

import os.path as osp
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT
from mmengine.config import Config
from small_models import build

from s4d_mm.models.layers import MoAE, NoisyTopKRouter, moae
from s4d_mm.models.layers.moae import (
    dense_experts,
    drop_over_capacity,
    has_grouped_mm,
    load_balance_loss,
    sorted_experts,
)

WAYS = ['loop', 'dense'] + ['grouped'] * hasattr(F, 'grouped_mm')


def run_experts(way, layer, x_SC, gates_SK, experts_SK):
    """The experts of a layer, in one of the ways."""
    fc1, fc2 = (layer.fc1_weight, layer.fc1_bias), (layer.fc2_weight, layer.fc2_bias)
    if way == 'dense':
        return dense_experts(x_SC, gates_SK, experts_SK, fc1, fc2)
    return sorted_experts(x_SC, gates_SK, experts_SK, fc1, fc2, grouped=way == 'grouped')


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


class TestRouter:
    def test_noise_is_normal_with_the_learned_spread(self):
        """N(0, 1) * softplus(W_n y + b_n): mean and spread, for a known W_n."""
        router = NoisyTopKRouter(4, 3, top_k=2)
        with torch.no_grad():
            router.gate.weight.zero_()
            router.gate.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
            router.noise.weight.fill_(0.5)
            router.noise.bias.copy_(torch.tensor([-3.0, 0.0, -0.5]))
        x_SC = torch.ones(40000, 4) * 0.25  # W_n y = 0.5
        torch.manual_seed(0)
        probs_SE = router(x_SC)[2]
        logits_SE = probs_SE.log()  # but for a constant in each row
        spread = F.softplus(torch.tensor([-2.5, 0.5, 0.0]))
        for i, j in ((0, 1), (1, 2)):
            difference = logits_SE[:, i] - logits_SE[:, j]
            expected = (spread[i] ** 2 + spread[j] ** 2).sqrt()
            assert difference.mean().item() == pytest.approx(1, abs=0.03)
            assert difference.std().item() == pytest.approx(expected.item(), rel=0.02)
            # normal: 68.3 % within one standard deviation, 95.4 % within two
            for width, share in ((1, 0.683), (2, 0.954)):
                inside = ((difference - 1).abs() < width * expected).float().mean().item()
                assert inside == pytest.approx(share, abs=0.01)

    def test_gradient_reaches_the_noise(self):
        router = NoisyTopKRouter(4, 3, top_k=2)
        x_SC = torch.randn(5, 4)
        torch.manual_seed(1)
        gates_SK, experts_SK, probs_SE = router(x_SC)
        torch.manual_seed(1)
        noise_SE = torch.randn(5, 3)
        logits_SE = router.gate(x_SC) + noise_SE * F.softplus(router.noise(x_SC))
        torch.testing.assert_close(probs_SE, logits_SE.softmax(-1))
        kept, expected = logits_SE.topk(2)
        assert torch.equal(experts_SK, expected)
        torch.testing.assert_close(gates_SK, kept.softmax(-1))
        for parameter in router.parameters():
            ours = torch.autograd.grad(gates_SK[:, 0].sum(), parameter, retain_graph=True)[0]
            theirs = torch.autograd.grad(
                kept.softmax(-1)[:, 0].sum(), parameter, retain_graph=True
            )[0]
            assert ours.abs().max() > 0
            torch.testing.assert_close(ours, theirs)

    def test_no_noise_in_evaluation_or_without_it(self):
        x_SC = torch.randn(50, 8)
        noisy = NoisyTopKRouter(8, 4, 2)
        plain = NoisyTopKRouter(8, 4, 2, noisy=False)
        plain.load_state_dict(noisy.state_dict(), strict=False)
        assert not torch.equal(noisy(x_SC)[2], noisy(x_SC)[2])
        assert torch.equal(noisy.eval()(x_SC)[2], plain.train()(x_SC)[2])

    def test_float32_under_autocast(self):
        router = NoisyTopKRouter(64, 8, 2).eval()
        x_SC = torch.randn(50, 64)
        with torch.autocast('cpu', torch.bfloat16):
            inside = router(x_SC)
        assert all(torch.equal(a, b) for a, b in zip(inside, router(x_SC)))


class TestBalance:
    def test_even_and_one_sided_load(self):
        even = torch.full((8, 4), 0.25)
        one = torch.eye(4)[[0] * 8]
        assert load_balance_loss(even, torch.arange(16).view(8, 2) % 4).item() == 2
        assert load_balance_loss(one, torch.tensor([[0, 1]] * 8)).item() == 4

    def test_by_the_formula(self):
        torch.manual_seed(0)
        probs_SE = torch.rand(7, 5).softmax(-1)
        experts_SK = probs_SE.topk(2).indices
        routed = [(experts_SK == e).sum().item() / 7 for e in range(5)]  # f_e
        expected = 5 * sum(f * p for f, p in zip(routed, probs_SE.mean(0).tolist()))
        assert load_balance_loss(probs_SE, experts_SK).item() == pytest.approx(expected)

    def test_the_layer_balances_what_it_routes(self):
        layer = MoAE(16, num_experts=5).eval()
        x = torch.randn(3, 7, 16)
        _, experts_SK, probs_SE = layer.router(x.reshape(-1, 16))
        torch.testing.assert_close(layer(x)[1], load_balance_loss(probs_SE, experts_SK))


class TestCapacity:
    def test_the_first_in_batch_order_are_taken(self):
        experts_SK = torch.tensor([[0, 1], [0, 2], [1, 0], [0, 1], [2, 1]])
        gates_SK = torch.full((5, 2), 0.5)
        kept = drop_over_capacity(gates_SK, experts_SK, 3, factor=0.6)  # ceil(0.6 * 10 / 3) = 2
        assert kept.tolist() == [[0.5, 0.5], [0.5, 0.5], [0.5, 0], [0, 0], [0.5, 0]]

    def test_in_training_only(self):
        full = random_layer(num_experts=2, top_k=1, noisy=False)
        small = random_layer(num_experts=2, top_k=1, noisy=False, capacity_factor=0.5)
        x = torch.randn(1, 40, 32)
        assert (small.train()(x)[0][0].abs().sum(1) == 0).sum() == 20
        assert torch.equal(small.eval()(x)[0], full.eval()(x)[0])


class TestExperts:
    @pytest.mark.parametrize('way', WAYS)
    @pytest.mark.parametrize(
        'experts,top_k,tokens', [(8, 2, 200), (4, 1, 7), (64, 4, 300), (1, 1, 5), (6, 2, 1)]
    )
    def test_all_ways_follow_the_formula(self, way, experts, top_k, tokens):
        """Output and gradients; with few tokens some experts have none."""
        layer = random_layer(num_experts=experts, top_k=top_k).eval()
        x_SC = torch.randn(tokens, 32, requires_grad=True)
        grad_SC = torch.randn(tokens, 32)
        results = []
        for run in (
            lambda *args: run_experts(way, *args),
            by_the_formula,
        ):
            layer.zero_grad()
            x_SC.grad = None
            gates_SK, experts_SK, _ = layer.router(x_SC)
            out = run(layer, x_SC, gates_SK, experts_SK)
            out.backward(grad_SC)
            grads = [p.grad.clone() for n, p in layer.named_parameters() if 'noise' not in n]
            results.append([out, x_SC.grad, *grads])
        for ours, expected in zip(*results):
            torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)

    def test_the_layer_on_a_cpu(self):
        layer = random_layer(num_experts=6, noisy=False)
        x = torch.randn(2, 30, 32)
        gates_SK, experts_SK, _ = layer.router(x.flatten(0, 1))
        expected = by_the_formula(layer, x.flatten(0, 1), gates_SK, experts_SK)
        torch.testing.assert_close(layer(x)[0].flatten(0, 1), expected, atol=1e-5, rtol=1e-4)

    def test_experts_without_tokens_get_zero_gradients(self):
        layer = random_layer(num_experts=6, noisy=False)
        layer.router.gate.bias.data[[1, 4]] += 100
        layer(torch.randn(1, 30, 32))[0].sum().backward()
        for p in (layer.fc1_weight, layer.fc1_bias, layer.fc2_weight, layer.fc2_bias):
            used = p.grad.flatten(1).abs().sum(1) > 0
            assert used.tolist() == [e in (1, 4) for e in range(6)]

    def test_a_token_does_not_depend_on_its_neighbours(self):
        layer = random_layer(capacity_factor=0.5).eval()
        x = torch.randn(4, 50, 32)
        torch.testing.assert_close(layer(x)[0][2:3], layer(x[2:3])[0], atol=1e-6, rtol=1e-5)

    def test_autocast(self):
        layer = random_layer().eval()
        x = torch.randn(2, 50, 32, requires_grad=True)
        exact = layer(x)[0]
        with torch.autocast('cpu', torch.bfloat16):
            out = layer(x)[0]
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.float(), exact, atol=3e-2 * exact.abs().max().item(), rtol=0)
        out.float().sum().backward()
        assert layer.fc1_weight.grad.dtype == x.grad.dtype == torch.float32

    def test_float64(self):
        layer = random_layer().double()
        assert layer(torch.randn(5, 32, dtype=torch.float64))[0].dtype == torch.float64

    def test_traced_models_are_dense(self):
        """Exported shapes and operations do not depend on the tokens' experts."""
        layer = random_layer().eval()
        program = torch.export.export(layer, (torch.randn(2, 10, 32),))
        other = torch.randn(2, 10, 32)
        for ours, expected in zip(program.module()(other), layer(other)):
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)

    def test_grouped_products_are_for_fitting_tensors(self):
        """Without a GPU: decided by what the tensors say of themselves."""

        def fits(width=64, hidden=32, dtype=torch.bfloat16, device='cuda', capability=(9, 0)):
            x_SC = mock.Mock(shape=(5, width), dtype=dtype)
            x_SC.device.type = device
            with mock.patch('torch.cuda.get_device_capability', lambda _: capability):
                return has_grouped_mm(x_SC, hidden)

        assert fits() == fits(capability=(8, 0)) == hasattr(F, 'grouped_mm')
        assert not fits(width=63) and not fits(hidden=20)
        assert not fits(dtype=torch.float16) and not fits(device='cpu')
        assert not fits(capability=(7, 5))

    @pytest.mark.parametrize(
        'kwargs,match',
        [
            (dict(top_k=9), r'top_k must be in 1\.\.num_experts=8'),
            (dict(capacity_factor=0), 'capacity_factor must be positive'),
            (dict(expert_ratio=0.001), 'expert_ratio'),
        ],
    )
    def test_bad_arguments(self, kwargs, match):
        with pytest.raises(ValueError, match=match):
            MoAE(32, **kwargs)


@pytest.mark.parametrize('name', ['dfew', 'ferv39k', 'mafw'])
def test_as_trained(name):
    """The recipes of what the authors' code does: places are dropped, nothing is balanced."""
    plain, trained = (
        Config.fromfile(osp.join(ROOT, 'configs', f's4d_finetune_{name}{end}.py'))
        for end in ('', '_as-trained')
    )
    assert trained.model.neck == dict(plain.model.neck, capacity_factor=1.0, loss_weight=0.0)
    small = dict(arch=dict(embed_dims=16, num_layers=1, num_heads=2), num_layers=1)
    neck = build({**trained.model.neck, **small})
    trained.model.neck = plain.model.neck
    assert trained.to_dict() == plain.to_dict()
    x = torch.randn(2, 16, 2, 3, 3)
    with mock.patch.object(moae, 'drop_over_capacity', wraps=moae.drop_over_capacity) as drop:
        _, losses = neck.train()(x, data_samples=None)
        assert drop.call_count == 1 and losses['loss_balance'] == 0
        neck.eval()(x, data_samples=None)
        assert drop.call_count == 1
