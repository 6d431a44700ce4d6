# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pipeline steps that mmaction2 and mmpretrain do not have."""

from ...media import MediaReadError
from .crops import ClipRandomResizedCrop, FixedCrop, RandomCropBoxes
from .loading import ClipDecode, ClipInit, ImageLoad, SampleClipViews

__all__ = [
    'ClipDecode',
    'ClipInit',
    'ClipRandomResizedCrop',
    'FixedCrop',
    'ImageLoad',
    'MediaReadError',
    'RandomCropBoxes',
    'SampleClipViews',
]
