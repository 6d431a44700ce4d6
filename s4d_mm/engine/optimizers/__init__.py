# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .in_backward_optim_wrapper import InBackwardOptimWrapper
from .layer_decay_optim_wrapper_constructor import S4DLayerDecayOptimWrapperConstructor

__all__ = ['InBackwardOptimWrapper', 'S4DLayerDecayOptimWrapperConstructor']
