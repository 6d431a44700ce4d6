# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""VideoMAE: pre-training on videos alone, then mmaction2's own model and
config with its weights."""

import os.path as osp

import pytest
import s4d_to_mmaction
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, load_checkpoint

PRETRAIN = osp.join(ROOT, 'configs', 'videomae', 'videomae_pretrain_quickstart.py')
SIZES = dict(img_size=80, num_frames=4, embed_dims=128, depth=4, num_heads=4)
FAST = {
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'train_dataloader.batch_size': 4,
}


@pytest.fixture(scope='module')
def pretrained(quickstart):
    """A finished pre-training."""
    cfg = Config.fromfile(PRETRAIN)
    cfg.merge_from_dict({**FAST, 'train_cfg.max_epochs': 1})
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def converted(pretrained, tmp_path_factory):
    """Its encoder for mmaction2, by the command."""
    path = str(tmp_path_factory.mktemp('converted') / 'mmaction_vit.pth')
    checkpoint = osp.join(pretrained.work_dir, 'epoch_1.pth')
    sizes = ['--img-size', str(SIZES['img_size']), '--num-frames', str(SIZES['num_frames'])]
    assert s4d_to_mmaction.main([checkpoint, path, *sizes]) == 0
    return path


def test_pretraining_is_of_videos_in_tubes(pretrained):
    batch = next(iter(pretrained.train_dataloader))
    assert {s.input_type for s in batch['data_samples']} == {'video'}
    model = pretrained.model
    inputs = model.data_preprocessor(batch)['inputs']
    assert inputs.shape == (8, 3, 4, 80, 80)  # 4 clips, 2 crops of each
    mask = model.backbone(inputs)[1].view(8, 2, 25)
    assert torch.equal(mask[:, 0], mask[:, 1])
    assert mask.sum(2).unique().tolist() == [22]
    losses = pretrained.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) >= 2 and all(0 < x < 5 for x in losses)


def test_encoder_is_that_of_mmaction2(pretrained, converted):
    """The converted file gives mmaction2's ViT the features of ours."""
    init_default_scope('mmaction')
    theirs = MODELS.build(
        dict(
            type='VisionTransformer',
            return_feat_map=True,
            init_cfg=dict(type='Pretrained', checkpoint=converted, prefix='backbone.'),
            **SIZES,
        )
    )
    theirs.init_weights()
    ours = MODELS.build(
        dict(
            type='S4DViT',
            arch=dict(embed_dims=128, num_layers=4, num_heads=4),
            img_size=80,
            num_frames=4,
            out_type='featmap',
        )
    )
    ours.load_state_dict(pretrained.model.backbone.state_dict(), strict=False)
    x = torch.randn(2, 3, 4, 80, 80)
    torch.testing.assert_close(theirs.eval()(x), ours.eval()(x), atol=1e-5, rtol=1e-4)


def test_videomae_config_of_mmaction2_trains_from_it(pretrained, converted, tmp_path, capsys):
    """Its config file, at the size of the quickstart, with ``load_from``."""
    cfg = Config.fromfile(osp.join(ROOT, 'configs', 'mix', 's4d-vit_timesformer-head_video.py'))
    theirs = Config.fromfile(
        osp.join(
            mim_folder(),
            'configs',
            'recognition',
            'videomae',
            'vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400.py',
        )
    )
    cfg.model = theirs.model
    cfg.model.backbone.update(SIZES)
    cfg.model.cls_head.update(num_classes=7, in_channels=128)
    cfg.merge_from_dict({**FAST, 'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 9})
    cfg.work_dir = str(tmp_path)
    cfg.load_from = converted
    runner = Runner.from_cfg(cfg)
    runner.load_or_resume()
    source = pretrained.model.backbone.blocks[3].mlp.fc2.weight
    assert torch.equal(runner.model.backbone.blocks[3].mlp.layers[1].weight, source)
    report = capsys.readouterr()
    missing = {
        line.strip()
        for line in (report.out + report.err)
        .replace('missing keys in source state_dict:', '\n')
        .replace(',', '\n')
        .splitlines()
        if line.strip().startswith(('backbone.', 'cls_head.'))
    }
    # nothing but the new norm and classifier is missing
    assert missing == {
        'backbone.fc_norm.weight',
        'backbone.fc_norm.bias',
        'cls_head.fc_cls.weight',
        'cls_head.fc_cls.bias',
    }
    assert 'unexpected key' not in report.out + report.err
    runner.train()
    assert not torch.equal(runner.model.backbone.blocks[3].mlp.layers[1].weight, source)


def mim_folder():
    import mmaction

    return osp.join(osp.dirname(mmaction.__file__), '.mim')


def test_last_blocks_of_mmaction2s_vit_go_to_the_neck(tmp_path):
    init_default_scope('mmaction')
    whole = MODELS.build(dict(type='VisionTransformer', **SIZES))
    whole.init_weights()
    path = str(tmp_path / 'vit.pth')
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in whole.state_dict().items()}), path)
    model = MODELS.build(
        dict(
            type='DualModalRecognizer',
            backbone=dict(type='VisionTransformer', return_feat_map=True, **dict(SIZES, depth=2)),
            neck=dict(
                type='MoAENeck', arch=dict(embed_dims=128, num_layers=4, num_heads=4), num_layers=2
            ),
            cls_head=dict(type='DualModalHead', in_channels=128, num_classes=dict(video=7)),
        )
    )
    load_checkpoint(model, path)
    # the same by an init_cfg of the neck
    alone = MODELS.build(
        dict(
            type='MoAENeck',
            arch=dict(embed_dims=128, num_layers=4, num_heads=4),
            num_layers=2,
            init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.'),
        )
    )
    alone.init_weights()
    for name, value in model.neck.state_dict().items():
        if '.moae.' not in name:
            assert torch.equal(alone.state_dict()[name], value), name
    assert torch.equal(model.neck.blocks[1].mlp.fc2.weight, whole.blocks[3].mlp.layers[1].weight)
    # without its experts, the neck computes what the blocks did
    for block in model.neck.blocks:
        torch.nn.init.zeros_(block.moae.fc2_weight)
        torch.nn.init.zeros_(block.moae.fc2_bias)
    x = torch.randn(1, 3, 4, 80, 80)
    whole.return_feat_map = True
    torch.testing.assert_close(
        model.neck.eval()(model.backbone.eval()(x))[0], whole.eval()(x), atol=1e-5, rtol=1e-4
    )


def test_a_neck_for_another_encoder_is_refused(tmp_path):
    """Not: the first blocks of the encoder, silently."""
    init_default_scope('mmaction')
    vit = MODELS.build(dict(type='VisionTransformer', **SIZES))
    scaled = MODELS.build(dict(type='VisionTransformer', init_values=0.1, **SIZES))
    for model, layers, match in ((vit, 2, 'expects an encoder of 2'), (scaled, 4, 'LayerScale')):
        path = str(tmp_path / 'vit.pth')
        torch.save(dict(state_dict=model.state_dict()), path)
        neck = MODELS.build(
            dict(
                type='MoAENeck',
                arch=dict(embed_dims=128, num_layers=layers, num_heads=4),
                num_layers=2,
            )
        )
        with pytest.raises(ValueError, match=match):
            load_checkpoint(neck, path)
