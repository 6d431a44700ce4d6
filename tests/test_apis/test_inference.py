# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Building a model with its weights and the names of its classes."""

from types import SimpleNamespace

import pytest
import torch
from authors_files import save_finetuning
from mmengine.config import Config
from small_models import CLASSES, FINETUNE, PREDICT, build, save_checkpoint

from s4d_mm.apis import init_model
from s4d_mm.apis.inference import class_names
from s4d_mm.converters.s4d import to_authors
from s4d_mm.datasets import AffectNet

VIDEO, IMAGE = CLASSES['video'], CLASSES['image']


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth')


def test_model_has_the_weights_and_the_classes(checkpoint):
    model = init_model(Config(PREDICT), checkpoint, 'cpu')
    assert model.dataset_meta == dict(classes=dict(video=VIDEO, image=IMAGE))
    weights = torch.load(checkpoint)['state_dict']
    assert all(value.equal(weights[name]) for name, value in model.state_dict().items())
    assert not model.training
    # without a checkpoint there are none
    assert init_model(Config(PREDICT), device='cpu').dataset_meta is None


def test_model_knows_what_it_has_seen(checkpoint, tmp_path):
    config = Config(dict(PREDICT, trained_on='by the config'))
    assert init_model(config, device='cpu').trained_on == 'unknown data'  # random weights
    content = torch.load(checkpoint)
    for meta, seen in (
        ({}, 'by the config'),
        (dict(cfg="trained_on = 'by the training'"), 'by the training'),
        (dict(cfg="trained_on = 'x'", trained_on='drawn faces'), 'drawn faces'),
    ):
        torch.save(dict(content, meta=meta), tmp_path / 'x.pth')
        assert init_model(config, str(tmp_path / 'x.pth'), 'cpu').trained_on == seen
    config = Config(dict(PREDICT, trained_on=None, train_dataloader=None))
    torch.save(dict(content, meta={}), tmp_path / 'x.pth')
    assert init_model(config, str(tmp_path / 'x.pth'), 'cpu').trained_on == 'unknown data'


def drop(part):
    def change(weights):
        for key in [k for k in weights if part in k]:
            del weights[key]

    return change


def widen(weights):
    weights['backbone.blocks.0.attn.proj.bias'] = torch.zeros(48)


def spoil(weights):
    weights['neck.blocks.1.attn.proj.bias'][3] = float('nan')


@pytest.mark.parametrize(
    'change, message',
    [
        (drop('cls_head'), 'has no cls_head.fc_norm.weight, so it cannot predict'),
        (drop('backbone.blocks.0'), r'has no backbone.blocks.0.norm1.weight \(and lacks \d+ ten'),
        (widen, r'another size: backbone.blocks.0.attn.proj.bias is \(48,\) there, but \(32,\)'),
        (spoil, r'1 of the 32 numbers of neck.blocks.1.attn.proj.bias are NaN'),
        (drop(''), 'no tensors at all'),
    ],
    ids=['head', 'part', 'size', 'nan', 'empty'],
)
def test_weights_that_cannot_predict_are_refused(tmp_path, change, message):
    path = save_checkpoint(tmp_path / 'x.pth', change)
    with pytest.raises(ValueError, match=message):
        init_model(Config(PREDICT), path, 'cpu')


def test_class_names():
    names = ('glad', 'sad')
    for classes in (names, dict(video=names, image=VIDEO)):
        model = SimpleNamespace(dataset_meta=dict(classes=classes))
        assert class_names(model, 'video', 2) == ['glad', 'sad']
    for meta in (None, {}, dict(classes=None)):
        assert class_names(SimpleNamespace(dataset_meta=meta), 'video', 2) == ['0', '1']


def test_more_or_fewer_names_than_classes_are_not_used():
    for classes in (('glad', 'sad'), dict(video=('glad',)), dict(image=VIDEO)):
        model = SimpleNamespace(dataset_meta=dict(classes=classes))
        assert class_names(model, 'video', 3) == ['0', '1', '2']


DATA = dict(
    test_dataloader=dict(dataset=dict(type='DFEW', ann_file='nowhere.csv')),
    train_dataloader=dict(dataset=dict(type='AffectNet', ann_file='nowhere.txt', num_classes=8)),
)


def test_a_file_of_the_authors_has_the_names_of_the_config(tmp_path):
    """It is used as it is; it names no classes itself."""
    weights = build(FINETUNE, seed=5).state_dict()
    path = save_finetuning(to_authors(weights, 'finetune')[0], tmp_path / 'best.pth')
    model = init_model(Config(dict(PREDICT, **DATA)), path, 'cpu')
    assert all(value.equal(weights[name]) for name, value in model.state_dict().items())
    assert class_names(model, 'video', 7)[:2] == ['happiness', 'sadness']
    assert class_names(model, 'image', 8) == list(AffectNet.METAINFO['classes'])
    # a config without data sets: numbers
    assert class_names(init_model(Config(PREDICT), path, 'cpu'), 'video', 7)[:2] == ['0', '1']


def test_the_names_of_the_checkpoint_come_first(checkpoint):
    model = init_model(Config(dict(PREDICT, **DATA)), checkpoint, 'cpu')
    assert model.dataset_meta == dict(classes=dict(video=VIDEO, image=IMAGE))


def test_a_checkpoint_that_fills_nothing_is_refused(tmp_path):
    torch.save(dict(state_dict={'stem.weight': torch.ones(1)}), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='none finds a place in DualModalRecognizer'):
        init_model(Config(PREDICT), str(tmp_path / 'x.pth'), 'cpu')
