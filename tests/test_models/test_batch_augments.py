# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Augmentation on the device: strengths of mmpretrain's, frames alike, train only."""

import os.path as osp

import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope
from small_models import pixel_batch

from s4d_mm.models import BatchRandAugment, BatchRandomErasing, BatchRandomResizedCrop
from s4d_mm.models.data_preprocessors import dual_modal_data_preprocessor
from s4d_mm.rand_augment import RandAugmentIncreasing

CONFIGS = osp.join(ROOT, 'configs')
DEVICES = ['cpu'] + ['cuda'] * torch.cuda.is_available()
NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
PAD = [124, 116, 104]
RANDAUG = dict(
    policies='timm_increasing',
    num_policies=4,
    magnitude_level=7,
    magnitude_std=0.5,
    hparams=dict(pad_val=PAD),
)
CROP = dict(type='BatchRandomResizedCrop', size=8)
BLACK = dict(type='BatchRandomErasing', erase_prob=1.0, fill_color=0)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmaction')
    torch.manual_seed(0)


def picture(height=64, width=72, number=0):
    """Smooth colours with some noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(number)
    img = rng.uniform(0, 255, (8, 9, 3))
    img = cv2.resize(img, (width, height), interpolation=cv2.INTER_CUBIC)
    img += rng.normal(0, 5, img.shape)
    return np.clip(img, 10, 240).astype(np.uint8)


def as_image(*pictures):
    """(B, 1, 3, H, W)"""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)[:, None]


def as_clip(*pictures, frames=3):
    """Clips of equal frames, (B, 1, 3, T, H, W)."""
    return as_image(*pictures)[:, :, :, None].repeat(1, 1, 1, frames, 1, 1)


def as_picture(x):
    return x.cpu().permute(1, 2, 0).numpy()


# -- all of them


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize(
    'augment',
    [
        BatchRandAugment(**RANDAUG),
        BatchRandomResizedCrop(size=48, flip_ratio=0.5),
        BatchRandomErasing(1.0),
    ],
    ids=lambda augment: type(augment).__name__,
)
def test_frames_and_views_alike_and_samples_not(augment, device):
    augment = augment.to(device)
    clips = as_clip(*[picture()] * 6).repeat(1, 2, 1, 1, 1, 1).to(device)
    before = clips.clone()
    torch.manual_seed(3)
    out = augment(clips)
    assert torch.equal(clips, before)
    assert out.dtype == torch.uint8 and out.is_contiguous()
    assert out.shape[:4] == (6, 2, 3, 3)
    assert torch.equal(out, out[:, :1, :, :1].expand_as(out))
    assert len({o.cpu().numpy().tobytes() for o in out[:, 0, :, 0]}) >= 5
    torch.manual_seed(3)
    assert torch.equal(augment(clips[:, :1, :, 0])[:, 0], out[:, 0, :, 0])


@pytest.mark.parametrize(
    'x',
    [
        torch.zeros(1, 1, 3, 8, 8),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 1, 1, 8, 8, dtype=torch.uint8),
    ],
)
def test_wrong_batches(x):
    with pytest.raises(ValueError, match='needs uint8 clips .* but got'):
        BatchRandomErasing()(x)


@pytest.mark.parametrize(
    'part, options, error',
    [
        (BatchRandAugment, dict(RANDAUG, policies='none'), "must be 'timm_increasing'.*'none'"),
        (BatchRandAugment, dict(RANDAUG, num_policies=0), 'num_policies .* positive int.* got 0'),
        (BatchRandAugment, dict(RANDAUG, magnitude_level=11), 'magnitude_level .* got 11'),
        (BatchRandAugment, dict(RANDAUG, magnitude_std=-1), 'magnitude_std .* got -1'),
        (BatchRandAugment, dict(RANDAUG, hparams=dict(fill=1)), 'hparams .* pad_val and inter'),
        (
            BatchRandAugment,
            dict(RANDAUG, hparams=dict(interpolation='bicubic')),
            "interpolation .* 'nearest' or 'bilinear', but got 'bicubic'",
        ),
        (BatchRandAugment, dict(RANDAUG, hparams=dict(pad_val=[1, 2])), 'pad_val .* 3 channels'),
        (BatchRandomResizedCrop, dict(size=0), 'size .* positive int, but got 0'),
        (BatchRandomResizedCrop, dict(size=8, area_range=(0, 1)), r'area_range .* got \(0, 1\)'),
        (BatchRandomResizedCrop, dict(size=8, flip_ratio=2), 'flip_ratio .* got 2'),
        (BatchRandomErasing, dict(erase_prob=2), 'erase_prob .* but got 2'),
        (BatchRandomErasing, dict(min_area_ratio=0.5), 'the smaller one first'),
        (BatchRandomErasing, dict(mode='pixel'), "mode .* but got 'pixel'"),
        (BatchRandomErasing, dict(mode='rand'), "fill_std .* given with mode='rand'"),
        (BatchRandomErasing, dict(fill_std=5), "fill_std .* given with mode='rand'"),
        (BatchRandomErasing, dict(fill_color=(1, 2)), r'fill_color .* got \(1, 2\)'),
        (BatchRandomErasing, dict(fill_color=256), 'fill_color .* from 0 to 255.* got 256'),
        (BatchRandomErasing, dict(mode='rand', fill_std=(1, 2)), r'fill_std .* got \(1, 2\)'),
    ],
)
def test_wrong_options(part, options, error):
    with pytest.raises(ValueError, match=error):
        part(**options)


# -- RandAugment


# mmpretrain's operations and ours; whether ours has the opposite sign; the
# largest mean difference of pixels in grey levels
SAME = [
    ('AutoContrast', {}, 'AutoContrast', 1, 0.2),
    ('Equalize', {}, 'Equalize', 1, 0),
    ('Invert', {}, 'Invert', 1, 0),
    ('Rotate', {}, 'Rotate', -1, 1),
    ('Posterize', {}, 'Posterize', 1, 0),
    ('Solarize', {}, 'Solarize', 1, 0),
    ('SolarizeAdd', {}, 'SolarizeAdd', 1, 0),
    ('ColorTransform', {}, 'Color', 1, 0.5),
    ('Contrast', {}, 'Contrast', 1, 0.5),
    ('Brightness', {}, 'Brightness', 1, 0.1),
    ('Sharpness', {}, 'Sharpness', 1, 0.2),
    ('Shear', dict(direction='horizontal'), 'ShearX', -1, 2),
    ('Shear', dict(direction='vertical'), 'ShearY', -1, 2),
    ('Translate', dict(direction='horizontal'), 'TranslateX', 1, 2),
    ('Translate', dict(direction='vertical'), 'TranslateY', 1, 2),
]


def mmpretrain_policy(name, direction=None):
    """An operation of mmpretrain's set, always done, with a positive value."""
    there = TRANSFORMS.build(
        dict(
            type='RandAugment',
            _scope_='mmpretrain',
            policies='timm_increasing',
            num_policies=1,
            magnitude_level=7,
            hparams=dict(pad_val=PAD, interpolation='bilinear'),
        )
    )
    (policy,) = [
        t
        for t in there
        if type(t).__name__ == name and direction in (None, getattr(t, 'direction', None))
    ]
    policy.prob, policy.random_negative_prob = 1.0, 0.0
    return policy


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('name, options, ours, sign, most', SAME, ids=[s[2] for s in SAME])
def test_operations_of_mmpretrain(name, options, ours, sign, most, device, monkeypatch):
    """The same pixels at the same level, but for rounding."""
    space = RandAugmentIncreasing._AUGMENTATION_SPACE
    assert len(space) == len(SAME)
    strength, signed = space[ours]
    policy, img = mmpretrain_policy(name, **options), picture()
    step = -1 if ours in ('Color', 'Contrast') else 1  # mmcv's grey is of BGR
    wanted = policy(dict(img=img[..., ::step].copy()))['img'][..., ::step]
    assert np.abs(wanted.astype(int) - img).mean() > 1  # it did something

    # one that has no random sign, and is always done
    monkeypatch.setattr(
        RandAugmentIncreasing,
        '_AUGMENTATION_SPACE',
        {ours: (lambda *size: sign * strength(*size), False)},
    )
    monkeypatch.setattr(torch, 'rand', lambda shape: torch.ones(shape))
    part = BatchRandAugment('timm_increasing', 1, 7, 0.0, dict(pad_val=PAD)).to(device)
    out = part(as_clip(img).to(device))
    difference = np.abs(as_picture(out[0, 0, :, 1]).astype(int) - wanted)
    assert difference.mean() <= most
    assert torch.equal(part(as_image(img).to(device)), out[:, :, :, 0])


