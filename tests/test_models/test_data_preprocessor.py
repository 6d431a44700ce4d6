# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""DualModalDataPreprocessor: the toolbox's numbers, for both modalities."""

import os.path as osp
import random

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT, write_video
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, init_default_scope
from small_models import pixel_batch

import s4d_mm  # noqa: F401
from s4d_mm.datasets import ClipRandomResizedCrop, RandomCropBoxes
from s4d_mm.models import DualModalDataPreprocessor

CONFIGS = osp.join(ROOT, 'configs')

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
CV2 = dict(bilinear=cv2.INTER_LINEAR, bicubic=cv2.INTER_CUBIC)
DEVICES = ['cpu'] + ['cuda'] * torch.cuda.is_available()


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmaction')


def build(**kwargs):
    return MODELS.build(dict(type='DualModalDataPreprocessor', **NORM, **kwargs))


@pytest.mark.parametrize('input_type, layout', [('video', 'NCTHW'), ('image', 'NCHW')])
def test_same_as_action_data_preprocessor(input_type, layout):
    theirs = MODELS.build(dict(type='ActionDataPreprocessor', format_shape=layout, **NORM))
    a, b = build()(pixel_batch(input_type)), theirs(pixel_batch(input_type))
    assert a['inputs'].dtype == torch.float32
    assert torch.equal(a['inputs'], b['inputs'])
    assert a['inputs'].shape == (4, *SHAPES[input_type])
    assert [int(s.gt_label) for s in a['data_samples']] == [0, 1, 2, 3]


@pytest.mark.parametrize('input_type, layout', [('video', 'NCTHW'), ('image', 'NCHW')])
def test_same_blending_as_action_data_preprocessor(input_type, layout):
    theirs = MODELS.build(
        dict(type='ActionDataPreprocessor', format_shape=layout, blending=BLENDING, **NORM)
    )
    ours = build(blending={input_type: BLENDING})
    for seed in range(6):
        out = []
        for part in (ours, theirs):
            torch.manual_seed(seed)
            np.random.seed(seed)
            out.append(part(pixel_batch(input_type), training=True))
        assert torch.equal(out[0]['inputs'], out[1]['inputs'])
        for a, b in zip(out[0]['data_samples'], out[1]['data_samples']):
            assert torch.equal(a.gt_label, b.gt_label)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('input_type', ['video', 'image'])
@pytest.mark.parametrize('augment', BLENDING['augments'] + REVERSED)
def test_blending_mixes_pixels_and_labels(device, input_type, augment):
    cfg = dict(BLENDING, augments=[augment])
    part = build(blending=dict(video=cfg, image=cfg)).to(device)
    # sample i has the value i everywhere and the label i
    data = pixel_batch(input_type)
    for i, x in enumerate(data['inputs']):
        x[:] = i
    out = part(data, training=True)
    x = out['inputs']
    assert x.device.type == device
    assert x.shape == (4, *SHAPES[input_type])
    # the mean pixel is the mean of the labels
    channel = x.transpose(0, 2)[0] * NORM['std'][0] + NORM['mean'][0]
    value = channel.transpose(0, 1).flatten(1).mean(1).cpu()
    labels = torch.stack([s.gt_label for s in out['data_samples']]).cpu()
    assert labels.shape == (4, 7)
    torch.testing.assert_close(labels.sum(1), torch.ones(4))
    torch.testing.assert_close(labels @ torch.arange(7.0), value, atol=1e-4, rtol=0)


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


def test_the_recipes_blend_with_the_reversed_batch():
    for name, videos in (('dfew', 7), ('ferv39k', 7), ('mafw', 11)):
        cfg = Config.fromfile(osp.join(CONFIGS, f's4d_finetune_{name}.py'))
        for kind, classes in (('video', videos), ('image', 7)):
            found = cfg.model.data_preprocessor.blending[kind]
            assert found.type == 'RandomBatchAugment' and 'probs' not in found
            assert found.augments == [dict(part, num_classes=classes) for part in REVERSED]


def test_blending_is_for_its_modality_and_for_training():
    part = build(blending=dict(video=BLENDING))
    for input_type, training in [('video', False), ('image', True)]:
        out = part(pixel_batch(input_type), training=training)
        assert out['data_samples'][0].gt_label.shape == (1,)
        assert torch.equal(out['inputs'], build()(pixel_batch(input_type))['inputs'])
    out = part(pixel_batch('video'), training=True)
    assert out['data_samples'][0].gt_label.shape == (7,)


