# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the Runner does around the model: optimizer groups, hooks, and
strategies for models that are spread over processes.
"""

from .hooks import ClassCheckHook, MediaFaultHook, RunSummaryHook
from .optimizers import InBackwardOptimWrapper, S4DLayerDecayOptimWrapperConstructor
from .strategies import S4DDeepSpeedStrategy, S4DFSDPStrategy

__all__ = [
    'ClassCheckHook',
    'InBackwardOptimWrapper',
    'MediaFaultHook',
    'RunSummaryHook',
    'S4DDeepSpeedStrategy',
    'S4DFSDPStrategy',
    'S4DLayerDecayOptimWrapperConstructor',
]