def drawn(monkeypatch, samples, size=(64, 72), **options):
    """Names and strengths of the operations that are done on each sample."""
    found = []

    def spy(self, image, transform_id, magnitude, *args):
        found[-1].append((transform_id, float(magnitude)))
        return image

    monkeypatch.setattr(RandAugmentIncreasing, '_apply_image_or_video_transform', spy)
    part = BatchRandAugment(**dict(RANDAUG, **options))
    for _ in range(samples):
        found.append([])
        part(torch.zeros(1, 1, 3, *size, dtype=torch.uint8))
    return found


def test_strengths_of_the_recipe(monkeypatch):
    draws = drawn(monkeypatch, 3000)
    values = {name: [] for name in RandAugmentIncreasing._AUGMENTATION_SPACE}
    for name, value in sum(draws, []):
        values[name].append(value)
    counts = np.array([len(v) for v in values.values()])
    # 4 of 15, each with probability 1/2: 400 each, standard deviation 20
    assert np.abs(counts - 400).max() < 90
    assert abs(np.mean([len(d) for d in draws]) - 2) < 0.1
    # level 7 of 10, with a deviation of 0.5 of 10, of the strongest
    strongest = dict(
        Rotate=30,
        Color=0.9,
        Contrast=0.9,
        Brightness=0.9,
        Sharpness=0.9,
        ShearX=0.3,
        ShearY=0.3,
        TranslateX=0.45 * 72,
        TranslateY=0.45 * 64,
    )
    for name, most in strongest.items():
        value = np.array(values[name]) / most
        assert abs(np.abs(value).mean() - 0.7) < 0.01, name
        assert abs(np.abs(value).std() - 0.05) < 0.01, name
        assert 0.4 < (value < 0).mean() < 0.6, name
    for name, middle, spread in (('Solarize', 77, 13), ('SolarizeAdd', 77, 5.5)):
        value = np.array(values[name])
        assert abs(value.mean() - middle) < 2 and abs(value.std() - spread) < 2, name
    bits = np.array(values['Posterize'])  # 1 from level 7.5 on, that is 16 %
    assert set(bits) == {1, 2} and 0.08 < (bits == 1).mean() < 0.24


