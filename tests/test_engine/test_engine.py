# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Optimizer groups, and the step inside of the backward pass."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from small_models import ARCH, FINETUNE, build
from torch.utils.checkpoint import checkpoint

from s4d_mm.engine import InBackwardOptimWrapper

OPTIM = dict(
    optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
    constructor='S4DLayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'_bias': dict(decay_mult=0.0)},
    ),
)


def groups(model):
    wrapper = build_optim_wrapper(model, OPTIM)
    return {g['param_name']: g for g in wrapper.optimizer.param_groups}


def test_layer_decay_counts_across_backbone_and_neck():
    by_name = groups(build(FINETUNE))  # 2 + 2 blocks: 6 depths
    expected = {
        'backbone.patch_embed.proj.weight': 5,
        'backbone.blocks.0.attn.qkv.weight': 4,
        'backbone.blocks.1.mlp.fc1.weight': 3,
        'neck.blocks.0.moae.fc1_weight': 2,
        'neck.blocks.1.attn.q_bias': 1,
        'cls_head.fc_norm.weight': 0,
        'cls_head.classifiers.video.weight': 0,
    }
    for name, steps in expected.items():
        assert by_name[name]['lr'] == pytest.approx(0.75**steps), name


def test_twelve_blocks_make_fourteen_depths():
    init_default_scope('mmaction')
    arch = dict(ARCH, num_layers=12)
    by_name = groups(
        MODELS.build(
            dict(
                type='Recognizer3D',
                backbone=dict(type='S4DViT', arch=arch, depth=6),
                neck=dict(type='MoAENeck', arch=arch, num_layers=6),
                cls_head=FINETUNE['cls_head'],
            )
        )
    )
    assert {g['layer_id'] for g in by_name.values()} == set(range(14))
    first = by_name['backbone.patch_embed.proj.weight']
    assert first['lr'] == pytest.approx(0.75**13)


def test_no_weight_decay_on_biases_and_norms():
    model = build(FINETUNE)
    for name, group in groups(model).items():
        free = 'norm' in name or name.endswith('bias')
        assert group['weight_decay'] == (0 if free else 0.05), name


def test_layer_decay_needs_blocks():
    init_default_scope('mmaction')
    model = MODELS.build(
        dict(
            type='Recognizer3D',
            backbone=dict(type='ResNet3dSlowOnly', depth=50, pretrained=None),
            cls_head=dict(type='I3DHead', num_classes=7, in_channels=2048),
        )
    )
    with pytest.raises(ValueError, match='ResNet3dSlowOnly'):
        build_optim_wrapper(model, OPTIM)


def test_layer_decay_of_mmpretrain_s_vit():
    init_default_scope('mmaction')
    vit = dict(
        type='mmpretrain.VisionTransformer',
        arch=dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=64),
        img_size=32,
    )
    cfg = dict(FINETUNE, backbone=dict(type='FrameWiseBackbone', backbone=vit))
    lr = {name: g['lr'] for name, g in groups(build(cfg)).items()}
    stem = 'backbone.backbone.'
    expected = {  # 2 + 2 blocks, so 6 depths
        f'{stem}patch_embed.projection.weight': 0,
        f'{stem}pos_embed': 0,
        f'{stem}layers.0.ln1.weight': 1,
        f'{stem}layers.1.ffn.layers.1.bias': 2,
        f'{stem}ln1.weight': 5,
        'neck.blocks.0.mlp.fc1.weight': 3,
        'neck.blocks.1.moae.fc1_weight': 4,
        'cls_head.classifiers.video.weight': 5,
    }
    for name, depth in expected.items():
        assert lr[name] == pytest.approx(0.75 ** (5 - depth)), name


def in_backward(**kwargs):
    optimizer = dict(OPTIM['optimizer'], lr=1e-4)
    return dict(OPTIM, type='InBackwardOptimWrapper', optimizer=optimizer, **kwargs)


