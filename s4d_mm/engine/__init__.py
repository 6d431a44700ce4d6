# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What the Runner does around the model: optimizer groups, schedules, hooks, sharding (FSDP)."""

from .fsdp_strategy import S4DFSDPStrategy
from .hooks import (
    BestAndLastHook,
    CheckpointFitHook,
    ClassCheckHook,
    MediaFaultHook,
    ResumeCheckHook,
    RunSummaryHook,
    SafeCheckpointHook,
    StopSignalHook,
)
from .layer_decay import S4DLayerDecayOptimWrapperConstructor
from .schedulers import WarmupCosineLR

__all__ = [
    'BestAndLastHook',
    'CheckpointFitHook',
    'ClassCheckHook',
    'MediaFaultHook',
    'ResumeCheckHook',
    'RunSummaryHook',
    'SafeCheckpointHook',
    'StopSignalHook',
    'S4DFSDPStrategy',
    'S4DLayerDecayOptimWrapperConstructor',
    'WarmupCosineLR',
]
