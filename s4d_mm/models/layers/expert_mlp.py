# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Neck step: the small MLPs of all experts at once, each on its own tokens.

Letters: S tokens of the whole batch, C channels, E experts, k experts per
token, D hidden width of an expert, A = S*k assignments of a token to an
expert.
"""
import math
from typing import NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.library import custom_op

from .gelu_linear import autocast_to


class Plan(NamedTuple):
    """Assignments in the order of their experts (see
    :func:`sort_by_expert`)."""
    expert: Tensor  # (A, ) expert of each assignment, ascending
    token: Tensor  # (A, ) its token
    place: Tensor  # (S, k) where in this order the assignments of a token are
    counts: Tensor  # (E, ) assignments of each expert
    ends: Tensor  # (E, ) where the assignments of each expert end


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
        expert, torch.arange(num_experts, device=order.device), right=True)
    counts = ends - F.pad(ends[:-1], (1, 0))
    token = torch.div(order, experts.shape[1], rounding_mode='floor')
    return Plan(expert, token, place.view_as(experts), counts, ends)


def expert_mlp(x: Tensor, gates: Tensor, plan: Plan, fc1_weight: Tensor,
               fc1_bias: Tensor, fc2_weight: Tensor,
               fc2_bias: Tensor) -> Tensor:
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
    tensors = autocast_to(device_type, x, gates, fc1_weight, fc1_bias,
                          fc2_weight, fc2_bias)
    with torch.autocast(device_type, enabled=False):
        return _ExpertMLP.apply(*tensors, *plan)


class _ExpertMLP(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x, gates, w1, b1, w2, b2, *plan):
        plan = Plan(*plan)
        hidden = grouped_mm(x.index_select(0, plan.token), w1, plan)  # A D
        hidden += b1[plan.expert]
        gate = _sort(gates, plan)  # A 1
        out = _unsort(grouped_mm(F.gelu(hidden) * gate, w2, plan), plan)
        ctx.save_for_backward(x, gates, w1, w2, b2, hidden, *plan)
        return out.addmm_(_gates_of_experts(gates, plan, len(w1)), b2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, gates, w1, w2, b2, hidden, *plan = ctx.saved_tensors
        plan = Plan(*plan)
        grad = grad.contiguous()
        grad_rows = grad.index_select(0, plan.token)  # A C
        gate = _sort(gates, plan)
        act = F.gelu(hidden)
        # of the hidden layer's output before the gate
        grad_act = grouped_mm(grad_rows, w2.transpose(1, 2), plan)  # A D
        grad_gate = (grad_act * act).sum(dim=1)[plan.place] + (
            grad @ b2.t()).gather(1, plan.expert[plan.place])
        grad_w2 = grouped_outer(act.mul_(gate), grad_rows, plan)
        grad_hidden = torch.ops.aten.gelu_backward(
            grad_act.mul_(gate), hidden)
        grad_w1 = grouped_outer(
            x.index_select(0, plan.token), grad_hidden, plan)
        grad_x = _unsort(
            grouped_mm(grad_hidden, w1.transpose(1, 2), plan), plan)
        one_hot = F.one_hot(plan.expert, len(w1)).to(grad_hidden.dtype)
        grad_b1 = one_hot.t() @ grad_hidden
        grad_b2 = _gates_of_experts(gates, plan, len(w1)).t() @ grad
        return (grad_x, grad_gate, grad_w1, grad_b1, grad_w2, grad_b2,
                *[None] * len(plan))


def _sort(gates: Tensor, plan: Plan) -> Tensor:
    """(S, k) -> (A, 1) in the plan's order."""
    out = gates.new_empty(gates.numel())
    out[plan.place.flatten()] = gates.flatten()
    return out[:, None]


def _unsort(rows: Tensor, plan: Plan) -> Tensor:
    """Sum of the rows of each token, (A, C) -> (S, C)."""
    first, *others = plan.place.unbind(dim=1)
    out = rows.index_select(0, first)
    for place in others:
        out += rows.index_select(0, place)
    return out


def _gates_of_experts(gates: Tensor, plan: Plan, num_experts: int) -> Tensor:
    """(S, k) -> (S, E), zero where an expert is not of the k."""
    out = gates.new_zeros(len(gates), num_experts)
    return out.scatter_(1, plan.expert[plan.place], gates)


def grouped_mm(rows: Tensor, weight: Tensor, plan: Plan) -> Tensor:
    """Each row times the weight of its expert.

    Args:
        rows (Tensor): (A, C), in the plan's order.
        weight (Tensor): (E, C, D).
        plan (Plan): The plan.

    Returns:
        Tensor: (A, D).
    """
    if rows.device.type == 'cpu':
        return torch.ops.s4d_mm.grouped_mm(rows, weight, plan.ends)
    if has_grouped_mm(rows, weight):
        return F.grouped_mm(rows, weight, offs=plan.ends.int())
    return block_mm(rows, weight, plan)


