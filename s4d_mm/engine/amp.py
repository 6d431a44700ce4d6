# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Mixed precision for recipes that also start on a machine without a GPU."""

from contextlib import AbstractContextManager

import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn
from torch.amp import GradScaler


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16; without them it is slower than float32."""
    checks = ('_is_avx512_bf16_supported', '_is_amx_tile_supported', '_is_arm_bf16_supported')
    return any(getattr(torch.cpu, name)() for name in checks if hasattr(torch.cpu, name))


@OPTIM_WRAPPERS.register_module()
class CpuFallbackAmpOptimWrapper(AmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper``, which also starts on a CPU.

    There the step is computed in bfloat16 if the CPU has instructions for it (and ``dtype`` is not
    'float32'), else in float32, and the log says which. Neither needs a loss scale: a scale in a
    checkpoint of a GPU is left alone, and a run that continues on a GPU begins with a new one. On
    a GPU nothing changes.
    """

    def __init__(self, loss_scale='dynamic', dtype=None, **kwargs) -> None:
        self.on_cpu = get_device() == 'cpu'
        if not self.on_cpu:
            super().__init__(loss_scale=loss_scale, dtype=dtype, **kwargs)
            return
        kwargs.pop('use_fsdp', None)
        super(AmpOptimWrapper, self).__init__(**kwargs)
        self._scale_update_param = None
        self.loss_scaler = GradScaler('cpu', enabled=False)
        in_bfloat16 = cpu_has_bfloat16() and dtype not in ('float32', torch.float32)
        self.cast_dtype = torch.bfloat16 if in_bfloat16 else torch.float32
        chosen = 'bfloat16, without a loss scale.' if in_bfloat16 else 'float32 in its place.'
        print_log(f'Mixed precision on a CPU: {chosen}', logger='current')

    def state_dict(self) -> dict:
        """State of the optimizer, and of the loss scale where there is one."""
        state = super().state_dict()
        if not state['loss_scaler']:  # a GPU would refuse an empty one
            del state['loss_scaler']
        return state

    def optim_context(self, model: nn.Module) -> AbstractContextManager:
        """Within the block, compute in the precision that was chosen."""
        if self.on_cpu and self.cast_dtype == torch.float32:
            return super(AmpOptimWrapper, self).optim_context(model)
        return super().optim_context(model)
