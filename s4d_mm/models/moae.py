# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The mixture of adapter experts (MoAE): router, balance loss, experts, block and neck.

Suffixes name the shape of a tensor by the letters of :mod:`s4d_mm.models`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from .encoder import (
    FINETUNE_STD,
    LN_EPS,
    TransformerBlock,
    block_depth,
    drop_path_rates,
    get_arch,
    init_transformer,
    run_block,
)
from .state_dict import (
    check_part,
    check_shapes,
    keep_last_blocks,
    refuse_further_blocks,
    take_authors_names,
)
from .tokens import Features, to_tokens

NOT_GIVEN = ()  # mmaction2's recognizers give None or a list


class Routing(NamedTuple):
    """What a router returns for tokens (S, C).

    ``weights`` (S, K) of the experts that each token uses, their ids ``experts`` (S, K), a scalar
    ``loss``, and maybe ``probs`` (S, E) of all experts, which only the log of experts needs.
    """

    weights: Tensor
    experts: Tensor
    loss: Tensor
    probs: Tensor | None = None


@MODELS.register_module()
class NoisyTopKRouter(nn.Module):
    """Noisy top-k gating (Shazeer et al. 2017, arXiv 1701.06538, eq. 3-5).

    In training, ``N(0, 1) * softplus(W_n y + b_n)`` is added to the logits ``W_r y + b_r``;
    in evaluation nothing is. Computed in float32, also under autocast. The weights of a token sum
    to 1; the loss is :func:`load_balance_loss`.

    Args:
        embed_dims (int): C.
        num_experts (int): E.
        top_k (int): K, 1..E.
        noisy (bool): Add noise in training.
    """

    def __init__(self, embed_dims: int, num_experts: int, top_k: int, noisy: bool = True) -> None:
        super().__init__()
        if not 1 <= top_k <= num_experts:
            raise ValueError(f'top_k must be in 1..num_experts={num_experts}, but got {top_k}.')
        self.top_k = top_k
        self.gate = nn.Linear(embed_dims, num_experts)
        self.noise = nn.Linear(embed_dims, num_experts) if noisy else None

    def forward(self, x_SC: Tensor) -> Routing:
        """Choose the experts of each token."""
        x_SC = x_SC.float()
        with torch.autocast(x_SC.device.type, enabled=False):
            logits_SE = F.linear(x_SC, self.gate.weight.float(), self.gate.bias.float())
            if self.training and self.noise is not None:
                noise_SE = F.linear(x_SC, self.noise.weight.float(), self.noise.bias.float())
                logits_SE = logits_SE + torch.randn_like(noise_SE) * F.softplus(noise_SE)
            kept_SK, experts_SK = logits_SE.topk(self.top_k, dim=-1)
            gates_SK, probs_SE = kept_SK.softmax(dim=-1), logits_SE.softmax(dim=-1)
        return Routing(gates_SK, experts_SK, load_balance_loss(probs_SE, experts_SK), probs_SE)


def load_balance_loss(probs_SE: Tensor, experts_SK: Tensor) -> Tensor:
    """Load-balance loss of the Switch Transformer (Fedus et al. 2021, arXiv 2101.03961, eq. 4).

    ``E * sum_e f_e * P_e``, where f_e is the share of the S tokens that are routed to expert e
    (the shares sum to K) and P_e the mean of its router probability: K when the load is even, E
    when all tokens and all probability are with one expert.
    """
    num_experts = probs_SE.shape[1]
    share_E = F.one_hot(experts_SK, num_experts).sum(dim=1).to(probs_SE.dtype).mean(dim=0)
    return num_experts * (share_E * probs_SE.mean(dim=0)).sum()


def drop_over_capacity(gates_SK: Tensor, experts_SK: Tensor, num_experts: int, factor: float):
    """Gates (S, K) that are 0 where an expert cannot take a token.

    An expert takes its first ``ceil(factor * S * K / E)`` tokens in batch order (Switch
    Transformer, section 2.2).
    """
    capacity = math.ceil(factor * experts_SK.numel() / num_experts)
    chosen_AE = F.one_hot(experts_SK.flatten(), num_experts)
    number_A = (chosen_AE.cumsum(dim=0) * chosen_AE).sum(dim=1)  # 1 for an expert's first token
    return gates_SK * (number_A <= capacity).view_as(gates_SK)