@pytest.mark.parametrize('device', DEVICES)
def test_uint8_until_on_the_device(monkeypatch, device):
    moved = []
    cast = DualModalDataPreprocessor.cast_data

    def spy(self, data):
        if isinstance(data, torch.Tensor):
            moved.append(data.dtype)
        return cast(self, data)

    monkeypatch.setattr(DualModalDataPreprocessor, 'cast_data', spy)
    data = pixel_batch('video')
    before = [x.clone() for x in data['inputs']]
    out = build().to(device)(data)
    assert moved == [torch.uint8] * 4
    assert out['inputs'].device.type == device
    assert out['data_samples'][0].gt_label.device.type == device
    # what came in is as it was
    assert all(torch.equal(a, b) for a, b in zip(before, data['inputs']))


def test_float32_under_autocast():
    with torch.autocast('cpu', torch.bfloat16):
        out = build()(pixel_batch('image'))['inputs']
    assert out.dtype == torch.float32
    assert torch.equal(out, build()(pixel_batch('image'))['inputs'])


def test_float_input_is_not_changed_in_place():
    data = pixel_batch('image')
    data['inputs'] = [x.float() for x in data['inputs']]
    before = data['inputs'][0].clone()
    out = build()(data)['inputs']
    assert torch.equal(before, data['inputs'][0])
    assert torch.equal(out, build()(pixel_batch('image'))['inputs'])


def test_stacked_input():
    data = pixel_batch('image')
    data['inputs'] = torch.stack(data['inputs'])
    assert torch.equal(build()(data)['inputs'], build()(pixel_batch('image'))['inputs'])


@pytest.mark.parametrize('input_type, shape', [('video', (4, 3, 2, 8, 8)), ('image', (2, 3, 8, 8))])
def test_merge_views(input_type, shape):
    views = build()(pixel_batch(input_type, 3, shape))['inputs']
    assert views.shape == (3, *shape)
    merged = build(merge_views=True)(pixel_batch(input_type, 3, shape))['inputs']
    assert merged.shape == (3 * shape[0], *shape[1:])
    assert torch.equal(merged[shape[0] + 1], views[1, 1])


@pytest.mark.parametrize('merge_views', [False, True])
def test_images_as_clips_of_equal_frames(merge_views):
    part = build(image_frames=3, merge_views=merge_views)
    plain = build(merge_views=merge_views)
    image = pixel_batch('image', shape=(2, 3, 8, 8))
    out, wanted = (p(dict(image))['inputs'] for p in (part, plain))
    assert out.shape == (*wanted.shape[:-2], 3, 8, 8)
    assert all(torch.equal(out[..., t, :, :], wanted) for t in range(3))
    # clips stay as they are
    assert torch.equal(part(pixel_batch('video'))['inputs'], plain(pixel_batch('video'))['inputs'])


@pytest.mark.parametrize('input_type', ['video', 'image'])
def test_input_type_is_set(input_type):
    out = build()(pixel_batch(input_type, meta=False))
    assert {s.input_type for s in out['data_samples']} == {input_type}


def test_input_type_is_kept():
    # an image as a clip of one frame
    out = build()(pixel_batch('image', shape=(1, 3, 1, 8, 8)))
    assert out['data_samples'][0].input_type == 'image'
    assert out['inputs'].shape == (4, 1, 3, 1, 8, 8)


def joined(a, b):
    return {key: a[key] + b[key] for key in a}


@pytest.mark.parametrize(
    'data, error',
    [
        (
            lambda: joined(pixel_batch('video', 2), pixel_batch('image', 2)),
            r"different modalities: 'video0' video, 'image0' image.*BatchSampler",
        ),
        (
            lambda: joined(pixel_batch('image', 2), pixel_batch('video', 1, shape=(1, 3, 8, 9))),
            r"different modalities: 'image0' image, 'video0' video",
        ),
        (
            lambda: joined(
                pixel_batch('video', 2), pixel_batch('video', 1, shape=(1, 3, 4, 8, 9), meta=0)
            ),
            r"different shapes: 'video0' \(1, 3, 4, 8, 8\), "
            r"'\(sample 2 of the batch\)' \(1, 3, 4, 8, 9\)",
        ),
        (
            lambda: pixel_batch('image', shape=(3, 8, 8)),
            r"'image0' has the shape \(3, 8, 8\).*FormatShape",
        ),
        (
            lambda: pixel_batch('image', shape=(1, 1, 8, 8)),
            r"'image0' has the shape \(1, 1, 8, 8\), but must be \(views, 3, H",
        ),
        (lambda: pixel_batch('audio', shape=(1, 3, 8, 8)), "'audio0' has the input_type 'audio'"),
    ],
)
def test_wrong_batches(data, error):
    with pytest.raises(ValueError, match=error):
        build()(data())


