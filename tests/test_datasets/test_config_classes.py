# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Class names of a config's datasets, without their files."""

import os.path as osp

import pytest
from helpers import ROOT
from mmengine.config import Config

from s4d_mm.datasets import DFEW, MAFW, AffectNet
from s4d_mm.datasets.config_classes import config_classes, trained_on

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


@pytest.mark.parametrize(
    'config, seen',
    [
        ('s4d_finetune_ferv39k.py', 'FERV39k, AffectNet'),
        ('s2d_finetune_mafw.py', 'MAFW'),
        ('own/own_clips.py', 'data/mine'),
        ('quickstart/s4d_quickstart_finetune.py', 'drawn faces'),
        ('mix/s2d_moae_joint.py', 'drawn faces'),
    ],
)
def test_a_config_says_what_its_model_sees(config, seen):
    assert trained_on(Config.fromfile(osp.join(ROOT, 'configs', config))) == seen


def test_what_a_model_has_seen_is_one_short_line():
    assert trained_on(dict(trained_on='a\x1b[31mb\nc' * 99)) == ('a[31mbc' * 99)[:100]
    for settings in ({}, dict(train_dataloader='x'), dict(train_dataloader=dict(dataset=3))):
        assert trained_on(settings) == ''
