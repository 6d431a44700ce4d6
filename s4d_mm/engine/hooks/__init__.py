# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .best_and_last_hook import BestAndLastHook
from .checkpoint_fit_hook import CheckpointFitHook
from .class_check_hook import ClassCheckHook
from .hang_hook import HangHook
from .media_fault_hook import MediaFaultHook
from .run_summary_hook import RunSummaryHook

__all__ = [
    'BestAndLastHook',
    'CheckpointFitHook',
    'ClassCheckHook',
    'HangHook',
    'MediaFaultHook',
    'RunSummaryHook',
]
