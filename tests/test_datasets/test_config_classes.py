# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Class names of a config's datasets, without their files."""

import os.path as osp

from helpers import ROOT
from mmengine.config import Config

from s4d_mm.datasets import DFEW, MAFW, AffectNet
from s4d_mm.datasets.config_classes import config_classes

CLIPS = dict(type='DFEW', ann_file='nowhere.csv', pipeline=[dict(type='ClipInit')])
IMAGES = dict(type='AffectNet', ann_file='nowhere.txt', num_classes=8)
EIGHT = AffectNet.METAINFO['classes']


def loaders(**datasets):
    return Config({f'{stage}_dataloader': dict(dataset=d) for stage, d in datasets.items()})


def test_a_recipe_names_both_modalities():
    cfg = Config.fromfile(osp.join(ROOT, 'configs', 's4d_finetune_mafw.py'))
    assert config_classes(cfg) == dict(video=MAFW.METAINFO['classes'], image=EIGHT[:7])


def test_the_tested_set_comes_first():
    other = dict(CLIPS, metainfo=dict(classes=('glad', 'sad')))
    joint = dict(type='DualModalDataset', video=CLIPS, image=IMAGES)
    both = config_classes(loaders(test=other, val=CLIPS, train=joint))
    assert both == dict(video=('glad', 'sad'), image=EIGHT)
    assert config_classes(loaders(train=joint))['video'] == DFEW.METAINFO['classes']


def test_joined_and_foreign_sets():
    joined = dict(type='ConcatDataset', datasets=[CLIPS, IMAGES])
    assert set(config_classes(loaders(val=joined))) == {'video', 'image'}
    foreign = dict(type='VideoDataset', ann_file='nowhere.txt', pipeline=[])
    assert config_classes(loaders(test=foreign)) == {}
    assert config_classes(Config(dict(test_dataloader=None))) == {}