def grouped_outer(rows: Tensor, grads: Tensor, plan: Plan) -> Tensor:
    """Sum over the rows of each expert of their outer products.

    Args:
        rows (Tensor): (A, C), in the plan's order.
        grads (Tensor): (A, D), likewise.
        plan (Plan): The plan.

    Returns:
        Tensor: (E, C, D).
    """
    if rows.device.type == 'cpu':
        return torch.ops.s4d_mm.grouped_outer(rows, grads, plan.ends)
    if has_grouped_mm(rows, grads):
        return F.grouped_mm(rows.t(), grads, offs=plan.ends.int())
    return block_outer(rows, grads, plan)


def has_grouped_mm(*tensors: Tensor) -> bool:
    """Whether torch has a grouped product for tensors of a GPU without the
    host waiting for it: for bfloat16 and rows of a multiple of 16 bytes, on
    Hopper and data-centre Blackwell, from torch 2.10 on."""
    return hasattr(F, 'grouped_mm') and all(
        x.device.type == 'cuda' and x.dtype == torch.bfloat16
        and x.shape[-1] % 8 == 0 and x.shape[-2] % 8 == 0 for x in tensors
    ) and torch.cuda.get_device_capability(tensors[0].device)[0] in (9, 10)


# On a CPU the host knows the numbers of rows, and one product per expert is
# fastest. As operators, they are one step each for torch.compile.
@custom_op('s4d_mm::grouped_mm', mutates_args=())
def _grouped_mm_cpu(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    out, start = rows.new_empty(len(rows), weight.shape[2]), 0
    for expert, end in enumerate(ends.tolist()):
        torch.mm(rows[start:end], weight[expert], out=out[start:end])
        start = end
    return out


@custom_op('s4d_mm::grouped_outer', mutates_args=())
def _grouped_outer_cpu(rows: Tensor, grads: Tensor, ends: Tensor) -> Tensor:
    out = rows.new_empty(len(ends), rows.shape[1], grads.shape[1])
    start = 0
    for expert, end in enumerate(ends.tolist()):
        torch.mm(rows[start:end].t(), grads[start:end], out=out[expert])
        start = end
    return out


@_grouped_mm_cpu.register_fake
def _(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    return rows.new_empty(len(rows), weight.shape[2])


@_grouped_outer_cpu.register_fake
def _(rows: Tensor, grads: Tensor, ends: Tensor) -> Tensor:
    return rows.new_empty(len(ends), rows.shape[1], grads.shape[1])


def block_mm(rows: Tensor, weight: Tensor, plan: Plan) -> Tensor:
    """:func:`grouped_mm` by a batched product of blocks."""
    row, block_expert, size = _blocks(plan)
    blocks = _to_blocks(rows, row, len(block_expert), size)
    return (blocks @ weight[block_expert]).flatten(0, 1)[row]


def block_outer(rows: Tensor, grads: Tensor, plan: Plan) -> Tensor:
    """:func:`grouped_outer` by a batched product of blocks."""
    row, block_expert, size = _blocks(plan)
    count = len(block_expert)
    products = _to_blocks(rows, row, count, size).transpose(
        1, 2) @ _to_blocks(grads, row, count, size)
    return products.new_zeros(
        len(plan.counts), *products.shape[1:]).index_add_(
            0, block_expert, products)


def _blocks(plan: Plan) -> Tuple[Tensor, Tensor, int]:
    """Blocks of equal size that hold one expert each, for batched products.

    An expert's last block is filled up with zeros. The number of blocks is the
    largest that can be needed, so it depends on A and E alone.

    Returns:
        tuple: Row of each assignment in the blocks (A, ), the expert of each
        block, and the rows of a block.
    """
    total, num_experts = len(plan.expert), len(plan.counts)
    # a quarter of an expert's mean load, as a power of two: blocks that are
    # full enough, and few enough copies of an expert's weights
    mean_load = max(total // num_experts, 1)
    size = 2**min(max(math.ceil(math.log2(mean_load / 4 + 1)), 3), 7)
    count = total // size + num_experts

    blocks_of = torch.div(
        plan.counts + size - 1, size, rounding_mode='floor')
    last_block = blocks_of.cumsum(dim=0)
    shift = (last_block - blocks_of) * size - (plan.ends - plan.counts)
    device = plan.expert.device
    row = torch.arange(total, device=device) + shift[plan.expert]
    block_expert = torch.searchsorted(
        last_block, torch.arange(count, device=device),
        right=True).clamp(max=num_experts - 1)
    return row, block_expert, size


def _to_blocks(rows: Tensor, row: Tensor, count: int, size: int) -> Tensor:
    """(A, C) -> (blocks, rows of a block, C)."""
    out = rows.new_zeros(count * size, rows.shape[1])
    return out.index_copy_(0, row, rows).view(count, size, -1)
