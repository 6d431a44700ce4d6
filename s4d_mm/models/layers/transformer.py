# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The pre-norm transformer of encoder, decoder and neck: sizes, blocks, initial values.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..settings import is_number
from .moae import MoAE

LN_EPS = 1e-6
FINETUNE_STD = 0.02  # of the initial weights of all linear layers in fine-tuning
# parameters of a block in mmaction2's VisionTransformer, and here
MMACTION_IN_BLOCK = (('mlp.layers.0.0.', 'mlp.fc1.'), ('mlp.layers.1.', 'mlp.fc2.'))
ARCH_ZOO = {
    'small': dict(embed_dims=384, num_layers=12, num_heads=6),
    'base': dict(embed_dims=768, num_layers=12, num_heads=12),
    'large': dict(embed_dims=1024, num_layers=24, num_heads=16),
}


def get_arch(arch: str | dict) -> dict:
    """Settings of an architecture.

    Args:
        arch (str | dict): 'small', 'base' or 'large', or a dict with ``embed_dims``,
            ``num_layers``, ``num_heads`` and optionally ``mlp_ratio`` (4).

    Returns:
        dict: With all four keys.

    Raises:
        ValueError: If the name or a key is unknown, or a key is missing.
    """
    if isinstance(arch, str):
        if arch not in ARCH_ZOO:
            raise ValueError(f'arch={arch!r} is not one of {sorted(ARCH_ZOO)}, nor a dict.')
        arch = ARCH_ZOO[arch]
    need, allowed = {'embed_dims', 'num_layers', 'num_heads'}, {'mlp_ratio'}
    if not need <= set(arch) <= need | allowed:
        raise ValueError(
            f'arch must have the keys {sorted(need)} and may '
            f'have {sorted(allowed)}, but got {sorted(arch)}.'
        )
    return {'mlp_ratio': 4.0, **arch}


def drop_path_rates(rate: float, num_layers: int) -> list[float]:
    """Stochastic depth rate of each layer, growing linearly from 0 to ``rate``.

    Args:
        rate (float): That of the last layer, at least 0 and below 1.
        num_layers (int): Number of layers.

    Returns:
        list[float]: The rates.

    Raises:
        ValueError: If ``rate`` is out of range.
    """
    if not (is_number(rate) and 0 <= rate < 1):
        raise ValueError(f'drop_path_rate must be at least 0 and below 1, but is {rate!r}.')
    return [rate * i / max(num_layers - 1, 1) for i in range(num_layers)]


def init_transformer(module: nn.Module, std: float | None = None) -> None:
    """Initialise the linear layers and norms of a transformer as VideoMAE does.

    Biases are zero, LayerNorms one and zero.

    Args:
        module (nn.Module): Blocks, or what holds some.
        std (float, optional): Standard deviation of all linear weights, truncated normal, as in
            fine-tuning. Defaults to None, which means Xavier-uniform, as in pre-training.
    """
    for m in module.modules():
        if isinstance(m, nn.Linear):
            if std is None:
                nn.init.xavier_uniform_(m.weight)
            else:
                nn.init.trunc_normal_(m.weight, std=std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.LayerNorm):
            nn.init.ones_(m.weight)
            nn.init.zeros_(m.bias)


class Attention(nn.Module):
    """Multi-head self-attention with a bias on q and v only, as in BEiT and VideoMAE.

    Args:
        embed_dims (int): C.
        num_heads (int): Heads. Must divide ``embed_dims``.
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

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        bias = torch.cat((self.q_bias, torch.zeros_like(self.v_bias), self.v_bias))
        qkv = F.linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.num_heads, -1))
        # B N 3 heads C/heads -> 3 x (B heads N C/heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them.

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
        return self.fc2(F.gelu(self.fc1(x)))


class TransformerBlock(nn.Module):
    """Pre-norm block: ``x = x + Attn(LN1(x)); x = x + MLP(LN2(x))``.

    Args:
        embed_dims (int): C.
        num_heads (int): Heads of the attention.
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

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class MoAEBlock(TransformerBlock):
    """Block with a mixture of adapter experts beside its MLP.

    ``x = x + Attn(LN1(x)); y = LN2(x); x = x + MLP(y) + MoAE(y)``.

    Args:
        embed_dims (int): C.
        num_heads (int): Heads of the attention.
        mlp_ratio (float): Hidden width of the MLP over C. Defaults to 4.
        drop_path (float): Stochastic depth rate, 0..1. Defaults to 0.
        moae (dict, optional): Further arguments of :class:`~s4d_mm.models.layers.MoAE`.
            Defaults to None.
    """

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
        """(B, N, C) -> (B, N, C) and the load-balance loss of :class:`MoAE`, a scalar."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        y = self.norm2(x)
        adapted, balance = self.moae(y)
        return x + self.drop_path(self.mlp(y) + adapted), balance


def run_block(block: nn.Module, x: Tensor, with_cp: bool):
    """Output of a block, which ``with_cp`` computes again in the backward pass to save memory."""
    if with_cp and x.requires_grad:
        return checkpoint(block, x, use_reentrant=False)
    return block(x)


def check_shapes(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Refuse a checkpoint of another size (a ``load_state_dict`` pre-hook).

    mmengine reports parameters of another shape in a warning and leaves them
    as they were; for an encoder that means to train from scratch unawares.

    Raises:
        ValueError: Naming the first such key and both shapes.
    """
    own = dict(module.named_parameters())
    for name, param in own.items():
        other = state_dict.get(prefix + name)
        if other is not None and other.shape != param.shape:
            raise ValueError(
                f'The checkpoint is of another size: {prefix}{name} is '
                f'{tuple(other.shape)} there, but {tuple(param.shape)} in '
                f'this {type(module).__name__}. Set `arch`, `patch_size` and '
                '`tubelet_size` as they were in training.'
            )
