# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Neck step: the small MLPs of all experts at once, each on its own tokens.

Letters: S tokens of the whole batch, C channels, E experts, k experts per
token, D hidden width of an expert, A = S*k assignments of a token to an
expert.
"""

from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import expert_mlp_cpu, expert_mlp_grouped
from .expert_plan import Plan
from .precision import autocast_to, no_autocast


def expert_mlp(
    x: Tensor,
    gates: Tensor,
    plan: Plan,
    fc1_weight: Tensor,
    fc1_bias: Tensor,
    fc2_weight: Tensor,
    fc2_bias: Tensor,
) -> Tensor:
    """Weighted sum of the outputs of each token's experts.

    ``sum over the k experts e of g_e * (GELU(x W1_e + b1_e) W2_e + b2_e)``,
    with the exact GELU. Its gradient is written by hand: of what is as large
    as the assignments, only the input of the GELU is kept for it.

    Args:
        x (Tensor): Tokens (S, C).
        gates (Tensor): (S, k).
        plan (Plan): From :func:`sort_by_expert`.
        fc1_weight (Tensor): (E, C, D).
        fc1_bias (Tensor): (E, D).
        fc2_weight (Tensor): (E, D, C).
        fc2_bias (Tensor): (E, C).

    Returns:
        Tensor: (S, C), in the data type of autocast, if that is on.
    """
    device_type = x.device.type
    gates = gates.to(x.dtype)  # the router's are float32
    tensors = autocast_to(device_type, x, gates, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    with no_autocast(device_type):
        return _ExpertMLP.apply(*tensors, *plan)


def implementation(device_type: str) -> ModuleType:
    """The module with ``forward`` and ``backward`` for a device."""
    return expert_mlp_cpu if device_type == 'cpu' else expert_mlp_grouped


class _ExpertMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gates, w1, b1, w2, b2, *plan):
        out, hidden = implementation(x.device.type).forward(x, gates, w1, b1, w2, b2, Plan(*plan))
        ctx.save_for_backward(x, gates, w1, w2, b2, hidden, *plan)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, gates, w1, w2, b2, hidden, *plan = ctx.saved_tensors
        grads = implementation(x.device.type).backward(
            grad.contiguous(), x, gates, w1, w2, b2, hidden, Plan(*plan)
        )
        return (*grads, *[None] * len(plan))
