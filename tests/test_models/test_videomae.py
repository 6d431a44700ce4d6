# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""VideoMAE: pre-training on videos alone, then mmaction2's own config with its weights."""

import os.path as osp

import mmaction
import pytest
import s4d_to_mmaction
import torch
from helpers import read_config, without_workers
from mmengine.config import Config
from mmengine.runner import Runner

SIZES = dict(img_size=80, num_frames=4, embed_dims=128, depth=4, num_heads=4)
FAST = {'train_dataloader.batch_size': 4, 'train_cfg.max_epochs': 1}


@pytest.fixture(scope='module')
def pretrained(quickstart):
    """A finished pre-training, and its encoder for mmaction2, by the command."""
    cfg = without_workers(read_config('videomae/videomae_pretrain_quickstart'))
    cfg.merge_from_dict(FAST)
    runner = Runner.from_cfg(cfg)
    runner.train()
    path = osp.join(runner.work_dir, 'mmaction_vit.pth')
    sizes = ['--img-size', str(SIZES['img_size']), '--num-frames', str(SIZES['num_frames'])]
    checkpoint = osp.join(runner.work_dir, 'epoch_1.pth')
    assert s4d_to_mmaction.main([checkpoint, path, *sizes]) == 0
    return runner, path


def test_pretraining_is_of_videos_in_tubes(pretrained):
    runner, _ = pretrained
    batch = next(iter(runner.train_dataloader))
    assert {s.input_type for s in batch['data_samples']} == {'video'}
    inputs = runner.model.data_preprocessor(batch)['inputs']
    assert inputs.shape == (8, 3, 4, 80, 80)  # 4 clips, 2 crops of each
    mask = runner.model.backbone(inputs)[1].view(8, 2, 25)
    assert torch.equal(mask[:, 0], mask[:, 1])
    assert mask.sum(2).unique().tolist() == [22]
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) >= 2 and all(0 < x < 5 for x in losses)


def test_videomae_config_of_mmaction2_trains_from_it(pretrained, tmp_path):
    """Its config file, at the size of the quickstart, with ``load_from``."""
    cfg = without_workers(read_config('mix/s4d-vit_timesformer-head_video'))
    folder = osp.join(osp.dirname(mmaction.__file__), '.mim/configs/recognition/videomae')
    name = 'vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400.py'
    cfg.model = Config.fromfile(osp.join(folder, name)).model
    cfg.model.backbone.update(SIZES)
    cfg.model.cls_head.update(num_classes=7, in_channels=128)
    cfg.merge_from_dict({**FAST, 'train_cfg.val_interval': 9})
    cfg.work_dir, cfg.load_from = str(tmp_path), pretrained[1]
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    new = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.load_or_resume()
    loaded = runner.model.state_dict()
    source = pretrained[0].model.backbone.blocks[3].mlp.fc2.weight
    assert torch.equal(loaded['backbone.blocks.3.mlp.layers.1.weight'], source)
    # nothing but the new norm and classifier keeps its initial value
    kept = {k for k, v in new.items() if torch.equal(v, loaded[k])}
    assert {k.split('.')[1] for k in kept if 'pos_embed' not in k} == {'fc_norm', 'fc_cls'}
    runner.train()
    assert not torch.equal(runner.model.backbone.blocks[3].mlp.layers[1].weight, source)
