# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The model index agrees with the configs."""
import os.path as osp

import yaml
from mmengine.config import Config

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))


def load(name):
    with open(osp.join(ROOT, name), encoding='utf-8') as f:
        return yaml.safe_load(f)


def test_models_have_their_configs():
    models, collections = [], set()
    for name in load('model-index.yml')['Import']:
        part = load(name)
        models += part['Models']
        collections |= {c['Name'] for c in part['Collections']}
    assert len(models) == 4
    for model in models:
        assert model['In Collection'] in collections
        cfg = Config.fromfile(osp.join(ROOT, model['Config']))
        video = cfg.train_dataloader.dataset.video.type
        image = cfg.train_dataloader.dataset.image.type
        assert model['Metadata']['Training Data'] == [video, image]
        assert model['Metadata']['Epochs'] == cfg.train_cfg.max_epochs
        for result in model['Results']:  # nothing of ours was measured yet
            assert model['Metadata']['Source of Results'].startswith('paper')
            assert result['Dataset'] == cfg.test_dataloader.dataset.type
