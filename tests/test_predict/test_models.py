# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Building a model with its weights and the names of its classes; names of the model index."""

import os.path as osp

import pytest
import torch
from authors_files import save_finetuning
from helpers import config_path
from mmengine.config import Config
from small_models import CLASSES, FINETUNE, PREDICT, build, save_checkpoint

from s4d_mm.apis import ExpressionInferencer, init_model
from s4d_mm.datasets import DFEW, AffectNet
from s4d_mm.predict.models import class_names, find_model, list_models
from s4d_mm.weights.s4d import to_authors

VIDEO, IMAGE = CLASSES['video'], CLASSES['image']
DATA = dict(
    test_dataloader=dict(dataset=dict(type='DFEW', ann_file='nowhere.csv')),
    train_dataloader=dict(dataset=dict(type='AffectNet', ann_file='nowhere.txt', num_classes=8)),
)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth')


def test_model_has_the_weights_and_the_classes(checkpoint):
    model = init_model(Config(dict(PREDICT, **DATA)), checkpoint, 'cpu')
    assert model.dataset_meta == dict(classes=dict(video=VIDEO, image=IMAGE))  # not the config's
    weights = torch.load(checkpoint)['state_dict']
    assert all(value.equal(weights[name]) for name, value in model.state_dict().items())
    assert not model.training
    # without a checkpoint there are none
    assert init_model(Config(PREDICT), device='cpu').dataset_meta is None


@pytest.mark.parametrize(
    'part, value, message',
    [
        ('cls_head', None, 'has no cls_head.fc_norm.weight, so it cannot predict'),
        ('backbone.blocks.0', None, 'It lacks backbone.blocks.0.norm1.weight'),
        ('backbone.blocks.0.attn.proj.bias', torch.zeros(48), 'another size: .* .48,. there'),
        ('neck.blocks.1.attn.proj.bias', torch.full((32,), torch.nan), 'proj.bias are NaN'),
    ],
)
def test_weights_that_cannot_predict_are_refused(tmp_path, part, value, message):
    def change(weights):
        for key in [key for key in weights if part in key]:
            weights[key] = value
            if value is None:
                del weights[key]

    path = save_checkpoint(tmp_path / 'x.pth', change)
    with pytest.raises(ValueError, match=f'x.pth cannot be used with the config. .*{message}'):
        init_model(Config(PREDICT), path, 'cpu')


def test_a_file_of_the_authors_has_the_names_of_the_config(tmp_path):
    """It is used as it is; it names no classes itself."""
    weights = build(FINETUNE, seed=5).state_dict()
    path = save_finetuning(to_authors(weights, 'finetune')[0], tmp_path / 'best.pth')
    model = init_model(Config(dict(PREDICT, **DATA)), path, 'cpu')
    assert all(value.equal(weights[name]) for name, value in model.state_dict().items())
    assert class_names(model, 'video')[:2] == ['happiness', 'sadness']
    assert class_names(model, 'image') == list(AffectNet.METAINFO['classes'])


def test_the_model_in_the_package_has_the_classes_of_each_task():
    scorer = ExpressionInferencer(device='cpu').scorer
    sets = dict(video=DFEW.METAINFO['classes'], image=AffectNet.METAINFO['classes'][:7])
    assert scorer.classes == {kind: list(names) for kind, names in sets.items()}
    assert {p.dtype for p in scorer.model.parameters()} == {torch.float32}


def test_names_of_the_index():
    config = find_model('S4D_finetune_DFEW')
    assert osp.samefile(config, config_path('s4d_finetune_dfew'))
    assert all(osp.isfile(model['Config']) for model in list_models())
    with pytest.raises(ValueError, match='No weights are given for .*s4d_finetune_mafw.py'):
        ExpressionInferencer('s4d_finetune_mafw')
    with pytest.raises(ValueError, match='x.onnx holds its weights'):
        ExpressionInferencer('x.onnx', 'x.pth')
