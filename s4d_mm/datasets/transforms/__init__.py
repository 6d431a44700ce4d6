# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline steps that mmaction2 and mmpretrain do not have."""

from ...media import MediaReadError
from .augment import ClipRandAugment
from .crops import ClipRandomResizedCrop, ClipResize, FixedCrop, RandomCropBoxes
from .loading import ClipDecode, ClipInit, ImageLoad, SampleClipViews, SampleClipWindow

__all__ = [
    'ClipDecode',
    'ClipInit',
    'ClipRandAugment',
    'ClipRandomResizedCrop',
    'ClipResize',
    'FixedCrop',
    'ImageLoad',
    'MediaReadError',
    'RandomCropBoxes',
    'SampleClipViews',
    'SampleClipWindow',
]
