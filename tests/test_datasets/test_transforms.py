# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline steps, one by one and as the whole pipelines of the recipes."""

import os.path as osp
import random
import re
from collections import Counter
from unittest import mock

import numpy as np
import pytest
import torch
from helpers import (
    ROOT,
    frame_number,
    is_red,
    make_frame,
    truncate,
    write_frames,
    write_image,
    write_text,
    write_video,
)
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import TRANSFORMS, DefaultScope, init_default_scope
from PIL import Image
from torchvision.transforms import functional as TF

from s4d_mm.datasets import ExpressionImageDataset, ExpressionVideoDataset, VoxCeleb2, transforms
from s4d_mm.media import MediaReadError, read_image


@pytest.fixture(autouse=True)
def seeded():
    init_default_scope('mmaction')
    seed(0)


def seed(value):
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def build(name, **kwargs):
    return TRANSFORMS.build(dict(type=name, **kwargs))


def decode(path, inds):
    results = build('ClipInit')(dict(filename=str(path)))
    results['frame_inds'] = np.array(inds)
    return build('ClipDecode')(results)


def numbers(imgs):
    return [frame_number(img) for img in imgs]


def noise_clip(frames=3, height=50, width=70):
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (frames, height, width, 3), np.uint8))


# --------------------------------------------------------------------- loading
@pytest.mark.parametrize('layout', ['video', 'jpg', 'png'])
def test_clip_init_and_decode(tmp_path, layout):
    if layout == 'video':
        path = write_video(tmp_path / 'a.mp4', 30)
    else:
        path = write_frames(tmp_path / 'a', 30, pattern='{}.' + layout)
        write_text(tmp_path / 'a' / 'readme.txt', 'no frame')
    results = build('ClipInit')(dict(filename=path))
    assert results['total_frames'] == 30 and results['start_index'] == 0
    assert results.get('avg_fps') == (25 if layout == 'video' else None)
    results['frame_inds'] = np.array([29, 3, 11, 3, 2])
    results = build('ClipDecode')(results)
    imgs = results['imgs']
    assert numbers(imgs) == [29, 3, 11, 3, 2]
    assert is_red(imgs[0][:, 40:])  # RGB, not BGR
    assert all(i.dtype == np.uint8 and i.shape == (48, 64, 3) for i in imgs)
    assert results['img_shape'] == results['original_shape'] == (48, 64)
    assert 'video_reader' not in results and 'frame_paths' not in results


def test_repeated_frames_are_decoded_once_and_share_no_memory(tmp_path, monkeypatch):
    path = write_frames(tmp_path / 'a', 3)
    read = mock.Mock(side_effect=transforms.read_image)
    monkeypatch.setattr(transforms, 'read_image', read)
    results = decode(path, [0, 1, 2, 2, 2, 0])
    assert read.call_count == 3
    # a step that works in place treats each frame once
    imgs = build('mmaction.Flip', flip_ratio=1.0)(dict(results, modality='RGB'))['imgs']
    assert numbers(imgs) == [-1] * 6


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp'])
def test_image_load(tmp_path, suffix):
    path = write_image(tmp_path / f'a.{suffix}', number=77)
    results = build('ImageLoad')(dict(filename=path))
    (img,) = results['imgs']
    assert img.shape == (48, 64, 3) and img.dtype == np.uint8
    assert frame_number(img) == 77 and is_red(img[:, 40:])
    assert results['img_shape'] == results['original_shape'] == (48, 64)
    assert [results[k] for k in ('num_clips', 'clip_len', 'total_frames')] == [1, 1, 1]
    for keep in (0.0, 0.1, 0.7, 0.9):
        truncate(path, keep)
        with pytest.raises(MediaReadError, match=path):
            build('ImageLoad')(dict(filename=path))


