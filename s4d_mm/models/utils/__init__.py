# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .layer_handover import hand_over_blocks, keep_last_blocks

__all__ = ['hand_over_blocks', 'keep_last_blocks']
