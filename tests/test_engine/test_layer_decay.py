# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Optimizer groups of fine-tuning: layer-wise decay across backbone and neck."""

import os.path as osp

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from plain_s4d import PlainS4D, parameter_groups
from small_models import ARCH, FINETUNE, build

from s4d_mm.converters.s4d import to_authors

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


def test_groups_of_the_recipe_are_the_oracle_s():
    """Learning rate and weight decay of each weight, under the authors' names."""
    cfg = Config.fromfile(osp.join(ROOT, 'configs', 's4d_finetune_dfew.py'))
    recipe = dict(cfg.optim_wrapper, type='OptimWrapper')
    for key in ('dtype', 'loss_scale'):
        recipe.pop(key, None)
    lr = recipe['optimizer']['lr']
    model = build(FINETUNE)
    groups = build_optim_wrapper(model, recipe).optimizer.param_groups
    plain = PlainS4D((32, 4, 4), 2, 4, num_classes=dict(video=7, image=8), img_size=32)
    names = {id(p): n for n, p in plain.named_parameters()}
    expected = {
        (names[id(p)], key): group[key]
        for group in parameter_groups(plain, lr, layer_decay=0.75)
        for p in group['params']
        for key in ('lr', 'weight_decay')
    }
    found = {}
    for key in ('lr', 'weight_decay'):
        by_name = {g['param_name']: torch.full_like(g['params'][0], g[key]) for g in groups}
        of_authors, unplaced = to_authors(by_name, 'finetune')
        assert not unplaced
        for name, value in of_authors.items():
            assert value.min() == value.max(), name
            found[name, key] = value.max().item()
    assert found == pytest.approx(expected)
