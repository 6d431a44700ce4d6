# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Floating-point operations, 2 for a multiplication with its addition."""


def moae_flops(tokens: int,
               dims: int,
               hidden: int,
               experts: int,
               top_k: int,
               noise: bool = False) -> int:
    """What the forward pass of a MoAE layer needs, however it is executed:
    the router, and two matrix products in each of a token's experts.

    Args:
        tokens (int): Of the whole batch.
        dims (int): Channels of a token.
        hidden (int): Width of an expert.
        experts (int): All.
        top_k (int): Experts of a token.
        noise (bool): Whether the router computes its noise, as in training.
            Defaults to False.

    Returns:
        int: FLOPs, of matrix products only.
    """
    router = experts * (1 + noise)
    return 2 * tokens * dims * (router + 2 * top_k * hidden)