@pytest.mark.parametrize(
    'kwargs, error',
    [
        (dict(mean=[1, 2, 3], std=[1, 2]), 'one value per channel'),
        (dict(mean=[1, 2, 3], std=[1, 0, 1]), 'must be positive'),
        (dict(blending=BLENDING, **NORM), r"has the keys \('type', 'augments'\)"),
        (
            dict(blending=dict(image=BLENDING), merge_views=True, **NORM),
            'cannot blend with merge_views',
        ),
        (dict(image_frames=0, **NORM), 'image_frames .* 1 or more, or None, but is 0'),
    ],
)
def test_wrong_arguments(kwargs, error):
    with pytest.raises(ValueError, match=error):
        DualModalDataPreprocessor(**kwargs)


def test_nothing_in_the_state_dict():
    assert build(blending=dict(video=BLENDING)).state_dict() == {}


def crop_batch(size=24, frames=3):
    """A batch with the crops of the workers, and one for the device."""
    rng = np.random.default_rng(0)
    clips = rng.integers(0, 256, (2, frames, 40, 50, 3), np.uint8)
    kwargs = dict(times=4, flip_ratio=0.5)
    out = []
    for part in (
        ClipRandomResizedCrop(size, interpolation='bilinear', **kwargs),
        RandomCropBoxes(**kwargs),
    ):
        random.seed(0)
        np.random.seed(0)
        data = pixel_batch('video', 2)
        for i, clip in enumerate(clips):
            results = part(dict(imgs=list(clip)))
            imgs = results['imgs'].reshape(-1, frames, *results['imgs'].shape[1:])
            # V T H W C -> V C T H W
            data['inputs'][i] = torch.from_numpy(imgs.transpose(0, 4, 1, 2, 3))
            if isinstance(part, ClipRandomResizedCrop):
                continue
            data['data_samples'][i].set_metainfo(dict(crop_boxes=results['crop_boxes']))
        out.append(data)
    return out


@pytest.mark.parametrize('device', DEVICES)
def test_crops_of_the_workers_on_the_device(device):
    """With one seed the same, but that the workers round them."""
    made, drawn = crop_batch()
    theirs = build(merge_views=True).to(device)(made)['inputs']
    part = build(merge_views=True, crops=dict(video=dict(size=24))).to(device)
    with torch.autocast(device, torch.bfloat16):
        ours = part(drawn)['inputs']
    assert ours.shape == theirs.shape == (8, 3, 3, 24, 24)
    assert ours.dtype == torch.float32 and ours.is_contiguous()
    assert ours.device.type == device
    levels = (ours - theirs).abs() * torch.tensor(NORM['std'], device=device).view(3, 1, 1, 1)
    assert levels.max() < 1 and levels.mean() < 0.3  # grey levels
    # images have their crops from the workers
    assert torch.equal(
        part(pixel_batch('image'))['inputs'].cpu(),
        build(merge_views=True)(pixel_batch('image'))['inputs'],
    )


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('size', [12, 64])
def test_crops_are_opencv_s_of_float_pixels(device, interpolation, size):
    _, data = crop_batch()
    wanted = []
    for x, sample in zip(data['inputs'], data['data_samples']):
        for left, top, right, bottom, mirror in sample.crop_boxes:
            for frame in x[0].permute(1, 2, 3, 0).float().numpy():  # H W C
                window = frame[top:bottom, left:right]
                window = cv2.resize(window, (size, size), interpolation=CV2[interpolation])
                wanted.append(window[:, ::-1] if mirror else window)
    wanted = torch.from_numpy(np.stack(wanted)).clamp(0, 255)  # B*V*T S S C
    part = DualModalDataPreprocessor(
        mean=[0.0] * 3,
        std=[1.0] * 3,
        crops=dict(video=dict(size=size, interpolation=interpolation)),
    ).to(device)
    ours = part(data)['inputs'].cpu().permute(0, 1, 3, 4, 5, 2)
    assert (ours.reshape(wanted.shape) - wanted).abs().max() < 0.002  # grey levels


