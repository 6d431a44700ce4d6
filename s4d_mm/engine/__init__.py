# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Around the model: training loops, optimizer groups, schedules, hooks."""

from .amp import CpuFallbackAmpOptimWrapper
from .hooks import (
    BestAndLastHook,
    CheckpointFitHook,
    ClassCheckHook,
    DataCheckHook,
    ExpertLoadHook,
    HangHook,
    MediaFaultHook,
    NonFiniteHook,
    ResumeCheckHook,
    RunSummaryHook,
    SafeCheckpointHook,
    StopSignalHook,
)
from .layer_decay import S4DLayerDecayOptimWrapperConstructor
from .loops import ResumableEpochBasedTrainLoop
from .schedulers import WarmupCosineLR

__all__ = [
    'CpuFallbackAmpOptimWrapper',
    'BestAndLastHook',
    'CheckpointFitHook',
    'ClassCheckHook',
    'ExpertLoadHook',
    'DataCheckHook',
    'HangHook',
    'MediaFaultHook',
    'ResumableEpochBasedTrainLoop',
    'NonFiniteHook',
    'ResumeCheckHook',
    'RunSummaryHook',
    'SafeCheckpointHook',
    'StopSignalHook',
    'S4DLayerDecayOptimWrapperConstructor',
    'WarmupCosineLR',
]
