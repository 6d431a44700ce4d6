# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .moae_neck import MoAENeck
from .s4d_mae_decoder import S4DMAEDecoder

__all__ = ['MoAENeck', 'S4DMAEDecoder']
