# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .dual_modal_batch_sampler import DualModalBatchSampler
from .dual_modal_sampler import DualModalSampler

__all__ = ['DualModalBatchSampler', 'DualModalSampler']
