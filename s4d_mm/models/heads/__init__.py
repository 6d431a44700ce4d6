# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .dual_modal_head import DualModalHead
from .s4d_mae_head import S4DMAEHead

__all__ = ['DualModalHead', 'S4DMAEHead']
