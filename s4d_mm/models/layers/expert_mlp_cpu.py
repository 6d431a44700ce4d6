# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The experts' MLPs on a CPU.

Here the host knows how many tokens an expert has. A few experts at a time, of
about equal numbers of tokens, are filled up to one number and run through a
batched product, so that each core works on experts of its own and all that
lies between the products stays in the caches. Both passes are operators of
their own, one step each for ``torch.compile``.

Letters: S tokens of the whole batch, C channels, E experts, k experts per
token, D hidden width of an expert, A = S*k assignments of a token to an
expert, P assignments with those that fill up.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import custom_op
from torch.utils.flop_counter import register_flop_formula

from .expert_plan import Plan

ROWS = 512  # of a product, about: 1.5 MB of 768 channels
EXPERTS = 2  # of a product, if their rows are more


class _Layout(NamedTuple):
    """The assignments filled up."""

    groups: list[tuple[int, int, int]]  # of group_experts
    token: Tensor  # (P, ) token of each row, 0 where filled up
    gate: Tensor  # (P, 1) its gate, 0 where filled up
    place: Tensor  # (S, k) rows of the assignments of a token

    def slices(self) -> Iterator[tuple[slice, slice, int]]:
        """Experts, rows, and rows of an expert of each group."""
        start = 0
        for first, last, rows in self.groups:
            end = start + (last - first) * rows
            yield slice(first, last), slice(start, end), rows
            start = end


def padded_rows(assignments: int) -> int:
    """The most that P can be."""
    return assignments + assignments // 4


def group_experts(counts: list[int]) -> list[tuple[int, int, int]]:
    """Divide neighbouring experts into groups that are computed at once.

    A group is at most a quarter larger than the assignments in it, and has
    about ``ROWS`` rows or ``EXPERTS`` experts.

    Args:
        counts (list[int]): Assignments of each expert.

    Returns:
        list[tuple[int]]: First expert, expert after the last, and rows of
        each expert, of each group.
    """
    groups, first = [], 0
    while first < len(counts):
        last, rows, total = first + 1, counts[first], counts[first]
        while last < len(counts):
            size = last + 1 - first
            more, most = total + counts[last], max(rows, counts[last])
            if 4 * size * most > 5 * more or (size > EXPERTS and size * most > ROWS):
                break
            last, rows, total = last + 1, most, more
        groups.append((first, last, rows))
        first = last
    return groups


def _layout(gates: Tensor, token: Tensor, place: Tensor, expert: Tensor, ends: Tensor) -> _Layout:
    ends = ends.tolist()
    begins = [0, *ends[:-1]]
    counts = [end - begin for begin, end in zip(begins, ends)]
    groups = group_experts(counts)
    shift, total = [], 0  # how far the rows of an expert move
    for first, last, rows in groups:
        for e in range(first, last):
            shift.append(total - begins[e])
            total += rows
    row = torch.arange(len(expert), device=expert.device)
    row += torch.tensor(shift, device=expert.device)[expert]
    place = row[place]
    padded_token = token.new_zeros(total)
    padded_token[row] = token
    gate = gates.new_zeros(total)
    gate[place.flatten()] = gates.flatten()
    return _Layout(groups, padded_token, gate[:, None], place)


def forward(
    x: Tensor, gates: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, plan: Plan
) -> tuple[Tensor, Tensor]:
    """:func:`expert_mlp`, and the input of the GELU for the gradient."""
    return torch.ops.s4d_mm.expert_mlp(
        x, gates, w1, b1, w2, b2, plan.token, plan.place, plan.expert, plan.ends
    )


def backward(
    grad: Tensor,
    x: Tensor,
    gates: Tensor,
    w1: Tensor,
    w2: Tensor,
    b2: Tensor,
    hidden: Tensor,
    plan: Plan,
) -> list[Tensor]:
    """Gradients of the first six arguments of :func:`forward`."""
    return torch.ops.s4d_mm.expert_mlp_backward(
        grad, x, gates, w1, w2, b2, hidden, plan.token, plan.place, plan.expert, plan.ends
    )