def has_grouped_mm(x_SC: Tensor, hidden_dims: int) -> bool:
    """Whether torch multiplies the experts in one product (``torch.nn.functional.grouped_mm``)."""
    return (
        hasattr(F, 'grouped_mm')
        and x_SC.device.type == 'cuda'
        and x_SC.dtype == torch.bfloat16
        and x_SC.shape[1] % 8 == hidden_dims % 8 == 0
        and torch.cuda.get_device_capability(x_SC.device) >= (8, 0)
    )


def sorted_experts(
    x_SC: Tensor, gates_SK: Tensor, experts_SK: Tensor, params: Sequence[Tensor], grouped: bool
) -> Tensor:
    """Sum (S, C) of the outputs of each token's experts, on the tokens sorted by expert.

    ``params`` are weights (E, C, D) and biases (E, D) of the first layer of all experts, (E, D, C)
    and (E, C) of the second. ``grouped`` uses the grouped product; otherwise one expert follows
    the other.
    """
    w1_ECD, b1_ED, w2_EDC, b2_EC = params
    experts_A, order_A = experts_SK.flatten().sort(stable=True)
    tokens_A = order_A // experts_SK.shape[1]
    counts_E = torch.bincount(experts_A, minlength=len(w1_ECD))
    x_AC = x_SC.index_select(0, tokens_A)
    if grouped:
        ends_E = counts_E.cumsum(0, dtype=torch.int32)
        x_AD = F.grouped_mm(x_AC, w1_ECD, offs=ends_E) + b1_ED.index_select(0, experts_A)
        y_AC = F.grouped_mm(F.gelu(x_AD), w2_EDC, offs=ends_E) + b2_EC.index_select(0, experts_A)
    else:
        # unbind: one gradient for the stacked parameters, zeros for experts without tokens
        experts = zip(x_AC.split(counts_E.tolist()), *(p.unbind() for p in params))
        y_AC = torch.cat(
            [torch.addmm(b2, F.gelu(torch.addmm(b1, x, w1)), w2) for x, w1, b1, w2, b2 in experts]
        )
    y_AC = y_AC * gates_SK.flatten().index_select(0, order_A)[:, None].to(y_AC.dtype)
    return y_AC.new_zeros(x_SC.shape).index_add(0, tokens_A, y_AC)


def dense_experts(
    x_SC: Tensor, gates_SK: Tensor, experts_SK: Tensor, params: Sequence[Tensor]
) -> Tensor:
    """:func:`sorted_experts` with all experts on all tokens, for traced models.

    The shapes do not depend on values: an expert that is not chosen has a gate of 0.
    """
    w1_ECD, b1_ED, w2_EDC, b2_EC = params
    # shape, not len(), which would fix S to that of the traced batch
    gates_SE = gates_SK.new_zeros(x_SC.shape[0], len(w1_ECD)).scatter(1, experts_SK, gates_SK)
    # the experts side by side, A = E * D, are one product each way
    x_SA = F.gelu(torch.addmm(b1_ED.flatten(), x_SC, w1_ECD.transpose(0, 1).flatten(1)))
    gates_SE = gates_SE.to(x_SA.dtype)
    x_SED = x_SA.unflatten(1, b1_ED.shape) * gates_SE[..., None]
    return x_SED.flatten(1) @ w2_EDC.flatten(0, 1) + gates_SE @ b2_EC