def damaged(data, rng):
    """Up to 3 bytes of a file or of EXIF data changed, maybe its end cut."""
    data = np.frombuffer(data, np.uint8).copy()
    where = rng.integers(6, len(data), size=rng.integers(4))
    data[where] = rng.choice([0, 1, 4, 255, rng.integers(256)], len(where))
    return data[: len(data) // rng.choice([1, 1, 1, 2])].tobytes()


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp', 'webp'])
def test_damaged_images_are_read_or_refused(suffix, tmp_path):
    """Whatever Pillow raises, which is many types."""
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    exif[0x010E], exif[0x011A], exif[0x0102] = 'a face', 72.0, (8, 8, 8)
    path, rng = str(tmp_path / f'a.{suffix}'), np.random.default_rng(0)
    picture = Image.fromarray(make_frame(3, 16, 24))
    causes = Counter()
    for i in range(400):
        # the EXIF data before, or the whole file after it is written
        first = damaged(exif.tobytes(), rng) if i % 2 else exif.tobytes()
        picture.save(path, **({} if suffix == 'bmp' else dict(exif=first)))
        if i % 2 == 0 or suffix == 'bmp':
            with open(path, 'rb') as f:
                data = damaged(f.read(), rng)
            with open(path, 'wb') as f:
                f.write(data)
        try:
            assert read_image(path).shape[2] == 3
            causes['none'] += 1
        except MediaReadError as e:
            assert path in str(e)
            causes[type(e.__cause__).__name__] += 1
    assert causes['none'] > 0 and causes['OSError'] > 0 and len(causes) > 3


def test_frames_of_several_sizes_are_named(tmp_path):
    """The step that stacks them would fail without a name."""
    folder = write_frames(tmp_path / 'clip', 3)
    write_image(tmp_path / 'clip' / '00001.jpg', 48, 80)
    assert len(decode(folder, [0, 2])['imgs']) == 2
    message = r'one size.*00000.jpg has \(48, 64\).*00001.jpg has \(48, 80\)'
    with pytest.raises(MediaReadError, match=message):
        decode(folder, [0, 1, 2])


# -------------------------------------------------------------------- sampling
@pytest.mark.parametrize(
    'total, interval, views, first, last',
    [
        (100, 4, 2, range(0, 64, 4), range(36, 100, 4)),
        (100, 1, 2, range(16), range(84, 100)),
        (64, 4, 2, range(0, 64, 4), range(0, 64, 4)),
        (66, 4, 2, range(0, 64, 4), range(4, 68, 4)),
        (9, 4, 2, [0, 4] + [8] * 14, [0, 4] + [8] * 14),
        (1, 4, 2, [0] * 16, [0] * 16),
        (100, 4, 1, range(0, 64, 4), range(0, 64, 4)),
        (200, 1, 3, range(16), range(184, 200)),
    ],
)
def test_sample_clip_views(total, interval, views, first, last):
    options = dict(frame_interval=interval, num_views=views)
    results = build('SampleClipViews', **options)(dict(total_frames=total, start_index=0))
    inds = results['frame_inds'].reshape(views, 16)
    assert inds[0].tolist() == list(first) and inds[-1].tolist() == list(last)
    if views == 3:
        assert inds[1].tolist() == list(range(92, 108))
    found = results['clip_len'], results['frame_interval'], results['num_clips']
    assert found == (16, interval, views)
    # equal views are merged where that is asked for
    merge = build('SampleClipViews', merge_equal=True, **options)
    merged = merge(dict(total_frames=total, start_index=0))
    assert merged['num_clips'] == (1 if list(first) == list(last) else views)
    assert (merged['frame_inds'].reshape(-1, 16) == inds[: merged['num_clips']]).all()


def windows(total, times=1, start_index=0, **kwargs):
    choose = build('SampleClipWindow', **kwargs)
    results = [choose(dict(total_frames=total, start_index=start_index)) for _ in range(times)]
    assert all(r['num_clips'] == 1 for r in results)
    return [r['frame_inds'].tolist() for r in results]


@pytest.mark.parametrize('interval', [4, 1])
def test_frames_of_a_window(interval):
    """Positions 0, w / 15, ... w, rounded down, the last one inside the window."""
    width = 16 * interval
    wanted = [min(i * width // 15, width - 1) for i in range(16)]
    found = windows(width + 5, 300, frame_interval=interval)
    starts = {first for first, *_ in found}
    assert starts == set(range(5))  # the authors' window never takes the last frame
    assert all(inds == [inds[0] + i for i in wanted] for inds in found)


@pytest.mark.parametrize(
    'total, interval, wanted',
    [
        (64, 4, [i * 64 // 15 for i in range(15)] + [63]),
        (33, 4, [i * 33 // 7 for i in range(7)] + [32] * 9),
        (10, 4, [0] + [9] * 15),
        (4, 4, [0] + [3] * 15),
        (3, 4, [2] * 16),
        (1, 1, [0] * 16),
        (9, 1, [i * 9 // 8 for i in range(8)] + [8] * 8),
    ],
)
def test_a_clip_within_the_window_ends_with_its_last_frame(total, interval, wanted):
    assert windows(total, frame_interval=interval) == [wanted]


def test_frames_count_from_start_index():
    assert windows(4, start_index=1, clip_len=4, frame_interval=1) == [[1, 2, 3, 4]]
    choose = build('SampleClipViews', clip_len=4, frame_interval=2)
    inds = choose(dict(total_frames=10, start_index=1))['frame_inds']
    assert inds.tolist() == [1, 3, 5, 7, 3, 5, 7, 9]


# --------------------------------------------------------- resizing and windows
@pytest.mark.parametrize(
    'name, kwargs, key',
    [
        ('SampleClipViews', dict(num_views=0), 'num_views'),
        ('SampleClipViews', dict(predict_span=17), 'predict_span'),
        ('SampleClipWindow', dict(frame_interval=1.5), 'frame_interval'),
        ('RandomCropBoxes', dict(times=0), 'times'),
        ('ClipRandomResizedCrop', dict(size=0), 'size'),
        ('ClipRandomResizedCrop', dict(size=8, interpolation='area'), 'interpolation'),
    ],
)
def test_wrong_arguments(name, kwargs, key):
    value = re.escape(repr(kwargs[key]))
    with pytest.raises(ValueError, match=f'{key} of {name} must be .*{value}'):
        build(name, **kwargs)


def shrunk(img, height, width):
    """Bilinear with antialiasing, by its definition: triangles as wide as the scale."""

    def weights(before, after):
        scale = before / after
        support = max(scale, 1)
        centers = (np.arange(after) + 0.5) * scale
        distance = np.abs(np.arange(before) + 0.5 - centers[:, None])
        found = np.clip(1 - distance / support, 0, None)
        return found / found.sum(1, keepdims=True)

    rows, columns = weights(img.shape[0], height), weights(img.shape[1], width)
    return np.einsum('ih,jw,hwc->ijc', rows, columns, img.astype(float))


@pytest.mark.parametrize('size', [(50, 70), (224, 224), (20, 30)])
def test_clip_resize_antialiases(size):
    imgs = noise_clip(2, *size)
    results = build('ClipResize', scale=(48, 40))(dict(imgs=list(imgs)))
    assert results['img_shape'] == (40, 48)
    for img, out in zip(imgs, results['imgs']):
        assert out.dtype == np.uint8 and out.shape == (40, 48, 3)
        assert np.abs(out - shrunk(img, 40, 48)).max() <= 1.01
        out[:] = 0  # a step may work in place


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('antialias', [True, False])
@pytest.mark.parametrize('frames, size', [(3, 32), (1, 100)])
def test_clip_random_resized_crop(interpolation, antialias, frames, size):
    """torchvision's on Pillow where it antialiases, mmaction2's steps where not."""
    imgs = noise_clip(frames)
    before = [img.copy() for img in imgs]
    options = dict(size=size, times=6, flip_ratio=0.5, interpolation=interpolation)
    crop = build('ClipRandomResizedCrop', antialias=antialias, **options)
    results = crop(dict(imgs=imgs))
    out, boxes = results['imgs'], results['crop_boxes']
    assert out.shape == (6 * frames, size, size, 3) and out.dtype == np.uint8
    assert results['img_shape'] == (size, size)
    assert len({tuple(b) for b in boxes}) == 6 and set(boxes[:, 4]) == {0, 1}
    wanted, (height, width) = [], (size, size)
    how = TF.InterpolationMode(interpolation)
    theirs = build('mmaction.RandomResizedCrop')
    scale = dict(scale=(size, size), keep_ratio=False, interpolation=interpolation)
    for x1, y1, x2, y2, mirror in boxes.tolist():
        if antialias:
            window = y1, x1, y2 - y1, x2 - x1, [height, width]
            views = [TF.resized_crop(Image.fromarray(img), *window, how) for img in imgs]
        else:
            data = dict(imgs=[i.copy() for i in imgs], img_shape=(50, 70), modality='RGB')
            with mock.patch.object(theirs, 'get_crop_bbox', return_value=(x1, y1, x2, y2)):
                views = build('mmaction.Resize', **scale)(theirs(data))['imgs']
        wanted += [np.array(v)[:, ::-1] if mirror else np.array(v) for v in views]
    np.testing.assert_array_equal(out, np.stack(wanted))
    assert all((a == b).all() for a, b in zip(imgs, before))
    out[0] = 0  # a step that works in place changes this frame alone
    assert (out[1:].reshape(len(out) - 1, -1).max(1) > 0).all()


def test_windows_are_those_of_mmaction():
    """With one seed, the same windows in the same order."""
    theirs = build('mmaction.RandomResizedCrop', area_range=(0.2, 1.0))
    drawn = [theirs(dict(imgs=noise_clip(1), img_shape=(50, 70)))['crop_bbox'] for _ in range(20)]
    seed(0)
    ours = build('RandomCropBoxes', times=20, area_range=(0.2, 1.0))
    boxes = ours(dict(imgs=noise_clip(2)))['crop_boxes']
    assert boxes[:, :4].tolist() == np.array(drawn).tolist() and not boxes[:, 4].any()


def test_fixed_crop():
    img = np.arange(224 * 224 * 3, dtype=np.uint32).reshape(224, 224, 3)
    crop = build('FixedCrop', rows=(0, 160), columns=(32, 192))
    results = crop(dict(imgs=[img, img], filename='a'))
    assert results['img_shape'] == (160, 160)
    for out in results['imgs']:
        np.testing.assert_array_equal(out, img[:160, 32:192])
    for small, size in ((img[:100], '100 x 224'), (img[:, :100], '224 x 100')):
        with pytest.raises(ValueError, match=f'a.mp4 has frames of {size}'):
            crop(dict(imgs=[img, small], filename='a.mp4'))


# ------------------------------------------------------------- whole pipelines
def recipe(config, loader, modality):
    cfg = Config.fromfile(osp.join(ROOT, 'configs', f's4d_{config}.py'))
    if loader == 'test':
        return cfg.test_pipeline if modality == 'video' else cfg.image_test_pipeline
    return cfg.train_dataloader.dataset[modality].pipeline


@pytest.fixture
def datasets(tmp_path):
    write_video(tmp_path / 'v' / 'a.mp4', 80, 224, 224)
    write_video(tmp_path / 'v' / 'b.mp4', 7, 224, 224)
    write_frames(tmp_path / 'f' / 'a', 70, 60, 50)
    write_frames(tmp_path / 'f' / 'b', 1, 60, 50)
    write_image(tmp_path / 'i' / 'a.jpg', 200, 180)
    write_image(tmp_path / 'i' / 'b.jpg', 90, 100)

    def make(kind, pipeline):
        kwargs = dict(data_root=str(tmp_path), pipeline=pipeline)
        if kind == 'unlabelled':
            return VoxCeleb2(write_text(tmp_path / 'u.txt', 'v/a.mp4', 'v/b.mp4'), **kwargs)
        kwargs['metainfo'] = dict(classes=('neutral', 'happiness'))
        kwargs['ann_file'] = write_text(tmp_path / 'a.txt', 'a,0', 'b,1')
        if kind == 'image':
            return ExpressionImageDataset(data_prefix=dict(img='i'), suffix='.jpg', **kwargs)
        return ExpressionVideoDataset(
            data_prefix=dict(video='v' if kind == 'video' else 'f'),
            suffix='.mp4' if kind == 'video' else '',
            **kwargs,
        )

    return make


@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain'])
@pytest.mark.parametrize(
    'kind, source, shape',
    [
        ('video', ('finetune_dfew', 'train', 'video'), (1, 3, 16, 160, 160)),
        ('frames', ('finetune_dfew', 'train', 'video'), (1, 3, 16, 160, 160)),
        ('image', ('finetune_dfew', 'train', 'image'), (1, 3, 160, 160)),
        ('unlabelled', ('pretrain', 'train', 'video'), (4, 3, 16, 160, 160)),
        ('image', ('pretrain', 'train', 'image'), (1, 3, 160, 160)),
        ('frames', ('finetune_dfew', 'test', 'video'), (2, 3, 16, 160, 160)),
        ('image', ('finetune_dfew', 'test', 'image'), (1, 3, 160, 160)),
    ],
)
def test_pipelines_of_the_recipes(datasets, scope, kind, source, shape):
    """They give what the model expects, at random and repeatably."""
    with DefaultScope.overwrite_default_scope('mmaction'):
        dataset = datasets(kind, recipe(*source))
    with DefaultScope.overwrite_default_scope(scope):
        batch = pseudo_collate([dataset[i] for i in range(2)])
        for i, (inputs, sample) in enumerate(zip(batch['inputs'], batch['data_samples'])):
            assert inputs.dtype == torch.uint8 and inputs.shape[-len(shape) + 1 :] == shape[1:]
            assert len(inputs.unique()) > 2
            info = dataset.get_data_info(i)
            assert sample.input_type == info['input_type'] and sample.sample_id == info['sample_id']
            if kind == 'unlabelled':
                assert 'gt_label' not in sample
            else:
                assert sample.gt_label.tolist() == [i]
        runs = []
        for value in (1, 1, 2):
            seed(value)
            runs.append(dataset[0]['inputs'])
    assert runs[0].shape == shape and (runs[0] == runs[1]).all()
    assert (runs[0] == runs[2]).all() == (source[1] == 'test')
    if kind == 'frames' and source[1] == 'test':
        # 70 frames -> 18 of every 4th; views start at the first and the third
        first, last = runs[0].permute(0, 2, 3, 4, 1).numpy()
        assert numbers(first) == list(range(0, 64, 4)) and numbers(last) == list(range(8, 72, 4))


@pytest.mark.parametrize('config, interval', [('dfew', 4), ('ferv39k', 1), ('mafw', 4)])
def test_frames_and_resizing_of_the_recipes(config, interval):
    cfg = Config.fromfile(osp.join(ROOT, 'configs', f's4d_finetune_{config}.py'))
    clips = cfg.train_dataloader.dataset.video.pipeline, cfg.test_pipeline
    for pipeline, choose in zip(clips, ('SampleClipWindow', 'SampleClipViews')):
        assert pipeline[1].type == choose
        assert (pipeline[1].clip_len, pipeline[1].frame_interval) == (16, interval)
    for pipeline in (cfg.test_pipeline, cfg.image_test_pipeline):
        assert [(s.type, s.scale) for s in pipeline if 'Resize' in s.type] == [
            ('ClipResize', (160, 160))
        ]
