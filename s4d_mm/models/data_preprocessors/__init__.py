# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .device_augment import BatchRandAugment, BatchRandomErasing, BatchRandomResizedCrop
from .device_blending import BatchCutMix, BatchMixup
from .dual_modal_data_preprocessor import DualModalDataPreprocessor

__all__ = [
    'BatchCutMix',
    'BatchMixup',
    'BatchRandAugment',
    'BatchRandomErasing',
    'BatchRandomResizedCrop',
    'DualModalDataPreprocessor',
]
