# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Optimizer groups of fine-tuning: layer-wise decay across backbone and neck."""

import copy
import re

import pytest
import torch
from helpers import read_config
from mmengine.optim import build_optim_wrapper
from small_models import ARCH, FINETUNE, build

from s4d_mm.weights.s4d import to_authors

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
VIT_ARCH = dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=64)
VIT = dict(type='mmpretrain.VisionTransformer', arch=VIT_ARCH, img_size=32)
# backbones of two layers, and where their parameters are (of a neck of two more blocks)
BACKBONES = {
    'S4DViT': (
        FINETUNE['backbone'],
        {
            'backbone.patch_embed.proj.weight': 0,
            'backbone.blocks.0.attn.qkv.weight': 1,
            'backbone.blocks.1.mlp.fc1.weight': 2,
        },
    ),
    'mmpretrain': (
        dict(type='FrameWiseBackbone', backbone=VIT),
        {
            'backbone.backbone.patch_embed.projection.weight': 0,
            'backbone.backbone.pos_embed': 0,
            'backbone.backbone.layers.0.ln1.weight': 1,
            'backbone.backbone.layers.1.ffn.layers.1.bias': 2,
            'backbone.backbone.ln1.weight': 5,
        },
    ),
    'mmaction2, without get_layer_depth': (
        dict(
            type='VisionTransformer', img_size=32, embed_dims=32, depth=2, num_heads=4, num_frames=4
        ),
        {
            'backbone.patch_embed.projection.weight': 0,
            'backbone.blocks.0.norm1.weight': 1,
            'backbone.blocks.1.mlp.layers.1.bias': 2,
            'backbone.fc_norm.weight': 5,
        },
    ),
}


def groups(model, cfg=OPTIM):
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg))
    return {g['param_name']: g for g in wrapper.optimizer.param_groups}


@pytest.mark.parametrize('name', BACKBONES)
def test_layer_decay_counts_across_backbone_and_neck(name):
    backbone, expected = BACKBONES[name]
    by_name = groups(build(dict(FINETUNE, backbone=backbone)))
    expected = {  # 2 + 2 blocks: 6 depths
        **expected,
        'neck.blocks.0.moae.fc1_weight': 3,
        'neck.blocks.1.attn.q_bias': 4,
        'cls_head.fc_norm.weight': 5,
        'cls_head.classifiers.video.weight': 5,
    }
    for parameter, depth in expected.items():
        assert by_name[parameter]['lr'] == pytest.approx(0.75 ** (5 - depth)), parameter
    for parameter, group in by_name.items():
        free = 'norm' in parameter or parameter.endswith('bias') or '.ln' in parameter
        assert group['weight_decay'] == (0 if free else 0.05), parameter


def test_layer_decay_needs_layers():
    cfg = dict(
        type='Recognizer3D',
        backbone=dict(type='ResNet3dSlowOnly', depth=50, pretrained=None),
        cls_head=dict(type='I3DHead', num_classes=7, in_channels=2048),
    )
    with pytest.raises(ValueError, match='ResNet3dSlowOnly'):
        groups(build(cfg))


def test_layers_for_mmpretrain_s_own_constructor():
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='S4DViT', arch=ARCH, out_type='avg', out_indices=(-1,)),
        head=dict(type='LinearClsHead', num_classes=7, in_channels=32),
    )
    own = dict(OPTIM, constructor='LearningRateDecayOptimWrapperConstructor')
    by_name = groups(build(cfg, 'mmpretrain'), own)
    found = [by_name[f'backbone.blocks.{i}.mlp.fc2.bias']['lr'] for i in range(4)]
    assert found == pytest.approx([0.75 ** (4 - i) for i in range(4)])
    assert by_name['head.fc.weight']['lr'] == 1


def test_groups_of_the_recipe():
    """Learning rate and weight decay of each weight, under the authors' names."""
    cfg = read_config('s4d_finetune_dfew')
    recipe = dict(cfg.optim_wrapper, type='OptimWrapper')
    for key in ('dtype', 'loss_scale'):
        recipe.pop(key, None)
    model, expected = build(FINETUNE), {}
    for name, weight in to_authors(model.state_dict(), 'finetune')[0].items():
        block = re.match(r'blocks\.(\d)', name)
        above = 4 - int(block[1]) if block else 5 * name.startswith('patch_embed.')
        expected[name, 'lr'] = recipe['optimizer']['lr'] * 0.75**above
        expected[name, 'weight_decay'] = 0.05 if weight.ndim > 1 else 0.0
    ours, found = groups(model, recipe), {}
    for key in ('lr', 'weight_decay'):
        by_name = {n: torch.full_like(g['params'][0], g[key]) for n, g in ours.items()}
        of_authors, unplaced = to_authors(by_name, 'finetune')
        assert not unplaced
        for name, value in of_authors.items():
            assert value.min() == value.max(), name
            found[name, key] = value.max().item()
    assert found == pytest.approx(expected)
