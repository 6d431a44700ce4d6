# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From files to batches: datasets, pipeline steps and samplers."""
from .base_expression_dataset import BaseExpressionDataset
from .dual_modal_dataset import DualModalDataset
from .expression_dataset import ExpressionImageDataset, ExpressionVideoDataset
from .public_datasets import (DFEW, FERV39k, MAFW, RAFDB, AffectNet, FERPlus,
                              VoxCeleb2)
from .samplers import *  # noqa: F401,F403
from .samplers import __all__ as _samplers
from .transforms import *  # noqa: F401,F403
from .transforms import __all__ as _transforms

__all__ = [
    'DFEW', 'AffectNet', 'BaseExpressionDataset', 'DualModalDataset',
    'ExpressionImageDataset', 'ExpressionVideoDataset', 'FERPlus', 'FERV39k',
    'MAFW', 'RAFDB', 'VoxCeleb2', *_samplers, *_transforms
]