@custom_op('s4d_mm::expert_mlp', mutates_args=())
def _forward(
    x: Tensor,
    gates: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    token: Tensor,
    place: Tensor,
    expert: Tensor,
    ends: Tensor,
) -> tuple[Tensor, Tensor]:
    layout = _layout(gates, token, place, expert, ends)
    hidden = x.new_empty(padded_rows(len(token)), w1.shape[2])
    out = torch.zeros_like(x)
    for experts, rows, size in layout.slices():
        if size == 0:
            continue
        token = layout.token[rows]
        h = hidden[rows].unflatten(0, (-1, size))  # experts, their rows, D
        torch.baddbmm(b1[experts, None], _take(x, token, size), w1[experts], out=h)
        y = torch.baddbmm(b2[experts, None], F.gelu(h), w2[experts])
        out.index_add_(0, token, y.flatten(0, 1).mul_(layout.gate[rows]))
    return out, hidden


@custom_op('s4d_mm::expert_mlp_backward', mutates_args=())
def _backward(
    grad: Tensor,
    x: Tensor,
    gates: Tensor,
    w1: Tensor,
    w2: Tensor,
    b2: Tensor,
    hidden: Tensor,
    token: Tensor,
    place: Tensor,
    expert: Tensor,
    ends: Tensor,
) -> list[Tensor]:
    layout = _layout(gates, token, place, expert, ends)
    grad_x, grad_gate = torch.zeros_like(x), torch.empty_like(layout.gate)
    grad_b1 = w1.new_empty(len(w1), w1.shape[2])
    grad_w1, grad_w2, grad_b2 = map(torch.empty_like, (w1, w2, b2))
    for experts, rows, size in layout.slices():
        if size == 0:  # experts without a token
            for g in (grad_w1, grad_b1, grad_w2, grad_b2):
                g[experts] = 0
            continue
        token = layout.token[rows]
        gate = layout.gate[rows].unflatten(0, (-1, size))
        h = hidden[rows].unflatten(0, (-1, size))
        g = _take(grad, token, size)
        # of the GELU's output before the gate
        grad_act = torch.bmm(g, w2[experts].transpose(1, 2))
        act = F.gelu(h)
        grad_gate[rows] = torch.baddbmm(
            (grad_act * act).sum(2, keepdim=True), g, b2[experts, :, None]
        ).flatten(0, 1)
        torch.bmm(act.mul_(gate).transpose(1, 2), g, out=grad_w2[experts])
        torch.bmm(gate.transpose(1, 2), g, out=grad_b2[experts, None])
        grad_h = torch.ops.aten.gelu_backward(grad_act.mul_(gate), h)
        torch.sum(grad_h, 1, out=grad_b1[experts])
        torch.bmm(_take(x, token, size).transpose(1, 2), grad_h, out=grad_w1[experts])
        grad_x.index_add_(0, token, torch.bmm(grad_h, w1[experts].transpose(1, 2)).flatten(0, 1))
    return [grad_x, grad_gate[layout.place, 0], grad_w1, grad_b1, grad_w2, grad_b2]


def _take(x: Tensor, token: Tensor, size: int) -> Tensor:
    """Rows of ``x``, (experts, ``size``, C)."""
    return x.index_select(0, token).unflatten(0, (-1, size))


@_forward.register_fake
def _(x, gates, w1, b1, w2, b2, token, place, expert, ends):
    return (torch.empty_like(x), x.new_empty(padded_rows(len(token)), w1.shape[2]))


@_backward.register_fake
def _(grad, x, gates, w1, w2, b2, hidden, token, place, expert, ends):
    return [
        torch.empty_like(x),
        torch.empty_like(gates),
        torch.empty_like(w1),
        w1.new_empty(len(w1), w1.shape[2]),
        torch.empty_like(w2),
        torch.empty_like(b2),
    ]


# What torch.utils.flop_counter counts: the assignments, filled up or not.


@register_flop_formula(torch.ops.s4d_mm.expert_mlp)
def _(x, gates, w1, *args, **kwargs) -> int:
    return 2 * 2 * math.prod((*gates, *w1[1:]))  # two products


@register_flop_formula(torch.ops.s4d_mm.expert_mlp_backward)
def _(grad, x, gates, w1, *args, **kwargs) -> int:
    return 4 * 2 * math.prod((*gates, *w1[1:]))  # four products
