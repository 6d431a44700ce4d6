# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Models and test pipelines of configs, on decoded frames; the steps of exported models."""

import numpy as np
import pytest
import torch
from helpers import make_frame, read_config
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from small_models import CLASSES, PREDICT, save_checkpoint

from s4d_mm.apis import TorchScorer, Window
from s4d_mm.media import read_image, write_image
from s4d_mm.predict.scorers import (
    FramePipeline,
    build_frame_steps,
    find_pipelines,
    run_frame_steps,
)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth')


def clip(count, first):
    return [make_frame(first + 16 * i) for i in range(count)]


def test_features_are_the_input_of_the_classifier(checkpoint):
    cfg = Config(dict(PREDICT, load_from=checkpoint))
    cfg.model.cls_head.average_clips = 'score'  # the scorer makes probabilities of them
    scorer = TorchScorer(cfg, None, 'cpu')
    assert scorer.window == Window(4, 2)
    assert scorer.classes == {kind: list(names) for kind, names in CLASSES.items()}
    samples = [scorer.prepare(clip(4, i), 'video') for i in range(3)]
    scores, features = scorer.score(samples, 'video', features=True)
    classifier = scorer.model.cls_head.classifiers['video']
    logits = classifier(torch.from_numpy(features))
    np.testing.assert_allclose(scores, logits.softmax(1).detach(), atol=1e-6)
    assert scores.shape == (3, 7) and features.shape == (3, 32)
    assert scorer.score(samples[:1], 'video')[1] is None
    assert not classifier._forward_pre_hooks


def test_frames_are_not_changed_and_may_repeat():
    frame = make_frame(7)
    flip = dict(type='Flip', flip_ratio=1.0)  # works in place
    steps = [*PREDICT['test_pipeline'][:3], flip, *PREDICT['test_pipeline'][4:]]
    inputs = FramePipeline(Config(PREDICT), 'x', steps)([frame] * 4, 'video')['inputs']
    assert (frame == make_frame(7)).all()
    expected = torch.from_numpy(frame[:, ::-1].copy()).permute(2, 0, 1)
    assert all(expected.equal(inputs[0, :, t]) for t in range(4))


@pytest.mark.parametrize(
    'config, kinds, channels',
    [
        ('s4d-vit_timesformer-head_video', ['video'], 128),
        ('slowonly_moae_joint', ['image', 'video'], 128),
        ('resnet_moae_linear-head_image', ['image'], 64),
    ],
)
def test_the_toolbox_s_models_and_pipelines(config, kinds, channels, tmp_path):
    cfg = read_config(f'mix/{config}')
    init_default_scope(cfg.default_scope)
    if cfg.default_scope == 'mmpretrain':
        cfg.model.data_preprocessor = cfg.data_preprocessor
    path = str(tmp_path / 'x.pth')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    scorer = TorchScorer(cfg, path, 'cpu')
    assert sorted(scorer.classes) == kinds
    for kind in kinds:
        samples = [scorer.prepare(clip(4 if kind == 'video' else 1, i), kind) for i in range(2)]
        scores, features = scorer.score(samples, kind, features=True)
        np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)
        assert features.shape == (2, channels) and len(scorer.classes[kind]) == 7


def test_an_image_of_mmpretrain_is_bgr(tmp_path):
    """The pixels are those that LoadImageFromFile gives."""
    cfg = read_config('mix/resnet_moae_linear-head_image')
    ((kind, (place, steps)),) = find_pipelines(cfg).items()
    assert (kind, place) == ('image', 'test_pipeline')
    path = str(tmp_path / 'x.png')
    write_image(path, make_frame(9))
    init_default_scope('mmpretrain')
    expected = Compose(steps)(dict(img_path=path))['inputs']
    assert FramePipeline(cfg, place, steps)([read_image(path)], kind)['inputs'].equal(expected)


def sampled(step):
    steps = [dict(type='DecordInit'), step, dict(type='DecordDecode')]
    cfg = Config(dict(test_pipeline=steps))
    ((kind, (place, steps)),) = find_pipelines(cfg).items()
    assert (kind, place) == ('video', 'test_pipeline')
    pipeline = FramePipeline(cfg, place, steps)
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


def test_frame_steps_give_the_pixels_of_the_pipeline():
    init_default_scope('mmaction')
    steps = [
        dict(type='ClipResize', scale=(40, 30)),
        dict(type='FixedCrop', rows=(0, 24), columns=(2, 38)),
        dict(type='Resize', scale=(20, 12), keep_ratio=False, interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=(10, 8)),
    ]
    frames = list(np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8))
    results = dict(imgs=list(frames), img_shape=(48, 64), modality='RGB', filename='x')
    expected = np.stack(Compose(steps)(results)['imgs'])
    as_json = [{k: list(v) if isinstance(v, tuple) else v for k, v in s.items()} for s in steps]
    # mmpretrain has a Resize of its own, which takes one image
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert (run_frame_steps(build_frame_steps(as_json), frames) == expected).all()
    with pytest.raises(ValueError, match=r"\['DecordInit'\] are not among"):
        build_frame_steps([dict(type='DecordInit')])
