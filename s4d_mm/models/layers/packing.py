# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Backbone and neck step: batches of different lengths as one sequence.

All layers but attention treat tokens one by one, so that batches of images and
of videos go through them as one long list of tokens.

Letters: G batches, batch i of B_i samples of N_i tokens, S tokens of all, C
channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Sizes = Sequence[tuple[int, int]]  # (B_i, N_i) of each batch


def pack(batches: Sequence[Tensor]) -> tuple[Tensor, Sizes]:
    """Put batches one after the other.

    Args:
        batches (Sequence[Tensor]): G batches (B_i, N_i, C).

    Returns:
        tuple: Tokens (S, C), and the (B_i, N_i).
    """
    sizes = tuple(tuple(x.shape[:2]) for x in batches)
    return torch.cat([x.flatten(0, 1) for x in batches]), sizes


def unpack(tokens: Tensor, sizes: Sizes) -> list[Tensor]:
    """Reverse of :func:`pack`.

    Args:
        tokens (Tensor): (S, C).
        sizes (Sequence[tuple[int]]): The (B_i, N_i).

    Returns:
        list[Tensor]: G batches (B_i, N_i, C).
    """
    parts = tokens.split([b * n for b, n in sizes])
    return [part.unflatten(0, size) for part, size in zip(parts, sizes)]
