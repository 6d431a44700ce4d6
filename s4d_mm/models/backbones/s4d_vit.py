# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Backbone: one ViT for face images and videos.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

import re
from collections.abc import Sequence

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...converters.authors import take_authors_names
from ...converters.fit import check_part
from ...files.errors import WeightsError
from ..layers import (
    FINETUNE_STD,
    LN_EPS,
    TransformerBlock,
    TubeletEmbed,
    check_shapes,
    drop_path_rates,
    get_arch,
    init_transformer,
    resize_grid,
    run_block,
    sincos_position_table,
)
from ..settings import require_positive_ints


@MODELS.register_module()
class S4DViT(BaseModule):
    """ViT over tubelets for images and videos (S4D, arXiv 2409.06154).

    An image is embedded with the time-summed kernel and takes the first
    temporal slot of the positions. There is no class token. The positions are
    a fixed sin-cos table over the flattened tokens of
    ``img_size`` / ``num_frames``; other input sizes interpolate it.

    Args:
        arch (str | dict): 'small', 'base' or 'large', or a dict with
            ``embed_dims``, ``num_layers``, ``num_heads`` and optionally
            ``mlp_ratio``. Defaults to 'base'.
        img_size (int): Height and width of the position grid in pixels.
            Defaults to 160.
        num_frames (int): Frames of a clip. Defaults to 16.
        tubelet_size (int): Frames in a tubelet. Defaults to 2.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        depth (int, optional): How many of the arch's blocks to run, from the
            first; the rest may follow in :class:`MoAENeck`. Defaults to None,
            which runs all.
        out_type (str): 'tokens' (B, N, C), 'avg' (B, C), or 'featmap',
            (B, C, t, h, w) for videos and (B, C, h, w) for images. Defaults
            to 'tokens'.
        out_indices (int | Sequence[int], optional): Blocks whose output is
            returned, in a tuple, as mmpretrain's necks and heads expect it;
            the last block must be among them. Negative numbers count from the
            end. Defaults to None, which returns the last block's output
            itself, as mmaction2's do.
        final_norm (bool): LayerNorm after the last block. Defaults to False.
        drop_path_rate (float): Stochastic depth rate of the arch's last
            block; it grows linearly from 0. Defaults to 0.
        with_cp (bool): Recompute blocks in the backward pass to save memory.
            Defaults to False.
        frozen_stages (int): -1 freezes nothing, 0 the embedding, n the
            embedding and the first n blocks. Defaults to -1.
        init_cfg (dict, optional): mmengine initialisation config. Defaults to
            None.

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
        if not -1 <= frozen_stages <= depth:
            raise ValueError(
                f'frozen_stages must be in -1..depth={depth}, but got {frozen_stages}.'
            )
        require_positive_ints(
            type(self).__name__,
            img_size=img_size,
            num_frames=num_frames,
            tubelet_size=tubelet_size,
            patch_size=patch_size,
        )
        if img_size % patch_size or num_frames % tubelet_size:
            raise ValueError(
                f'img_size={img_size} must be a multiple of patch_size='
                f'{patch_size}, and num_frames={num_frames} one of '
                f'tubelet_size={tubelet_size}.'
            )
        self.num_frames = num_frames
        self.out_type = out_type
        self.out_indices = self._check_out_indices(out_indices, depth)
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages

        self.patch_embed = TubeletEmbed(self.embed_dims, tubelet_size, patch_size)
        self.pos_grid = (img_size // patch_size,) * 2
        slots = num_frames // tubelet_size
        self.register_buffer(
            'pos_embed',
            sincos_position_table(slots * self.pos_grid[0] ** 2, self.embed_dims),
            persistent=False,
        )
        rates = drop_path_rates(drop_path_rate, num_layers)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                self.embed_dims, self.arch['num_heads'], self.arch['mlp_ratio'], rates[i]
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(self.embed_dims, eps=LN_EPS) if final_norm else nn.Identity()
        self.register_load_state_dict_pre_hook(take_authors_names)
        self.register_load_state_dict_pre_hook(check_shapes)
        self.register_load_state_dict_pre_hook(check_part)
        self.register_load_state_dict_pre_hook(refuse_further_blocks)
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
        """Positions of a grid (t, h, w) of tokens, (t*h*w, C).

        A longer clip than ``num_frames`` extends the table; another height or
        width interpolates each temporal slot.
        """
        t, h, w = grid
        need = t * self.pos_grid[0] * self.pos_grid[1]
        table = self.pos_embed
        if need > len(table):
            table = sincos_position_table(need, self.embed_dims).to(table)
        return resize_grid(table[:need], self.pos_grid, (h, w))

    @staticmethod
    def _check_out_indices(
        out_indices: int | Sequence[int] | None, depth: int
    ) -> tuple[int, ...] | None:
        if out_indices is None:
            return None
        if isinstance(out_indices, int):
            out_indices = (out_indices,)
        indices = tuple(i + depth if i < 0 else i for i in out_indices)
        if (
            not indices
            or sorted(set(indices)) != list(indices)
            or indices[0] < 0
            or indices[-1] != depth - 1
        ):
            raise ValueError(
                f'out_indices={tuple(out_indices)} must rise and end with the '
                f'last block, {depth - 1} (or -1). To use fewer blocks, lower '
                f'depth={depth}.'
            )
        return indices

    def run_blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Blocks, and the final norm after the last.

        Args:
            x (Tensor): Tokens (B, N, C).

        Returns:
            tuple[Tensor]: Output (B, N, C) of the blocks in ``out_indices``, or of the last one.
        """
        outs, last = [], len(self.blocks) - 1
        for i, block in enumerate(self.blocks):
            x = run_block(block, x, self.with_cp)
            if i == last:
                x = self.norm(x)
            if i in (self.out_indices or (last,)):
                outs.append(x)
        return tuple(outs)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Encode images or videos.

        Args:
            x (Tensor): Normalised images (B, 3, H, W) or videos (B, 3, T, H, W). A video of one
                frame is an image.

        Returns:
            Tensor | tuple[Tensor]: By ``out_type`` and ``out_indices``.
        """
        tokens, size = self.embed(x)
        return self._layout(self.run_blocks(tokens), size)

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Tokens with their positions.

        Args:
            x (Tensor): Images or videos.

        Returns:
            tuple: (B, N, C), and the size (h, w) or (t, h, w) of their map.
        """
        is_clip = x.ndim == 5
        if is_clip and x.shape[2] == 1:
            x = x.squeeze(2)
        grid = self.patch_embed.grid(x)
        tokens = self.patch_embed(x)
        return tokens + self.positions(grid).to(tokens), grid if is_clip else grid[1:]

    def _layout(
        self, outs: tuple[Tensor, ...], size: tuple[int, ...]
    ) -> Tensor | tuple[Tensor, ...]:
        """Tokens (B, N, C) of each stage, by ``out_type`` and ``out_indices``."""
        if self.out_type == 'avg':
            outs = tuple(out.mean(dim=1) for out in outs)
        elif self.out_type == 'featmap':
            outs = tuple(out.transpose(1, 2).unflatten(2, size) for out in outs)
        return outs[-1] if self.out_indices is None else outs

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for mmpretrain's layer-wise learning-rate decay.

        Args:
            param_name (str): Name of the parameter, e.g.
                ``backbone.blocks.3.norm1.weight``.
            prefix (str): What precedes this module's names, e.g.
                ``backbone.``. Defaults to ''.

        Returns:
            tuple[int]: Depth of the layer (0 for the embedding, i + 1 for
            block i) and the number of depths, the arch's blocks + 2.
        """
        num_depths = self.arch['num_layers'] + 2
        if not param_name.startswith(prefix):
            return num_depths - 1, num_depths
        name = param_name[len(prefix) :]
        if name.startswith('patch_embed.'):
            return 0, num_depths
        if name.startswith('blocks.'):
            return int(name.split('.')[1]) + 1, num_depths
        return num_depths - 1, num_depths


def refuse_further_blocks(module: S4DViT, state_dict: dict, prefix: str, *args) -> None:
    """Refuse blocks of a checkpoint that nothing in the model runs (a load pre-hook).

    With ``depth`` below the arch's number of layers, the last blocks belong to a
    :class:`MoAENeck`. Models that hand them over have done so before this hook.

    Raises:
        WeightsError: Naming the first such block and what to do.
    """
    depth = len(module.blocks)
    if not prefix:
        return  # the backbone alone may take a part of an encoder, as by its init_cfg
    pattern = re.compile(rf'{re.escape(prefix)}blocks\.(\d+)\.')
    numbers = {int(m[1]) for m in map(pattern.match, state_dict) if m}
    further = sorted(n for n in numbers if n >= depth)
    if further:
        raise WeightsError(
            f'The checkpoint has {prefix}blocks.{further[0]} to {further[-1]}, but this S4DViT '
            f'has {depth} (arch.num_layers={module.arch["num_layers"]}, depth), and no neck takes '
            'them over. Set those of the checkpoint. For S4DViT with MoAENeck set '
            "model.type='DualModalRecognizer'. To leave them out, load the backbone by "
            "init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.') in place of "
            'load_from.'
        )
