# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Saved predictions, their figures, and which checkpoint they are of."""

import os
import pickle

import pytest
import torch
from helpers import read_config
from mmengine.config import Config

from s4d_mm.evaluation.predictions import (
    PredictionsFile,
    figures_by_modality,
    kind_of_checkpoint,
    name_of_best,
    read_predictions,
)


def sample(label, predicted, **more):
    return dict(gt_label=torch.tensor([label]), pred_score=torch.eye(2)[predicted], **more)


def test_figures():
    samples = [sample(0, 0, input_type='video') for _ in range(4)]
    samples[3]['unreadable'] = True
    found = figures_by_modality(samples, dict(video=('a', 'b'), image=('a', 'b')))
    assert set(found) == {'video'} and found['video']['metrics']['WAR'] == 75
    assert found['video']['matrix'] == [[3, 0], [0, 0]]
    assert found['video']['support'] == [4, 0] and found['video']['samples'] == 4
    samples = [sample(0, 1, input_type='image'), sample(1, 1), sample(0, 0, input_type='image')]
    found = figures_by_modality(samples, dict(video=('a', 'b'), image=('c', 'd')))
    assert {k: f['metrics']['WAR'] for k, f in found.items()} == dict(video=100, image=50)
    assert found['image']['matrix'] == [[1, 1], [0, 0]]  # rows are true classes


def test_file_of_a_run(tmp_path):
    samples = [
        sample(i % 2, 0, sample_id=f'ü{i}', input_type='image', img_shape=(4, 4), **more)
        for i, more in enumerate(({}, dict(unreadable=True), {}))
    ]
    samples[0]['pred_score'] = torch.rand(2)
    metric = PredictionsFile(str(tmp_path / 'sub' / 'x.json'))
    metric.process(None, samples)
    metric.evaluate(3)
    assert os.listdir(tmp_path / 'sub') == ['x.json']
    found = read_predictions(tmp_path / 'sub' / 'x.json')
    for plain, given in zip(found, samples):
        assert torch.equal(torch.tensor(plain['pred_score']), given['pred_score'])
        assert plain['gt_label'] == given['gt_label'].tolist()
        assert plain['sample_id'] == given['sample_id'] and 'img_shape' not in plain
    figures = figures_by_modality(found, dict(image=('a', 'b')))['image']
    assert figures['support'] == [2, 1] and sum(map(sum, figures['matrix'])) == 2


@pytest.mark.parametrize('content', [b'[{"gt_label": [0]', b'[{"gt_label": [0]}]', pickle.dumps(1)])
def test_what_is_no_file_of_predictions(content, tmp_path):
    (tmp_path / 'x.json').write_bytes(content)
    with pytest.raises(ValueError, match='x.json .*the .json file.*gt_label and pred_score'):
        read_predictions(tmp_path / 'x.json')


# ------------------------------------------------------------------ checkpoints
def config(validation, test):
    """A config with these annotation files, in wrappers."""
    loaders = {
        stage: dict(dataset=dict(datasets=[dict(ann_file=f, data_root='a') for f in files]))
        for stage, files in (('val_dataloader', validation), ('test_dataloader', test))
    }
    return Config(dict(loaders, train_cfg=dict(max_epochs=100)))


@pytest.mark.parametrize(
    'path, validation, test, kind',
    [
        ('work/epoch_100.pth', ['t.csv'], ['t.csv'], 'last'),
        ('work/epoch_60.pth', ['t.csv'], ['t.csv'], None),
        ('best_work/mine.pth', ['t.csv'], ['t.csv'], None),
        ('work/best_WAR_epoch_6.pth', ['v.csv'], ['t.csv'], 'best on the validation split'),
        (
            'work/best_WAR_epoch_6.pth',
            ['v.csv', 'i.txt'],
            ['t.csv', 'i.txt'],
            'best on the test split',
        ),
        ('work/best_WAR_epoch_6.pth', [], [], 'best on the test split'),
    ],
)
def test_best_is_named_after_the_data_that_chose_it(path, validation, test, kind):
    assert kind_of_checkpoint(path, config(validation, test)) == kind


@pytest.mark.parametrize('name', ['dfew', 'mafw'])
def test_recipes_choose_on_the_test_split(name):
    """Every epoch is validated on what is tested, videos and images."""
    cfg = read_config(f's4d_finetune_{name}')
    assert name_of_best(cfg) == 'best on the test split'
    assert cfg.val_dataloader == cfg.test_dataloader
    data, train = cfg.val_dataloader.dataset, cfg.train_dataloader.dataset
    for found, trained in ((data.video, train.video), (data.image, train.image)):
        assert (found.type, found.data_root) == (trained.type, trained.data_root)
        assert found.test_mode and found.ann_file == trained.ann_file.replace('train', 'test')
