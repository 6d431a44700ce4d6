# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .backbones import S4DMAEViT, S4DViT
from .data_preprocessors import DualModalDataPreprocessor
from .heads import DualModalHead, S4DMAEHead
from .necks import MoAENeck, S4DMAEDecoder

__all__ = [
    'DualModalDataPreprocessor', 'DualModalHead', 'MoAENeck', 'S4DMAEDecoder',
    'S4DMAEHead', 'S4DMAEViT', 'S4DViT'
]
