# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""DualModalDataPreprocessor: the toolbox's numbers, for both modalities."""

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from small_models import pixel_batch

NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
SHAPES = dict(video=(1, 3, 4, 8, 8), image=(1, 3, 8, 8))  # of pixel_batch
BLENDING = dict(
    type='RandomBatchAugment',
    augments=[
        dict(type='MixupBlending', alpha=0.8, num_classes=7),
        dict(type='CutmixBlending', alpha=1.0, num_classes=7),
    ],
)
REVERSED = [
    dict(type='ReversedMixupBlending', alpha=0.8, num_classes=7),
    dict(type='ReversedCutmixBlending', alpha=1.0, num_classes=7),
]
DEVICES = ['cpu'] + ['cuda'] * torch.cuda.is_available()


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmaction')


def build(**kwargs):
    return MODELS.build(dict(type='DualModalDataPreprocessor', **NORM, **kwargs))


@pytest.mark.parametrize('input_type, layout', [('video', 'NCTHW'), ('image', 'NCHW')])
@pytest.mark.parametrize('blending', [None, BLENDING])
def test_same_as_action_data_preprocessor(input_type, layout, blending):
    cfg = dict(type='ActionDataPreprocessor', format_shape=layout, blending=blending, **NORM)
    parts = (build(blending={input_type: blending}), MODELS.build(cfg))
    for seed in range(6):
        out = []
        for part in parts:
            torch.manual_seed(seed)
            np.random.seed(seed)
            out.append(part(pixel_batch(input_type), training=True))
        ours, theirs = out
        assert ours['inputs'].dtype == torch.float32
        assert ours['inputs'].shape == (4, *SHAPES[input_type])
        assert torch.equal(ours['inputs'], theirs['inputs'])
        for a, b in zip(ours['data_samples'], theirs['data_samples']):
            assert torch.equal(a.gt_label, b.gt_label)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('input_type', ['video', 'image'])
@pytest.mark.parametrize('cutmix', [False, True])
def test_partners_are_those_of_the_reversed_batch(device, input_type, cutmix):
    """Sample i takes what is left from sample B - 1 - i, in pixels and in label."""
    part = build(blending={input_type: REVERSED[cutmix]}).to(device)
    before = build().to(device)(pixel_batch(input_type))['inputs']
    shares = []
    for seed in range(20):
        torch.manual_seed(seed)
        out = part(pixel_batch(input_type), training=True)
        own = torch.stack([s.gt_label for s in out['data_samples']]).cpu()
        share = float(own[0, 0])
        wanted = torch.zeros(4, 7)
        wanted[range(4), range(4)] = share
        wanted[range(4), [3, 2, 1, 0]] = 1 - share
        torch.testing.assert_close(own, wanted)
        shares.append(share)
        x = out['inputs']
        if not cutmix:
            wanted = share * before + (1 - share) * before.flip(0)
            torch.testing.assert_close(x, wanted, atol=1e-5, rtol=1e-4)
            continue
        theirs = (x != before).flatten(1, -3).any(1)  # B H W
        rows, columns = theirs[0].any(1), theirs[0].any(0)
        window = rows[:, None] & columns
        shape = (1,) * (x.ndim - 2) + window.shape
        assert torch.equal(x, torch.where(window.view(shape), before.flip(0), before))
        assert float(window.float().mean()) == pytest.approx(1 - share, abs=1e-6)
    assert len(set(shares)) > 5


def test_blending_is_for_its_modality_and_for_training():
    part = build(blending=dict(video=BLENDING))
    for input_type, training in [('video', False), ('image', True)]:
        out = part(pixel_batch(input_type), training=training)
        assert out['data_samples'][0].gt_label.shape == (1,)
        assert torch.equal(out['inputs'], build()(pixel_batch(input_type))['inputs'])
    assert part.state_dict() == {}


@pytest.mark.parametrize('device', DEVICES)
def test_float32_on_the_device(device):
    with torch.autocast(device, torch.bfloat16):
        out = build().to(device)(pixel_batch('video'))
    assert out['inputs'].dtype == torch.float32
    assert out['inputs'].device.type == out['data_samples'][0].gt_label.device.type == device


def test_merged_views_and_images_as_clips_of_equal_frames():
    views = build()(pixel_batch('video', 3, (4, 3, 2, 8, 8)))['inputs']
    merged = build(merge_views=True)(pixel_batch('video', 3, (4, 3, 2, 8, 8)))['inputs']
    assert views.shape == (3, 4, 3, 2, 8, 8) and torch.equal(merged, views.flatten(0, 1))
    part, plain = build(image_frames=3), build()
    out, wanted = (p(pixel_batch('image', shape=(2, 3, 8, 8)))['inputs'] for p in (part, plain))
    assert torch.equal(out, wanted[:, :, :, None].expand(-1, -1, -1, 3, -1, -1))
    # clips stay as they are
    assert torch.equal(*(p(pixel_batch('video'))['inputs'] for p in (part, plain)))


def joined(a, b):
    return {key: a[key] + b[key] for key in a}


def test_packed_views():
    """Clips with one and with two views."""
    one, two = pixel_batch('video', 1), pixel_batch('video', 2, (2, 3, 4, 8, 8), seed=1)
    data = joined(two, one)
    with pytest.raises(ValueError, match="different modalities: 'video0' video, 'image0' image"):
        build()(joined(one, pixel_batch('image', 1)))
    with pytest.raises(ValueError, match='pack_views'):
        build()(data)
    with pytest.raises(ValueError, match='different shapes'):
        build(pack_views=True)(data, training=True)
    out = build(pack_views=True)(data)
    assert out['inputs'].shape == (5, 1, 3, 4, 8, 8)
    assert [s.num_views for s in out['data_samples']] == [2, 2, 1]
    assert torch.equal(out['inputs'][4], build()(one)['inputs'][0])
    assert torch.equal(out['inputs'][:4, 0], build()(two)['inputs'].flatten(0, 1))
