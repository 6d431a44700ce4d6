# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Backbone and neck step: the pre-norm transformer block, without and with a
mixture of adapter experts.

Letters: B clips, N tokens, C channels, H heads.
"""

from typing import Optional

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .gelu_linear import gelu_linear
from .moae import MoAE
from .packing import Sizes, pack, unpack

LN_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention with a bias on q and v only, as in BEiT and
    VideoMAE.

    Args:
        embed_dims (int): C.
        num_heads (int): H. Must divide ``embed_dims``.
    """

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims={embed_dims} is not a multiple of num_heads={num_heads}.')
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(embed_dims))
        self.v_bias = nn.Parameter(torch.zeros(embed_dims))
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, sizes: Optional[Sizes] = None) -> Tensor:
        """Tokens attend to those of their own sample.

        Args:
            x (Tensor): (B, N, C), or packed (S, C) with ``sizes``.
            sizes (Sequence[tuple[int]], optional): See
                :func:`~s4d_mm.models.layers.packing.pack`. Defaults to None.

        Returns:
            Tensor: Of the shape of ``x``.
        """
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias)
        if sizes is None:
            return self.proj(self._attend(qkv))
        return self.proj(pack([self._attend(part) for part in unpack(qkv, sizes)])[0])

    def _attend(self, qkv: Tensor) -> Tensor:
        """(B, N, 3C) -> (B, N, C)."""
        b, n, c = qkv.shape
        # B N 3C -> 3 x (B H N C/H)
        q, k, v = qkv.view(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return x.transpose(1, 2).reshape(b, n, c // 3)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them.

    ``fc2`` is applied by :func:`gelu_linear` and not called, so that hooks on
    it do not run; put them on the module itself.

    Args:
        embed_dims (int): C.
        hidden_dims (int): Width between the layers.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.fc2 = nn.Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return gelu_linear(self.fc1(x), self.fc2.weight, self.fc2.bias)


class TransformerBlock(nn.Module):
    """``x = x + Attn(LN1(x)); x = x + MLP(LN2(x))``.

    Args:
        embed_dims (int): C.
        num_heads (int): H.
        mlp_ratio (float): Hidden width of the MLP over C. Defaults to 4.
        drop_path (float): Stochastic depth rate, 0..1. Defaults to 0.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims, eps=LN_EPS)
        self.attn = Attention(embed_dims, num_heads)
        self.norm2 = nn.LayerNorm(embed_dims, eps=LN_EPS)
        self.mlp = Mlp(embed_dims, int(embed_dims * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, sizes: Optional[Sizes] = None) -> Tensor:
        """(B, N, C) -> (B, N, C), or packed (S, C) with ``sizes``."""
        x = x + self._drop(self.attn(self.norm1(x), sizes), sizes)
        return x + self._drop(self.mlp(self.norm2(x)), sizes)

    def _drop(self, x: Tensor, sizes: Optional[Sizes]) -> Tensor:
        """Stochastic depth, which drops whole samples."""
        if sizes is None or isinstance(self.drop_path, nn.Identity):
            return self.drop_path(x)
        return pack([self.drop_path(part) for part in unpack(x, sizes)])[0]


class MoAEBlock(TransformerBlock):
    """Block with a mixture of adapter experts beside its MLP:
    ``x = x + Attn(LN1(x)); y = LN2(x); x = x + MLP(y) + MoAE(y)``.

    Args:
        embed_dims (int): C.
        num_heads (int): H.
        mlp_ratio (float): Hidden width of the MLP over C. Defaults to 4.
        drop_path (float): Stochastic depth rate, 0..1. Defaults to 0.
        moae (dict, optional): Further arguments of
            :class:`~s4d_mm.models.layers.MoAE`. Defaults to None.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        moae: Optional[dict] = None,
    ) -> None:
        super().__init__(embed_dims, num_heads, mlp_ratio, drop_path)
        self.moae = MoAE(embed_dims, **(moae or {}))

    def forward(self, x: Tensor, sizes: Optional[Sizes] = None) -> tuple[Tensor, Tensor]:
        """(B, N, C) -> (B, N, C), or packed (S, C) with ``sizes``; and the
        load-balance loss, a scalar, see :meth:`MoAE.forward`.
        """
        x = x + self._drop(self.attn(self.norm1(x), sizes), sizes)
        y = self.norm2(x)
        adapted, balance = self.moae(y, sizes)
        return x + self._drop(self.mlp(y) + adapted, sizes), balance
