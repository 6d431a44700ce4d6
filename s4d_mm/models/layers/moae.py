# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Neck step: the mixture of adapter experts (MoAE).

Letters: S tokens of the whole batch, C channels, E experts, k experts per
token, D hidden width of an expert, A = S*k assignments of a token to an
expert.
"""

import math
from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .expert_mlp import expert_mlp
from .expert_plan import sort_by_expert
from .packing import Sizes
from .precision import no_autocast


class NoisyTopKRouter(nn.Module):
    """Noisy top-k gating (Shazeer et al. 2017, arXiv 1701.06538, eq. 3-5).

    In training, ``N(0, 1) * softplus(W_n y + b_n)`` is added to the logits
    ``W_r y + b_r``; in evaluation nothing is. Computed in float32, also under
    autocast.

    Args:
        embed_dims (int): C.
        num_experts (int): E.
        top_k (int): k, 1..E.
        noisy (bool): Whether to add noise in training. Defaults to True.
    """

    def __init__(self, embed_dims: int, num_experts: int, top_k: int, noisy: bool = True) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(f'top_k must be in 1..num_experts={num_experts}, but got {top_k}.')
        self.top_k = top_k
        self.gate = nn.Linear(embed_dims, num_experts)
        self.noise = nn.Linear(embed_dims, num_experts) if noisy else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Choose the experts of each token.

        Args:
            x (Tensor): (S, C).

        Returns:
            tuple[Tensor]: Gates (S, k), which sum to 1; expert ids (S, k);
            probabilities (S, E) of the softmax over all logits.
        """
        with no_autocast(x.device.type):
            x = x.float()
            weight, bias = self.gate.weight.float(), self.gate.bias.float()
            if self.training and self.noise is not None:
                # both in one product
                weight = torch.cat([weight, self.noise.weight.float()])
                bias = torch.cat([bias, self.noise.bias.float()])
                logits, std = F.linear(x, weight, bias).chunk(2, dim=-1)
                logits = logits + torch.randn_like(logits) * F.softplus(std)
            else:
                logits = F.linear(x, weight, bias)
            kept, experts = logits.topk(self.top_k, dim=-1)
            return kept.softmax(dim=-1), experts, logits.softmax(dim=-1)


def load_balance_loss(probs: Tensor, counts: Tensor) -> Tensor:
    """Load-balance loss of the Switch Transformer (Fedus et al. 2021, arXiv
    2101.03961, eq. 4): ``E * sum_e f_e * P_e``.

    Args:
        probs (Tensor): (S, E), router probabilities; P_e is their mean.
        counts (Tensor): (E, ), number of tokens routed to each expert; f_e is
            their share of the S tokens, so that the shares of all experts sum
            to k.

    Returns:
        Tensor: Scalar, k when the load is even, E when all tokens and all
        probability are with one expert.
    """
    share = counts.to(probs.dtype) / max(len(probs), 1)
    return len(counts) * (share * probs.mean(dim=0)).sum()


class MoAE(nn.Module):
    r"""Mixture of adapter experts.

    ``MoAE(y) = sum over the top-k experts e of
    g_e * (W2_e GELU(W1_e y + b1_e) + b2_e)``.

    All experts are stacked parameters. The assignments of tokens to experts
    are sorted by expert, and :func:`expert_mlp` multiplies for many experts at
    once. On a GPU all shapes depend on the input's shape alone: the host never
    waits for it. Every parameter takes part in every step.

    Args:
        embed_dims (int): C.
        num_experts (int): E. Defaults to 8.
        top_k (int): k. Defaults to 2.
        expert_ratio (float): D over C. Defaults to 0.25.
        noisy (bool): Router noise in training. Defaults to True.
        capacity_factor (float, optional): If given, in training an expert
            takes at most ``ceil(capacity_factor * A / E)`` assignments; later
            ones are dropped, in batch order. Nothing is ever dropped in
            evaluation. Defaults to None, which drops nothing.
    """

    def __init__(
        self,
        embed_dims: int,
        num_experts: int = 8,
        top_k: int = 2,
        expert_ratio: float = 0.25,
        noisy: bool = True,
        capacity_factor: Optional[float] = None,
    ) -> None:
        super().__init__()
        if capacity_factor is not None and capacity_factor <= 0:
            raise ValueError(
                f'capacity_factor must be positive or None, but got {capacity_factor}.'
            )
        self.num_experts = num_experts
        self.capacity_factor = capacity_factor
        hidden = int(embed_dims * expert_ratio)
        if hidden < 1:
            raise ValueError(
                f'expert_ratio={expert_ratio} leaves no hidden channel of embed_dims={embed_dims}.'
            )
        self.router = NoisyTopKRouter(embed_dims, num_experts, top_k, noisy)
        self.fc1_weight = nn.Parameter(torch.empty(num_experts, embed_dims, hidden))
        self.fc1_bias = nn.Parameter(torch.zeros(num_experts, hidden))
        self.fc2_weight = nn.Parameter(torch.empty(num_experts, hidden, embed_dims))
        self.fc2_bias = nn.Parameter(torch.zeros(num_experts, embed_dims))
        for weight in (self.fc1_weight, self.fc2_weight):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, x: Tensor, sizes: Optional[Sizes] = None) -> tuple[Tensor, Tensor]:
        """Run each token's experts.

        Args:
            x (Tensor): (..., C).
            sizes (Sequence[tuple[int]], optional): Given if ``x`` is several
                batches in one (see :func:`pack`), each of which is balanced
                by itself. Defaults to None.

        Returns:
            tuple[Tensor]: (..., C) and the load-balance loss, a scalar, the
            mean over the batches.
        """
        tokens = x.reshape(-1, x.shape[-1])  # S C
        gates, experts, probs = self.router(tokens)
        plan = sort_by_expert(experts, self.num_experts)
        if self.training and self.capacity_factor is not None:
            capacity = math.ceil(self.capacity_factor * experts.numel() / self.num_experts)
            start = plan.ends - plan.counts
            # how many assignments of its expert come before each one
            rank = plan.place - start[experts]
            gates = gates * (rank < capacity)
        out = expert_mlp(
            tokens, gates, plan, self.fc1_weight, self.fc1_bias, self.fc2_weight, self.fc2_bias
        )
        if sizes is None:
            return out.view_as(x), load_balance_loss(probs, plan.counts)
        tokens_of = [b * n for b, n in sizes]
        losses = [
            load_balance_loss(p, F.one_hot(e, self.num_experts).sum((0, 1)))
            for p, e in zip(probs.split(tokens_of), experts.split(tokens_of))
        ]
        return out.view_as(x), torch.stack(losses).mean()
