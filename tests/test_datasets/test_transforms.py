# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline steps, one by one and as the whole pipelines of the recipes."""

import os.path as osp
import random
from collections import Counter
from unittest import mock

import mmcv
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
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from PIL import Image
from torchvision.transforms import functional as TF

import s4d_mm  # noqa: F401
from s4d_mm.datasets import (
    ExpressionImageDataset,
    ExpressionVideoDataset,
    MediaReadError,
    VoxCeleb2,
)
from s4d_mm.media import open_image, read_image

MEAN, STD = [124, 116, 104], [58, 57, 57]  # ImageNet, RGB, 0..255


def rand_augment(num, level):
    return dict(
        type='ClipRandAugment',
        policies='timm_increasing',
        num_policies=num,
        magnitude_level=level,
        magnitude_std=0.5,
    )


def random_erasing(**fill):
    return dict(
        type='RandomErasing',
        _scope_='mmpretrain',
        erase_prob=0.25,
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        **fill,
    )


noise_erasing = random_erasing(mode='rand', fill_color=MEAN, fill_std=STD)
black_erasing = random_erasing(mode='const', fill_color=0)


def every_frame(*transforms):
    """The same augmentation for all frames of a clip."""
    return dict(
        type='TransformBroadcaster',
        mapping=dict(img='imgs'),
        auto_remap=True,
        share_random_params=True,
        transforms=list(transforms),
    )


sample = dict(
    type='mmaction.SampleFrames',
    clip_len=16,
    frame_interval=4,
    num_clips=1,
    out_of_bound_opt='repeat_last',
)
to_160 = dict(type='ClipResize', scale=(160, 160))
pack = dict(
    type='mmaction.PackActionInputs', meta_keys=('input_type', 'sample_id', 'filename', 'img_shape')
)

VIDEO_TRAIN = [
    dict(type='ClipInit'),
    dict(type='SampleClipWindow'),
    dict(type='ClipDecode'),
    to_160,
    rand_augment(4, 7),
    dict(type='mmaction.RandomResizedCrop', area_range=(0.08, 1.0)),
    dict(type='mmaction.Resize', scale=(160, 160), keep_ratio=False),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    every_frame(noise_erasing),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    pack,
]
IMAGE_TRAIN = [
    dict(type='ImageLoad'),
    dict(type='ClipResize', scale=(192, 192)),
    dict(type='mmaction.RandomCrop', size=160),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    rand_augment(2, 9),
    every_frame(black_erasing),
    dict(type='mmaction.FormatShape', input_format='NCHW'),
    pack,
]
VIDEO_PRETRAIN = [
    dict(type='ClipInit'),
    sample,
    dict(type='ClipDecode'),
    dict(type='FixedCrop', rows=(0, 160), columns=(32, 192)),
    dict(type='ClipResize', scale=(192, 192)),
    dict(type='ClipRandomResizedCrop', size=160, times=4),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    pack,
]
IMAGE_PRETRAIN = [
    dict(type='ImageLoad'),
    dict(
        type='ClipRandomResizedCrop',
        size=160,
        area_range=(0.2, 1.0),
        flip_ratio=0.5,
        interpolation='bicubic',
        antialias=True,
    ),
    dict(type='mmaction.FormatShape', input_format='NCHW'),
    pack,
]
VIDEO_TEST = [
    dict(type='ClipInit'),
    dict(type='SampleClipViews', frame_interval=4),
    dict(type='ClipDecode'),
    to_160,
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    pack,
]
IMAGE_TEST = [
    dict(type='ImageLoad'),
    to_160,
    dict(type='mmaction.FormatShape', input_format='NCHW'),
    pack,
]


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def build(cfg):
    return TRANSFORMS.build(cfg)


def decode(path, inds):
    results = build(dict(type='ClipInit'))(dict(filename=str(path)))
    results['frame_inds'] = np.array(inds)
    return build(dict(type='ClipDecode'))(results)


def numbers(imgs):
    return [frame_number(img) for img in imgs]


# -- loading


