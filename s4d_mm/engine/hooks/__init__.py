# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .best_and_last_hook import BestAndLastHook
from .checkpoint_fit_hook import CheckpointFitHook
from .class_check_hook import ClassCheckHook
from .data_check_hook import DataCheckHook
from .expert_load_hook import ExpertLoadHook
from .hang_hook import HangHook
from .media_fault_hook import MediaFaultHook
from .non_finite_hook import NonFiniteHook
from .resume_check_hook import ResumeCheckHook
from .run_summary_hook import RunSummaryHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .stop_signal_hook import StopSignalHook

__all__ = [
    'BestAndLastHook',
    'CheckpointFitHook',
    'ClassCheckHook',
    'ExpertLoadHook',
    'DataCheckHook',
    'HangHook',
    'MediaFaultHook',
    'NonFiniteHook',
    'ResumeCheckHook',
    'RunSummaryHook',
    'SafeCheckpointHook',
    'StopSignalHook',
]
