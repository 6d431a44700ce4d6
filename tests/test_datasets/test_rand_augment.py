# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""RandAugment: timm's operations, strengths and pixels."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS, init_default_scope
from PIL import Image, ImageEnhance, ImageOps

from s4d_mm.rand_augment import SPACE, RandAugmentIncreasing


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


def moved(img, a, b, c, d, e, f):
    """Pillow's affine map with timm's resampling and grey."""
    how = Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC
    return img.transform(img.size, *how, fillcolor=(128,) * 3)


def solarized_by_adding(img, sign):
    pixels = np.array(img).astype(int)
    return np.where(pixels < 128, pixels + 77, pixels)


# timm's operations at level 7 of 10, of either sign
TIMM = dict(
    AutoContrast=lambda img, sign: ImageOps.autocontrast(img),
    Equalize=lambda img, sign: ImageOps.equalize(img),
    Invert=lambda img, sign: ImageOps.invert(img),
    Rotate=lambda img, sign: img.rotate(sign * 21, Image.Resampling.BICUBIC, fillcolor=(128,) * 3),
    Posterize=lambda img, sign: ImageOps.posterize(img, 2),
    Solarize=lambda img, sign: ImageOps.solarize(img, 77),
    SolarizeAdd=solarized_by_adding,
    Color=lambda img, sign: ImageEnhance.Color(img).enhance(1 + 0.63 * sign),
    Contrast=lambda img, sign: ImageEnhance.Contrast(img).enhance(1 + 0.63 * sign),
    Brightness=lambda img, sign: ImageEnhance.Brightness(img).enhance(1 + 0.63 * sign),
    Sharpness=lambda img, sign: ImageEnhance.Sharpness(img).enhance(1 + 0.63 * sign),
    ShearX=lambda img, sign: moved(img, 1, 0.21 * sign, 0, 0, 1, 0),
    ShearY=lambda img, sign: moved(img, 1, 0, 0, 0.21 * sign, 1, 0),
    TranslateX=lambda img, sign: moved(img, 1, 0, -0.315 * 72 * sign, 0, 1, 0),
    TranslateY=lambda img, sign: moved(img, 1, 0, 0, 0, 1, -0.315 * 64 * sign),
)
RECIPE = ('timm_increasing', 4, 7, 0.5)


@pytest.mark.parametrize('frames', [1, 5])
@pytest.mark.parametrize('name, sign', [(n, s) for n in SPACE for s in (1, -1)[: 1 + SPACE[n][1]]])
def test_pixels_are_timm_s(name, sign, frames, monkeypatch):
    """Of an image, and of a clip, whose frames are moved all at once."""
    names = 'policies', 'num_policies', 'magnitude_level', 'magnitude_std'
    part = TRANSFORMS.build(dict(zip(names, RECIPE), type='ClipRandAugment'))
    drawn = [(name, sign * SPACE[name][0](0.7, 64, 72))]
    monkeypatch.setattr(part.augment, 'draw', lambda height, width: drawn)
    clip = [picture(number=number) for number in range(frames)]
    out = part(dict(imgs=clip))['imgs']
    assert len(out) == frames and not np.array_equal(out[0], clip[0])
    for img, found in zip(clip, out):
        wanted = np.array(TIMM[name](Image.fromarray(img), sign)).astype(int)
        assert found.dtype == np.uint8 and np.abs(found - wanted).max() <= 1
    out[0][:] = 0  # a step that works in place changes this frame alone
    assert all(frame.any() for frame in out[1:])


def test_strengths_of_the_recipe():
    part = RandAugmentIncreasing(*RECIPE)
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
    drawn = RandAugmentIncreasing('timm_increasing', 800, level, 3).draw(64, 72)
    angles = [abs(value) for name, value in drawn if name == 'Rotate']
    assert 3 * level in angles and max(angles) <= 30 and len(set(angles)) > 5