def test_levels_stay_between_0_and_10(monkeypatch):
    for level in (0, 10):
        draws = drawn(monkeypatch, 200, magnitude_level=level, magnitude_std=3)
        angles = [abs(value) for name, value in sum(draws, []) if name == 'Rotate']
        assert len(angles) > 10 and max(angles) <= 30
        assert (level / 10 * 30 in angles) and len(set(angles)) > 5


@pytest.mark.parametrize('level', [0, 10])
def test_the_ends_of_the_scale(level):
    """No operation fails there; at 0 those with a strength do nothing."""
    part = RandAugmentIncreasing(1, level / 10, 0.0)
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    for name, (strength, signed) in part._AUGMENTATION_SPACE.items():
        for sign in (1, -1)[: 1 + signed]:
            out = part._apply_image_or_video_transform(
                x, name, sign * strength(level / 10, 16, 16), part.interpolation, part._fill
            )
            assert out.dtype == torch.uint8 and out.shape == x.shape
            if level == 0 and (signed or name.startswith('Solarize')):
                assert torch.equal(out, x), name


# -- crop


@pytest.mark.parametrize('device', DEVICES)
def test_crops_are_opencv_s(device, monkeypatch):
    part = BatchRandomResizedCrop(size=40, area_range=(0.2, 0.5), flip_ratio=0.5).to(device)
    windows, draw = [], part.transform[0].make_params
    monkeypatch.setattr(
        part.transform[0], 'make_params', lambda x: windows.append(draw(x)) or windows[-1]
    )
    imgs, mirrored = [picture(number=i) for i in range(60)], 0
    for img, found in zip(imgs, part(as_clip(*imgs).to(device))):
        w = windows.pop(0)
        window = img[w['top'] :, w['left'] :][: w['height'], : w['width']]
        assert 0.19 < window.shape[0] * window.shape[1] / (64 * 72) < 0.51
        wanted = cv2.resize(window, (40, 40))
        out = as_picture(found[0, :, 1]).astype(int)
        flips = [np.abs(out - way).max() <= 1 for way in (wanted, wanted[:, ::-1])]
        assert sum(flips) == 1
        mirrored += flips[1]
    assert 15 < mirrored < 45


