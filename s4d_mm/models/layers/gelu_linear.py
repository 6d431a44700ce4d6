# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Backbone and neck step: GELU and the linear layer after it, which keep one
hidden layer for the backward pass and not two.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .precision import autocast_to, no_autocast


def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``linear(gelu(x))`` with the exact GELU, which is computed again in the
    backward pass.

    Args:
        x (Tensor): (..., D).
        weight (Tensor): (C, D).
        bias (Tensor): (C, ).

    Returns:
        Tensor: (..., C), in the data type of autocast, if that is on.
    """
    device_type = x.device.type
    x, weight, bias = autocast_to(device_type, x, weight, bias)
    with no_autocast(device_type):
        return _GELULinear.apply(x, weight, bias)


class _GELULinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return F.linear(F.gelu(x), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        rows = grad.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            grad_weight = rows.t() @ F.gelu(x).flatten(0, -2)
        if ctx.needs_input_grad[2]:
            grad_bias = rows.sum(dim=0)
        if ctx.needs_input_grad[0]:
            grad_x = torch.ops.aten.gelu_backward(grad @ weight, x)
        return grad_x, grad_weight, grad_bias
