# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline steps, one by one and as the whole pipelines of the recipes."""

from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from helpers import (
    frame_number,
    is_red,
    make_frame,
    read_config,
    truncate,
    write_frames,
    write_image,
    write_text,
    write_video,
)
from mmengine.registry import TRANSFORMS, DefaultScope, init_default_scope
from PIL import Image
from torchvision.transforms import functional as TF

from s4d_mm.datasets import ExpressionImageDataset, ExpressionVideoDataset, transforms
from s4d_mm.datasets.joint import seed_generators
from s4d_mm.media import MediaReadError, read_image


@pytest.fixture(autouse=True)
def seeded():
    init_default_scope('mmaction')
    seed_generators(0)


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


def assert_near(found, wanted):
    """Torch rounds differently from Pillow: 2 grey levels at most, of noise, .2 on average."""
    difference = np.abs(np.array(found).astype(int) - np.array(wanted))
    assert difference.max() <= 2 and difference.mean() < 0.2


# --------------------------------------------------------------------- loading
@pytest.mark.parametrize('layout', ['video', 'frames'])
def test_clip_init_and_decode(tmp_path, layout):
    if layout == 'video':
        path = write_video(tmp_path / 'a.mp4', 30)
    else:
        path = write_frames(tmp_path / 'a', 30, pattern='{}.png')
        write_text(tmp_path / 'a' / 'readme.txt', 'no frame')
    results = decode(path, [29, 3, 11, 3, 2])
    imgs = results['imgs']
    assert results['total_frames'] == 30 and results['start_index'] == 0
    assert results.get('avg_fps') == (25 if layout == 'video' else None)
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


def test_image_load(tmp_path):
    path = write_image(tmp_path / 'a.jpg', number=77)
    results = build('ImageLoad')(dict(filename=path))
    (img,) = results['imgs']
    assert img.shape == (48, 64, 3) and img.dtype == np.uint8
    assert frame_number(img) == 77 and is_red(img[:, 40:])
    assert [results[k] for k in ('num_clips', 'clip_len', 'total_frames')] == [1, 1, 1]
    truncate(path, 0.9)
    with pytest.raises(MediaReadError, match=path):
        build('ImageLoad')(dict(filename=path))


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
def test_damaged_images_are_read_or_refused(suffix, tmp_path):
    """Whatever Pillow raises, which is many types: up to 3 bytes changed, maybe the end cut."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, 'a face', 72.0
    path, rng = str(tmp_path / f'a.{suffix}'), np.random.default_rng(0)
    Image.fromarray(make_frame(3, 16, 24)).save(path, exif=exif)
    whole, causes = np.fromfile(path, np.uint8), set()
    for _ in range(400):
        data = whole.copy()
        where = rng.integers(6, rng.choice([100, len(data)]), size=rng.integers(4))
        data[where] = rng.choice([0, 1, 4, 255, rng.integers(256)], len(where))
        data[: len(data) // rng.choice([1, 1, 1, 2])].tofile(path)
        try:
            assert read_image(path).shape[2] == 3
            causes.add('none')
        except MediaReadError as e:
            assert path in str(e)
            causes.add(type(e.__cause__).__name__)
    assert {'none', 'OSError'} < causes


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
        (9, 4, 2, [0, 4] + [8] * 14, [0, 4] + [8] * 14),
        (200, 1, 3, range(16), range(184, 200)),
    ],
)
def test_sample_clip_views(total, interval, views, first, last):
    options = dict(frame_interval=interval, num_views=views)
    results = build('SampleClipViews', **options)(dict(total_frames=total, start_index=0))
    inds = results['frame_inds'].reshape(views, 16)
    assert inds[0].tolist() == list(first) and inds[-1].tolist() == list(last)
    assert views == 2 or inds[1].tolist() == list(range(92, 108))
    assert (results['clip_len'], results['num_clips']) == (16, views)
    # equal views are merged where that is asked for
    merge = build('SampleClipViews', merge_equal=True, **options)
    merged = merge(dict(total_frames=total, start_index=0))
    assert merged['num_clips'] == (1 if list(first) == list(last) else views)
    assert (merged['frame_inds'].reshape(-1, 16) == inds[: merged['num_clips']]).all()


def windows(total, times=1, **kwargs):
    choose = build('SampleClipWindow', **kwargs)
    results = [choose(dict(total_frames=total, start_index=0)) for _ in range(times)]
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
        (4, 4, [0] + [3] * 15),
        (3, 4, [2] * 16),
        (9, 1, [i * 9 // 8 for i in range(8)] + [8] * 8),
    ],
)
def test_a_clip_within_the_window_ends_with_its_last_frame(total, interval, wanted):
    assert windows(total, frame_interval=interval) == [wanted]


# --------------------------------------------------------- resizing and windows
@pytest.mark.parametrize('size', [(50, 70), (20, 30)])
def test_clip_resize_antialiases(size):
    """As torchvision's on Pillow, but for rounding."""
    imgs = noise_clip(2, *size)
    results = build('ClipResize', scale=(48, 40))(dict(imgs=list(imgs)))
    assert results['img_shape'] == (40, 48)
    for img, out in zip(imgs, results['imgs']):
        assert_near(out, TF.resize(Image.fromarray(img), (40, 48)))
        out[:] = 0  # a step may work in place


