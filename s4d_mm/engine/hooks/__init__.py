# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .best_and_last_hook import BestAndLastHook
from .checkpoint_fit_hook import CheckpointFitHook
from .class_check_hook import ClassCheckHook
from .media_fault_hook import MediaFaultHook
from .resume_check_hook import ResumeCheckHook
from .run_summary_hook import RunSummaryHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .stop_signal_hook import StopSignalHook

__all__ = [
    'BestAndLastHook',
    'CheckpointFitHook',
    'ClassCheckHook',
    'MediaFaultHook',
    'ResumeCheckHook',
    'RunSummaryHook',
    'SafeCheckpointHook',
    'StopSignalHook',
]
