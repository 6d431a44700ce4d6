# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The steps of a test pipeline, done to frames that no file holds."""

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope, init_default_scope

from s4d_mm.apis.frame_steps import FrameSteps, frame_steps, sampled_window
from s4d_mm.apis.scorer import Window

RESIZE = dict(type='Resize', scale=(20, 12), keep_ratio=False)
PACK = [dict(type='FormatShape', input_format='NCTHW'), dict(type='PackActionInputs')]
DECODE = [
    dict(type='mmaction.DecordInit'),
    dict(type='SampleFrames', clip_len=8, frame_interval=3, num_clips=2),
    dict(type='mmaction.DecordDecode'),
]


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_steps_between_decoding_and_packing():
    pipeline = [*DECODE, dict(RESIZE, type='mmaction.Resize'), *PACK]
    assert frame_steps(pipeline) == [RESIZE]
    assert frame_steps([dict(type='ImageLoad'), *PACK]) == []


def test_pixels_are_those_of_the_pipeline():
    init_default_scope('mmaction')
    steps = [
        dict(type='ClipResize', scale=(40, 30)),
        dict(type='FixedCrop', rows=(0, 24), columns=(2, 38)),
        dict(RESIZE, interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=(10, 8)),
    ]
    frames = noise(3, 48, 64)
    results = dict(imgs=list(frames), img_shape=(48, 64), modality='RGB', filename='x')
    expected = np.stack(Compose(steps)(results)['imgs'])
    as_json = [{k: list(v) if isinstance(v, tuple) else v for k, v in s.items()} for s in steps]
    assert FrameSteps(as_json)(list(frames)).tolist() == expected.tolist()
    assert expected.shape == (3, 8, 10, 3)


def test_steps_are_mmaction2s_in_any_scope():
    """mmpretrain has a Resize of its own, which takes one image."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert FrameSteps([RESIZE])(list(noise(2, 48, 64))).shape == (2, 12, 20, 3)


def test_size():
    assert FrameSteps([RESIZE]).size() == (12, 20)
    short_side = dict(type='Resize', scale=(-1, 64))
    crop = dict(type='CenterCrop', crop_size=56)
    assert FrameSteps([short_side, crop]).size() == (56, 56)
    with pytest.raises(ValueError, match='takes one size. Resize with keep_ratio=False'):
        FrameSteps([short_side]).size()


def test_window():
    assert sampled_window([*DECODE, *PACK]) == Window(8, 3)
    assert sampled_window([dict(type='SampleClipViews')]) == Window(16, 4)
    with pytest.raises(ValueError, match='samples every n-th frame'):
        sampled_window([dict(type='ImageLoad')])


def test_steps_that_cannot_be_done():
    with pytest.raises(ValueError, match='step ThreeCrop, which cannot'):
        frame_steps([*DECODE, dict(type='ThreeCrop', crop_size=8), *PACK])
    with pytest.raises(ValueError, match=r"no step that decodes.*\['FormatShape'"):
        frame_steps(PACK)
    with pytest.raises(ValueError, match=r"\['DecordInit'\] are not among"):
        FrameSteps([dict(type='DecordInit')])
