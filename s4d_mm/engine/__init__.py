# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
# ruff: noqa: F401
"""Around the model: the training loop, optimizer groups, schedules, hooks."""

from .amp import CpuFallbackAmpOptimWrapper
from .checkpoint import SafeCheckpointHook
from .checks import RunCheckHook
from .layer_decay import S4DLayerDecayOptimWrapperConstructor
from .loop import ResumableEpochBasedTrainLoop
from .reports import BestAndLastHook, ExpertLoadHook, MediaFaultHook, RunSummaryHook
from .schedulers import WarmupCosineLR
from .stop import HangHook, NonFiniteHook, StopSignalHook