@pytest.mark.parametrize('layout', ['video', 'jpg', 'png'])
def test_clip_init_and_decode(tmp_path, layout):
    if layout == 'video':
        path = write_video(tmp_path / 'a.mp4', 30)
    else:
        path = write_frames(tmp_path / 'a', 30, pattern='{}.' + layout)
        write_text(tmp_path / 'a' / 'readme.txt', 'no frame')
    results = build(dict(type='ClipInit'))(dict(filename=path))
    assert results['total_frames'] == 30 and results['start_index'] == 0
    assert results.get('avg_fps') == (25 if layout == 'video' else None)
    results['frame_inds'] = np.array([29, 3, 11, 3, 2])
    results = build(dict(type='ClipDecode'))(results)
    imgs = results['imgs']
    assert numbers(imgs) == [29, 3, 11, 3, 2]
    assert is_red(imgs[0][:, 40:])  # RGB, not BGR
    assert all(i.dtype == np.uint8 and i.shape == (48, 64, 3) for i in imgs)
    assert results['img_shape'] == results['original_shape'] == (48, 64)
    assert 'video_reader' not in results and 'frame_paths' not in results


def test_repeated_frames_are_decoded_once_and_share_no_memory(tmp_path, monkeypatch):
    from s4d_mm.datasets.transforms import loading

    path = write_frames(tmp_path / 'a', 3)
    read_image = mock.Mock(side_effect=loading.read_image)
    monkeypatch.setattr(loading, 'read_image', read_image)
    results = decode(path, [0, 1, 2, 2, 2, 0])
    assert read_image.call_count == 3
    # a step that works in place treats each frame once
    flip = build(dict(type='mmaction.Flip', flip_ratio=1.0))
    imgs = flip(dict(results, modality='RGB'))['imgs']
    assert numbers(imgs) == [-1] * 6


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp'])
def test_image_load(tmp_path, suffix):
    path = write_image(tmp_path / f'a.{suffix}', number=77)
    results = build(dict(type='ImageLoad'))(dict(filename=path))
    (img,) = results['imgs']
    assert img.shape == (48, 64, 3) and img.dtype == np.uint8
    assert frame_number(img) == 77 and is_red(img[:, 40:])
    assert results['img_shape'] == results['original_shape'] == (48, 64)
    assert [results[k] for k in ('num_clips', 'clip_len', 'total_frames')] == [1, 1, 1]


@pytest.mark.parametrize('kind', ['ClipInit', 'ImageLoad'])
def test_missing_file(tmp_path, kind):
    path = str(tmp_path / 'no.file')
    with pytest.raises(FileNotFoundError) as error:
        build(dict(type=kind))(dict(filename=path, sample_id='no'))
    assert path in str(error.value) and "'no'" in str(error.value)
    assert 'data_prefix' in str(error.value)


@pytest.mark.parametrize(
    'broken', ['text', 'empty', 'index lost', 'frames lost', 'empty folder', 'truncated frame']
)
def test_unreadable_clip(tmp_path, broken):
    clip = path = tmp_path / 'a.mp4'
    if broken == 'text':
        write_text(path, 'no video')
    elif broken == 'empty':
        path.touch()
    elif broken == 'index lost':
        truncate(write_video(path, 30))
    elif broken == 'frames lost':
        truncate(write_video(path, 100, faststart=True), 0.6)
    elif broken == 'empty folder':
        write_text(path / 'readme.txt', 'no frames')
    else:
        write_frames(clip, 9)
        path = truncate(clip / '00007.jpg')
    with pytest.raises(MediaReadError) as error:
        decode(clip, [0, 7])
    assert str(path) in str(error.value)


@pytest.mark.parametrize('keep', [0.0, 0.1, 0.7, 0.9])
@pytest.mark.parametrize('suffix', ['jpg', 'png', 'bmp'])
def test_unreadable_image(tmp_path, keep, suffix):
    path = truncate(write_image(tmp_path / f'a.{suffix}', 96, 96), keep)
    with pytest.raises(MediaReadError) as error:
        build(dict(type='ImageLoad'))(dict(filename=path))
    assert path in str(error.value)


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


