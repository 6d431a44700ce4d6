# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pre-training backbone: S4DViT on the visible tokens of a random mask.

Letters: B clips, N tokens, n visible tokens, C channels.
"""
from typing import Tuple, Union

import torch
from mmengine.registry import MODELS
from torch import Tensor

from .s4d_vit import S4DViT


def random_mask(batch: int, num_tokens: int, num_masked: int,
                device: torch.device) -> Tensor:
    """Mask ``num_masked`` of the tokens, uniformly at random per sample.

    Returns:
        Tensor: (B, N) bool, True is masked. Made on ``device``.
    """
    order = torch.rand(batch, num_tokens, device=device).argsort(dim=1)
    mask = torch.zeros(batch, num_tokens, dtype=torch.bool, device=device)
    return mask.scatter_(1, order[:, :num_masked], True)


@MODELS.register_module()
class S4DMAEViT(S4DViT):
    """Masked encoder for the dual-modal pre-training of S4D.

    Follows the contract of mmpretrain's ``MAE`` model: returns the encoded
    visible tokens, the mask, and the ids that restore the order.

    Args:
        *args: As :class:`S4DViT`.
        mask_ratio (float | dict): Share of tokens that is masked, in 0..1, or
            one share per modality. Number masked = int(ratio * tokens).
            Defaults to ``dict(image=0.9, video=0.95)``.
        final_norm (bool): LayerNorm after the last block. Defaults to True.
        **kwargs: As :class:`S4DViT`.
    """

    def __init__(self,
                 *args,
                 mask_ratio: Union[float, dict] = dict(image=.9, video=.95),
                 final_norm: bool = True,
                 **kwargs) -> None:
        super().__init__(*args, final_norm=final_norm, **kwargs)
        if not isinstance(mask_ratio, dict):
            mask_ratio = dict(image=mask_ratio, video=mask_ratio)
        if set(mask_ratio) != {'image', 'video'} or not all(
                0 < r < 1 for r in mask_ratio.values()):
            raise ValueError(
                'mask_ratio must be a share in (0, 1), or a dict of one for '
                f'`image` and one for `video`, but got {mask_ratio}.')
        self.mask_ratio = dict(mask_ratio)

    def forward(
        self,
        x: Tensor,
        mask: Union[bool, Tensor, None] = True
    ) -> Union[Tensor, Tuple[Tensor, Tensor, Tensor]]:
        """Encode the visible tokens.

        Args:
            x (Tensor): Normalised images (B, 3, H, W) or videos
                (B, 3, T, H, W).
            mask (bool | Tensor, optional): True draws a random mask; a tensor
                (B, N), nonzero where masked, with the same number in each
                row, is used as it is; None or False encodes all tokens, as
                :class:`S4DViT`. Defaults to True.

        Returns:
            tuple[Tensor]: Visible tokens in their order (B, n, C); mask
            (B, N), 1 where masked; ids_restore (B, N), the place of each
            token among the visible ones followed by the masked ones. Without
            a mask: the output of :class:`S4DViT`.

        Raises:
            ValueError: If a given mask does not fit, or the ratio masks no
                token.
        """
        if mask is None or mask is False:
            return super().forward(x)
        if x.ndim == 5 and x.shape[2] == 1:
            x = x.squeeze(2)
        is_image = x.ndim == 4
        grid = self.patch_embed.grid(x)
        num_tokens = grid[0] * grid[1] * grid[2]
        if mask is True:
            ratio = self.mask_ratio['image' if is_image else 'video']
            num_masked = int(ratio * num_tokens)
            if num_masked == 0:
                raise ValueError(
                    f'mask_ratio={ratio} of {num_tokens} tokens masks none, '
                    'so that there is nothing to predict. Raise it.')
            mask = random_mask(len(x), num_tokens, num_masked, x.device)
        else:
            mask, num_masked = self._check_mask(mask, (len(x), num_tokens))

        # visible tokens first, each part in its order
        ids_shuffle = mask.to(torch.uint8).argsort(dim=1, stable=True)
        ids_restore = ids_shuffle.argsort(dim=1)
        keep = ids_shuffle[:, :num_tokens - num_masked]  # B n

        patches = self.patch_embed.patches(x)  # B N values
        visible = patches.gather(
            1, keep[..., None].expand(-1, -1, patches.shape[-1]))
        tokens = self.patch_embed.embed(visible, is_image)
        tokens = tokens + self.positions(grid).to(tokens)[keep]
        return self.run_blocks(tokens), mask.float(), ids_restore

    @staticmethod
    def _check_mask(mask: Tensor, shape: tuple) -> Tuple[Tensor, int]:
        mask = mask.bool()
        if tuple(mask.shape) != shape:
            raise ValueError(f'The mask must be of shape {shape} (samples, '
                             f'tokens), but is {tuple(mask.shape)}.')
        masked = mask.sum(dim=1)
        if (masked != masked[0]).any() or masked[0] == shape[1]:
            raise ValueError(
                'Each sample must have the same number of masked tokens, and '
                f'at least one visible, but they have {masked.tolist()} of '
                f'{shape[1]}.')
        return mask, int(masked[0])
