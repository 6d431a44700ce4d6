# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline steps that mmaction2 and mmpretrain do not have."""

from ...media import MediaReadError
from .fixed_crop import FixedCrop
from .loading import ClipDecode, ClipInit, ImageLoad
from .random_resized_crop import ClipRandomResizedCrop, ImageLoadRandomResizedCrop, RandomCropBoxes
from .repeat_augment import RepeatAugment
from .sampling import SampleClipViews

__all__ = [
    'ClipDecode',
    'ClipInit',
    'ClipRandomResizedCrop',
    'FixedCrop',
    'ImageLoad',
    'ImageLoadRandomResizedCrop',
    'MediaReadError',
    'RandomCropBoxes',
    'RepeatAugment',
    'SampleClipViews',
]
