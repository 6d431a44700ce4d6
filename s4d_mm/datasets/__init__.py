# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From files to batches: datasets, pipeline steps and samplers."""

from .base_expression_dataset import BaseExpressionDataset
from .dual_modal_dataset import DualModalDataset
from .expression_dataset import ExpressionImageDataset, ExpressionVideoDataset
from .public import *  # noqa: F401,F403
from .public import __all__ as _public
from .samplers import *  # noqa: F401,F403
from .samplers import __all__ as _samplers
from .transforms import *  # noqa: F401,F403
from .transforms import __all__ as _transforms

__all__ = [
    'BaseExpressionDataset',
    'DualModalDataset',
    'ExpressionImageDataset',
    'ExpressionVideoDataset',
    *_public,
    *_samplers,
    *_transforms,
]
