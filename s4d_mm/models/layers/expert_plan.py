# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Neck step: which expert works on which tokens.

Letters: S tokens of the whole batch, E experts, k experts per token, A = S*k
assignments of a token to an expert.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Plan(NamedTuple):
    """Assignments in the order of their experts (see
    :func:`sort_by_expert`).
    """

    expert: Tensor  # (A, ) expert of each assignment, ascending
    token: Tensor  # (A, ) its token
    place: Tensor  # (S, k) where in this order the assignments of a token are
    counts: Tensor  # (E, ) int32, assignments of each expert
    ends: Tensor  # (E, ) int32, where the assignments of each expert end


def sort_by_expert(experts: Tensor, num_experts: int) -> Plan:
    """Sort assignments by expert; those of one expert stay in their order.

    Args:
        experts (Tensor): (S, k), the experts of each token.
        num_experts (int): E.

    Returns:
        Plan: All tensors on the device of ``experts``.
    """
    flat = experts.flatten()
    expert, order = flat.sort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    ends = torch.searchsorted(
        expert, torch.arange(num_experts, device=order.device), right=True, out_int32=True
    )
    counts = ends - F.pad(ends[:-1], (1, 0))
    token = torch.div(order, experts.shape[1], rounding_mode='floor')
    return Plan(expert, token, place.view_as(experts), counts, ends)
