# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Neck step: the output of any backbone as tokens, and back.

Letters: B clips, N tokens, C channels, T x H x W a grid.
"""
from typing import Callable, Tuple, Union

import torch
from torch import Tensor

Features = Union[Tensor, tuple, list]


def has_class_token(x: Features) -> bool:
    """Whether features are a pair [feature map (B, C, ...), class token
    (B, C)], as mmaction2's ``MViT`` returns them."""
    return (isinstance(x, (tuple, list)) and len(x) == 2
            and all(isinstance(part, Tensor) for part in x) and x[0].ndim > 3
            and x[1].ndim == 2 and x[0].shape[:2] == x[1].shape)


def to_tokens(x: Features) -> Tuple[Tensor, Callable[[Tensor], Features]]:
    """Turn a backbone's output into tokens.

    Args:
        x (Tensor | tuple | list): Tokens (B, N, C), with or without class
            tokens among them; a feature map (B, C, [T, ]H, W); pooled
            features (B, C), one token; a pair of feature map and class token
            (B, C), which becomes the first token; or a tuple or list of
            those, one per stage, of which the last is taken.

    Returns:
        tuple: Tokens (B, N, C), and a function from tokens of that shape to
        the layout of ``x``, in which earlier stages are as they were.

    Examples:
        >>> import torch
        >>> tokens, restore = to_tokens(torch.zeros(2, 8, 4, 7, 7))
        >>> tokens.shape, restore(tokens).shape
        (torch.Size([2, 196, 8]), torch.Size([2, 8, 4, 7, 7]))
    """
    if has_class_token(x):
        tokens, restore = to_tokens(x[0])
        tokens = torch.cat((x[1][:, None], tokens), dim=1)  # B 1+N C
        return tokens, lambda t: type(x)((restore(t[:, 1:]), t[:, 0]))
    if isinstance(x, (tuple, list)):
        tokens, restore = to_tokens(x[-1])
        return tokens, lambda t: type(x)((*x[:-1], restore(t)))
    if x.ndim == 2:
        return x[:, None], lambda t: t.squeeze(1)
    if x.ndim == 3:
        return x, lambda t: t
    grid = x.shape[2:]
    # B C [T] H W -> B N C
    return (x.flatten(2).transpose(1, 2),
            lambda t: t.transpose(1, 2).unflatten(2, grid))
