# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""RandAugment of the workers: timm's operations, written out with Pillow."""

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageEnhance, ImageOps

import s4d_mm  # noqa: F401
from s4d_mm.rand_augment import RandAugmentIncreasing

WEIGHTS = np.array([0.299, 0.587, 0.114])  # of R, G and B in a grey level
LEVEL = 0.7


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def picture():
    """Smooth colours, each channel of its own, (40, 48, 3)."""
    coarse = np.random.default_rng(0).integers(20, 230, (5, 6, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC))


def augment(**kwargs):
    options = dict(policies='timm_increasing', num_policies=4, magnitude_level=7)
    return TRANSFORMS.build(dict(options, type='ClipRandAugment', **kwargs))


def moved(a, b, c, d, e, f):
    """Pillow's affine map with timm's resampling and grey."""
    matrix = (a, b, c, d, e, f)
    return lambda img: img.transform(
        img.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=(128,) * 3
    )


def solarized_by_adding(img):
    pixels = np.array(img).astype(int)
    return np.where(pixels < 128, pixels + 77, pixels)


# at level 7 of 10, with the positive sign of torchvision
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
    TranslateX=moved(1, 0, -0.315 * 48, 0, 1, 0),
    TranslateY=moved(1, 0, 0, 0, 1, -0.315 * 40),
)


@pytest.mark.parametrize('name', TIMM)
def test_operations_of_timm(name, picture, monkeypatch):
    strength, _ = RandAugmentIncreasing._AUGMENTATION_SPACE[name]
    part = augment()
    operations = [(name, strength(LEVEL, 40, 48))]
    monkeypatch.setattr(part.augment, 'draw', lambda height, width: operations)
    out = part(dict(imgs=[picture, picture[::-1].copy()]))['imgs']
    assert not np.array_equal(out[0], picture)
    for img, found in zip((picture, picture[::-1]), out):
        wanted = np.array(TIMM[name](Image.fromarray(img))).astype(int)
        assert found.dtype == np.uint8
        assert np.abs(found - wanted).max() <= 1


def test_every_operation_is_compared():
    assert set(TIMM) == set(RandAugmentIncreasing._AUGMENTATION_SPACE)


def test_color_and_contrast_weigh_the_channels_as_rgb(picture):
    """Without colour a pixel is its own grey level, without contrast that of the picture."""
    part = augment().augment
    grey = (picture * WEIGHTS).sum(-1, keepdims=True)
    for name, level in (('Color', grey), ('Contrast', grey.mean())):
        out = np.array(part.operate(Image.fromarray(picture), [(name, -1.0)]))
        assert np.abs(out - level).max() <= 1


def test_what_comes_from_outside_is_grey():
    frames = [np.zeros((40, 48, 3), np.uint8)] * 2
    part = augment()
    part.augment.draw = lambda height, width: [('TranslateX', 20.0)]
    for out in part(dict(imgs=frames))['imgs']:
        assert (out[:, :18] == 128).all() and (out[:, 22:] == 0).all()
    coloured = augment(hparams=dict(pad_val=(10, 20, 30)))
    coloured.augment.draw = part.augment.draw
    assert (coloured(dict(imgs=frames))['imgs'][0][:, :18] == (10, 20, 30)).all()


def test_an_operation_that_comes_twice_is_drawn_twice():
    part = augment(num_policies=400, magnitude_std=0.5).augment
    angles = [value for name, value in part.draw(40, 48) if name == 'Rotate']
    assert len(angles) > 4 and len(set(angles)) == len(angles)
    assert min(angles) < 0 < max(angles)


@pytest.mark.parametrize(
    'options, error',
    [
        (dict(policies='none'), "policies of ClipRandAugment must be 'timm_increasing'"),
        (dict(num_policies=0), 'num_policies .* positive int, but got 0'),
        (dict(magnitude_level=11), 'magnitude_level .* 0 to 10, but got 11'),
        (dict(magnitude_std=-1), 'magnitude_std .* 0 or more, but got -1'),
        (dict(hparams=dict(fill=1)), 'hparams .* pad_val and interpolation'),
        (dict(hparams=dict(interpolation='area')), "'bilinear' or 'bicubic', but got 'area'"),
        (dict(hparams=dict(pad_val=[1, 2])), 'pad_val .* 3 channels'),
    ],
)
def test_wrong_options(options, error):
    with pytest.raises(ValueError, match=error):
        augment(**options)