@pytest.mark.parametrize(
    'error',
    [TypeError, AttributeError, KeyError, IndexError, AssertionError, ValueError, RuntimeError],
)
def test_errors_of_the_program_are_no_media_errors(error, tmp_path):
    path = write_image(tmp_path / 'a.jpg')

    def bug(*args, **kwargs):
        raise error('a bug')

    with pytest.raises(error, match='a bug'), open_image(path) as image:
        image.load()
        bug()
    with mock.patch('s4d_mm.media.is_turned', bug), pytest.raises(error, match='a bug'):
        build(dict(type='ImageLoad'))(dict(filename=path))


def test_errors_name_the_path_through_a_data_loader(tmp_path):
    path = truncate(write_video(tmp_path / 'a.mp4', 30))
    dataset = ExpressionVideoDataset(
        write_text(tmp_path / 'a.csv', 'a,0'),
        data_root=str(tmp_path),
        suffix='.mp4',
        metainfo=dict(classes=('neutral',)),
        pipeline=VIDEO_TEST,
    )
    loader = torch.utils.data.DataLoader(dataset, num_workers=1)
    with pytest.raises(MediaReadError) as error:
        next(iter(loader))
    assert path in str(error.value)


# -- sampling


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
    choose = build(dict(type='SampleClipViews', frame_interval=interval, num_views=views))
    results = choose(dict(total_frames=total, start_index=0))
    inds = results['frame_inds'].reshape(views, 16)
    assert inds[0].tolist() == list(first)
    assert inds[-1].tolist() == list(last)
    assert inds.max() < total
    if views == 3:
        assert inds[1].tolist() == list(range(92, 108))
    assert (results['clip_len'], results['frame_interval'], results['num_clips']) == (
        16,
        interval,
        views,
    )


def test_sample_clip_views_count_from_start_index():
    choose = build(dict(type='SampleClipViews', clip_len=4, frame_interval=2))
    inds = choose(dict(total_frames=10, start_index=1))['frame_inds']
    assert inds.tolist() == [1, 3, 5, 7, 3, 5, 7, 9]


@pytest.mark.parametrize('name', ['clip_len', 'frame_interval', 'num_views'])
def test_sample_clip_views_wrong_argument(name):
    with pytest.raises(ValueError, match=name):
        build({'type': 'SampleClipViews', name: 0})


def windows(total, times=1, start_index=0, **kwargs):
    choose = build(dict(type='SampleClipWindow', **kwargs))
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


def test_windows_count_from_start_index():
    assert windows(4, start_index=1, clip_len=4, frame_interval=1) == [[1, 2, 3, 4]]


@pytest.mark.parametrize('name', ['clip_len', 'frame_interval'])
@pytest.mark.parametrize('value', [0, -1, 1.5])
def test_sample_clip_window_wrong_argument(name, value):
    with pytest.raises(ValueError, match=f'{name} of SampleClipWindow must be .* got {value}'):
        build({'type': 'SampleClipWindow', name: value})


def test_short_clip_in_training(tmp_path):
    path = write_frames(tmp_path / 'a', 10)
    choose = dict(type='SampleClipWindow')
    load = Compose([dict(type='ClipInit'), choose, dict(type='ClipDecode')])
    assert numbers(load(dict(filename=path))['imgs']) == [0] + [9] * 15


# -- resizing


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
    results = build(dict(type='ClipResize', scale=(48, 40)))(dict(imgs=list(imgs)))
    assert results['img_shape'] == (40, 48)
    for img, out in zip(imgs, results['imgs']):
        assert out.dtype == np.uint8 and out.shape == (40, 48, 3)
        assert np.abs(out - shrunk(img, 40, 48)).max() <= 1.01
        out[:] = 0  # a step may work in place


