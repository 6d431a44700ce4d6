# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The experts' MLPs on a GPU: products over the tokens sorted by expert, with
shapes that do not depend on how many tokens an expert has, so that the host
never waits for the device.

Letters: S tokens of the whole batch, C channels, E experts, k experts per
token, D hidden width of an expert, A = S*k assignments of a token to an
expert.
"""

import math
from typing import NamedTuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from .expert_plan import Plan


def forward(
    x: Tensor, gates: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    """:func:`expert_mlp`, and the input of the GELU for the gradient."""
    groups = groups_of(plan, x, w1)
    hidden = grouped_mm(x.index_select(0, plan.token), w1, groups)  # A D
    hidden += b1[plan.expert]
    gate = _sort(gates, plan)  # A 1
    out = _unsort(grouped_mm(F.gelu(hidden) * gate, w2, groups), plan)
    return out.addmm_(_gates_of_experts(gates, plan, len(w1)), b2), hidden


def backward(
    grad: Tensor,
    x: Tensor,
    gates: Tensor,
    w1: Tensor,
    w2: Tensor,
    b2: Tensor,
    hidden: Tensor,
    plan: Plan,
) -> tuple[Tensor, ...]:
    """Gradients of the first six arguments of :func:`forward`."""
    groups = groups_of(plan, x, w1)
    grad_rows = grad.index_select(0, plan.token)  # A C
    gate = _sort(gates, plan)
    act = F.gelu(hidden)
    # of the hidden layer's output before the gate
    grad_act = grouped_mm(grad_rows, w2.transpose(1, 2), groups)  # A D
    grad_gate = (grad_act * act).sum(dim=1)[plan.place] + (grad @ b2.t()).gather(
        1, plan.expert[plan.place]
    )
    grad_w2 = grouped_outer(act.mul_(gate), grad_rows, groups)
    grad_hidden = torch.ops.aten.gelu_backward(grad_act.mul_(gate), hidden)
    grad_w1 = grouped_outer(x.index_select(0, plan.token), grad_hidden, groups)
    grad_x = _unsort(grouped_mm(grad_hidden, w1.transpose(1, 2), groups), plan)
    one_hot = F.one_hot(plan.expert, len(w1)).to(grad_hidden.dtype)
    grad_b1 = one_hot.t() @ grad_hidden
    grad_b2 = _gates_of_experts(gates, plan, len(w1)).t() @ grad
    return grad_x, grad_gate, grad_w1, grad_b1, grad_w2, grad_b2


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


class Blocks(NamedTuple):
    """Blocks of equal size that hold one expert each, for batched products.

    An expert's last block is filled up with zeros. The number of blocks is the
    largest that can be needed, so it depends on A and E alone.
    """

    row: Tensor  # (A, ) row of each assignment in the blocks
    expert: Tensor  # (blocks, ) expert of each block
    size: int  # rows of a block
    num_experts: int  # E


Groups = Union[Tensor, Blocks]


def groups_of(plan: Plan, x: Tensor, weight: Tensor) -> Groups:
    """What tells the products below where each expert's rows are: the rows'
    ends for ``torch.nn.functional.grouped_mm``, or blocks.
    """
    return plan.ends if has_grouped_mm(x, weight) else blocks_of(plan)


def has_grouped_mm(x: Tensor, weight: Tensor) -> bool:
    """Whether torch has a grouped product for tensors of a GPU without the
    host waiting for it: for bfloat16 and rows of a multiple of 16 bytes, on
    Hopper and data-centre Blackwell, from torch 2.10 on.
    """
    return (
        hasattr(F, 'grouped_mm')
        and all(t.device.type == 'cuda' and t.dtype == torch.bfloat16 for t in (x, weight))
        and all(n % 8 == 0 for n in weight.shape[1:])
        and torch.cuda.get_device_capability(x.device)[0] in (9, 10)
    )


def grouped_mm(rows: Tensor, weight: Tensor, groups: Groups) -> Tensor:
    """Each row times the weight of its expert.

    Args:
        rows (Tensor): (A, C), in the plan's order.
        weight (Tensor): (E, C, D).
        groups (Tensor | Blocks): From :func:`groups_of`.

    Returns:
        Tensor: (A, D).
    """
    if isinstance(groups, Tensor):
        return F.grouped_mm(rows, weight, offs=groups)
    products = _to_blocks(rows, groups) @ weight[groups.expert]
    return products.flatten(0, 1)[groups.row]


def grouped_outer(rows: Tensor, grads: Tensor, groups: Groups) -> Tensor:
    """Sum over the rows of each expert of their outer products.

    Args:
        rows (Tensor): (A, C), in the plan's order.
        grads (Tensor): (A, D), likewise.
        groups (Tensor | Blocks): From :func:`groups_of`.

    Returns:
        Tensor: (E, C, D).
    """
    if isinstance(groups, Tensor):
        return F.grouped_mm(rows.t(), grads, offs=groups)
    products = _to_blocks(rows, groups).transpose(1, 2) @ _to_blocks(grads, groups)
    # an expert may have many blocks: half precision would lose their sum
    out = products.new_zeros(groups.num_experts, *products.shape[1:], dtype=torch.float32)
    out.index_add_(0, groups.expert, products.to(out.dtype))
    return out.to(products.dtype)


def blocks_of(plan: Plan) -> Blocks:
    """Divide the assignments into blocks."""
    total, num_experts = len(plan.expert), len(plan.counts)
    # a quarter of an expert's mean load, as a power of two: blocks that are
    # full enough, and few enough copies of an expert's weights
    mean_load = max(total // num_experts, 1)
    size = 2 ** min(max(math.ceil(math.log2(mean_load / 4 + 1)), 3), 7)
    count = total // size + num_experts

    needed = torch.div(plan.counts + size - 1, size, rounding_mode='floor')
    last_block = needed.cumsum(dim=0)
    shift = (last_block - needed) * size - (plan.ends - plan.counts)
    device = plan.expert.device
    row = torch.arange(total, device=device) + shift[plan.expert]
    block_expert = torch.searchsorted(
        last_block, torch.arange(count, device=device), right=True
    ).clamp(max=num_experts - 1)
    return Blocks(row, block_expert, size, num_experts)


def _to_blocks(rows: Tensor, blocks: Blocks) -> Tensor:
    """(A, C) -> (blocks, rows of a block, C)."""
    out = rows.new_zeros(len(blocks.expert) * blocks.size, rows.shape[1])
    return out.index_copy_(0, blocks.row, rows).view(-1, blocks.size, rows.shape[1])
