# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From a file to class probabilities, with a model in a size for tests."""

from types import SimpleNamespace

import pytest
import torch
from authors_files import save_finetuning
from helpers import write_frames, write_image
from mmengine.config import Config
from small_models import FINETUNE, build

from s4d_mm.apis import init_model, predict_expression
from s4d_mm.apis.inference import class_names
from s4d_mm.converters.s4d import to_authors
from s4d_mm.datasets import AffectNet

VIDEO = tuple('abcdefg')
IMAGE = tuple('ABCDEFGH')
PACK = dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id'))
CONFIG = dict(
    default_scope='mmaction',
    model=dict(
        FINETUNE,
        data_preprocessor=dict(type='DualModalDataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3),
    ),
    test_pipeline=[
        dict(type='ClipInit'),
        dict(type='SampleFrames', clip_len=4, frame_interval=1, num_clips=1, test_mode=True),
        dict(type='ClipDecode'),
        dict(type='Resize', scale=(32, 32), keep_ratio=False),
        dict(type='FormatShape', input_format='NCTHW'),
        PACK,
    ],
    image_test_pipeline=[
        dict(type='ImageLoad'),
        dict(type='Resize', scale=(32, 32), keep_ratio=False),
        dict(type='FormatShape', input_format='NCHW'),
        PACK,
    ],
)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth'
    weights = build(FINETUNE, seed=5).state_dict()
    classes = dict(video=VIDEO, image=IMAGE)
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=classes))), path)
    return str(path)


def test_model_has_the_weights_and_the_classes(checkpoint):
    model = init_model(Config(CONFIG), checkpoint, 'cpu')
    assert model.dataset_meta == dict(classes=dict(video=VIDEO, image=IMAGE))
    weights = torch.load(checkpoint)['state_dict']
    assert all(value.equal(weights[name]) for name, value in model.state_dict().items())
    assert not model.training
    # without a checkpoint there are none
    assert init_model(Config(CONFIG), device='cpu').dataset_meta is None


def test_checkpoint_without_the_head_is_refused(checkpoint, tmp_path):
    weights = torch.load(checkpoint)['state_dict']
    path = tmp_path / 'pretrained.pth'
    torch.save({k: v for k, v in weights.items() if 'cls_head' not in k}, path)
    with pytest.raises(ValueError, match='cannot predict'):
        init_model(Config(CONFIG), str(path), 'cpu')


def test_each_modality_has_its_pipeline_and_its_classes(checkpoint, tmp_path):
    model = init_model(Config(CONFIG), checkpoint, 'cpu')
    clip = write_frames(tmp_path / 'clip', 4)
    image = write_image(tmp_path / 'face.JPG')
    for path, classes in ((clip, VIDEO), (image, IMAGE)):
        scores = predict_expression(model, path)
        assert tuple(scores) == classes
        assert sum(scores.values()) == pytest.approx(1)


def test_probabilities_are_in_label_order(tmp_path):
    path = write_image(tmp_path / 'face.png')
    scores = torch.linspace(0, 1, 8)

    def test_step(data):
        return [SimpleNamespace(pred_score=scores, metainfo=data['data_samples'][0].metainfo)]

    model = SimpleNamespace(
        cfg=Config(CONFIG),
        dataset_meta=dict(classes=dict(video=VIDEO, image=IMAGE)),
        test_step=test_step,
    )
    assert predict_expression(model, path) == dict(zip(IMAGE, scores.tolist()))


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
    model = init_model(Config(dict(CONFIG, **DATA)), path, 'cpu')
    assert all(value.equal(weights[name]) for name, value in model.state_dict().items())
    clip, image = write_frames(tmp_path / 'clip', 4), write_image(tmp_path / 'face.jpg')
    assert list(predict_expression(model, clip))[:2] == ['happiness', 'sadness']
    assert list(predict_expression(model, image)) == list(AffectNet.METAINFO['classes'])
    # a config without data sets: numbers
    assert list(predict_expression(init_model(Config(CONFIG), path, 'cpu'), clip))[:2] == ['0', '1']


def test_the_names_of_the_checkpoint_come_first(checkpoint):
    model = init_model(Config(dict(CONFIG, **DATA)), checkpoint, 'cpu')
    assert model.dataset_meta == dict(classes=dict(video=VIDEO, image=IMAGE))


def test_a_checkpoint_that_fills_nothing_is_refused(tmp_path):
    torch.save(dict(state_dict={'stem.weight': torch.ones(1)}), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='none finds a place in DualModalRecognizer'):
        init_model(Config(CONFIG), str(tmp_path / 'x.pth'), 'cpu')


def test_errors_name_the_file(tmp_path):
    model = SimpleNamespace(cfg=Config(dict(test_pipeline=[])))
    with pytest.raises(FileNotFoundError, match='no file or folder nowhere.mp4'):
        predict_expression(model, 'nowhere.mp4')
    path = write_image(tmp_path / 'face.png')
    with pytest.raises(ValueError, match='face.png is of type image.*no `image_test_pipeline`'):
        predict_expression(model, path)
