# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Models and test pipelines of configs, on decoded frames."""

import os.path as osp

import numpy as np
import pytest
import torch
from helpers import ROOT, make_frame
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from small_models import CLASSES, PREDICT, PRETRAIN, save_checkpoint

from s4d_mm.apis import TorchScorer, Window
from s4d_mm.apis.pipelines import find_pipelines, read_pipeline
from s4d_mm.media import read_image, write_image


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth')


def clip(count=4, first=0):
    return [make_frame(first + 16 * i) for i in range(count)]


def test_what_a_config_says(checkpoint):
    scorer = TorchScorer(Config(PREDICT), checkpoint, 'cpu')
    assert scorer.window == Window(4, 2)
    assert scorer.classes == {kind: list(names) for kind, names in CLASSES.items()}


def test_features_are_what_the_classifier_sees(checkpoint):
    scorer = TorchScorer(Config(PREDICT), checkpoint, 'cpu')
    samples = [scorer.prepare(clip(first=i), 'video') for i in range(3)]
    scores, features = scorer.score(samples, 'video', features=True)
    classifier = scorer.model.cls_head.classifiers['video']
    logits = classifier(torch.from_numpy(features))
    np.testing.assert_allclose(scores, logits.softmax(1).detach(), atol=1e-6)
    assert scores.shape == (3, 7) and features.shape == (3, 32)
    assert scorer.score(samples[:1], 'video')[1] is None
    assert not classifier._forward_pre_hooks


def test_frames_are_not_changed_and_may_repeat(checkpoint):
    scorer = TorchScorer(Config(PREDICT), checkpoint, 'cpu')
    frame = make_frame(7)
    flip = dict(type='Flip', flip_ratio=1.0)  # works in place
    steps = [*PREDICT['test_pipeline'][:3], flip, *PREDICT['test_pipeline'][4:]]
    pipeline = read_pipeline(scorer.cfg, 'x', steps)
    inputs = pipeline([frame] * 4, 'video')['inputs']
    assert (frame == make_frame(7)).all()
    expected = torch.from_numpy(frame[:, ::-1].copy()).permute(2, 0, 1)
    assert all(expected.equal(inputs[0, :, t]) for t in range(4))


MIXES = dict(  # config -> input types, features
    s4d_vit_timesformer=('s4d-vit_timesformer-head_video', ['video'], 128),
    slowonly=('slowonly_moae_joint', ['image', 'video'], 128),
    resnet=('resnet_moae_linear-head_image', ['image'], 64),
)


@pytest.mark.parametrize('name', MIXES)
def test_the_toolbox_s_models_and_pipelines(name, tmp_path):
    config, kinds, channels = MIXES[name]
    cfg = Config.fromfile(osp.join(ROOT, 'configs', 'mix', f'{config}.py'))
    init_default_scope(cfg.default_scope)
    if cfg.default_scope == 'mmpretrain':
        cfg.model.data_preprocessor = cfg.data_preprocessor
    path = str(tmp_path / 'x.pth')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    if 'image' not in config:
        scorer = TorchScorer(cfg, path, 'cpu')
    else:  # mmpretrain's models may name their weights
        cfg.model.init_cfg = dict(type='Pretrained', checkpoint=path)
        scorer = TorchScorer(cfg, None, 'cpu')
    assert sorted(scorer.classes) == kinds
    for kind in kinds:
        samples = [scorer.prepare(clip(4 if kind == 'video' else 1, i), kind) for i in range(2)]
        scores, features = scorer.score(samples, kind, features=True)
        np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
        assert features.shape == (2, channels) and len(scorer.classes[kind]) == 7


def test_an_image_of_mmpretrain_is_bgr(tmp_path):
    """The pixels are those that LoadImageFromFile gives."""
    cfg = Config.fromfile(osp.join(ROOT, 'configs', 'mix', 'resnet_moae_linear-head_image.py'))
    ((kind, (place, steps)),) = find_pipelines(cfg).items()
    assert (kind, place) == ('image', 'test_pipeline')
    path = str(tmp_path / 'x.png')
    write_image(path, make_frame(9))
    from mmengine.dataset import Compose

    init_default_scope('mmpretrain')
    expected = Compose(steps)(dict(img_path=path))['inputs']
    assert read_pipeline(cfg, place, steps)([read_image(path)], kind)['inputs'].equal(expected)


