# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pixels to tubelets to tokens, where a token is, and any backbone's output as tokens.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Features = Tensor | tuple | list


def video_to_tubelets(
    video: Tensor, tubelet_size: int, patch_size: int, channels_last: bool = True
) -> Tensor:
    """Cut a video (B, 3, T, H, W) into tubelets (B, N, P), time-major, then rows, then columns.

    ``channels_last`` orders the values inside of a tubelet as (time, row, column, channel), as the
    target of the MAE; otherwise (channel, time, row, column), as the kernel of a convolution.
    """
    b, channels, frames, height, width = video.shape
    s, p = tubelet_size, patch_size
    x = video.reshape(b, channels, frames // s, s, height // p, p, width // p, p)
    # B 3 t s h p w p -> B t h w (values)
    order = (0, 2, 4, 6, 3, 5, 7, 1) if channels_last else (0, 2, 4, 6, 1, 3, 5, 7)
    return x.permute(order).flatten(4).flatten(1, 3)


def normalize_per_channel(
    tubelets: Tensor, eps: float | Tensor = 1e-6
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each tubelet and channel: ``(x - mean) / sqrt(var + eps)``, var unbiased.

    ``eps`` is one number, or one for each channel. Returns tubelets (B, N, P), and the mean and the
    divisor of each, (B, N, 1, 3).
    """
    x = tubelets.unflatten(-1, (-1, 3))  # B N s*p*p 3
    var, mean = torch.var_mean(x, dim=-2, keepdim=True)
    scale = (var + eps).sqrt()
    return ((x - mean) / scale).flatten(-2), mean, scale


class TubeletEmbed(nn.Module):
    """Linear embedding of tubelets: a 3-D convolution with kernel = stride.

    The weight is that of a convolution, (C, 3, s, p, p), applied as a matrix product, so that a
    masked auto-encoder embeds the visible tubelets only. For an image the kernel is summed over
    time, which equals repeating the image to ``s`` frames.
    """

    def __init__(self, embed_dims: int, tubelet_size: int = 2, patch_size: int = 16) -> None:
        super().__init__()
        self.tubelet_size = tubelet_size
        self.patch_size = patch_size
        kernel = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(3, embed_dims, kernel_size=kernel, stride=kernel)

    def grid(self, x: Tensor) -> tuple[int, int, int]:
        """Grid (t, h, w) of the tokens of images (B, 3, H, W) or videos (B, 3, T, H, W)."""
        s, p = self.tubelet_size, self.patch_size
        height, width = x.shape[-2:]
        frames = x.shape[2] if x.ndim == 5 else s
        if x.ndim not in (4, 5) or x.shape[1] != 3 or frames % s or height % p or width % p:
            raise ValueError(
                f'Expected images (B, 3, H, W) or videos (B, 3, T, H, W) with T a multiple of '
                f'tubelet_size={s}, H and W of patch_size={p}, but got shape {tuple(x.shape)}. '
                'Change clip_len, or resize or crop, in the pipeline.'
            )
        return frames // s, height // p, width // p

    def patches(self, x: Tensor) -> Tensor:
        """Tubelets (B, N, P) of videos, (B, N, P / s) of images, ordered as the kernel."""
        if x.ndim == 4:
            return video_to_tubelets(x[:, :, None], 1, self.patch_size, False)
        return video_to_tubelets(x, self.tubelet_size, self.patch_size, False)

    def embed(self, patches: Tensor, is_image: bool) -> Tensor:
        """Project tubelets (B, n, P) to tokens (B, n, C)."""
        weight = self.proj.weight
        if is_image:
            weight = weight.sum(dim=2)
        return F.linear(patches, weight.flatten(1), self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) of images (B, 3, H, W) or videos (B, 3, T, H, W)."""
        return self.embed(self.patches(x), is_image=x.ndim == 4)


def sincos_position_table(num_positions: int, dim: int) -> Tensor:
    """Fixed 1-D sin-cos table over flattened token positions, (num_positions, dim), float32.

    As in VideoMAE (https://github.com/MCG-NJU/VideoMAE):
    ``angle(p, i) = p / 10000 ** (2 * (i // 2) / dim)``; sine on even ``i``, cosine on odd ``i``.
    """
    index = torch.arange(dim)
    power = (2 * (index // 2) / dim).double()
    angle = torch.arange(num_positions, dtype=torch.float64)[:, None] / 10000.0**power
    return torch.where(index % 2 == 0, angle.sin(), angle.cos()).float()


def resize_grid(table: Tensor, old: tuple, new: tuple) -> Tensor:
    """Bicubic interpolation of positions (t * old_h * old_w, C) to another (rows, columns)."""
    if tuple(old) == tuple(new):
        return table
    grid = table.reshape(-1, *old, table.shape[-1]).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode='bicubic', align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(-1, table.shape[-1])


def _has_class_token(x: Features) -> bool:
    # mmaction2's MViT returns a feature map (B, C, ...) and a class token (B, C)
    return (
        isinstance(x, (tuple, list))
        and len(x) == 2
        and all(isinstance(part, Tensor) for part in x)
        and x[0].ndim > 3
        and x[0].shape[:2] == x[1].shape
    )


def last_stage(x: Features) -> Features:
    """The last of a backbone's stages: a tensor, or a pair of feature map and class token."""
    while isinstance(x, (tuple, list)) and not _has_class_token(x):
        if len(x) == 2 and all(isinstance(part, Tensor) and part.ndim == 5 for part in x):
            slow, fast = (part.shape[2:] for part in x)
            if slow[1:] == fast[1:] and slow[0] != fast[0]:
                raise ValueError(
                    'The backbone returns parallel pathways of the shapes '
                    f'{[tuple(part.shape) for part in x]} (SlowFast), and neither is the last '
                    "stage. Use mmaction2's SlowFastHead, or a backbone with one output."
                )
        x = x[-1]
    return x


def pool(x: Features) -> Tensor:
    """Features of the last stage, averaged over positions, (B, C); or its class token."""
    x = last_stage(x)
    if _has_class_token(x):
        return x[1]
    if x.ndim == 3:
        return x.mean(dim=1)
    return x.flatten(2).mean(dim=2) if x.ndim > 3 else x


def to_tokens(x: Features) -> tuple[Tensor, Callable[[Tensor], Features]]:
    """Tokens (B, N, C) of a backbone's output, and the function back to its layout.

    The output may be tokens, with or without class tokens; a feature map (B, C, [T, ]H, W); pooled
    features (B, C); a pair of feature map and class token; or a tuple or list of those, one per
    stage: the last is taken, the others stay as they are.

    Examples:
        >>> import torch
        >>> tokens, restore = to_tokens(torch.zeros(2, 8, 4, 7, 7))
        >>> tokens.shape, restore(tokens).shape
        (torch.Size([2, 196, 8]), torch.Size([2, 8, 4, 7, 7]))
    """
    if _has_class_token(x):
        tokens, restore = to_tokens(x[0])
        tokens = torch.cat((x[1][:, None], tokens), dim=1)  # B 1+N C
        return tokens, lambda t: type(x)((restore(t[:, 1:]), t[:, 0]))
    last_stage(x)  # refuses pathways
    if isinstance(x, (tuple, list)):
        tokens, restore = to_tokens(x[-1])
        return tokens, lambda t: type(x)((*x[:-1], restore(t)))
    if x.ndim == 2:
        return x[:, None], lambda t: t.squeeze(1)
    if x.ndim == 3:
        return x, lambda t: t
    grid = x.shape[2:]
    # B C [T] H W -> B N C
    return (x.flatten(2).transpose(1, 2), lambda t: t.transpose(1, 2).unflatten(2, grid))
