# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Names of the last and the best checkpoint."""

import os.path as osp

import pytest
from helpers import ROOT
from mmengine.config import Config

from s4d_mm.evaluation.selection import kind_of_checkpoint, name_of_best


def config(validation, test):
    """A config with these annotation files, some of them in wrappers."""
    loaders = {
        stage: dict(dataset=dict(datasets=[dict(ann_file=f, data_root='a') for f in files]))
        for stage, files in (('val_dataloader', validation), ('test_dataloader', test))
    }
    return Config(dict(loaders, train_cfg=dict(max_epochs=100)))


@pytest.mark.parametrize(
    'validation, test, split',
    [
        (['v.csv'], ['t.csv'], 'validation'),
        (['t.csv'], ['t.csv'], 'test'),
        (['v.csv', 'images.txt'], ['t.csv', 'images.txt'], 'test'),  # in part is enough
        ([], [], 'test'),
    ],
)
def test_best_is_named_after_the_data_that_chose_it(validation, test, split):
    assert name_of_best(config(validation, test)) == f'best on the {split} split'


@pytest.mark.parametrize('name', ['dfew', 'ferv39k', 'mafw', 'dfew_device-augment'])
def test_recipes_choose_on_the_test_split(name):
    """Every epoch is validated on what is tested, videos and images."""
    cfg = Config.fromfile(osp.join(ROOT, 'configs', f's4d_finetune_{name}.py'))
    assert name_of_best(cfg) == 'best on the test split'
    assert cfg.val_dataloader == cfg.test_dataloader
    video, image, steps = (cfg.val_dataloader.dataset[m] for m in ('video', 'image', 'pipeline'))
    train = cfg.train_dataloader.dataset
    for found, trained in ((video, train.video), (image, train.image)):
        assert (found.type, found.data_root) == (trained.type, trained.data_root)
        assert found.test_mode and found.ann_file == trained.ann_file.replace('train', 'test')
    interval = [s.get('frame_interval') for s in train.video.pipeline if 'frame_interval' in s]
    assert [s.frame_interval for s in steps if 'frame_interval' in s] == interval
    assert (cfg.train_cfg.val_begin, cfg.train_cfg.val_interval) == (1, 1)
    checkpoint = cfg.default_hooks.checkpoint
    assert (checkpoint.save_best, checkpoint.rule) == ('video/WAR', 'greater')


@pytest.mark.parametrize(
    'path, kind',
    [
        ('work/epoch_100.pth', 'last'),
        ('work/epoch_60.pth', None),
        ('work/best_video_WAR_epoch_60.pth', 'best on the test split'),
        ('work/best_video_WAR_epoch_60-0a1b2c3d.pth', 'best on the test split'),
        ('best_work/mine.pth', None),
    ],
)
def test_kind_of_checkpoint(path, kind):
    assert kind_of_checkpoint(path, config(['t.csv'], ['t.csv'])) == kind
    without = Config(dict(train_cfg=None))
    assert kind_of_checkpoint('epoch_100.pth', without) is None
