# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .clip_tsn_head import ClipTSNHead
from .dual_modal_head import DualModalHead
from .emotion_anchor_head import EmotionAnchorHead
from .head_weights import check_head_weights, classification_head
from .s4d_mae_head import S4DMAEHead
from .views_i3d_head import ViewsI3DHead

__all__ = [
    'ClipTSNHead',
    'DualModalHead',
    'EmotionAnchorHead',
    'S4DMAEHead',
    'ViewsI3DHead',
    'check_head_weights',
    'classification_head',
]