def sampled(step, **more):
    steps = [dict(type='DecordInit'), step, dict(type='DecordDecode')]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(dataset=dict(pipeline=steps)))))
    ((kind, (place, steps)),) = find_pipelines(cfg).items()
    assert (kind, place) == ('video', 'test_dataloader.dataset.dataset.pipeline')
    pipeline = read_pipeline(cfg, place, steps)
    return pipeline.window, pipeline.clips


def test_samplers_of_mmaction():
    frames = dict(type='mmaction.SampleFrames', test_mode=True)
    assert sampled(dict(frames, clip_len=8, frame_interval=2)) == (Window(8, 2, True), 1)
    options = dict(clip_len=8, num_clips=10, out_of_bound_opt='repeat_last')
    assert sampled(dict(frames, **options)) == (Window(8, 1), 1)
    assert sampled(dict(frames, clip_len=1, num_clips=8)) == (Window(8, 4, True), 8)
    assert sampled(dict(type='UniformSample', clip_len=16)) == (Window(16, 4), 1)
    with pytest.raises(ValueError, match='target_fps=30'):
        sampled(dict(frames, clip_len=8, target_fps=30))


def test_scores_are_probabilities_for_every_average(checkpoint):
    found = []
    for average in ('prob', 'score', None):
        cfg = Config(PREDICT)
        cfg.model.cls_head.average_clips = average
        scorer = TorchScorer(cfg, checkpoint, 'cpu')
        found.append(scorer.score([scorer.prepare(clip(), 'video')], 'video')[0])
    assert np.ptp(found[0]) > 0.01
    for scores in found[1:]:
        np.testing.assert_allclose(scores, found[0], atol=1e-6)


def test_shapes_of_a_batch_may_differ(checkpoint):
    cfg = Config(PREDICT)
    cfg.image_test_pipeline[1] = dict(type='Resize', scale=(-1, 32))  # keeps the ratio
    cfg.model.backbone.img_size = 32
    scorer = TorchScorer(cfg, checkpoint, 'cpu')
    wide = [make_frame(1, 32, width) for width in (32, 64, 32)]
    samples = [scorer.prepare([image], 'image') for image in wide]
    assert len({s['inputs'].shape for s in samples}) == 2
    scores, features = scorer.score(samples, 'image', features=True)
    assert scores.shape == (3, 8) and features.shape == (3, 32)
    alone = scorer.score(samples[1:2], 'image')[0]
    np.testing.assert_allclose(scores[1:2], alone, atol=1e-6)


def test_weights_may_stand_in_the_config(checkpoint):
    scorer = TorchScorer(Config(dict(PREDICT, load_from=checkpoint)), None, 'cpu')
    weights = torch.load(checkpoint)['state_dict']
    assert all(v.equal(weights[k]) for k, v in scorer.model.state_dict().items())


def config_file(tmp_path, **parts):
    path = str(tmp_path / 'face.py')
    Config(parts).dump(path)
    return path


def test_what_cannot_predict_is_refused(checkpoint, tmp_path):
    path = config_file(tmp_path, **PREDICT)
    with pytest.raises(ValueError, match='No weights are given for .*face.py.* set load_from'):
        TorchScorer(path)
    bad = save_checkpoint(tmp_path / 'bad.pth', lambda w: w['cls_head.fc_norm.bias'].fill_(np.inf))
    with pytest.raises(ValueError, match='bad.pth cannot be used with .*face.py. The .*fc_norm.bi'):
        TorchScorer(path, bad, 'cpu')
    path = config_file(tmp_path, model=PRETRAIN)
    with pytest.raises(ValueError, match='face.py has no classifier .*MAE is a model of pre-tr'):
        TorchScorer(path, checkpoint, 'cpu')
    path = config_file(tmp_path, a=1)
    with pytest.raises(ValueError, match='face.py has no `model`'):
        TorchScorer(path, checkpoint, 'cpu')
    path = config_file(tmp_path, model=PREDICT['model'])
    with pytest.raises(ValueError, match='face.py has no test pipeline for images or videos'):
        TorchScorer(path, checkpoint, 'cpu')
    path = config_file(tmp_path, **dict(PREDICT, test_pipeline=[dict(type='SampleFrames')]))
    with pytest.raises(ValueError, match='test_pipeline of .*face.py has no step that loads'):
        TorchScorer(path, checkpoint, 'cpu')
    grey = [dict(type='LoadImageFromFile', color_type='grayscale')]
    path = config_file(tmp_path, **dict(PREDICT, image_test_pipeline=grey))
    with pytest.raises(ValueError, match="color_type='grayscale'"):
        TorchScorer(path, checkpoint, 'cpu')
