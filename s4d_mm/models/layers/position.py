# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Backbone step: where a token is. Fixed sin-cos tables."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sincos_position_table(num_positions: int, dim: int) -> Tensor:
    """Fixed 1-D sin-cos table over flattened token positions, as in VideoMAE
    (https://github.com/MCG-NJU/VideoMAE).

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
