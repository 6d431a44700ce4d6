# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Weights of a whole encoder in models whose last blocks are in the neck, and of the classifier."""

import copy

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import load_state_dict
from small_models import ARCH, FINETUNE, PRETRAIN, build

from s4d_mm.models.state_dict import check_head_weights, classification_head

VIT = dict(type='VisionTransformer', img_size=32, embed_dims=32, num_heads=4, num_frames=4)


def with_init_cfg(path):
    cfg = copy.deepcopy(FINETUNE)
    for part in ('backbone', 'neck'):
        cfg[part]['init_cfg'] = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    return cfg


def test_pretrain_checkpoint_loads_into_finetuning_model(tmp_path, capsys):
    pre = build(PRETRAIN, seed=3)
    path = str(tmp_path / 'pre.pth')
    torch.save(dict(state_dict=pre.state_dict(), meta={}), path)
    # as `load_from` does
    fine = build(FINETUNE, seed=4)
    before = fine.cls_head.classifiers.video.weight.clone()
    load_checkpoint(fine, path, map_location='cpu')
    report = capsys.readouterr()
    theirs, ours = pre.backbone.state_dict(), {**fine.backbone.state_dict()}
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
    model = build(with_init_cfg(path))
    for i in range(4):
        block = model.backbone.blocks[i] if i < 2 else model.neck.blocks[i - 2]
        for name, value in pre.backbone.blocks[i].state_dict().items():
            assert torch.equal(block.state_dict()[name], value)
    # a neck takes its own weights as they are
    again = build(FINETUNE, seed=1).neck
    again.load_state_dict(model.neck.state_dict())
    assert torch.equal(again.blocks[1].mlp.fc1.weight, model.neck.blocks[1].mlp.fc1.weight)


def test_checkpoint_of_another_size_is_refused():
    cfg = copy.deepcopy(FINETUNE)
    for part in ('backbone', 'neck'):
        cfg[part]['arch'] = dict(ARCH, embed_dims=64)
    cfg['cls_head']['in_channels'] = 64
    with pytest.raises(ValueError, match=r'proj\.weight is \(32, 3, 2, 16, 16\) there, but \(64'):
        load_state_dict(build(cfg), build(PRETRAIN).state_dict())


def test_plain_recognizer_says_who_hands_the_blocks_over():
    weights = build(PRETRAIN).state_dict()
    plain = build(dict(FINETUNE, type='Recognizer3D'))
    with pytest.raises(ValueError, match=r'backbone\.blocks\.2 to 3.*DualModalRecognizer'):
        load_state_dict(plain, weights)
    # its own weights, and an encoder of its backbone's depth, are fine
    load_state_dict(plain, plain.state_dict())
    last = ('backbone.blocks.2', 'backbone.blocks.3')
    load_state_dict(plain, {k: v for k, v in weights.items() if not k.startswith(last)})
    name = 'backbone.blocks.1.mlp.fc1.weight'
    assert torch.equal(plain.state_dict()[name], weights[name])


@pytest.mark.parametrize(
    'depths, checkpoint, message',
    [
        ((2, 1), PRETRAIN, r'neck.blocks.1 to 1, but this MoAENeck has 1.*neck.num_layers'),
        ((1, 3), FINETUNE, r'backbone.blocks.1 to 1, but this S4DViT has 1.*backbone.depth'),
    ],
)
def test_blocks_are_not_left_out_without_a_word(depths, checkpoint, message):
    cfg = copy.deepcopy(FINETUNE)
    cfg['backbone']['depth'], cfg['neck']['num_layers'] = depths
    model = build(cfg)
    with pytest.raises(ValueError, match=message):
        load_state_dict(model, build(checkpoint).state_dict())
    load_state_dict(model, model.state_dict())


def test_blocks_of_mmaction2_s_vision_transformer_go_to_the_neck(tmp_path):
    """By the model and by an init_cfg of the neck, which then computes what the blocks did."""
    whole = build(dict(VIT, depth=4, return_feat_map=True)).eval()
    cfg = dict(FINETUNE, backbone=dict(VIT, depth=2, return_feat_map=True))
    model = build(cfg).eval()
    weights = {f'backbone.{k}': v for k, v in whole.state_dict().items()}
    load_state_dict(model, dict(weights))
    path = str(tmp_path / 'vit.pth')
    torch.save(dict(state_dict=weights), path)
    alone = build(with_init_cfg(path)['neck'])
    for name, value in model.neck.state_dict().items():
        if '.moae.' not in name:
            assert torch.equal(alone.state_dict()[name], value), name
    for block in model.neck.blocks:
        torch.nn.init.zeros_(block.moae.fc2_weight)
    x = torch.randn(1, 3, 4, 32, 32)
    ours = model.neck(model.backbone(x))[0]
    torch.testing.assert_close(ours, whole(x), atol=1e-5, rtol=1e-4)
    # blocks with LayerScale cannot be computed, and those of another encoder are not taken
    with pytest.raises(ValueError, match=r'LayerScale \(gamma_1\).*vit_to_mm'):
        load_state_dict(model, {'backbone.blocks.3.gamma_1': torch.ones(32)})
    other = build(dict(type='MoAENeck', arch=dict(ARCH, num_layers=6), num_layers=2))
    with pytest.raises(ValueError, match=r'blocks \[0, 1, 2, 3\], but this MoAENeck expects .* 6'):
        load_checkpoint(other, path, revise_keys=[('^backbone.', '')])


def test_image_classifier_hands_the_blocks_over():
    cfg = dict(
        type='MoAEImageClassifier',
        backbone=FINETUNE['backbone'],
        neck=FINETUNE['neck'],
        head=dict(type='LinearClsHead', num_classes=7, in_channels=32),
    )
    model, weights = build(cfg, scope='mmpretrain'), build(PRETRAIN).state_dict()
    load_state_dict(model, dict(weights))
    theirs = weights['backbone.blocks.3.attn.qkv.weight']
    assert torch.equal(model.neck.blocks[1].attn.qkv.weight, theirs)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_a_checkpoint_must_hold_the_classifier(prefix):
    model, pre = build(FINETUNE), build(PRETRAIN)
    assert classification_head(model) == ('cls_head', model.cls_head)
    assert classification_head(pre) == ('', None)
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    check_head_weights(model, weights)
    check_head_weights(model, dict(state_dict=weights))
    check_head_weights(pre, {})
    name = f'{prefix}cls_head.classifiers.image.weight'
    with pytest.raises(ValueError, match=r'image.weight is \(7, 32\) .* \(8, 32\)'):
        check_head_weights(model, {**weights, name: torch.zeros(7, 32)})
    del weights[name]
    with pytest.raises(ValueError, match=r'has no cls_head\.class.* from pre-training'):
        check_head_weights(model, weights)