def test_crops_of_images_on_the_device():
    data = pixel_batch('image')
    for sample in data['data_samples']:
        sample.set_metainfo(dict(crop_boxes=np.array([[0, 0, 8, 8, 1]])))
    out = build(crops=dict(image=dict(size=8)))(data)['inputs']
    torch.testing.assert_close(out, build()(pixel_batch('image'))['inputs'].flip(-1))


def test_crops_that_do_not_fit():
    made, drawn = crop_batch()
    crops = dict(video=dict(size=24))
    with pytest.raises(ValueError, match="has no 'video'. Add crops="):
        build()(drawn)
    with pytest.raises(ValueError, match='not every sample has crop_boxes'):
        build(crops=crops)(made)
    drawn['inputs'] = [torch.cat([x, x]) for x in drawn['inputs']]
    with pytest.raises(ValueError, match='one view of a sample'):
        build(crops=crops)(drawn)


@pytest.mark.parametrize(
    'crops',
    [
        dict(size=160),
        dict(audio=dict(size=160)),
        dict(video=dict(interpolation='bilinear')),
        dict(video=dict(size=160, interpolation='area')),
    ],
)
def test_wrong_crops(crops):
    with pytest.raises(ValueError, match='must be a dict like'):
        build(crops=crops)


def test_packed_views():
    """Clips with one and with two views."""
    one, two = pixel_batch('video', 1), pixel_batch('video', 2, (2, 3, 4, 8, 8), seed=1)
    data = joined(two, one)
    with pytest.raises(ValueError, match='pack_views'):
        build()(data)
    with pytest.raises(ValueError, match='different shapes'):
        build(pack_views=True)(data, training=True)
    out = build(pack_views=True)(data)
    assert out['inputs'].shape == (5, 1, 3, 4, 8, 8)
    assert [s.num_views for s in out['data_samples']] == [2, 2, 1]
    assert torch.equal(out['inputs'][4], build()(one)['inputs'][0])
    assert torch.equal(out['inputs'][:4, 0], build()(two)['inputs'].flatten(0, 1))
    # where they do not differ, nothing changes
    out = build(pack_views=True)(pixel_batch('video', 2, (2, 3, 4, 8, 8), seed=1))
    assert out['inputs'].shape == (2, 2, 3, 4, 8, 8)
    assert 'num_views' not in out['data_samples'][0]


def test_a_merged_view_predicts_like_two_equal_ones():
    arch = dict(embed_dims=16, num_layers=2, num_heads=2)
    model = MODELS.build(
        dict(
            type='Recognizer3D',
            data_preprocessor=dict(type='DualModalDataPreprocessor', pack_views=True, **NORM),
            backbone=dict(type='S4DViT', arch=arch, depth=1, img_size=32, num_frames=4),
            neck=dict(type='MoAENeck', arch=arch, num_layers=1),
            cls_head=dict(type='DualModalHead', in_channels=16, num_classes=dict(video=7)),
        )
    ).eval()
    torch.nn.init.normal_(model.cls_head.classifiers['video'].weight)
    clips = pixel_batch('video', 2, (2, 3, 4, 32, 32))['inputs']
    clips[1][1] = clips[1][0]
    scores = []
    for inputs in (clips, [clips[0], clips[1][:1]], [clips[1][:1], clips[0]]):
        data = dict(pixel_batch('video', 2), inputs=inputs)
        scores.append(torch.stack([s.pred_score for s in model.test_step(data)]))
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0].flip(0), scores[2])
    assert not torch.allclose(scores[0][0], scores[0][1])


def test_both_pretraining_configs_make_the_same_crops(tmp_path):
    path = write_video(tmp_path / 'a.mp4', 70, 224, 224)
    out = []
    for name in ('s4d_pretrain.py', 's4d_pretrain_device-crops.py'):
        cfg = Config.fromfile(osp.join(CONFIGS, name))
        pipeline = Compose(cfg.train_dataloader.dataset.video.pipeline)
        random.seed(0)
        np.random.seed(0)
        data = pipeline(
            dict(filename=path, sample_id='a', input_type='video', modality='RGB', start_index=0)
        )
        out.append(MODELS.build(cfg.model.data_preprocessor)(pseudo_collate([data])))
    made, cut = (o['inputs'] * 58 for o in out)  # grey levels
    assert made.shape == cut.shape == (4, 3, 16, 160, 160)
    assert (made - cut).abs().max() < 1.1
