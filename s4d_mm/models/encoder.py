# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Backbone: the pre-norm transformer, and one ViT of it for face images and videos.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .state_dict import check_part, check_shapes, refuse_further_blocks, take_authors_names
from .tokens import TubeletEmbed, resize_grid, sincos_position_table

LN_EPS = 1e-6
FINETUNE_STD = 0.02  # of the initial weights of all linear layers in fine-tuning
ARCH_ZOO = {
    'small': dict(embed_dims=384, num_layers=12, num_heads=6),
    'base': dict(embed_dims=768, num_layers=12, num_heads=12),
    'large': dict(embed_dims=1024, num_layers=24, num_heads=16),
}


def get_arch(arch: str | dict) -> dict:
    """``embed_dims``, ``num_layers``, ``num_heads`` and ``mlp_ratio`` (4) of an architecture."""
    found = ARCH_ZOO.get(arch, {}) if isinstance(arch, str) else arch
    need = {'embed_dims', 'num_layers', 'num_heads'}
    if not need <= set(found) <= need | {'mlp_ratio'}:
        raise ValueError(
            f'arch must be one of {sorted(ARCH_ZOO)}, or a dict with {sorted(need)} and maybe '
            f'mlp_ratio, but is {arch!r}.'
        )
    return {'mlp_ratio': 4.0, **found}


def drop_path_rates(rate: float, num_layers: int) -> list[float]:
    """Stochastic depth rate of each layer, growing linearly from 0 to ``rate``."""
    if not 0 <= rate < 1:
        raise ValueError(f'drop_path_rate must be at least 0 and below 1, but is {rate!r}.')
    return [rate * i / max(num_layers - 1, 1) for i in range(num_layers)]


