# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .layer_decay_optim_wrapper_constructor import \
    S4DLayerDecayOptimWrapperConstructor

__all__ = ['S4DLayerDecayOptimWrapperConstructor']
