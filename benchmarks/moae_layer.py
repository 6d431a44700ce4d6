# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""(b) The MoAE layer alone, forward and backward: ours, the per-expert loop of
``PlainS4D``, and a plain MLP that multiplies as much as the chosen experts
(hidden width k * C / 4, no router).
"""

from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

import torch

from s4d_mm.models.layers import MoAE

from . import plain_s4d, timing
from .flops import moae_flops
from .steps import autocast


class Layer(NamedTuple):
    """``impl`` is 'ours', 'loop' or 'mlp'."""

    impl: str
    experts: int
    tokens: int
    dim: int = 768
    top_k: int = 2
    device: str = 'cpu'
    dtype: str = 'float32'
    compile: bool = False


def build_layer(case: Layer) -> Callable:
    """A function that runs the layer forward and backward."""
    torch.manual_seed(0)
    if case.impl == 'ours':
        layer = MoAE(case.dim, case.experts, case.top_k)
    elif case.impl == 'loop':
        layer = plain_s4d.ExpertLoop(case.dim, case.experts, case.top_k)
    else:
        layer = plain_s4d.Mlp(case.dim, case.top_k * case.dim // 4)
    layer.to(case.device).train()
    forward = layer
    if case.compile and case.impl == 'ours':
        forward = torch.compile(layer)
    x = torch.randn(1, case.tokens, case.dim, device=case.device, requires_grad=True)
    upstream = torch.randn_like(x)

    def run() -> None:
        layer.zero_grad()
        x.grad = None
        with autocast(case):
            out = forward(x)
            out, balance = out if isinstance(out, tuple) else (out, 0.0)
            loss = (out.float() * upstream).sum() + balance
        loss.backward()

    return run


def measure(
    experts: Sequence[int] = (2, 4, 8, 16, 32, 64),
    tokens: int = 1600,
    peak: Optional[float] = None,
    repeats: int = 9,
    warmup: int = 3,
    **options,
) -> list:
    """Time of the layer for each number of experts.

    Args:
        experts (Sequence[int]): Defaults to 2, 4 .. 64.
        tokens (int): Of the batch. Defaults to 1600, 2 clips.
        peak (float, optional): FLOP/s of the machine. Defaults to None.
        repeats (int): Rounds. Defaults to 9.
        warmup (int): Rounds before them. Defaults to 3.
        **options: Of :class:`Layer`.

    Returns:
        list[dict]: A row for each number of experts.
    """
    rows = []
    for count in experts:
        cases = {impl: Layer(impl, count, tokens, **options) for impl in ('loop', 'mlp', 'ours')}
        times = timing.interleave(
            {impl: build_layer(case) for impl, case in cases.items()},
            repeats,
            warmup,
            cases['ours'].device,
        )
        case = cases['ours']
        needed = 3 * moae_flops(tokens, case.dim, count, case.top_k)
        rows.append(
            dict(
                experts=count,
                tokens=tokens,
                dim=case.dim,
                ours_ms=times['ours'].median * 1e3,
                loop_ms=times['loop'].median * 1e3,
                mlp_ms=times['mlp'].median * 1e3,
                spread=times['ours'].spread,
                loop_ratio=timing.median_ratio(times['loop'], times['ours']),
                mlp_ratio=timing.median_ratio(times['mlp'], times['ours']),
                gflop_s=needed / times['ours'].median / 1e9,
                share_of_peak=(needed / times['ours'].median / peak if peak else None),
            )
        )
    return rows
