# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .batch_augments import BatchRandAugment, BatchRandomErasing, BatchRandomResizedCrop
from .blending import ReversedCutmixBlending, ReversedMixupBlending
from .dual_modal_data_preprocessor import DualModalDataPreprocessor

__all__ = [
    'BatchRandAugment',
    'BatchRandomErasing',
    'BatchRandomResizedCrop',
    'DualModalDataPreprocessor',
    'ReversedCutmixBlending',
    'ReversedMixupBlending',
]