@pytest.mark.parametrize('scale', [(160,), (0, 160), (-1, 160), (160.0, 160)])
def test_clip_resize_wrong_argument(scale):
    with pytest.raises(ValueError, match='scale of ClipResize must be .* two positive ints'):
        build(dict(type='ClipResize', scale=scale))


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_antialiased_crops_are_those_of_torchvision_on_pillow(interpolation):
    imgs = noise_clip(2, 90, 80)
    crop = dict(type='ClipRandomResizedCrop', size=24, times=3, flip_ratio=0.5, antialias=True)
    results = build(dict(crop, interpolation=interpolation))(dict(imgs=imgs))
    wanted = []
    for x1, y1, x2, y2, mirror in results['crop_boxes'].tolist():
        for img in imgs:
            how = TF.InterpolationMode(interpolation)
            out = TF.resized_crop(
                Image.fromarray(img), y1, x1, y2 - y1, x2 - x1, [24, 24], interpolation=how
            )
            wanted.append(np.array(TF.hflip(out) if mirror else out))
    np.testing.assert_array_equal(results['imgs'], np.stack(wanted))


# -- fixed crop


def test_fixed_crop():
    img = np.arange(224 * 224 * 3, dtype=np.uint32).reshape(224, 224, 3)
    crop = build(dict(type='FixedCrop', rows=(0, 160), columns=(32, 192)))
    results = crop(dict(imgs=[img, img], filename='a'))
    assert results['img_shape'] == (160, 160)
    for out in results['imgs']:
        np.testing.assert_array_equal(out, img[:160, 32:192])
    for small, size in ((img[:100], '100 x 224'), (img[:, :100], '224 x 100')):
        with pytest.raises(ValueError, match=f'a.mp4 has frames of {size}'):
            crop(dict(imgs=[img, small], filename='a.mp4'))
    for span in ((5, 5), (-1, 3), (1, 2, 3)):
        with pytest.raises(ValueError, match='rows'):
            build(dict(type='FixedCrop', rows=span, columns=(0, 1)))


# -- augmentation shared by frames


def augmented(transform, frame, times):
    """Augment ``times`` clips of 4 equal frames."""
    transform = build(transform)
    return [transform(dict(imgs=[frame.copy() for _ in range(4)]))['imgs'] for _ in range(times)]


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8)


def test_rand_augment_treats_all_frames_of_a_clip_alike(noise):
    clips = augmented(rand_augment(4, 7), noise, 40)
    for first, *others in clips:
        assert all((first == other).all() for other in others)
    assert len({clip[0].tobytes() for clip in clips}) > 20  # clips differ


def test_random_erasing_takes_the_same_place_in_all_frames():
    frame = np.zeros((48, 48, 3), np.uint8)
    clips = augmented(every_frame(noise_erasing), frame, 80)
    places = [[(frame > 0).any(-1) for frame in clip] for clip in clips]
    for first, *others in places:
        assert all((first == other).mean() > 0.99 for other in others)
    erased = np.mean([place[0].any() for place in places])
    assert 0.1 < erased < 0.4
    assert max(place[0].mean() for place in places) < 0.36


# -- whole pipelines


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
    'kind, pipeline, shape',
    [
        ('video', VIDEO_TRAIN, (1, 3, 16, 160, 160)),
        ('frames', VIDEO_TRAIN, (1, 3, 16, 160, 160)),
        ('image', IMAGE_TRAIN, (1, 3, 160, 160)),
        ('unlabelled', VIDEO_PRETRAIN, (4, 3, 16, 160, 160)),
        ('image', IMAGE_PRETRAIN, (1, 3, 160, 160)),
        ('video', VIDEO_TEST, (2, 3, 16, 160, 160)),
        ('frames', VIDEO_TEST, (2, 3, 16, 160, 160)),
        ('image', IMAGE_TEST, (1, 3, 160, 160)),
    ],
)
def test_recipe_pipelines(datasets, scope, kind, pipeline, shape):
    with DefaultScope.overwrite_default_scope(scope):
        dataset = datasets(kind, pipeline)
    batch = pseudo_collate([dataset[i] for i in range(2)])
    for i, (inputs, data_sample) in enumerate(zip(batch['inputs'], batch['data_samples'])):
        assert inputs.dtype == torch.uint8 and inputs.shape == shape
        assert len(inputs.unique()) > 2
        info = dataset.get_data_info(i)
        assert data_sample.input_type == info['input_type']
        assert data_sample.input_type == ('image' if kind == 'image' else 'video')
        assert data_sample.sample_id == info['sample_id']
        assert data_sample.filename == info['filename']
        assert data_sample.img_shape == (160, 160)
        if kind == 'unlabelled':
            assert 'gt_label' not in data_sample
        else:
            assert data_sample.gt_label.tolist() == [i]