def init_transformer(module: nn.Module, std: float | None = None) -> None:
    """Initialise linear layers and norms as VideoMAE does; biases are zero.

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
    """Multi-head self-attention with a bias on q and v only, as in BEiT and VideoMAE."""

    def __init__(self, embed_dims: int, num_heads: int) -> None:
        super().__init__()
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
        # with few tokens the backward pass of the CPU's kernel is slow in bfloat16
        slow = qkv.dtype == torch.bfloat16 and qkv.device.type == 'cpu'
        slow = slow and torch.is_grad_enabled() and qkv.shape[1] <= 200
        q, k, v = (qkv.float() if slow else qkv).permute(2, 0, 3, 1, 4)
        with torch.autocast('cpu', enabled=False) if slow else nullcontext():
            x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.to(qkv.dtype).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.fc2 = nn.Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return self.fc2(F.gelu(self.fc1(x)))


class TransformerBlock(nn.Module):
    """Pre-norm block: ``x = x + Attn(LN1(x)); x = x + MLP(LN2(x))``."""

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


def run_block(block: nn.Module, x: Tensor, with_cp: bool):
    """Output of a block, which ``with_cp`` computes again in the backward pass to save memory."""
    if with_cp and x.requires_grad:
        return checkpoint(block, x, use_reentrant=False)
    return block(x)


@MODELS.register_module()
class S4DViT(BaseModule):
    """ViT over tubelets for images and videos (S4D, arXiv 2409.06154).

    An image is embedded with the time-summed kernel and takes the first temporal slot of the
    positions. There is no class token. The positions are a fixed sin-cos table over the flattened
    tokens of ``img_size`` / ``num_frames``; other input sizes interpolate it.

    Args:
        arch (str | dict): 'small', 'base' or 'large', or a dict with ``embed_dims``,
            ``num_layers``, ``num_heads`` and optionally ``mlp_ratio``.
        img_size (int): Height and width of the position grid in pixels.
        num_frames (int): Frames of a clip.
        tubelet_size (int): Frames in a tubelet.
        patch_size (int): Side of a patch in pixels.
        depth (int, optional): How many of the arch's blocks to run, from the first; the rest may
            follow in :class:`MoAENeck`. Defaults to None, which runs all.
        out_type (str): 'tokens' (B, N, C), 'avg' (B, C), or 'featmap', (B, C, t, h, w) for videos
            and (B, C, h, w) for images.
        out_indices (int | Sequence[int], optional): Blocks whose output is returned, in a tuple,
            as mmpretrain's necks and heads expect it; the last block must be among them. Negative
            numbers count from the end. Defaults to None, which returns the last block's output
            itself, as mmaction2's do.
        final_norm (bool): LayerNorm after the last block.
        drop_path_rate (float): Stochastic depth rate of the arch's last block; it grows linearly
            from 0.
        with_cp (bool): Recompute blocks in the backward pass to save memory.
        frozen_stages (int): -1 freezes nothing, 0 the embedding, n the embedding and the first n
            blocks.
        init_cfg (dict, optional): mmengine initialisation config.

    Examples:
        >>> import torch
        >>> model = S4DViT('small', depth=2, out_type='featmap')
        >>> model(torch.zeros(1, 3, 16, 160, 160)).shape
        torch.Size([1, 384, 8, 10, 10])
        >>> model(torch.zeros(1, 3, 160, 160)).shape
        torch.Size([1, 384, 10, 10])
    """

    OUT_TYPES = ('tokens', 'avg', 'featmap')
    init_std = FINETUNE_STD  # see :func:`init_transformer`

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int = 160,
        num_frames: int = 16,
        tubelet_size: int = 2,
        patch_size: int = 16,
        depth: int | None = None,
        out_type: str = 'tokens',
        out_indices: int | Sequence[int] | None = None,
        final_norm: bool = False,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.arch = get_arch(arch)
        self.embed_dims = self.arch['embed_dims']
        num_layers = self.arch['num_layers']
        depth = num_layers if depth is None else depth
        if not 1 <= depth <= num_layers:
            raise ValueError(
                f'depth must be in 1..{num_layers} for arch={arch!r}, but got {depth}.'
            )
        if out_type not in self.OUT_TYPES:
            raise ValueError(f'out_type={out_type!r} is not one of {self.OUT_TYPES}.')
        self.num_frames = num_frames
        self.out_type = out_type
        if isinstance(out_indices, int):
            out_indices = (out_indices,)
        if out_indices is not None:
            out_indices = tuple(i + depth if i < 0 else i for i in out_indices)
            if depth - 1 not in out_indices or not set(out_indices) <= set(range(depth)):
                raise ValueError(
                    f'out_indices={out_indices} must have the last block, {depth - 1} (or -1), and '
                    f'blocks before it. To use fewer blocks, lower depth={depth}.'
                )
        self.out_indices = out_indices
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages

        if img_size % patch_size:
            raise ValueError(f'img_size={img_size} is not a multiple of patch_size={patch_size}.')
        self.patch_embed = TubeletEmbed(self.embed_dims, tubelet_size, patch_size)
        self.pos_grid = (img_size // patch_size,) * 2
        slots = num_frames // tubelet_size
        self.register_buffer(
            'pos_embed',
            sincos_position_table(slots * self.pos_grid[0] ** 2, self.embed_dims),
            persistent=False,
        )
        heads, mlp_ratio = self.arch['num_heads'], self.arch['mlp_ratio']
        self.blocks = nn.ModuleList(
            TransformerBlock(self.embed_dims, heads, mlp_ratio, rate)
            for rate in drop_path_rates(drop_path_rate, num_layers)[:depth]
        )
        self.norm = nn.LayerNorm(self.embed_dims, eps=LN_EPS) if final_norm else nn.Identity()
        for hook in (take_authors_names, check_shapes, check_part, refuse_further_blocks):
            self.register_load_state_dict_pre_hook(hook)
        self._freeze_stages()

    def init_weights(self) -> None:
        """Initialise as the authors' code does, then by ``init_cfg`` if given.

        Linear layers by ``init_std``, the embedding as torch's ``Conv3d`` does.
        """
        init_transformer(self.blocks, self.init_std)
        self.patch_embed.proj.reset_parameters()
        super().init_weights()

    def train(self, mode: bool = True) -> 'S4DViT':
        """Set the mode; frozen stages stay in evaluation."""
        super().train(mode)
        self._freeze_stages()
        return self

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        for module in (self.patch_embed, *self.blocks[: self.frozen_stages]):
            module.eval()
            module.requires_grad_(False)

    def positions(self, grid: tuple[int, int, int]) -> Tensor:
        """Positions (t*h*w, C) of a grid (t, h, w) of tokens.

        A longer clip than ``num_frames`` extends the table; another height or width interpolates
        each temporal slot.
        """
        t, h, w = grid
        need = t * self.pos_grid[0] * self.pos_grid[1]
        table = self.pos_embed
        if need > len(table):
            table = sincos_position_table(need, self.embed_dims).to(table)
        return resize_grid(table[:need], self.pos_grid, (h, w))

    def run_blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Output (B, N, C) of the blocks in ``out_indices``, or of the last one, with its norm."""
        outs, last = [], len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            x = run_block(block, x, self.with_cp)
            if i == last:
                x = self.norm(x)
            if i in (self.out_indices or (last,)):
                outs.append(x)
        return tuple(outs)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Encode images (B, 3, H, W) or videos (B, 3, T, H, W).

        The pixels are normalised. A video of one frame is an image.
        """
        is_clip = x.ndim == 5
        if is_clip and x.shape[2] == 1:
            x = x.squeeze(2)
        grid = self.patch_embed.grid(x)
        tokens = self.patch_embed(x)
        outs = self.run_blocks(tokens + self.positions(grid).to(tokens))
        if self.out_type == 'avg':
            outs = tuple(out.mean(dim=1) for out in outs)
        elif self.out_type == 'featmap':
            size = grid if is_clip else grid[1:]
            outs = tuple(out.transpose(1, 2).unflatten(2, size) for out in outs)
        return outs[-1] if self.out_indices is None else outs

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter (0 for the embedding, i + 1 for block i) and number of depths.

        For mmpretrain's layer-wise decay; ``prefix``, as ``backbone.``, precedes its names.
        """
        return block_depth(self.blocks, param_name, prefix)


def block_depth(blocks: nn.ModuleList, param_name: str, prefix: str) -> tuple[int, int]:
    """``get_layer_depth`` of a module with ``patch_embed``, ``blocks`` and what follows them."""
    after = len(blocks) + 1
    part, _, rest = param_name.removeprefix(prefix).partition('.')
    if not param_name.startswith(prefix) or part not in ('patch_embed', 'blocks'):
        return after, after + 1
    return int(rest.split('.')[0]) + 1 if part == 'blocks' else 0, after + 1
