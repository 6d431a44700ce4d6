# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .class_check_hook import ClassCheckHook
from .export_mmaction_vit_hook import ExportMMActionViTHook
from .media_fault_hook import MediaFaultHook
from .run_summary_hook import RunSummaryHook

__all__ = ['ClassCheckHook', 'ExportMMActionViTHook', 'MediaFaultHook', 'RunSummaryHook']