# -- erasing


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('color', [0, (10, 200, 30)])
def test_windows_of_one_colour(device, color):
    part = BatchRandomErasing(0.25, 0.1, 0.2, fill_color=color).to(device)
    clips = torch.full((400, 1, 3, 2, 30, 40), 255, dtype=torch.uint8)
    out = part(clips.to(device)).cpu()
    wanted = torch.tensor([color] * 3 if color == 0 else color, dtype=torch.uint8)
    erased = (out.movedim(2, -1) != 255).any(-1)[:, 0]  # B T H W
    assert torch.equal(out.movedim(2, -1)[:, 0][erased], wanted.expand(int(erased.sum()), 3))
    share = erased[:, 0].float().mean((1, 2))
    assert 0.18 < (share > 0).float().mean() < 0.32
    share = share[share > 0]
    assert 0.09 < share.min() < 0.12 and 0.18 < share.max() < 0.22
    # each is a rectangle
    rows, columns = (erased[:, 0].any(d).sum(-1) for d in (2, 1))
    assert torch.equal(erased[:, 0].sum((1, 2)), rows * columns)


@pytest.mark.parametrize('device', DEVICES)
def test_noise(device):
    clips = torch.full((16, 1, 3, 4, 60, 80), 255, dtype=torch.uint8)
    mean, std = (124, 116, 104), (25, 20, 10)
    part = BatchRandomErasing(1.0, 0.3, 0.4, mode='rand', fill_color=mean, fill_std=std).to(device)
    out = part(clips.to(device)).cpu()
    window = (out != 255).any(2, keepdim=True).expand_as(out)
    # a window of the same place in all frames
    assert torch.equal(window, window[:, :, :, :1].expand_as(window))
    share = window[:, 0, 0, 0].float().mean((1, 2))
    assert share.min() > 0.29 and share.max() < 0.41
    for c in range(3):
        noise = out[:, :, c][window[:, :, c]].float()
        assert abs(noise.mean() - mean[c]) < 0.3
        assert abs(noise.std() - std[c]) < 0.5
    assert not torch.equal(out[:, :, :, 0], out[:, :, :, 1])
    assert not torch.equal(out[0, 0, 0], out[0, 0, 1])


def test_noise_is_cut_at_black_and_white():
    x = torch.full((8, 1, 3, 40, 40), 128, dtype=torch.uint8)
    for color, outside in ((0, 250), (255, 5)):
        out = BatchRandomErasing(1.0, mode='rand', fill_color=color, fill_std=2)(x)
        noise = out[out != 128]
        assert ((noise < 128) == (outside > 128)).all()  # none has wrapped around


# -- in the data preprocessor


def preprocessor(**kwargs):
    return MODELS.build(dict(type='DualModalDataPreprocessor', **NORM, **kwargs))


def randaugment(**kwargs):
    return dict(RANDAUG, type='BatchRandAugment', **kwargs)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('input_type', ['video', 'image'])
def test_the_chain_in_order_and_in_training_only(device, input_type):
    part = preprocessor(augments={input_type: [CROP, BLACK]}).to(device)
    other = {'video': 'image', 'image': 'video'}[input_type]
    for kind, training in [(input_type, False), (other, True)]:
        assert torch.equal(
            part(pixel_batch(kind), training=training)['inputs'].cpu(),
            preprocessor()(pixel_batch(kind))['inputs'],
        )
    shape = (1, 3, 4, 24, 30) if input_type == 'video' else (1, 3, 24, 30)
    out = part(pixel_batch(input_type, shape=shape), training=True)['inputs']
    assert out.shape == (4, *shape[:-2], 8, 8)
    assert out.dtype == torch.float32 and out.device.type == device
    # black is normalised, and it is in the result of the crop
    black = -torch.tensor(NORM['mean']) / torch.tensor(NORM['std'])
    found = out.cpu().movedim(2, -1) == black
    assert (found.all(-1).flatten(1).float().mean(1) > 0.01).all()
    assert part.state_dict() == {}


