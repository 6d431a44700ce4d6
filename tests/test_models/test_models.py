# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Backbones, necks and heads: each asked the same questions, then its own."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmaction.structures import ActionDataSample
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from small_models import (
    ARCH,
    FINETUNE,
    IMAGES,
    PRETRAIN,
    SIZE,
    VIDEOS,
    build,
    inputs,
    samples,
)

from s4d_mm.models.layers import MoAE, TubeletEmbed, expert_mlp, expert_mlp_cpu, expert_mlp_grouped
from s4d_mm.models.layers.expert_plan import sort_by_expert
from s4d_mm.models.layers.gelu_linear import gelu_linear
from s4d_mm.models.layers.moae import load_balance_loss


def run(model, shape):
    """Losses of one batch, of either model."""
    x = inputs(shape)
    if hasattr(model, 'cls_head'):
        kind = 'image' if len(shape) == 4 else 'video'
        return model(x[:, None], samples(kind, [1, 6]), mode='loss')
    return model(x, mode='loss')


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
        torch.manual_seed(1)
        model.parse_losses(run(model, VIDEOS))[0].backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_pretrain_checkpoint_loads_into_finetuning_model(tmp_path, capsys):
    pre = build(PRETRAIN, seed=3)
    path = str(tmp_path / 'pre.pth')
    torch.save(dict(state_dict=pre.state_dict(), meta={}), path)
    # as `load_from` does
    fine = build(FINETUNE, seed=4)
    before = fine.cls_head.classifiers.video.weight.clone()
    load_checkpoint(fine, path, map_location='cpu')
    report = capsys.readouterr()
    theirs = pre.backbone.state_dict()
    ours = {**fine.backbone.state_dict()}
    for name, value in fine.neck.state_dict().items():
        if '.moae.' not in name:
            _, i, rest = name.split('.', 2)
            ours[f'blocks.{int(i) + 2}.{rest}'] = value
    assert set(ours) == set(theirs) - {'norm.weight', 'norm.bias'}
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    assert torch.equal(before, fine.cls_head.classifiers.video.weight)
    # what was not found is listed
    text = report.out + report.err
    assert 'neck.blocks.0.moae.fc1_weight' in text
    assert 'cls_head.classifiers.video.weight' in text

    # as `init_cfg` does
    cfg = copy.deepcopy(FINETUNE)
    for part in ('backbone', 'neck'):
        cfg[part]['init_cfg'] = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    model = build(cfg)
    for i in range(4):
        block = model.backbone.blocks[i] if i < 2 else model.neck.blocks[i - 2]
        assert torch.equal(block.attn.qkv.weight, pre.backbone.blocks[i].attn.qkv.weight)
    # a neck takes its own weights as they are
    again = build(FINETUNE, seed=1).neck
    again.load_state_dict(model.neck.state_dict())
    assert torch.equal(again.blocks[1].mlp.fc1.weight, model.neck.blocks[1].mlp.fc1.weight)


def test_checkpoint_of_another_size_is_refused(tmp_path):
    pre = build(PRETRAIN)
    path = str(tmp_path / 'pre.pth')
    torch.save(dict(state_dict=pre.state_dict()), path)
    cfg = copy.deepcopy(FINETUNE)
    for part in ('backbone', 'neck'):
        cfg[part]['arch'] = dict(ARCH, embed_dims=64)
    cfg['cls_head']['in_channels'] = 64
    with pytest.raises(
        ValueError,
        match=r'backbone\.patch_embed\.proj\.weight is '
        r'\(32, 3, 2, 16, 16\) there, but \(64',
    ):
        load_checkpoint(build(cfg), path)


