# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .clip_tsn_head import ClipTSNHead
from .dual_modal_head import DualModalHead
from .head_weights import check_head_weights, classification_head
from .s4d_mae_head import S4DMAEHead

__all__ = [
    'ClipTSNHead',
    'DualModalHead',
    'S4DMAEHead',
    'check_head_weights',
    'classification_head',
]