class TestInBackward:
    def steps(self, optim_wrapper, change=None):
        """The losses of three steps, and the weights after them."""
        torch.manual_seed(0)
        model = build(FINETUNE).train()
        if change:
            change(model)
        wrapper = build_optim_wrapper(model, optim_wrapper)
        losses = []
        for _ in range(3):
            with wrapper.optim_context(model):
                out = model.backbone(torch.randn(2, 3, 4, 32, 32))
                out, aux = model.neck(out)
                loss = out.float().square().sum() + sum(aux.values())
            wrapper.update_params(loss)
            losses.append(loss.item())
        return losses, model, wrapper

    def test_equals_a_step_after_the_backward_pass(self):
        expected, model, _ = self.steps(dict(in_backward(), type='OptimWrapper'))
        losses, ours, wrapper = self.steps(in_backward())
        assert losses == expected and len(set(losses)) == 3
        for (name, a), b in zip(model.state_dict().items(), ours.state_dict().values()):
            assert torch.equal(a, b), name
        state = wrapper.optimizer.state_dict()  # of all weights
        assert len(state['state']) > 40
        assert len(state['param_groups']) == len(list(ours.parameters()))

    @pytest.mark.parametrize(
        'optimizer',
        [
            dict(type='AdamW', lr=1e-4, fused=True),
            dict(type='SGD', lr=1e-4, momentum=0.9),
        ],
    )
    @pytest.mark.parametrize('kind', ['frozen', 'recomputed'])
    def test_other_optimizers_and_models(self, optimizer, kind):
        """In one group of all weights, some of which may not learn."""

        def change(model):
            if kind == 'frozen':
                model.backbone.requires_grad_(False)
                return
            for part in (model.backbone, model.neck):
                part.with_cp = True

        results = [
            self.steps(dict(type=type, optimizer=optimizer), change)[1]
            for type in ('OptimWrapper', 'InBackwardOptimWrapper')
        ]
        for a, b in zip(*(r.state_dict().values() for r in results)):
            assert torch.equal(a, b)

    def test_a_gradient_in_parts_is_an_error(self):
        layer = torch.nn.Linear(4, 4)
        wrapper = InBackwardOptimWrapper(torch.optim.SGD(layer.parameters(), lr=0.1))
        x = torch.randn(2, 4, requires_grad=True)
        twice = sum(checkpoint(layer, y, use_reentrant=True).sum() for y in (x, 2 * x))
        with pytest.raises(RuntimeError, match='the shape .4.* in parts'):
            wrapper.update_params(twice)

    def test_gradients_are_never_all_there(self):
        torch.manual_seed(0)
        model = build(FINETUNE).train()
        held, params = [], list(model.parameters())
        for p in params:  # before the wrapper's: sees the gradient first
            p.register_post_accumulate_grad_hook(
                lambda _: held.append(sum(p.grad is not None for p in params))
            )
        wrapper = build_optim_wrapper(model, in_backward())
        out, aux = model.neck(model.backbone(torch.randn(2, 3, 4, 32, 32)))
        wrapper.update_params(out.sum() + sum(aux.values()))
        assert len(held) > 40 and set(held) == {1}
        assert all(p.grad is None for p in params)

    def test_bfloat16(self):
        exact, _, _ = self.steps(in_backward())
        losses, model, _ = self.steps(in_backward(dtype='bfloat16'))
        assert losses != exact
        assert losses == pytest.approx(exact, rel=0.1)
        assert {p.dtype for p in model.parameters()} == {torch.float32}

    @pytest.mark.parametrize(
        'kwargs,match',
        [
            (dict(dtype='float16'), "must be one of .* but is 'float16'"),
            (dict(accumulative_counts=2), 'accumulative_counts is 2'),
            (dict(clip_grad=dict(max_norm=1.0)), r"clip_grad=\{'max_norm': 1.0\}"),
        ],
    )
    def test_refuses_what_needs_all_gradients(self, kwargs, match):
        with pytest.raises(ValueError, match=match):
            build_optim_wrapper(build(FINETUNE), in_backward(**kwargs))

    def test_refuses_a_launcher(self, tmp_path):
        """Also with one process, where DDP makes gradients of its own."""
        torch.distributed.init_process_group(
            'gloo', f'file://{tmp_path}/store', rank=0, world_size=1
        )
        try:
            with pytest.raises(RuntimeError, match='without a launcher'):
                build_optim_wrapper(build(FINETUNE), in_backward())
        finally:
            torch.distributed.destroy_process_group()

    def test_runs_and_resumes(self, quickstart):
        """Like the plain wrapper in a Runner, across a checkpoint."""

        def run(name, wrapper, **kwargs):
            cfg = Config.fromfile('configs/s4d_quickstart_pretrain.py')
            cfg.work_dir = str(quickstart / name)
            cfg.experiment_name = f'{name}_{len(kwargs)}_{kwargs}'
            cfg.default_hooks.logger.interval = 1
            cfg.optim_wrapper.type = wrapper
            cfg.train_dataloader.num_workers = 0
            cfg.train_dataloader.persistent_workers = False
            cfg.train_dataloader.batch_sampler.batch_size = dict(video=4, image=8)
            cfg.train_cfg = dict(by_epoch=True, max_epochs=2)
            cfg.merge_from_dict(kwargs)
            runner = Runner.from_cfg(cfg)
            runner.train()
            return runner

        def losses(runner):
            return runner.message_hub.get_scalar('train/loss').data[0]

        expected = run('plain', 'OptimWrapper')
        first = run('ours', 'InBackwardOptimWrapper', train_cfg=dict(max_epochs=1))
        assert len(losses(first)) == first.iter > 2
        assert losses(first).tolist() == losses(expected)[: first.iter].tolist()
        ours = run('ours', 'InBackwardOptimWrapper', resume=True)
        assert ours.iter == expected.iter == 2 * first.iter
        assert ours.optim_wrapper.get_lr() == expected.optim_wrapper.get_lr()
        state = ours.optim_wrapper.optimizer.state.values()
        assert {int(s['step']) for s in state} == {ours.iter}
