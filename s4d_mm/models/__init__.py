# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .backbones import FrameWiseBackbone, S4DMAEViT, S4DViT
from .classifiers import MoAEImageClassifier
from .data_preprocessors import (
    BatchRandAugment,
    BatchRandomErasing,
    BatchRandomResizedCrop,
    DualModalDataPreprocessor,
)
from .heads import ClipTSNHead, DualModalHead, S4DMAEHead
from .necks import MoAENeck, S4DMAEDecoder
from .recognizers import DualModalRecognizer

__all__ = [
    'BatchRandAugment',
    'BatchRandomErasing',
    'BatchRandomResizedCrop',
    'ClipTSNHead',
    'DualModalDataPreprocessor',
    'DualModalHead',
    'DualModalRecognizer',
    'FrameWiseBackbone',
    'MoAEImageClassifier',
    'MoAENeck',
    'S4DMAEDecoder',
    'S4DMAEHead',
    'S4DMAEViT',
    'S4DViT',
]
