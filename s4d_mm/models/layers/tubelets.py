# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pixels to tubelets and back, tubelets to tokens, and where a token is.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def video_to_tubelets(
    video: Tensor, tubelet_size: int, patch_size: int, channels_last: bool = True
) -> Tensor:
    """Cut a video into non-overlapping tubelets.

    Args:
        video (Tensor): (B, 3, T, H, W).
        tubelet_size (int): s, frames in a tubelet.
        patch_size (int): p, side of a tubelet in pixels.
        channels_last (bool): Order of the values inside a tubelet: (time,
            row, column, channel) when True, the order of the MAE target;
            (channel, time, row, column) when False, that of a convolution
            kernel. Defaults to True.

    Returns:
        Tensor: (B, N, P), time-major, then rows, then columns.
    """
    b, channels, frames, height, width = video.shape
    s, p = tubelet_size, patch_size
    x = video.reshape(b, channels, frames // s, s, height // p, p, width // p, p)
    # B 3 t s h p w p -> B t h w (values)
    order = (0, 2, 4, 6, 3, 5, 7, 1) if channels_last else (0, 2, 4, 6, 1, 3, 5, 7)
    return x.permute(order).flatten(4).flatten(1, 3)


def tubelets_to_video(
    tubelets: Tensor, grid: tuple[int, int, int], tubelet_size: int, patch_size: int
) -> Tensor:
    """Inverse of :func:`video_to_tubelets` (channels last).

    Args:
        tubelets (Tensor): (B, N, P).
        grid (tuple[int]): (t, h, w).
        tubelet_size (int): s, frames in a tubelet.
        patch_size (int): p, side of a tubelet in pixels.

    Returns:
        Tensor: (B, 3, t*s, h*p, w*p).
    """
    t, h, w = grid
    s, p = tubelet_size, patch_size
    x = tubelets.reshape(len(tubelets), t, h, w, s, p, p, -1)
    x = x.permute(0, 7, 1, 4, 2, 5, 3, 6)  # B 3 t s h p w p
    return x.reshape(len(tubelets), x.shape[1], t * s, h * p, w * p)


def normalize_per_channel(
    tubelets: Tensor, channels: int = 3, eps: float | Tensor = 1e-6
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each tubelet and channel to mean 0 and variance 1.

    ``(x - mean) / sqrt(var + eps)``, var unbiased over the s*p*p pixels of the tubelet in that
    colour channel.

    Args:
        tubelets (Tensor): (B, N, P), colour channel fastest.
        channels (int): Colour channels. Defaults to 3.
        eps (float | Tensor): Added to the variance, one for all channels or
            one for each. Defaults to 1e-6.

    Returns:
        tuple[Tensor]: Normalised tubelets (B, N, P), and the mean and the divisor of each,
        (B, N, 1, 3).
    """
    x = tubelets.unflatten(-1, (-1, channels))  # B N s*p*p 3
    var, mean = torch.var_mean(x, dim=-2, keepdim=True)
    scale = (var + eps).sqrt()
    return ((x - mean) / scale).flatten(-2), mean, scale


class TubeletEmbed(nn.Module):
    """Linear embedding of tubelets: a 3-D convolution with kernel = stride.

    The weight is kept as that of a convolution, (C, 3, s, p, p), and applied
    as a matrix product, so that a masked auto-encoder embeds the visible
    tubelets only. For an image the kernel is summed over time, which equals
    repeating the image to ``s`` frames.

    Args:
        embed_dims (int): C, width of a token.
        tubelet_size (int): Frames in a tubelet. Defaults to 2.
        patch_size (int): Side of a tubelet in pixels. Defaults to 16.
        in_channels (int): Channels of the input. Defaults to 3.
    """

    def __init__(
        self, embed_dims: int, tubelet_size: int = 2, patch_size: int = 16, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.tubelet_size = tubelet_size
        self.patch_size = patch_size
        kernel = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(in_channels, embed_dims, kernel_size=kernel, stride=kernel)

    def grid(self, x: Tensor) -> tuple[int, int, int]:
        """Grid (t, h, w) of tokens of an input.

        Args:
            x (Tensor): Images (B, C, H, W) or videos (B, C, T, H, W).

        Raises:
            ValueError: If the input is neither, or does not divide into
                tubelets.
        """
        in_channels = self.proj.in_channels
        if x.ndim not in (4, 5) or x.shape[1] != in_channels:
            raise ValueError(
                f'Expected images (B, {in_channels}, H, W) or videos '
                f'(B, {in_channels}, T, H, W), but got shape '
                f'{tuple(x.shape)}.'
            )
        height, width = x.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f'Input height and width must be multiples of patch_size='
                f'{self.patch_size}, but got {height} x {width}. Resize or '
                'crop in the pipeline.'
            )
        t = 1
        if x.ndim == 5:
            if x.shape[2] % self.tubelet_size:
                raise ValueError(
                    f'The number of frames must be a multiple of tubelet_size'
                    f'={self.tubelet_size}, but got {x.shape[2]}. Change '
                    'clip_len in the pipeline.'
                )
            t = x.shape[2] // self.tubelet_size
        return t, height // self.patch_size, width // self.patch_size

    def patches(self, x: Tensor) -> Tensor:
        """Cut images (B, 3, H, W) or videos (B, 3, T, H, W) into tubelets.

        Returns:
            Tensor: (B, N, P), or (B, N, P / s) for images, values ordered as in the kernel.
        """
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
    """Fixed 1-D sin-cos table over flattened token positions.

    As in VideoMAE (https://github.com/MCG-NJU/VideoMAE):
    ``angle(p, i) = p / 10000 ** (2 * (i // 2) / dim)``; sine on even ``i``,
    cosine on odd ``i``.

    Args:
        num_positions (int): Number of rows.
        dim (int): Width of a row.

    Returns:
        Tensor: (num_positions, dim), float32.
    """
    index = torch.arange(dim)
    power = 2 * torch.div(index, 2, rounding_mode='floor') / dim
    angle = torch.arange(num_positions, dtype=torch.float64)[:, None] / torch.pow(
        torch.tensor(10000.0, dtype=torch.float64), power.double()
    )
    return torch.where(index % 2 == 0, angle.sin(), angle.cos()).float()


def resize_grid(table: Tensor, old: tuple, new: tuple) -> Tensor:
    """Bicubic interpolation of each temporal slot's grid of positions.

    Args:
        table (Tensor): (t * old_h * old_w, C), time-major, then rows.
        old (tuple[int]): Grid (rows, columns) of the table.
        new (tuple[int]): Grid that is wanted.

    Returns:
        Tensor: (t * new_h * new_w, C).
    """
    if tuple(old) == tuple(new):
        return table
    grid = table.reshape(-1, *old, table.shape[-1]).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode='bicubic', align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(-1, table.shape[-1])