class TestBackbone:
    def cfg(self, **kwargs):
        return {**dict(type='S4DViT', arch=ARCH, **SIZE), **kwargs}

    @pytest.mark.parametrize(
        'out_type,video,image',
        [
            ('tokens', (2, 8, 32), (2, 4, 32)),
            ('avg', (2, 32), (2, 32)),
            ('featmap', (2, 32, 2, 2, 2), (2, 32, 2, 2)),
        ],
    )
    def test_out_types(self, out_type, video, image):
        model = build(self.cfg(out_type=out_type)).eval()
        assert model(inputs(VIDEOS)).shape == video
        assert model(inputs(IMAGES)).shape == image

    def test_image_equals_repeated_frames_and_one_frame_clip(self):
        embed = TubeletEmbed(16)
        x = inputs(IMAGES)
        torch.testing.assert_close(
            embed(x), embed(x[:, :, None].expand(-1, -1, 2, -1, -1)), atol=1e-5, rtol=1e-5
        )
        model = build(self.cfg()).eval()
        assert torch.equal(model(x), model(x[:, :, None]))

    def test_embedding_is_a_convolution(self):
        embed = TubeletEmbed(16)
        x = inputs(VIDEOS)
        expected = embed.proj(x).flatten(2).transpose(1, 2)
        torch.testing.assert_close(embed(x), expected, atol=1e-5, rtol=1e-5)

    def test_positions(self):
        model = build(self.cfg())
        i = torch.arange(32)
        angle = 5 / 10000 ** (2 * (i // 2) / 32)
        expected = torch.where(i % 2 == 0, angle.sin(), angle.cos())
        torch.testing.assert_close(model.positions((2, 2, 2))[5], expected)
        # an image takes the first slot; other sizes interpolate each slot
        assert torch.equal(model.positions((1, 2, 2)), model.pos_embed[:4])
        big = model.positions((2, 4, 6)).reshape(2, 4, 6, 32)
        slot = model.pos_embed[4:].reshape(1, 2, 2, 32).permute(0, 3, 1, 2)
        expected = F.interpolate(slot, size=(4, 6), mode='bicubic').permute(0, 2, 3, 1)[0]
        torch.testing.assert_close(big[1], expected)
        # a longer clip extends the table
        longer = model.positions((3, 2, 2))
        assert longer.shape == (12, 32)
        torch.testing.assert_close(longer[:8], model.pos_embed)
        assert model(inputs((1, 3, 6, 64, 96))).shape == (1, 72, 32)

    def test_depth_and_frozen_stages(self):
        model = build(self.cfg(depth=3, frozen_stages=2)).train()
        assert len(model.blocks) == 3
        frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
        assert all(n.startswith(('patch_embed', 'blocks.0', 'blocks.1')) for n in frozen)
        assert 'blocks.1.mlp.fc2.bias' in frozen
        assert not model.blocks[1].training and model.blocks[2].training

    @pytest.mark.parametrize(
        'kwargs,match',
        [
            (dict(arch='huge'), "arch='huge' is not one of"),
            (dict(arch=dict(embed_dims=8)), 'must have the keys'),
            (dict(depth=5), r'depth must be in 1\.\.4'),
            (dict(out_type='cls'), 'out_type'),
            (dict(frozen_stages=9), 'frozen_stages'),
            (dict(img_size=30), 'img_size=30'),
        ],
    )
    def test_bad_arguments(self, kwargs, match):
        with pytest.raises(ValueError, match=match):
            build(self.cfg(**kwargs))

    @pytest.mark.parametrize(
        'shape,match',
        [
            ((2, 3, 3, 32, 32), 'tubelet_size=2, but got 3'),
            ((2, 3, 30, 32), 'patch_size=16, but got 30 x 32'),
            ((2, 1, 32, 32), r'Expected images \(B, 3, H, W\)'),
        ],
    )
    def test_bad_inputs(self, shape, match):
        with pytest.raises(ValueError, match=match):
            build(self.cfg())(inputs(shape))

    def test_published_sizes(self):
        init_default_scope('mmaction')
        for arch, millions in dict(small=22.0, base=86.3, large=303.4).items():
            with torch.device('meta'):
                model = MODELS.build(dict(type='S4DViT', arch=arch))
            count = sum(p.numel() for p in model.parameters()) / 1e6
            assert count == pytest.approx(millions, rel=0.01)


class TestMaskedEncoder:
    def test_mask_and_order(self):
        model = build(
            dict(
                type='S4DMAEViT',
                arch=ARCH,
                img_size=160,
                num_frames=16,
                mask_ratio=dict(image=0.9, video=0.95),
            )
        ).eval()
        for shape, total, masked in (((2, 3, 160, 160), 100, 90), ((2, 3, 16, 160, 160), 800, 760)):
            latent, mask, ids = model(inputs(shape))
            assert latent.shape == (2, total - masked, 32)
            assert mask.shape == ids.shape == (2, total)
            assert mask.sum(1).tolist() == [masked, masked]
            assert not torch.equal(mask[0], mask[1])
            # the visible tokens come first, in their order
            place = ids[0][mask[0] == 0]
            assert place.tolist() == list(range(total - masked))

    def test_without_mask_it_is_the_plain_encoder(self):
        model = build(PRETRAIN).eval()
        x = inputs(VIDEOS)
        everything = model(x, mode='tensor')
        latent, _, _ = model.backbone(x, torch.zeros(2, 8))
        torch.testing.assert_close(everything, latent, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize(
        'mask,match',
        [
            (torch.zeros(2, 5), r'must be of shape \(2, 8\)'),
            (torch.eye(8)[:2].cumsum(1), 'same number of masked'),
            (torch.ones(2, 8), 'at least one visible'),
        ],
    )
    def test_bad_masks(self, mask, match):
        with pytest.raises(ValueError, match=match):
            build(PRETRAIN).backbone(inputs(VIDEOS), mask)

    def test_bad_ratio(self):
        cfg = copy.deepcopy(PRETRAIN)
        cfg['backbone']['mask_ratio'] = dict(image=1.5, video=0.5)
        with pytest.raises(ValueError, match='mask_ratio must be'):
            build(cfg)

    def test_reconstruction_of_the_true_target_is_the_input(self):
        from s4d_mm.models.layers import normalize_per_channel

        head = build(PRETRAIN).head
        x = (torch.rand(2, 3, 4, 32, 32) - head.mean) / head.std
        target = normalize_per_channel(head.tubelets(x))[0]
        mask = torch.ones(2, 8)
        out = head.reconstruct(target, x, mask)
        torch.testing.assert_close(out, x * head.std + head.mean, atol=1e-5, rtol=1e-4)
        assert head.loss(target, x, mask) < 1e-10

    def test_decoder_needs_its_input_size(self):
        model = build(PRETRAIN)
        with pytest.raises(ValueError, match='got 16 tokens'):
            model(inputs((1, 3, 64, 64)), mode='loss')


def expert_loop(moae, x):
    """MoAE as its formula says, expert by expert."""
    tokens = x.reshape(-1, x.shape[-1])
    logits = F.linear(tokens, moae.router.gate.weight, moae.router.gate.bias)
    kept, experts = logits.topk(moae.router.top_k)
    gates = kept.softmax(-1)
    out = torch.zeros_like(tokens)
    for e in range(moae.num_experts):
        hidden = F.gelu(tokens @ moae.fc1_weight[e] + moae.fc1_bias[e])
        y = hidden @ moae.fc2_weight[e] + moae.fc2_bias[e]
        out = out + (gates * (experts == e)).sum(1, keepdim=True) * y
    return out.view_as(x)


@pytest.mark.parametrize('frozen', [(), ('x',), ('weight', 'bias')])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_gelu_linear(frozen, dtype):
    """As the two functions one after the other."""
    generator = torch.Generator().manual_seed(0)
    start = dict(x=(2, 5, 16), weight=(8, 16), bias=(8,))
    results = []
    for function in (gelu_linear, lambda x, w, b: F.linear(F.gelu(x), w, b)):
        generator.manual_seed(0)
        tensors = {
            name: torch.randn(shape, generator=generator).requires_grad_(name not in frozen)
            for name, shape in start.items()
        }
        with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
            out = function(*tensors.values())
        assert out.dtype == dtype
        out.float().square().sum().backward()
        results.append(
            [out.float()] + [t.grad for name, t in tensors.items() if name not in frozen]
        )
        assert all(tensors[name].grad is None for name in frozen)
    loose = dtype != torch.float32
    for ours, expected in zip(*results):
        torch.testing.assert_close(
            ours,
            expected,
            atol=0.05 * expected.abs().max().item() if loose else 1e-5,
            rtol=0 if loose else 1e-4,
        )


KINDS = ['cpu', 'blocks'] + ['grouped'] * hasattr(F, 'grouped_mm')


def use(kind, monkeypatch):
    """Run experts as on a CPU, on any GPU, or on one with grouped products
    (torch computes those on a CPU too)."""
    if kind != 'cpu':
        monkeypatch.setattr(expert_mlp, 'implementation', lambda device: expert_mlp_grouped)
        monkeypatch.setattr(expert_mlp_grouped, 'has_grouped_mm', lambda *_: kind == 'grouped')


class TestMoAE:
    @pytest.mark.parametrize('kind', KINDS)
    @pytest.mark.parametrize(
        'experts,top_k,tokens', [(8, 2, 100), (4, 1, 7), (64, 4, 300), (1, 1, 5)]
    )
    def test_equals_a_loop_over_experts(self, experts, top_k, tokens, kind, monkeypatch):
        use(kind, monkeypatch)
        torch.manual_seed(0)
        moae = MoAE(32, num_experts=experts, top_k=top_k).eval()
        torch.nn.init.normal_(moae.fc1_bias)
        torch.nn.init.normal_(moae.fc2_bias)
        x = torch.randn(2, tokens, 32, requires_grad=True)
        grads = []
        for out in (moae(x)[0], expert_loop(moae, x)):
            moae.zero_grad()
            x.grad = None
            out.square().sum().backward()
            grads.append(
                [out, x.grad]
                + [p.grad.clone() for n, p in moae.named_parameters() if 'noise' not in n]
            )
        for ours, loop in zip(*grads):
            torch.testing.assert_close(ours, loop, atol=1e-4, rtol=1e-4)

    def test_grouped_products_are_for_fitting_shapes(self, monkeypatch):
        """Others go to the blocks; decided without touching the GPU."""
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (9, 0))

        def fits(*shape, dtype=torch.bfloat16, kind='cuda'):
            weight = SimpleNamespace(shape=shape, dtype=dtype, device=SimpleNamespace(type=kind))
            x = SimpleNamespace(shape=(5, shape[1]), dtype=dtype, device=weight.device)
            return expert_mlp_grouped.has_grouped_mm(x, weight)

        assert fits(3, 64, 32) == hasattr(F, 'grouped_mm')
        assert not fits(3, 64, 20) and not fits(3, 63, 32)
        assert not fits(3, 64, 32, dtype=torch.float16)
        assert not fits(3, 64, 32, kind='cpu')

    @pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
    @pytest.mark.parametrize('tokens', [0, 1, 60])
    def test_cpu_and_gpu_agree(self, tokens, dtype, monkeypatch):
        """Also for other data types, no tokens, and rows apart in memory."""
        torch.manual_seed(0)
        moae = MoAE(32, num_experts=6, noisy=False).to(dtype)
        x = torch.randn(32, tokens, dtype=dtype).t().requires_grad_()
        results = []
        for kind in ('cpu', 'blocks'):
            use(kind, monkeypatch)
            moae.zero_grad()
            x.grad = None
            out = moae(x)[0]
            out.square().sum().backward()
            results.append(
                [out, x.grad] + [p.grad for n, p in moae.named_parameters() if 'fc' in n]
            )
        for cpu, gpu in zip(*results):
            assert cpu.dtype == dtype
            torch.testing.assert_close(cpu, gpu, atol=1e-5, rtol=1e-4)

    def test_without_values(self):
        """On the meta device, which has no autocast."""
        moae = MoAE(32).to('meta')
        out, balance = moae(torch.empty(2, 5, 32, device='meta'))
        (out.sum() + balance).backward()
        assert out.shape == (2, 5, 32)
        assert moae.fc1_weight.grad.shape == (8, 32, 8)

    def test_noise_is_for_training_only(self):
        moae = MoAE(32)
        x = torch.randn(2, 50, 32)
        assert not torch.equal(moae.train()(x)[0], moae.train()(x)[0])
        assert torch.equal(moae.eval()(x)[0], moae.eval()(x)[0])

    def test_output_does_not_depend_on_batch_neighbours(self):
        moae = MoAE(32, capacity_factor=0.5).eval()
        x = torch.randn(4, 50, 32)
        torch.testing.assert_close(moae(x)[0][2:3], moae(x[2:3])[0], atol=1e-6, rtol=1e-5)

    def test_capacity_drops_in_training_only(self):
        torch.manual_seed(0)
        full = MoAE(16, num_experts=2, top_k=1, noisy=False)
        torch.nn.init.normal_(full.fc2_bias)
        small = MoAE(16, num_experts=2, top_k=1, noisy=False, capacity_factor=0.5)
        small.load_state_dict(full.state_dict())
        x = torch.randn(1, 40, 16)
        _, experts, _ = full.router(x[0])
        dropped = small.train()(x)[0][0].abs().sum(1) == 0
        # each of the 2 experts takes ceil(0.5 * 40 / 2) = 10, the first ones
        for e in range(2):
            mine = (experts[:, 0] == e).nonzero()[:, 0]
            assert not dropped[mine[:10]].any() and dropped[mine[10:]].all()
        torch.testing.assert_close(small.eval()(x)[0], full.eval()(x)[0])

    def test_load_balance_loss(self):
        even, one = torch.full((8, 4), 0.25), torch.eye(4)[[0] * 8]
        assert load_balance_loss(even, torch.full((4,), 4)).item() == 2
        assert load_balance_loss(one, torch.tensor([8, 8, 0, 0])).item() == 4

    def test_layer_balances_what_it_routes(self):
        torch.manual_seed(0)
        layer = MoAE(16, num_experts=5, top_k=2).eval()
        x = torch.randn(3, 7, 16)
        _, experts, probs = layer.router(x.reshape(-1, 16))
        routed = F.one_hot(experts, 5).sum(1).float().mean(0)  # f_e
        torch.testing.assert_close(layer(x)[1], 5 * (routed * probs.mean(0)).sum())

    def test_assignments_are_sorted_by_expert(self):
        torch.manual_seed(0)
        experts = torch.randint(0, 5, (100, 2))
        plan = sort_by_expert(experts, 6)  # one without tokens
        assert torch.equal(plan.expert, experts.flatten().sort()[0])
        assert torch.equal(plan.expert[plan.place], experts)
        tokens = torch.arange(100)[:, None].expand(-1, 2)
        assert torch.equal(plan.token[plan.place], tokens)
        assert plan.counts.tolist() == experts.flatten().bincount(minlength=6).tolist()
        assert plan.ends.tolist() == plan.counts.cumsum(0).tolist()
        # blocks hold one expert each, and no row twice
        row, block_expert, size, _ = expert_mlp_grouped.blocks_of(plan)
        assert len(set(row.tolist())) == 200
        assert row.max() < len(block_expert) * size
        assert torch.equal(block_expert[row // size], plan.expert)

    def test_groups_of_experts_waste_little(self):
        """Neighbours of about equal load share a product."""
        group = expert_mlp_cpu.group_experts
        # two at least; then as many as give 512 rows
        assert group([400, 410, 390, 400]) == [(0, 2, 410), (2, 4, 400)]
        assert group([50] * 16) == [(0, 10, 50), (10, 16, 50)]
        # what one would fill up is computed alone
        assert group([10, 300, 0, 0, 9]) == [(0, 1, 10), (1, 2, 300), (2, 4, 0), (4, 5, 9)]
        generator = torch.Generator().manual_seed(0)
        for scale in (1, 30, 1000):
            counts = (torch.rand(64, generator=generator) * scale).long().tolist()
            groups = group(counts)
            assert [e for first, last, _ in groups for e in range(first, last)] == list(range(64))
            assert all(max(counts[first:last]) == rows for first, last, rows in groups)
            assert sum(
                (last - first) * rows for first, last, rows in groups
            ) <= expert_mlp_cpu.padded_rows(sum(counts))

    def test_uneven_load(self):
        """All tokens with two of the experts, some of which are dropped."""
        torch.manual_seed(0)
        moae = MoAE(16, num_experts=6, top_k=2, noisy=False)
        torch.nn.init.normal_(moae.fc2_bias)
        moae.router.gate.bias.data[[1, 4]] += 10
        x = torch.randn(1, 30, 16)
        out = moae(x)[0]
        torch.testing.assert_close(out, expert_loop(moae, x), atol=1e-5, rtol=1e-4)
        out.sum().backward()
        for p in (moae.fc1_weight, moae.fc1_bias, moae.fc2_weight, moae.fc2_bias):
            used = p.grad.flatten(1).abs().sum(1) > 0
            assert used.tolist() == [e in (1, 4) for e in range(6)]

    @pytest.mark.parametrize('kind', KINDS)
    def test_autocast(self, kind, monkeypatch):
        use(kind, monkeypatch)
        torch.manual_seed(0)
        moae = MoAE(32).eval()
        x = torch.randn(2, 50, 32, requires_grad=True)
        exact = moae(x)[0]
        with torch.autocast('cpu', torch.bfloat16):
            out = moae(x)[0]
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.float(), exact, atol=3e-2 * exact.abs().max().item(), rtol=0)
        out.float().sum().backward()
        assert moae.fc1_weight.grad.dtype == x.grad.dtype == torch.float32

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


class TestRecognizer:
    def test_aux_loss_in_training_only(self):
        model = build(FINETUNE)
        out = run(model.train(), VIDEOS)
        # two blocks, each at least 1 (even load) and at most 4 (4 experts)
        assert 2e-3 <= out['loss_balance'].item() <= 8e-3
        tokens = model.backbone(inputs(VIDEOS))
        assert model.neck.eval()(tokens)[1] == {}

    def test_prediction_is_deterministic_and_independent(self):
        model = build(FINETUNE).eval()
        x = inputs((4, 2, *VIDEOS[1:]))  # two views
        with torch.no_grad():
            four = model(x, samples('video', [0] * 4), mode='predict')
            one = model(x[1:2], samples('video', [0]), mode='predict')[0]
        torch.testing.assert_close(four[1].pred_score, one.pred_score)
        assert one.pred_score.shape == (7,)
        assert one.pred_score.sum().item() == pytest.approx(1)
        views = [
            model(x[1:2, v : v + 1], samples('video', [0]), mode='predict')[0].pred_score
            for v in range(2)
        ]
        torch.testing.assert_close(one.pred_score, sum(views) / 2)

    def test_soft_and_hard_labels(self):
        head = build(FINETUNE).cls_head
        x = inputs((2, 4, 32))
        hard = head.loss(x, samples('image', [3, 0]))
        soft = [F.one_hot(torch.tensor(y), 8).float() for y in (3, 0)]
        assert torch.equal(head.loss(x, samples('image', soft))['loss_cls'], hard['loss_cls'])
        expected = F.cross_entropy(head(x, 'image'), torch.tensor([3, 0]), label_smoothing=0.1)
        torch.testing.assert_close(hard['loss_cls'], expected)

    def test_mixed_batch_averages_over_samples(self):
        head = build(FINETUNE).cls_head
        x = inputs((3, 4, 32))
        video, image = samples('video', [1, 2]), samples('image', [5])
        mixed = head.loss(x, [video[0], image[0], video[1]])['loss_cls']
        expected = (
            2 * head.loss(x[[0, 2]], video)['loss_cls'] + head.loss(x[[1]], image)['loss_cls']
        ) / 3
        torch.testing.assert_close(mixed, expected)

    def test_errors(self):
        head = build(FINETUNE).cls_head
        x = inputs((1, 4, 32))
        with pytest.raises(ValueError, match='needs `input_type`'):
            head.loss(x, [ActionDataSample().set_gt_label(1)])
        with pytest.raises(ValueError, match="modality 'audio'"):
            head.loss(x, samples('audio', [1]))
        with pytest.raises(ValueError, match='have 9 classes'):
            head.loss(x, samples('image', [torch.full((9,), 1 / 9)]))
        with pytest.raises(ValueError, match='in_channels=32'):
            head.loss(inputs((1, 4, 16)), samples('image', [1]))
        with pytest.raises(ValueError, match='num_classes of DualModalHead'):
            build(dict(type='DualModalHead', in_channels=8, num_classes=7))
        with pytest.raises(ValueError, match='embed_dims=32, but the'):
            build(FINETUNE).neck(inputs((1, 4, 16)))


def test_tube_mask_is_the_same_in_all_slots():
    model = build(
        dict(
            type='S4DMAEViT',
            arch=ARCH,
            img_size=160,
            num_frames=16,
            mask_type='tube',
            mask_ratio=0.9,
        )
    ).eval()
    torch.manual_seed(0)
    latent, mask, _ = model(inputs((3, 3, 16, 160, 160)))
    slots = mask.view(3, 8, 100)
    assert (slots == slots[:, :1]).all()
    assert slots.sum(2).unique().tolist() == [90]
    assert latent.shape == (3, 80, 32)
    assert not torch.equal(slots[0, 0], slots[1, 0])
    # an image has one slot
    assert model(inputs((2, 3, 160, 160)))[1].sum(1).tolist() == [90, 90]
    with pytest.raises(ValueError, match="mask_type='cube' is not one of"):
        build(dict(type='S4DMAEViT', arch=ARCH, mask_type='cube'))
