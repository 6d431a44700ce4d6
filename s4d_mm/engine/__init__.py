# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the Runner does around the model: optimizer groups and hooks."""
from .hooks import ClassCheckHook, MediaFaultHook, RunSummaryHook
from .optimizers import S4DLayerDecayOptimWrapperConstructor

__all__ = [
    'ClassCheckHook', 'MediaFaultHook', 'RunSummaryHook',
    'S4DLayerDecayOptimWrapperConstructor'
]
