# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Autocast for code that chooses its data types itself."""

from contextlib import nullcontext
from typing import ContextManager

import torch
from torch import Tensor

# devices without autocast; torch.amp.is_autocast_available would break graphs
# of torch.compile
WITHOUT = ('meta',)


def autocast_to(device_type: str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in the data type of autocast, if that is on, for functions with
    a gradient of their own, which run without autocast.
    """
    if device_type in WITHOUT or not torch.is_autocast_enabled(device_type):
        return tensors
    dtype = torch.get_autocast_dtype(device_type)
    return tuple(x.to(dtype) for x in tensors)


def no_autocast(device_type: str) -> ContextManager:
    """Switch autocast off, where there is any."""
    if device_type in WITHOUT:
        return nullcontext()
    return torch.autocast(device_type, enabled=False)
