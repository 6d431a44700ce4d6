# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Settings out of range are refused where the part is built, with key and value."""

import copy

import pytest
from mmengine.registry import DATASETS, MODELS, init_default_scope
from small_models import FINETUNE, PRETRAIN, build

from s4d_mm.models.settings import check_pixel_statistics

IMAGENET = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


@pytest.mark.parametrize(
    'base, part, change, message',
    [
        (FINETUNE, 'backbone', dict(drop_path_rate=2), 'drop_path_rate must be .* but is 2'),
        (FINETUNE, 'neck', dict(drop_path_rate=-0.1), 'drop_path_rate must be .* but is -0.1'),
        (FINETUNE, 'neck', dict(drop_path_rate='much'), "drop_path_rate must .* is 'much'"),
        (FINETUNE, 'backbone', dict(tubelet_size=0), 'tubelet_size of S4DViT .* is 0'),
        (FINETUNE, 'backbone', dict(img_size=0), 'img_size of S4DViT .* is 0'),
        (PRETRAIN, 'backbone', dict(patch_size=16.0), 'patch_size of S4DMAEViT .* is 16.0'),
        (PRETRAIN, 'neck', dict(tubelet_size=0), 'tubelet_size of S4DMAEDecoder .* is 0'),
        (PRETRAIN, 'head', dict(tubelet_size=0), 'tubelet_size of S4DMAEHead .* is 0'),
        (PRETRAIN, 'head', IMAGENET, r'S4DMAEHead must .*0..255.* set mean=\[123.675, 116.28'),
    ],
)
def test_model(base, part, change, message):
    cfg = copy.deepcopy(base)
    cfg[part].update(change)
    with pytest.raises(ValueError, match=message):
        build(cfg)


def test_mean_and_deviation():
    check_pixel_statistics('X', [0, 0, 0], [1, 1, 1])
    check_pixel_statistics('X', [0.0], [255.0])
    check_pixel_statistics('X', [127.5], [127.5])
    for mean, std, message in [
        ([0.5], [0.5], 'set mean=.127.5. and std=.127.5'),
        ([0.5], [1.0], 'set mean=.127.5. and std=.255'),
        ([300], [1], 'in 0..255'),
        ([-1], [1], 'in 0..255'),
        ([1, 2], [1], 'one value per channel'),
        (['x'], [1], 'one value per channel'),
    ]:
        with pytest.raises(ValueError, match=f'of X must .*{message}'):
            check_pixel_statistics('X', mean, std)
    init_default_scope('mmaction')
    with pytest.raises(ValueError, match='DataPreprocessor must be those of pixels in 0..2'):
        MODELS.build(dict(type='DualModalDataPreprocessor', **IMAGENET))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(frame_interval=0), 'frame_interval of SampleFrames must be 1 or more, but is 0'),
        (dict(clip_len=0), 'clip_len of SampleFrames must be 1 or more, but is 0'),
        (dict(frame_intervall=2), "SampleFrames has no 'frame_intervall'; it takes clip_len, "),
        (dict(type='Flip', flip_ratio=2), 'flip_ratio of Flip must be from 0 to 1, but is 2'),
        (
            dict(suffix=None),
            "suffix of DFEW must be text such as '.mp4', or '' for none, but is No",
        ),
    ],
)
def test_what_mmaction2_would_take_without_a_word(change, message):
    """One frame over and over, a name that is ignored, every sample mirrored."""
    init_default_scope('mmaction')
    sampling = dict(type='SampleFrames', clip_len=4, frame_interval=1, num_clips=1)
    flip = dict(type='Flip', flip_ratio=0.5)
    dataset = dict(type='DFEW', ann_file='none.csv', lazy_init=True, pipeline=[sampling, flip])
    DATASETS.build(dataset)
    for part in (dataset, flip, sampling):
        if 'suffix' in change or part.get('type') == change.get('type', 'SampleFrames'):
            part.update(change)
            break
    with pytest.raises(ValueError, match=message):
        DATASETS.build(dataset)