def test_blending_comes_after():
    """The label is blended, and so is the black window."""
    mixup = dict(type='MixupBlending', alpha=0.8, num_classes=7)
    part = preprocessor(augments=dict(video=[BLACK]), blending=dict(video=mixup))
    data = pixel_batch('video')
    for x in data['inputs']:
        x[:] = 255
    torch.manual_seed(1)
    out = part(data, training=True)
    labels = torch.stack([s.gt_label for s in out['data_samples']])
    share = labels.max(1).values.min()
    assert 0.5 < share < 1
    levels = out['inputs'][:, :, 0] * NORM['std'][0] + NORM['mean'][0]
    # white and black, and the two blends of them
    found = levels.round().unique()
    wanted = torch.stack([share * 0, 1 - share, share, share * 0 + 1]) * 255
    torch.testing.assert_close(found, wanted.round())


@pytest.mark.parametrize('device', DEVICES)
def test_no_grey_levels_lost_under_autocast(device):
    part = preprocessor(augments=dict(image=[randaugment(num_policies=15)])).to(device)
    out = []
    for enabled in (False, True):
        data = dict(pixel_batch('image', 8), inputs=list(as_image(*[picture()] * 8)))
        torch.manual_seed(0)
        with torch.autocast(device, torch.bfloat16, enabled=enabled):
            out.append(part(data, training=True)['inputs'])
    assert torch.equal(*out)


def test_each_process_has_numbers_of_its_own(monkeypatch):
    """They follow the seed of the run; the numbers outside go on as without."""

    def run(seed, rank, augments=(CROP,)):
        monkeypatch.setattr(dual_modal_data_preprocessor, 'get_rank', lambda: rank)
        part = preprocessor(augments=dict(video=list(augments)))
        torch.manual_seed(seed)
        data = pixel_batch('video', shape=(1, 3, 4, 24, 24))
        out = [part(data, training=True)['inputs'] for _ in range(2)]
        return torch.stack(out), torch.rand(3)

    a, b, c, d = run(0, 0), run(0, 0), run(0, 1), run(1, 0)
    assert torch.equal(a[0], b[0])
    assert not torch.equal(a[0][0], a[0][1])
    assert not torch.equal(a[0], c[0]) and not torch.equal(a[0], d[0])
    e = run(0, 0, [CROP, BLACK, BLACK])
    assert torch.equal(a[1], c[1]) and torch.equal(a[1], e[1])


@pytest.mark.parametrize(
    'augments',
    [
        [randaugment()],
        dict(audio=[randaugment()]),
        dict(video=randaugment()),
        dict(video=['BatchRandAugment']),
    ],
)
def test_wrong_augments(augments):
    with pytest.raises(ValueError, match='must be a dict like'):
        preprocessor(augments=augments)


def test_windows_for_another_size_are_an_error():
    part = preprocessor(
        crops=dict(image=dict(size=16)),
        augments=dict(image=[dict(type='BatchRandomResizedCrop', size=24)]),
    )
    sample = ActionDataSample(metainfo=dict(crop_boxes=np.array([[0, 0, 30, 30, 0]])))
    data = dict(inputs=[torch.zeros(1, 3, 32, 32, dtype=torch.uint8)], data_samples=[sample])
    with pytest.raises(ValueError, match=r'of \(24, 24\) out of \(32, 32\)'):
        part(data, training=True)
    assert part(data)['inputs'].shape == (1, 1, 3, 16, 16)


def test_options_of_the_recipe():
    """The config takes steps from the pipelines and puts the same ones on the
    device."""
    plain, device = (
        Config.fromfile(osp.join(CONFIGS, f's4d_finetune_dfew{end}.py'))
        for end in ('', '_device-augment')
    )
    augments = device.model.data_preprocessor.augments
    for kind in ('video', 'image'):
        steps = []
        for step in plain.train_dataloader.dataset[kind].pipeline:
            steps += step.get('transforms', [step])
        left = device.train_dataloader.dataset[kind].pipeline
        assert all(step in steps for step in left)
        gone = {s.type: s for s in steps if s not in left}
        prefixes = dict(BatchRandAugment='Clip')  # of the workers' step
        ours = {s.type.replace('Batch', prefixes.get(s.type, '')): s for s in augments[kind]}
        for name, options in ours.items():
            options = dict(options, type=name)
            wanted = dict(gone.pop(name))
            wanted.pop('_scope_', None)
            if name == 'RandomResizedCrop':
                size, flip = options.pop('size'), options.pop('flip_ratio')
                assert (size, size) == gone.pop('Resize').scale == steps[3].scale
                assert gone.pop('Flip').flip_ratio == flip
            assert options == wanted
        assert not gone, kind
    assert device.model.data_preprocessor.blending == (plain.model.data_preprocessor.blending)
