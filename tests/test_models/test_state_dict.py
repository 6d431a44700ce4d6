# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Weights of a whole encoder in models whose last blocks are in the neck, and of the classifier."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import load_state_dict
from small_models import FINETUNE, PRETRAIN, build

from s4d_mm.models.state_dict import check_head_weights, classification_head

VIT = dict(type='VisionTransformer', img_size=32, embed_dims=32, num_heads=4, num_frames=4)


WIDE = {'backbone.arch.embed_dims': 64, 'neck.arch.embed_dims': 64, 'cls_head.in_channels': 64}


@pytest.mark.parametrize(
    'change, checkpoint, message',
    [
        ({'neck.num_layers': 1}, PRETRAIN, r'neck.blocks.1 to 1, but this MoAENeck has 1'),
        (
            {'backbone.depth': 1, 'neck.num_layers': 3},
            FINETUNE,
            r'backbone.blocks.1 to 1, but this S4DViT has 1.*backbone.depth',
        ),
        ({'type': 'Recognizer3D'}, PRETRAIN, r'backbone\.blocks\.2 to 3.*DualModalRecognizer'),
        (WIDE, PRETRAIN, r'proj\.weight is \(32, 3, 2, 16, 16\) there, but \(64'),
    ],
)
def test_nothing_is_left_out_without_a_word(change, checkpoint, message):
    cfg = Config(FINETUNE)
    cfg.merge_from_dict(change)
    model = build(cfg)
    with pytest.raises(ValueError, match=message):
        load_state_dict(model, build(checkpoint).state_dict())
    load_state_dict(model, model.state_dict())  # its own are fine


def test_blocks_of_mmaction2_s_vision_transformer_go_to_the_neck(tmp_path):
    """By the model and by an init_cfg of the neck, which then computes what the blocks did."""
    whole = build(dict(VIT, depth=4, return_feat_map=True)).eval()
    cfg = dict(FINETUNE, backbone=dict(VIT, depth=2, return_feat_map=True))
    model = build(cfg).eval()
    weights = {f'backbone.{k}': v for k, v in whole.state_dict().items()}
    load_state_dict(model, dict(weights))
    path = str(tmp_path / 'vit.pth')
    torch.save(dict(state_dict=weights), path)
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    alone = build(dict(FINETUNE['neck'], init_cfg=init_cfg))
    for name, value in model.neck.state_dict().items():
        if '.moae.' not in name:
            assert torch.equal(alone.state_dict()[name], value), name
    for block in model.neck.blocks:
        torch.nn.init.zeros_(block.moae.fc2_weight)
    x = torch.randn(1, 3, 4, 32, 32)
    ours = model.neck(model.backbone(x))[0]
    torch.testing.assert_close(ours, whole(x), atol=1e-5, rtol=1e-4)
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
    theirs = weights['backbone.blocks.3.attn.qkv.weight']
    assert torch.equal(model.neck.blocks[1].attn.qkv.weight, theirs)


def test_a_checkpoint_must_hold_the_classifier():
    model, pre = build(FINETUNE), build(PRETRAIN)
    assert classification_head(model) == ('cls_head', model.cls_head)
    assert classification_head(pre) == ('', None)
    weights = {f'module.{name}': value for name, value in model.state_dict().items()}
    check_head_weights(model, dict(state_dict=weights))
    check_head_weights(pre, {})
    name = 'module.cls_head.classifiers.image.weight'
    with pytest.raises(ValueError, match=r'image.weight is \(7, 32\) .* \(8, 32\)'):
        check_head_weights(model, {**weights, name: torch.zeros(7, 32)})
    del weights[name]
    with pytest.raises(ValueError, match=r'has no cls_head\.class.* from pre-training'):
        check_head_weights(model, weights)