class MoAE(nn.Module):
    """Mixture of adapter experts (S4D, arXiv 2409.06154).

    ``MoAE(y) = sum over the top-k experts e of g_e * (GELU(y W1_e + b1_e) W2_e + b2_e)``, with
    the exact GELU. The experts are stacked parameters, each of which gets a gradient in every
    step. Three ways give the same numbers:

    - one expert after the other, each on its own tokens: on a CPU, and on a GPU that does not
      allow the next one. The host waits once for the numbers of tokens.
    - ``torch.nn.functional.grouped_mm``, from torch 2.10 on, for bfloat16 on a GPU of compute
      capability 8.0 or more and widths that are multiples of 8. The host does not wait.
    - dense, E / K times the operations: while torch traces the model (``torch.compile``,
      ``torch.export``, ONNX), where shapes must not depend on values.

    Args:
        embed_dims (int): C.
        num_experts (int): E.
        top_k (int): K.
        expert_ratio (float): D, the hidden width of an expert, over C.
        noisy (bool): Noise of :class:`NoisyTopKRouter` in training.
        capacity_factor (float, optional): If given, in training an expert takes at most
            ``ceil(capacity_factor * S * K / E)`` tokens; later ones are dropped, in batch order.
            Nothing is ever dropped in evaluation. Defaults to None, which drops nothing.
        router (dict, optional): Config of a router, which is built with ``embed_dims``,
            ``num_experts`` and ``top_k``, and returns a :class:`Routing`. Defaults to None, which
            means ``dict(type='NoisyTopKRouter', noisy=noisy)``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_experts: int = 8,
        top_k: int = 2,
        expert_ratio: float = 0.25,
        noisy: bool = True,
        capacity_factor: float | None = None,
        router: dict | None = None,
    ) -> None:
        super().__init__()
        hidden_dims = int(embed_dims * expert_ratio)
        self.num_experts = num_experts
        self.capacity_factor = capacity_factor
        router = router or dict(type='NoisyTopKRouter', noisy=noisy)
        sizes = dict(embed_dims=embed_dims, num_experts=num_experts, top_k=top_k)
        self.router = MODELS.build({**sizes, **router})
        self.fc1_weight = nn.Parameter(torch.empty(num_experts, embed_dims, hidden_dims))
        self.fc1_bias = nn.Parameter(torch.zeros(num_experts, hidden_dims))
        self.fc2_weight = nn.Parameter(torch.empty(num_experts, hidden_dims, embed_dims))
        self.fc2_bias = nn.Parameter(torch.zeros(num_experts, embed_dims))
        for weight in (self.fc1_weight, self.fc2_weight):
            nn.init.trunc_normal_(weight, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Output (..., C) of each token's experts, and the loss of the router, a scalar.

        The output has the data type of autocast if that is on.
        """
        x_SC = x.reshape(-1, x.shape[-1])
        routing = self.router(x_SC)
        gates_SK, experts_SK = routing.weights, routing.experts
        factor = self.capacity_factor
        if self.training and factor is not None:
            gates_SK = drop_over_capacity(gates_SK, experts_SK, self.num_experts, factor)
        return self._run_experts(x_SC, gates_SK, experts_SK).view_as(x), routing.loss

    def _run_experts(self, x_SC: Tensor, gates_SK: Tensor, experts_SK: Tensor) -> Tensor:
        params = [self.fc1_weight, self.fc1_bias, self.fc2_weight, self.fc2_bias]
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return dense_experts(x_SC, gates_SK, experts_SK, params)
        if torch.is_autocast_enabled(x_SC.device.type):  # grouped_mm does not follow autocast
            dtype = torch.get_autocast_dtype(x_SC.device.type)
            x_SC, *params = (t.to(dtype) for t in (x_SC, *params))
        grouped = has_grouped_mm(x_SC, hidden_dims=self.fc1_bias.shape[1])
        return sorted_experts(x_SC, gates_SK, experts_SK, params, grouped)