@pytest.mark.parametrize(
    'config, loader, modality, pipeline',
    [
        ('finetune_dfew', 'train', 'video', VIDEO_TRAIN),
        ('finetune_dfew', 'train', 'image', IMAGE_TRAIN),
        ('pretrain', 'train', 'video', VIDEO_PRETRAIN),
        ('pretrain', 'train', 'image', IMAGE_PRETRAIN),
    ],
)
def test_the_recipes_have_these_pipelines(config, loader, modality, pipeline):
    cfg = Config.fromfile(osp.join(ROOT, 'configs', f's4d_{config}.py'))
    found = cfg[f'{loader}_dataloader'].dataset[modality].pipeline[:-1]
    assert len(found) == len(pipeline) - 1
    for step, wanted in zip(found, pipeline):
        part, ours = build(dict(step, type=wanted['type'])), build(wanted)
        assert step.type == wanted['type'].replace('mmaction.', '') and repr(part) == repr(ours)


@pytest.mark.parametrize('config, interval', [('dfew', 4), ('ferv39k', 1), ('mafw', 4)])
def test_frames_and_resizing_of_the_recipes(config, interval):
    cfg = Config.fromfile(osp.join(ROOT, 'configs', f's4d_finetune_{config}.py'))
    clips = cfg.train_dataloader.dataset.video.pipeline, cfg.test_pipeline
    for pipeline, choose in zip(clips, ('SampleClipWindow', 'SampleClipViews')):
        assert pipeline[1].type == choose
        assert (pipeline[1].clip_len, pipeline[1].frame_interval) == (16, interval)
    for pipeline in (cfg.test_pipeline, cfg.image_test_pipeline):
        assert [s.scale for s in pipeline if 'Resize' in s.type] == [(160, 160)]
        assert 'ClipResize' in [s.type for s in pipeline]


def test_test_pipelines_are_deterministic_and_keep_order(datasets):
    dataset = datasets('frames', VIDEO_TEST)
    first, again = dataset[0]['inputs'], dataset[0]['inputs']
    assert (first == again).all()
    # 70 frames -> 18 of every 4th; views start at the first and the third
    views = first.permute(0, 2, 3, 4, 1).numpy()
    assert numbers(views[0]) == list(range(0, 64, 4))
    assert numbers(views[1]) == list(range(8, 72, 4))


def test_training_pipelines_are_random_and_repeatable(datasets):
    for kind, pipeline in (
        ('video', VIDEO_TRAIN),
        ('image', IMAGE_TRAIN),
        ('unlabelled', VIDEO_PRETRAIN),
    ):
        dataset = datasets(kind, pipeline)
        runs = []
        for seed in (1, 1, 2):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            runs.append(dataset[0]['inputs'])
        assert (runs[0] == runs[1]).all()
        assert not (runs[0] == runs[2]).all()


# -- crops in one go


def steps_of_mmaction(imgs, boxes, size, interpolation):
    """What mmaction2's transforms make of the windows."""
    resize = build(
        dict(
            type='mmaction.Resize',
            scale=(size, size),
            keep_ratio=False,
            interpolation=interpolation,
        )
    )
    flip = build(dict(type='mmaction.Flip', flip_ratio=1.0))
    views = []
    for x1, y1, x2, y2, mirror in boxes:
        crop = build(dict(type='mmaction.RandomResizedCrop'))
        results = dict(imgs=[i.copy() for i in imgs], img_shape=imgs[0].shape[:2], modality='RGB')
        with mock.patch.object(crop, 'get_crop_bbox', return_value=(x1, y1, x2, y2)):
            results = resize(crop(results))
        views += (flip(results) if mirror else results)['imgs']
    return np.stack(views)