@pytest.mark.parametrize('frames, size', [(3, 32), (1, 100)])
@pytest.mark.parametrize(
    'interpolation, antialias', [('bilinear', True), ('bicubic', True), ('bilinear', False)]
)
def test_clip_random_resized_crop(interpolation, antialias, frames, size):
    """torchvision's on Pillow where it antialiases, mmaction2's steps where not."""
    imgs = noise_clip(frames)
    options = dict(size=size, times=6, flip_ratio=0.5, interpolation=interpolation)
    crop = build('ClipRandomResizedCrop', antialias=antialias, **options)
    results = crop(dict(imgs=imgs))
    out, boxes = results['imgs'], results['crop_boxes']
    assert out.dtype == np.uint8 and results['img_shape'] == (size, size)
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
    (assert_near if antialias else np.testing.assert_array_equal)(out, np.stack(wanted))
    out[0] = 0  # a step that works in place changes this frame alone
    assert out[1:].any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize('size', [(80, 96), (150, 120)])
def test_a_window_of_resized_frames_is_resized_once(size):
    """The same windows as in two steps; half a grey level away, and the same where it shrinks."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2, 8, 10, 3), np.uint8)  # smooth, as faces are
    imgs = [cv2.resize(img, size[::-1], interpolation=cv2.INTER_CUBIC) for img in coarse]
    options = dict(size=100, times=8, flip_ratio=0.5)
    once = build('ClipRandomResizedCrop', scale=(120, 110), **options)(dict(imgs=imgs))
    seed_generators(0)
    twice = build('ClipResize', scale=(120, 110))(dict(imgs=imgs))
    twice = build('ClipRandomResizedCrop', **options)(twice)
    assert np.array_equal(once['crop_boxes'], twice['crop_boxes'])
    difference = np.abs(once['imgs'].astype(int) - twice['imgs'])
    assert difference.mean() < 1 and difference.any() == (size == (80, 96))


def test_windows_are_those_of_mmaction():
    """With one seed, the same windows in the same order."""
    theirs = build('mmaction.RandomResizedCrop', area_range=(0.2, 1.0))
    drawn = [theirs(dict(imgs=noise_clip(1), img_shape=(50, 70)))['crop_bbox'] for _ in range(20)]
    seed_generators(0)
    ours = build('ClipRandomResizedCrop', size=8, times=20, area_range=(0.2, 1.0))
    boxes = ours(dict(imgs=noise_clip(2)))['crop_boxes']
    assert boxes[:, :4].tolist() == np.array(drawn).tolist() and not boxes[:, 4].any()


def test_fixed_crop():
    (img,) = noise_clip(1, 224, 224)
    crop = build('FixedCrop', rows=(0, 160), columns=(32, 192))
    results = crop(dict(imgs=[img], filename='a'))
    assert results['img_shape'] == (160, 160)
    np.testing.assert_array_equal(results['imgs'][0], img[:160, 32:192])
    with pytest.raises(ValueError, match='a.mp4 has frames of 224 x 100'):
        crop(dict(imgs=[img, img[:, :100]], filename='a.mp4'))


# ------------------------------------------------------------- whole pipelines
def recipe(config):
    return read_config(f's4d_{config}')


@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain'])
@pytest.mark.parametrize(
    'kind, config, stage, shape',
    [
        ('video', 'finetune_dfew', 'train', (1, 3, 16, 160, 160)),
        ('frames', 'finetune_dfew', 'test', (2, 3, 16, 160, 160)),
        ('video', 'pretrain', 'train', (4, 3, 16, 160, 160)),
        ('image', 'finetune_dfew', 'train', (1, 3, 160, 160)),
        ('image', 'finetune_dfew', 'test', (1, 3, 160, 160)),
        ('image', 'pretrain', 'train', (1, 3, 160, 160)),
    ],
)
def test_pipelines_of_the_recipes(kind, config, stage, shape, scope, tmp_path):
    """They give what the model expects, at random and repeatably."""
    cfg, suffix = recipe(config), dict(video='.mp4', frames='', image='.jpg')[kind]
    write = dict(video=write_video, frames=write_frames, image=write_image)[kind]
    write(tmp_path / f'a{suffix}', *([70] if kind != 'image' else []), 224, 224)
    if stage == 'test':
        pipeline = cfg.image_test_pipeline if kind == 'image' else cfg.test_pipeline
    else:
        pipeline = cfg.train_dataloader.dataset['image' if kind == 'image' else 'video'].pipeline
    dataset = (ExpressionImageDataset if kind == 'image' else ExpressionVideoDataset)(
        write_text(tmp_path / 'a.txt', 'a,1'),
        data_root=str(tmp_path),
        suffix=suffix,
        metainfo=dict(classes=('neutral', 'happiness')),
        pipeline=pipeline,
    )
    with DefaultScope.overwrite_default_scope(scope):
        runs = []
        for value in (1, 1, 2):
            seed_generators(value)
            runs.append(dataset[0]['inputs'])
        sample = dataset[0]['data_samples']
    assert runs[0].dtype == torch.uint8 and runs[0].shape == shape and len(runs[0].unique()) > 2
    assert (sample.input_type, sample.sample_id) == (dataset.INPUT_TYPE, 'a')
    assert sample.gt_label.tolist() == [1]
    assert (runs[0] == runs[1]).all() and (runs[0] == runs[2]).all() == (stage == 'test')
    if kind == 'frames':  # 70 frames -> 18 of every 4th; views start at the first and the third
        first, last = runs[0].permute(0, 2, 3, 4, 1).numpy()
        assert numbers(first) == list(range(0, 64, 4)) and numbers(last) == list(range(8, 72, 4))


@pytest.mark.parametrize('config, interval', [('dfew', 4), ('ferv39k', 1), ('mafw', 4)])
def test_frames_and_resizing_of_the_recipes(config, interval):
    cfg = recipe(f'finetune_{config}')
    clips = cfg.train_dataloader.dataset.video.pipeline, cfg.test_pipeline
    for pipeline, choose in zip(clips, ('SampleClipWindow', 'SampleClipViews')):
        assert pipeline[1].type == choose
        assert (pipeline[1].clip_len, pipeline[1].frame_interval) == (16, interval)
    for pipeline in (cfg.test_pipeline, cfg.image_test_pipeline):
        assert [s.scale for s in pipeline if s.type == 'ClipResize'] == [(160, 160)]