class MoAEBlock(TransformerBlock):
    """``x = x + Attn(LN1(x)); y = LN2(x); x = x + MLP(y) + MoAE(y)``; ``moae``: its arguments."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        moae: dict | None = None,
    ) -> None:
        super().__init__(embed_dims, num_heads, mlp_ratio, drop_path)
        self.moae = MoAE(embed_dims, **(moae or {}))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, C) -> (B, N, C) and the loss of the router, a scalar."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        y = self.norm2(x)
        adapted, loss = self.moae(y)
        return x + self.drop_path(self.mlp(y) + adapted), loss


@MODELS.register_module()
class MoAENeck(BaseModule):
    """Transformer blocks with a mixture of adapter experts (S4D, arXiv 2409.06154).

    ``S4DViT(depth=6)`` + ``MoAENeck(num_layers=6)`` is the fine-tuning model of S4D. For other
    backbones give their width and the number of blocks to add in ``arch``. The output has the
    layout of the input. Of a whole encoder's checkpoint the neck gets the last blocks: by
    ``load_from`` in :class:`DualModalRecognizer` and :class:`MoAEImageClassifier`, or by an
    ``init_cfg`` of its own.

    Args:
        arch (str | dict): Architecture of the encoder whose last blocks these are, as in
            :class:`S4DViT`.
        num_layers (int): Number of blocks.
        loss_weight (float): Weight of the routers' loss, summed over the blocks.
        drop_path_rate (float): Stochastic depth rate of the last block, as in :class:`S4DViT`.
        final_norm (bool): LayerNorm after the last block.
        with_cp (bool): Recompute blocks in the backward pass.
        init_cfg (dict, optional): mmengine initialisation config.
        moae (dict | list[dict], optional): Arguments of :class:`MoAE` in place of ``experts``,
            for all blocks, or one dict for each.
        **experts: Arguments of :class:`MoAE`: ``num_experts``, ``top_k``, ``expert_ratio``,
            ``noisy``, ``capacity_factor`` and ``router``.

    Examples:
        >>> import torch
        >>> # two blocks on the feature map of a network of 512 channels
        >>> neck = MoAENeck(
        ...     dict(embed_dims=512, num_layers=2, num_heads=8), num_layers=2)
        >>> features, losses = neck(torch.zeros(1, 512, 4, 7, 7), data_samples=None)
        >>> features.shape, list(losses)
        (torch.Size([1, 512, 4, 7, 7]), ['loss_balance'])
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        num_layers: int = 6,
        *,
        loss_weight: float = 1e-3,
        drop_path_rate: float = 0.0,
        final_norm: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
        moae: dict | list[dict] | None = None,
        **experts,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.arch = get_arch(arch)
        total = self.arch['num_layers']
        if not 1 <= num_layers <= total:
            raise ValueError(
                f'num_layers must be in 1..{total} for arch={arch!r}, but got {num_layers}.'
            )
        each = moae if isinstance(moae, (list, tuple)) else [moae or {}] * num_layers
        if len(each) != num_layers:
            raise ValueError(
                f'moae of MoAENeck has {len(each)} dicts, but num_layers={num_layers}: give one '
                'for each block, or one dict for all.'
            )
        self.loss_weight = loss_weight
        self.with_cp = with_cp
        dims = self.arch['embed_dims']
        rates = drop_path_rates(drop_path_rate, total)
        self.blocks = nn.ModuleList(
            MoAEBlock(dims, self.arch['num_heads'], self.arch['mlp_ratio'], rate, experts | own)
            for rate, own in zip(rates[total - num_layers :], each)
        )
        self.norm = nn.LayerNorm(dims, eps=LN_EPS) if final_norm else nn.Identity()
        for hook in (
            take_authors_names,
            keep_last_blocks,
            check_shapes,
            check_part,
            refuse_further_blocks,
        ):
            self.register_load_state_dict_pre_hook(hook)

    def routers(self) -> dict[int, nn.Module]:
        """The router of each block, by the number of the block in the whole encoder, from 0."""
        first = self.arch['num_layers'] - len(self.blocks)
        return {first + i: block.moae.router for i, block in enumerate(self.blocks)}

    def init_weights(self) -> None:
        """Initialise all linear layers and experts with .02, then by ``init_cfg`` if given."""
        init_transformer(self.blocks, FINETUNE_STD)
        super().init_weights()

    def forward(
        self, x: Features, data_samples: list | None = NOT_GIVEN
    ) -> tuple[Features, dict[str, Tensor]]:
        """Features in the layout of ``x`` (:func:`~s4d_mm.models.tokens.to_tokens`), and losses.

        In training the losses have ``loss_balance``. mmaction2's recognizers hand over
        ``data_samples``, if only None; a caller that does not has no place for the loss.
        """
        if self.training and data_samples is NOT_GIVEN:
            raise TypeError(
                'MoAENeck was called in training without data_samples, as by the '
                "ImageClassifier of mmpretrain, which has no place for the neck's loss. Use "
                "model.type='MoAEImageClassifier', or a recognizer of mmaction2."
            )
        x, restore = to_tokens(x)
        if x.shape[-1] != self.arch['embed_dims']:
            raise ValueError(
                f"MoAENeck has embed_dims={self.arch['embed_dims']}, but the backbone's features "
                f"have {x.shape[-1]} channels. Set neck.arch to the backbone's `arch`, or to a "
                'dict with its width as embed_dims.'
            )
        total = 0.0
        for block in self.blocks:
            x, loss = run_block(block, x, self.with_cp)
            total = total + loss
        x = restore(self.norm(x))
        if not self.training:
            return x, dict()
        return x, dict(loss_balance=self.loss_weight * total)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter among the neck's own blocks, as ``S4DViT.get_layer_depth``."""
        return block_depth(self.blocks, param_name, prefix)
