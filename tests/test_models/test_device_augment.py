# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Augmentation of batches and of Pillow images: timm's and mmpretrain's numbers."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope
from PIL import Image, ImageEnhance, ImageOps
from small_models import pixel_batch

from s4d_mm.models import BatchRandAugment, BatchRandomErasing, BatchRandomResizedCrop, preprocessor
from s4d_mm.rand_augment import RandAugmentIncreasing

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
SPACE = RandAugmentIncreasing._AUGMENTATION_SPACE


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


def as_clip(*pictures, frames=3):
    """Clips of equal frames, (B, 1, 3, T, H, W)."""
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)[:, None]
    return images[:, :, :, None].repeat(1, 1, 1, frames, 1, 1)


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
    assert out.dtype == torch.uint8 and out.is_contiguous() and out.shape[:4] == (6, 2, 3, 3)
    assert torch.equal(out, out[:, :1, :, :1].expand_as(out))
    assert len({o.cpu().numpy().tobytes() for o in out[:, 0, :, 0]}) >= 5
    torch.manual_seed(3)  # images are augmented as clips
    assert torch.equal(augment(clips[:, :1, :, 0])[:, 0], out[:, 0, :, 0])


def moved(a, b, c, d, e, f):
    """Pillow's affine map with timm's resampling and grey."""
    return lambda img: img.transform(
        img.size,
        Image.Transform.AFFINE,
        (a, b, c, d, e, f),
        Image.Resampling.BICUBIC,
        fillcolor=(128,) * 3,
    )


def solarized_by_adding(img):
    pixels = np.array(img).astype(int)
    return np.where(pixels < 128, pixels + 77, pixels)


# timm's operations at level 7 of 10, with the positive sign of torchvision
TIMM = dict(
    AutoContrast=ImageOps.autocontrast,
    Equalize=ImageOps.equalize,
    Invert=ImageOps.invert,
    Rotate=lambda img: img.rotate(21, Image.Resampling.BICUBIC, fillcolor=(128,) * 3),
    Posterize=lambda img: ImageOps.posterize(img, 2),
    Solarize=lambda img: ImageOps.solarize(img, 77),
    SolarizeAdd=solarized_by_adding,
    Color=lambda img: ImageEnhance.Color(img).enhance(1.63),
    Contrast=lambda img: ImageEnhance.Contrast(img).enhance(1.63),
    Brightness=lambda img: ImageEnhance.Brightness(img).enhance(1.63),
    Sharpness=lambda img: ImageEnhance.Sharpness(img).enhance(1.63),
    ShearX=moved(1, 0.21, 0, 0, 1, 0),
    ShearY=moved(1, 0, 0, 0.21, 1, 0),
    TranslateX=moved(1, 0, -0.315 * 72, 0, 1, 0),
    TranslateY=moved(1, 0, 0, 0, 1, -0.315 * 64),
)


def of_the_workers(**options):
    return TRANSFORMS.build(dict({**RANDAUG, 'hparams': None}, type='ClipRandAugment', **options))


@pytest.mark.parametrize('name', SPACE)
def test_operations_of_the_workers_are_timm_s(name, monkeypatch):
    part, first = of_the_workers(), picture()
    operations = [(name, SPACE[name][0](0.7, 64, 72))]
    monkeypatch.setattr(part.augment, 'draw', lambda height, width: operations)
    out = part(dict(imgs=[first, first[::-1].copy()]))['imgs']
    assert not np.array_equal(out[0], first)
    for img, found in zip((first, first[::-1]), out):
        wanted = np.array(TIMM[name](Image.fromarray(img))).astype(int)
        assert found.dtype == np.uint8 and np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('name', SPACE)
def test_operations_on_the_device_are_pillow_s(name, device, monkeypatch):
    """The same pixels at the same level, but for rounding."""
    options = dict(pad_val=PAD, interpolation='bilinear')
    part = BatchRandAugment('timm_increasing', 1, 7, hparams=options).to(device)
    draw, img = [(name, SPACE[name][0](0.7, 64, 72))], picture()
    wanted = np.array(part.transform.operate(Image.fromarray(img), draw)).astype(int)
    monkeypatch.setattr(part.transform, 'draw', lambda height, width: draw)
    out = part(as_clip(img).to(device))[0, 0, :, 1].cpu().permute(1, 2, 0).numpy()
    if name in ('Equalize', 'Invert', 'Posterize', 'Solarize', 'SolarizeAdd'):
        assert np.array_equal(out, wanted)
    assert np.abs(out - wanted).mean() <= (2 if name[:5] in ('Shear', 'Trans', 'Rotat') else 0.5)