def noise_clip(frames=3, height=50, width=70):
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (frames, height, width, 3), np.uint8))


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('frames, size', [(3, 32), (3, 160), (1, 32)])
def test_clip_random_resized_crop(interpolation, frames, size):
    imgs = noise_clip(frames)
    before = [img.copy() for img in imgs]
    crop = build(
        dict(
            type='ClipRandomResizedCrop',
            size=size,
            times=6,
            flip_ratio=0.5,
            interpolation=interpolation,
        )
    )
    results = crop(dict(imgs=imgs))
    out, boxes = results['imgs'], results['crop_boxes']
    assert out.shape == (6 * frames, size, size, 3) and out.dtype == np.uint8
    assert results['img_shape'] == (size, size)
    assert len({tuple(b) for b in boxes}) == 6 and set(boxes[:, 4]) == {0, 1}
    np.testing.assert_array_equal(out, steps_of_mmaction(imgs, boxes, size, interpolation))
    assert all((a == b).all() for a, b in zip(imgs, before))
    out[0] = 0  # a step that works in place changes this frame alone
    assert (out[1:].reshape(len(out) - 1, -1).max(1) > 0).all()


def test_windows_are_those_of_mmaction():
    """With one seed, the same windows in the same order."""
    theirs = build(dict(type='mmaction.RandomResizedCrop', area_range=(0.2, 1.0)))
    ours = build(dict(type='RandomCropBoxes', times=20, area_range=(0.2, 1.0)))
    drawn = []
    for _ in range(20):
        results = dict(imgs=noise_clip(1), img_shape=(50, 70))
        drawn.append(theirs(results)['crop_bbox'].tolist())
    random.seed(0)
    np.random.seed(0)
    boxes = ours(dict(imgs=noise_clip(2)))['crop_boxes']
    assert boxes[:, :4].tolist() == drawn
    assert not boxes[:, 4].any()


@pytest.mark.parametrize(
    'kwargs, error',
    [
        (dict(size=0), 'size'),
        (dict(size=8, times=0), 'times'),
        (dict(size=8, area_range=(0.5, 1.5)), 'area_range'),
        (dict(size=8, aspect_ratio_range=(2, 1)), 'aspect_ratio_range'),
        (dict(size=8, flip_ratio=2), 'flip_ratio'),
        (dict(size=8, interpolation='area'), 'interpolation'),
    ],
)
def test_wrong_arguments_of_clip_random_resized_crop(kwargs, error):
    with pytest.raises(ValueError, match=error):
        build(dict(type='ClipRandomResizedCrop', **kwargs))


def test_transparent_grey_image(tmp_path):
    """As mmcv shows it."""
    img = np.stack([np.full((9, 9), 200), np.eye(9) * 255], -1)
    Image.fromarray(img.astype(np.uint8), 'LA').save(tmp_path / 'a.png')
    ours = build(dict(type='ImageLoad'))(dict(filename=str(tmp_path / 'a.png')))['imgs'][0]
    theirs = mmcv.imread(str(tmp_path / 'a.png'), channel_order='rgb', backend='pillow')
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('total, views', [(100, 2), (66, 2), (65, 2), (64, 1), (9, 1)])
def test_equal_views_are_merged(total, views):
    """65 frames have 17 of every 4th: two views that differ."""
    every, merged = [
        build(dict(type='SampleClipViews', merge_equal=merge))(
            dict(total_frames=total, start_index=0)
        )
        for merge in (False, True)
    ]
    assert (every['num_clips'], merged['num_clips']) == (2, views)
    inds = merged['frame_inds'].reshape(views, 16)
    assert (inds == every['frame_inds'].reshape(2, 16)[:views]).all()


def test_frames_of_several_sizes_are_named(tmp_path):
    """The step that stacks them would fail without a name."""
    folder = write_frames(tmp_path / 'clip', 3)
    write_image(tmp_path / 'clip' / '00001.jpg', 48, 80)
    for inds, fails in (([0, 2], False), ([0, 1, 2], True)):
        data = TRANSFORMS.build(dict(type='ClipInit'))(dict(filename=folder))
        data['frame_inds'] = np.array(inds)
        decode = TRANSFORMS.build(dict(type='ClipDecode'))
        if fails:
            message = 'clip has frames of several sizes: 00000.jpg is 64 x 48, 00001.jpg is 80 x 48'
            with pytest.raises(MediaReadError, match=message):
                decode(data)
        else:
            assert len(decode(data)['imgs']) == 2
