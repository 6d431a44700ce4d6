# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Neck step: the output of any backbone as tokens, and back.

Shapes use the letters of :mod:`s4d_mm.models`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Features = Tensor | tuple | list


def has_class_token(x: Features) -> bool:
    """Whether features are a pair of feature map (B, C, ...) and class token (B, C).

    mmaction2's ``MViT`` returns such a pair.
    """
    return (
        isinstance(x, (tuple, list))
        and len(x) == 2
        and all(isinstance(part, Tensor) for part in x)
        and x[0].ndim > 3
        and x[1].ndim == 2
        and x[0].shape[:2] == x[1].shape
    )


def last_stage(x: Features) -> Features:
    """What necks and heads use of a backbone's output.

    Args:
        x (Tensor | tuple | list): Tensor, pair of feature map and class token,
            or several of those, one per stage.

    Returns:
        Tensor | tuple | list: The tensor or pair of the last stage.

    Raises:
        TypeError: If it is something else.
        ValueError: If these are the pathways of a SlowFast network.
    """
    while isinstance(x, (tuple, list)) and not has_class_token(x):
        if are_pathways(x):
            raise ValueError(
                'The backbone returns parallel pathways of the shapes '
                f'{[tuple(part.shape) for part in x]} (SlowFast), of which '
                "none is the last stage. Use mmaction2's SlowFastHead, or a "
                'backbone with one output.'
            )
        x = x[-1]
    if not isinstance(x, (Tensor, tuple, list)):
        raise TypeError(
            'Expected a tensor, or a tuple or list of them, from '
            f'the backbone, but got a {type(x).__name__}.'
        )
    return x


def are_pathways(x: Features) -> bool:
    """Whether two feature maps differ in time and channels, not in space."""
    return (
        len(x) == 2
        and all(isinstance(part, Tensor) and part.ndim == 5 for part in x)
        and x[0].shape[3:] == x[1].shape[3:]
        and x[0].shape[1:3] != x[1].shape[1:3]
    )


def pool(x: Features) -> Tensor:
    """Features of the last stage, averaged over positions.

    Args:
        x (Tensor | tuple | list): As in :func:`to_tokens`.

    Returns:
        Tensor: (B, C); of a pair of feature map and class token the class
        token.
    """
    x = last_stage(x)
    if has_class_token(x):
        return x[1]
    if x.ndim == 3:
        return x.mean(dim=1)
    return x.flatten(2).mean(dim=2) if x.ndim > 3 else x


def to_tokens(x: Features) -> tuple[Tensor, Callable[[Tensor], Features]]:
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

    Raises:
        TypeError, ValueError: See :func:`last_stage`.

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
    last_stage(x)  # raises if there is none
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
