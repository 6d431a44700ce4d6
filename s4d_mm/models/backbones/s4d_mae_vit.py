# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pre-training backbone: S4DViT on the visible tokens of a random mask.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor

from .s4d_vit import S4DViT

MASK_TYPES = ('random', 'tube')


def random_mask(batch: int, num_tokens: int, num_masked: int, device: torch.device) -> Tensor:
    """Mask ``num_masked`` of the tokens, uniformly at random per sample.

    Returns:
        Tensor: (B, N) bool, True is masked. Made on ``device``.
    """
    order = torch.rand(batch, num_tokens, device=device).argsort(dim=1)
    mask = torch.zeros(batch, num_tokens, dtype=torch.bool, device=device)
    return mask.scatter_(1, order[:, :num_masked], True)


def tube_mask(
    batch: int, grid: tuple[int, int, int], num_masked: int, device: torch.device
) -> Tensor:
    """Mask the same places in all temporal slots (VideoMAE, arXiv 2203.12602, section 3.2).

    Args:
        batch (int): B.
        grid (tuple[int]): Grid (t, h, w) of tokens.
        num_masked (int): Masked places, of h*w.
        device (torch.device): Where to make it.

    Returns:
        Tensor: (B, t*h*w) bool, True is masked.
    """
    t, h, w = grid
    return random_mask(batch, h * w, num_masked, device).repeat(1, t)


@MODELS.register_module()
class S4DMAEViT(S4DViT):
    """Masked encoder for the dual-modal pre-training of S4D.

    Follows the contract of mmpretrain's ``MAE`` model: returns the encoded
    visible tokens, the mask, and the ids that restore the order.

    Args:
        *args: As :class:`S4DViT`.
        mask_ratio (float | dict, optional): Share of tokens that is masked, in (0, 1), or one
            share per modality. Number masked = int(ratio * tokens). Defaults to None, which
            means ``dict(image=0.9, video=0.95)``.
        mask_type (str): 'random', over all tokens of a sample (S4D), or
            'tube', the same places in all temporal slots (VideoMAE). For an
            image they are the same. Defaults to 'random'.
        final_norm (bool): LayerNorm after the last block. Defaults to True.
        **kwargs: As :class:`S4DViT`.
    """

    init_std = None  # Xavier-uniform

    def __init__(
        self,
        *args,
        mask_ratio: float | dict | None = None,
        mask_type: str = 'random',
        final_norm: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(*args, final_norm=final_norm, **kwargs)
        if mask_type not in MASK_TYPES:
            raise ValueError(f'mask_type={mask_type!r} is not one of {MASK_TYPES}.')
        self.mask_type = mask_type
        if mask_ratio is None:
            mask_ratio = dict(image=0.9, video=0.95)
        elif not isinstance(mask_ratio, dict):
            mask_ratio = dict(image=mask_ratio, video=mask_ratio)
        if set(mask_ratio) != {'image', 'video'} or not all(0 < r < 1 for r in mask_ratio.values()):
            raise ValueError(
                'mask_ratio must be a share in (0, 1), or a dict of one for '
                f'`image` and one for `video`, but got {mask_ratio}.'
            )
        self.mask_ratio = dict(mask_ratio)

    def forward(self, x: Tensor, mask: bool | Tensor | None = True):
        """Encode the visible tokens.

        Args:
            x (Tensor): Normalised images (B, 3, H, W) or videos (B, 3, T, H, W).
            mask (bool | Tensor, optional): True draws a random mask; a tensor (B, N), nonzero
                where masked, with the same number in each row, is used as it is; None or False
                encodes all tokens, as :class:`S4DViT`. Defaults to True.

        Returns:
            tuple[Tensor]: Visible tokens in their order (B, n, C); mask (B, N), 1 where masked;
            ids_restore (B, N), the place of each token among the visible ones followed by the
            masked ones. Without a mask: the output of :class:`S4DViT`.

        Raises:
            ValueError: If a given mask does not fit, or the ratio masks no token.
        """
        if mask is None or mask is False:
            return super().forward(x)
        tokens, mask, ids_restore = self._embed_visible(x, mask)
        return self.run_blocks(tokens)[-1], mask, ids_restore

    def _embed_visible(self, x: Tensor, mask: bool | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Visible tokens with their positions, mask, ids_restore."""
        if x.ndim == 5 and x.shape[2] == 1:
            x = x.squeeze(2)
        is_image = x.ndim == 4
        grid = self.patch_embed.grid(x)
        num_tokens = grid[0] * grid[1] * grid[2]
        if mask is True:
            mask, num_masked = self._draw_mask(len(x), grid, is_image, x.device)
        else:
            mask, num_masked = self._check_mask(mask, (len(x), num_tokens))

        # visible tokens first, each part in its order
        ids_shuffle = mask.to(torch.uint8).argsort(dim=1, stable=True)
        ids_restore = ids_shuffle.argsort(dim=1)
        keep = ids_shuffle[:, : num_tokens - num_masked]  # B n

        patches = self.patch_embed.patches(x)  # B N values
        visible = patches.gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))
        tokens = self.patch_embed.embed(visible, is_image)
        tokens = tokens + self.positions(grid).to(tokens)[keep]
        return tokens, mask.float(), ids_restore

    def _draw_mask(
        self, batch: int, grid: tuple[int, int, int], is_image: bool, device: torch.device
    ) -> tuple[Tensor, int]:
        """A mask (B, N) and the number of masked tokens of a sample."""
        ratio = self.mask_ratio['image' if is_image else 'video']
        slots = grid[0] if self.mask_type == 'tube' else 1
        places = grid[0] * grid[1] * grid[2] // slots
        num_masked = int(ratio * places)
        if num_masked == 0:
            raise ValueError(
                f'mask_ratio={ratio} of {places} tokens masks none, so that '
                'there is nothing to predict. Raise it.'
            )
        if self.mask_type == 'tube':
            mask = tube_mask(batch, grid, num_masked, device)
        else:
            mask = random_mask(batch, places, num_masked, device)
        return mask, num_masked * slots

    @staticmethod
    def _check_mask(mask: Tensor, shape: tuple) -> tuple[Tensor, int]:
        mask = mask.bool()
        if tuple(mask.shape) != shape:
            raise ValueError(
                f'The mask must be of shape {shape} (samples, tokens), but is {tuple(mask.shape)}.'
            )
        masked = mask.sum(dim=1)
        if (masked != masked[0]).any() or masked[0] == shape[1]:
            raise ValueError(
                'Each sample must have the same number of masked tokens, and '
                f'at least one visible, but they have {masked.tolist()} of '
                f'{shape[1]}.'
            )
        return mask, int(masked[0])
