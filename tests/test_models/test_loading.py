# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Checkpoints of a whole encoder in models whose last blocks are in the neck."""

import copy

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import load_state_dict
from small_models import ARCH, FINETUNE, PRETRAIN, build


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


def test_plain_recognizer_says_who_hands_the_blocks_over():
    weights = build(PRETRAIN).state_dict()
    plain = build(dict(FINETUNE, type='Recognizer3D'))
    with pytest.raises(ValueError, match=r'backbone\.blocks\.2 to 3.*DualModalRecognizer'):
        load_state_dict(plain, weights)
    # its own weights, and an encoder of its backbone's depth, are fine
    load_state_dict(plain, plain.state_dict())
    backbone = {
        k: v
        for k, v in weights.items()
        if not k.startswith(('backbone.blocks.2', 'backbone.blocks.3'))
    }
    load_state_dict(plain, backbone)
    assert torch.equal(
        plain.backbone.blocks[1].mlp.fc1.weight, weights['backbone.blocks.1.mlp.fc1.weight']
    )


def test_a_neck_of_another_encoder_is_refused(tmp_path):
    path = str(tmp_path / 'pre.pth')
    torch.save(dict(state_dict=build(PRETRAIN).state_dict()), path)
    neck = dict(
        type='MoAENeck',
        arch=dict(ARCH, num_layers=6),
        num_layers=2,
        init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.'),
    )
    with pytest.raises(ValueError, match=r'blocks \[0, 1, 2, 3\], but this MoAENeck expects .* 6'):
        build(neck)


def test_blocks_of_mmaction2_s_vision_transformer_go_to_the_neck():
    vit = dict(type='VisionTransformer', img_size=32, embed_dims=32, num_heads=4, num_frames=4)
    whole = build(dict(vit, depth=4))
    cfg = dict(FINETUNE, backbone=dict(vit, depth=2), neck=dict(FINETUNE['neck']))
    model = build(cfg)
    load_state_dict(model, {f'backbone.{k}': v for k, v in whole.state_dict().items()})
    for ours, theirs in zip(model.neck.blocks, whole.blocks[2:]):
        assert torch.equal(ours.attn.q_bias, theirs.attn.q_bias)
        assert torch.equal(ours.mlp.fc1.weight, theirs.mlp.layers[0][0].weight)
        assert torch.equal(ours.mlp.fc2.bias, theirs.mlp.layers[1].bias)
    # blocks with LayerScale cannot be computed
    with pytest.raises(ValueError, match=r'LayerScale \(gamma_1\).*vit_to_mm'):
        load_state_dict(model, {'backbone.blocks.3.gamma_1': torch.ones(32)})


def test_image_classifier_hands_the_blocks_over():
    cfg = dict(
        type='MoAEImageClassifier',
        backbone=FINETUNE['backbone'],
        neck=FINETUNE['neck'],
        head=dict(type='LinearClsHead', num_classes=7, in_channels=32),
    )
    model, weights = build(cfg, scope='mmpretrain'), build(PRETRAIN).state_dict()
    load_state_dict(model, dict(weights))
    assert torch.equal(
        model.neck.blocks[1].attn.qkv.weight, weights['backbone.blocks.3.attn.qkv.weight']
    )


def test_nothing_is_registered_in_torch():
    """Modules of other libraries are none of our business."""
    from torch.nn.modules import module

    assert not module._global_module_registration_hooks


@pytest.mark.parametrize(
    'depths, checkpoint, message',
    [
        ((2, 1), PRETRAIN, r'has 4 blocks, but .* 2 \(model.backbone.depth\) \+ 1 .* the last 1'),
        ((1, 2), PRETRAIN, r'has 4 blocks, but .* 1 \(model.backbone.depth\) \+ 2 .* the last 1'),
        ((2, 1), FINETUNE, r'has 2 blocks .* 2 in the neck, .* has 2 and 1.*neck.num_layers=2'),
        ((1, 2), FINETUNE, r'has 2 blocks .* 2 in the neck, .* has 1 and 2.*backbone.depth=2'),
        ((1, 3), FINETUNE, r'has 1 and 3.*backbone.depth=2 and model.neck.num_layers=2'),
    ],
)
def test_blocks_are_not_left_out_without_a_word(depths, checkpoint, message):
    cfg = copy.deepcopy(FINETUNE)
    cfg['backbone']['depth'], cfg['neck']['num_layers'] = depths
    model = build(cfg)
    with pytest.raises(ValueError, match=message):
        load_state_dict(model, build(checkpoint).state_dict())
    load_state_dict(model, model.state_dict())


def test_an_encoder_of_fewer_layers_is_refused():
    cfg = copy.deepcopy(PRETRAIN)
    cfg['backbone']['arch'] = dict(ARCH, num_layers=2)
    with pytest.raises(ValueError, match=r'backbone\.blocks\.2 to 3, but this S4DViT has 2'):
        load_state_dict(build(cfg), build(PRETRAIN).state_dict())
