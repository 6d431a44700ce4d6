# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The model index agrees with the configs."""

import os.path as osp

import yaml
from helpers import ROOT
from mmengine.config import Config


def load(name):
    with open(osp.join(ROOT, name), encoding='utf-8') as f:
        return yaml.safe_load(f)


def training_data(cfg):
    """What a config says that it trains on, or the names of the sets."""
    if 'trained_on' in cfg:
        return [cfg.trained_on]
    dataset = cfg.train_dataloader.dataset
    if dataset.type == 'DualModalDataset':
        parts = dataset.get('modalities', ('video', 'image'))
        return [dataset[part].type for part in parts]
    if dataset.type == 'VideoDataset':  # mmaction2's, of any set
        return [{'kinetics400': 'Kinetics-400'}[dataset.ann_file.split('/')[1]]]
    return [dataset.type]


def test_models_have_their_configs():
    models = [m for name in load('model-index.yml')['Import'] for m in load(name)['Models']]
    assert len(models) == 10
    for model in models:
        cfg = Config.fromfile(osp.join(ROOT, model['Config']))
        assert model['Metadata']['Training Data'] == training_data(cfg)
        assert model['Metadata']['Epochs'] == cfg.train_cfg.max_epochs
        for result in model['Results']:  # nothing of ours was measured yet
            assert model['Metadata']['Source of Results'].startswith(
                ('paper', "the authors' README")
            )
            assert result['Dataset'] == cfg.test_dataloader.dataset.video.type
