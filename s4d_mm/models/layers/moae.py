# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The mixture of adapter experts (MoAE): router, balance loss, experts.

Suffixes name the shape of a tensor by the letters of :mod:`s4d_mm.models`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NoisyTopKRouter(nn.Module):
    """Noisy top-k gating (Shazeer et al. 2017, arXiv 1701.06538, eq. 3-5).

    In training, ``N(0, 1) * softplus(W_n y + b_n)`` is added to the logits ``W_r y + b_r``;
    in evaluation nothing is. Computed in float32, also under autocast.

    Args:
        embed_dims (int): C.
        num_experts (int): E.
        top_k (int): K, 1..E.
        noisy (bool): Whether to add noise in training. Defaults to True.
    """

    def __init__(self, embed_dims: int, num_experts: int, top_k: int, noisy: bool = True) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(f'top_k must be in 1..num_experts={num_experts}, but got {top_k}.')
        self.top_k = top_k
        self.gate = nn.Linear(embed_dims, num_experts)
        self.noise = nn.Linear(embed_dims, num_experts) if noisy else None

    def forward(self, x_SC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Choose the experts of each token.

        Args:
            x_SC (Tensor): Tokens.

        Returns:
            tuple[Tensor]: Gates (S, K), which sum to 1; expert ids (S, K); probabilities (S, E)
            of the softmax over all logits.
        """
        x_SC = x_SC.float()
        with torch.autocast(x_SC.device.type, enabled=False):
            logits_SE = F.linear(x_SC, self.gate.weight.float(), self.gate.bias.float())
            if self.training and self.noise is not None:
                std_SE = F.softplus(
                    F.linear(x_SC, self.noise.weight.float(), self.noise.bias.float())
                )
                logits_SE = logits_SE + torch.randn_like(std_SE) * std_SE
            kept_SK, experts_SK = logits_SE.topk(self.top_k, dim=-1)
            return kept_SK.softmax(dim=-1), experts_SK, logits_SE.softmax(dim=-1)


def load_balance_loss(probs_SE: Tensor, experts_SK: Tensor) -> Tensor:
    """Load-balance loss of the Switch Transformer (Fedus et al. 2021, arXiv 2101.03961, eq. 4).

    ``E * sum_e f_e * P_e``, where f_e is the share of the S tokens that are routed to expert e
    (the shares sum to K) and P_e the mean of its router probability.

    Args:
        probs_SE (Tensor): Router probabilities.
        experts_SK (Tensor): The experts of each token.

    Returns:
        Tensor: Scalar, K when the load is even, E when all tokens and all probability are with
        one expert.
    """
    num_experts = probs_SE.shape[1]
    share_E = F.one_hot(experts_SK, num_experts).sum(dim=1).to(probs_SE.dtype).mean(dim=0)
    return num_experts * (share_E * probs_SE.mean(dim=0)).sum()


def drop_over_capacity(gates_SK: Tensor, experts_SK: Tensor, num_experts: int, factor: float):
    """Set the gates of what an expert cannot take to 0.

    An expert takes its first ``ceil(factor * S * K / E)`` tokens in batch order (Switch
    Transformer, section 2.2).

    Args:
        gates_SK (Tensor): Gates.
        experts_SK (Tensor): The experts of each token.
        num_experts (int): E.
        factor (float): Capacity of an expert over its mean load, above 0.

    Returns:
        Tensor: Gates (S, K).
    """
    capacity = math.ceil(factor * experts_SK.numel() / num_experts)
    chosen_AE = F.one_hot(experts_SK.flatten(), num_experts)
    number_A = (chosen_AE.cumsum(dim=0) * chosen_AE).sum(dim=1)  # 1 for an expert's first token
    return gates_SK * (number_A <= capacity).view_as(gates_SK)


def has_grouped_mm(x_SC: Tensor, hidden_dims: int) -> bool:
    """Whether torch multiplies the experts of these tokens in one grouped product.

    Args:
        x_SC (Tensor): Tokens, in the data type of the products.
        hidden_dims (int): D.

    Returns:
        bool: For bfloat16 on a GPU of compute capability 8.0 or more and widths that are
        multiples of 8, from torch 2.10 on (see ``torch.nn.functional.grouped_mm``).
    """
    return (
        hasattr(F, 'grouped_mm')
        and x_SC.device.type == 'cuda'
        and x_SC.dtype == torch.bfloat16
        and x_SC.shape[1] % 8 == hidden_dims % 8 == 0
        and torch.cuda.get_device_capability(x_SC.device) >= (8, 0)
    )


def sorted_experts(
    x_SC: Tensor,
    gates_SK: Tensor,
    experts_SK: Tensor,
    fc1: tuple[Tensor, Tensor],
    fc2: tuple[Tensor, Tensor],
    grouped: bool,
) -> Tensor:
    """Sum of the outputs of each token's experts, computed on the tokens sorted by expert.

    Args:
        x_SC (Tensor): Tokens.
        gates_SK (Tensor): Gates.
        experts_SK (Tensor): The experts of each token.
        fc1 (tuple[Tensor]): Weights (E, C, D) and biases (E, D) of all experts.
        fc2 (tuple[Tensor]): Weights (E, D, C) and biases (E, C).
        grouped (bool): Whether to use the grouped product, for which the host need not know how
            many tokens an expert has; otherwise one expert follows the other.

    Returns:
        Tensor: (S, C).
    """
    experts_A, order_A = experts_SK.flatten().sort(stable=True)
    tokens_A = order_A // experts_SK.shape[1]
    counts_E = torch.bincount(experts_A, minlength=len(fc1[0]))
    x_AC = x_SC.index_select(0, tokens_A)
    if grouped:
        ends_E = counts_E.cumsum(0, dtype=torch.int32)
        x_AD = F.grouped_mm(x_AC, fc1[0], offs=ends_E) + fc1[1].index_select(0, experts_A)
        y_AC = F.grouped_mm(F.gelu(x_AD), fc2[0], offs=ends_E)
        y_AC = y_AC + fc2[1].index_select(0, experts_A)
    else:
        # unbind: one gradient for the stacked parameters, zeros for experts without tokens
        experts = zip(x_AC.split(counts_E.tolist()), *(p.unbind() for p in (*fc1, *fc2)))
        y_AC = torch.cat(
            [torch.addmm(b2, F.gelu(torch.addmm(b1, x, w1)), w2) for x, w1, b1, w2, b2 in experts]
        )
    y_AC = y_AC * gates_SK.flatten().index_select(0, order_A)[:, None].to(y_AC.dtype)
    return y_AC.new_zeros(x_SC.shape).index_add(0, tokens_A, y_AC)


def dense_experts(
    x_SC: Tensor,
    gates_SK: Tensor,
    experts_SK: Tensor,
    fc1: tuple[Tensor, Tensor],
    fc2: tuple[Tensor, Tensor],
) -> Tensor:
    """:func:`sorted_experts` with all experts on all tokens, for traced models.

    The shapes do not depend on values: an expert that is not chosen has a gate of 0.
    """
    # shape, not len(), which would fix S to that of the traced batch
    gates_SE = gates_SK.new_zeros(x_SC.shape[0], len(fc1[0])).scatter(1, experts_SK, gates_SK)
    # the experts side by side, A = E * D, are one product each way
    w1_CA, w2_AC = fc1[0].transpose(0, 1).flatten(1), fc2[0].flatten(0, 1)
    x_SA = F.gelu(torch.addmm(fc1[1].flatten(), x_SC, w1_CA))
    gates_SE = gates_SE.to(x_SA.dtype)
    x_SED = x_SA.unflatten(1, fc1[1].shape) * gates_SE[..., None]
    return x_SED.flatten(1) @ w2_AC + gates_SE @ fc2[1]


class MoAE(nn.Module):
    """Mixture of adapter experts (S4D, arXiv 2409.06154).

    ``MoAE(y) = sum over the top-k experts e of g_e * (GELU(y W1_e + b1_e) W2_e + b2_e)``, with
    the exact GELU. The experts are stacked parameters, each of which gets a gradient in every
    step. Three ways give the same numbers:

    - one expert after the other, each on its own tokens: on a CPU, and on a GPU that does not
      allow the next one. The host waits once for the numbers of tokens.
    - ``torch.nn.functional.grouped_mm``: see :func:`has_grouped_mm`. The host does not wait.
    - dense, E / K times the operations: while torch traces the model (``torch.compile``,
      ``torch.export``, ONNX), where shapes must not depend on values.

    Args:
        embed_dims (int): C.
        num_experts (int): E. Defaults to 8.
        top_k (int): K. Defaults to 2.
        expert_ratio (float): D, the hidden width of an expert, over C. Defaults to 0.25.
        noisy (bool): Router noise in training. Defaults to True.
        capacity_factor (float, optional): If given, in training an expert takes at most
            ``ceil(capacity_factor * S * K / E)`` tokens; later ones are dropped, in batch order.
            Nothing is ever dropped in evaluation. Defaults to None, which drops nothing.
    """

    def __init__(
        self,
        embed_dims: int,
        num_experts: int = 8,
        top_k: int = 2,
        expert_ratio: float = 0.25,
        noisy: bool = True,
        capacity_factor: float | None = None,
    ) -> None:
        super().__init__()
        if capacity_factor is not None and capacity_factor <= 0:
            raise ValueError(
                f'capacity_factor must be positive or None, but got {capacity_factor}.'
            )
        hidden_dims = int(embed_dims * expert_ratio)
        if hidden_dims < 1:
            raise ValueError(
                f'expert_ratio={expert_ratio} leaves no hidden channel of embed_dims={embed_dims}.'
            )
        self.num_experts = num_experts
        self.capacity_factor = capacity_factor
        self.router = NoisyTopKRouter(embed_dims, num_experts, top_k, noisy)
        self.fc1_weight = nn.Parameter(torch.empty(num_experts, embed_dims, hidden_dims))
        self.fc1_bias = nn.Parameter(torch.zeros(num_experts, hidden_dims))
        self.fc2_weight = nn.Parameter(torch.empty(num_experts, hidden_dims, embed_dims))
        self.fc2_bias = nn.Parameter(torch.zeros(num_experts, embed_dims))
        for weight in (self.fc1_weight, self.fc2_weight):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run each token's experts.

        Args:
            x (Tensor): (..., C).

        Returns:
            tuple[Tensor]: (..., C), in the data type of autocast if that is on, and the
            load-balance loss, a scalar.
        """
        x_SC = x.reshape(-1, x.shape[-1])
        gates_SK, experts_SK, probs_SE = self.router(x_SC)
        balance = load_balance_loss(probs_SE, experts_SK)
        if self.training and self.capacity_factor is not None:
            gates_SK = drop_over_capacity(
                gates_SK, experts_SK, self.num_experts, self.capacity_factor
            )
        return self._run_experts(x_SC, gates_SK, experts_SK).view_as(x), balance

    def _run_experts(self, x_SC: Tensor, gates_SK: Tensor, experts_SK: Tensor) -> Tensor:
        fc1, fc2 = (self.fc1_weight, self.fc1_bias), (self.fc2_weight, self.fc2_bias)
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return dense_experts(x_SC, gates_SK, experts_SK, fc1, fc2)
        if torch.is_autocast_enabled(x_SC.device.type):  # grouped_mm does not follow autocast
            dtype = torch.get_autocast_dtype(x_SC.device.type)
            x_SC, *params = (t.to(dtype) for t in (x_SC, *fc1, *fc2))
            fc1, fc2 = params[:2], params[2:]
        grouped = has_grouped_mm(x_SC, fc1[0].shape[2])
        return sorted_experts(x_SC, gates_SK, experts_SK, fc1, fc2, grouped)
