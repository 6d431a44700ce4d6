# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .dual_modal_data_preprocessor import DualModalDataPreprocessor

__all__ = ['DualModalDataPreprocessor']