def test_strengths_of_the_recipe():
    part = BatchRandAugment(**RANDAUG).transform
    draws = [part.draw(64, 72) for _ in range(3000)]
    values = {name: [] for name in SPACE}
    for name, value in sum(draws, []):
        values[name].append(float(value))
    # 4 of 15, each with probability 1/2: 400 each, standard deviation 20
    assert max(abs(len(v) - 400) for v in values.values()) < 90
    assert abs(np.mean([len(d) for d in draws]) - 2) < 0.1
    # level 7 of 10, with a deviation of 0.5 of 10, of the strongest
    strongest = dict.fromkeys(('Color', 'Contrast', 'Brightness', 'Sharpness'), 0.9)
    strongest.update(Rotate=30, ShearX=0.3, ShearY=0.3, TranslateX=0.45 * 72, TranslateY=0.45 * 64)
    for name, most in strongest.items():
        value = np.array(values[name]) / most
        assert abs(np.abs(value).mean() - 0.7) < 0.01, name
        assert abs(np.abs(value).std() - 0.05) < 0.01, name
        assert 0.4 < (value < 0).mean() < 0.6, name
    assert set(values['Posterize']) == {1, 2}  # 1 from level 7.5 on, that is 16 %
    assert 0.08 < np.mean(np.array(values['Posterize']) == 1) < 0.24


@pytest.mark.parametrize('level', [0, 10])
def test_levels_stay_on_the_scale(level):
    drawn = BatchRandAugment('timm_increasing', 800, level, 3).transform.draw(64, 72)
    angles = [abs(value) for name, value in drawn if name == 'Rotate']
    assert 3 * level in angles and max(angles) <= 30 and len(set(angles)) > 5


@pytest.mark.parametrize('device', DEVICES)
def test_noise(device):
    clips = torch.full((16, 1, 3, 4, 60, 80), 255, dtype=torch.uint8)
    mean, std = (124, 116, 104), (25, 20, 10)
    part = BatchRandomErasing(1.0, 0.3, 0.4, mode='rand', fill_color=mean, fill_std=std).to(device)
    out = part(clips.to(device)).cpu()
    window = (out != 255).any(2, keepdim=True).expand_as(out)
    # a window of the same place in all frames, with noise of its own in each
    assert torch.equal(window, window[:, :, :, :1].expand_as(window))
    share = window[:, 0, 0, 0].float().mean((1, 2))
    assert share.min() > 0.29 and share.max() < 0.41
    for c in range(3):
        noise = out[:, :, c][window[:, :, c]].float()
        assert abs(noise.mean() - mean[c]) < 0.3 and abs(noise.std() - std[c]) < 0.5
    assert not torch.equal(out[:, :, :, 0], out[:, :, :, 1])


def build(**kwargs):
    return MODELS.build(dict(type='DualModalDataPreprocessor', **NORM, **kwargs))


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('input_type', ['video', 'image'])
def test_the_chain_in_order_and_in_training_only(device, input_type):
    part = build(augments={input_type: [CROP, BLACK]}).to(device)
    other = {'video': 'image', 'image': 'video'}[input_type]
    for kind, training in [(input_type, False), (other, True)]:
        out = part(pixel_batch(kind), training=training)['inputs'].cpu()
        assert torch.equal(out, build()(pixel_batch(kind))['inputs'])
    shape = (1, 3, 4, 24, 30) if input_type == 'video' else (1, 3, 24, 30)
    out = part(pixel_batch(input_type, shape=shape), training=True)['inputs']
    assert out.shape == (4, *shape[:-2], 8, 8) and out.device.type == device
    # black is normalised, and it is in the result of the crop
    black = -torch.tensor(NORM['mean']) / torch.tensor(NORM['std'])
    found = out.cpu().movedim(2, -1) == black
    assert (found.all(-1).flatten(1).float().mean(1) > 0.01).all()


def test_each_process_has_numbers_of_its_own(monkeypatch):
    """They follow the seed of the run; the numbers outside go on as without."""

    def run(seed, rank, augments=(CROP,)):
        monkeypatch.setattr(preprocessor, 'get_rank', lambda: rank)
        part = build(augments=dict(video=list(augments)))
        torch.manual_seed(seed)
        data = pixel_batch('video', shape=(1, 3, 4, 24, 24))
        out = [part(data, training=True)['inputs'] for _ in range(2)]
        return torch.stack(out), torch.rand(3)

    a, b, c, d = run(0, 0), run(0, 0), run(0, 1), run(1, 0)
    assert torch.equal(a[0], b[0]) and not torch.equal(a[0][0], a[0][1])
    assert not torch.equal(a[0], c[0]) and not torch.equal(a[0], d[0])
    e = run(0, 0, [CROP, BLACK, BLACK])
    assert torch.equal(a[1], c[1]) and torch.equal(a[1], e[1])
