# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Floating-point operations that the method needs, by hand.

Only matrix products count, 2 for a multiplication and an addition; the
backward pass needs two more of each, one where nothing before it learns (the
embedding). What the equations do not need is left out: the embedding of masked
tokens, the second frame of a repeated image, empty places of experts.
``tests/test_benchmarks.py`` compares this with what
``torch.utils.flop_counter`` finds in ``PlainS4D`` and in ours.

Letters: B samples, N tokens, n visible tokens, C channels, E experts.
"""

from .plain_s4d import SIZES

PIXELS = 2 * 16 * 16 * 3  # of a tubelet


def tokens_of(modality: str, frames: int = 16, img_size: int = 160) -> int:
    """N."""
    slots = frames // 2 if modality == 'video' else 1
    return slots * (img_size // 16) ** 2


def block_flops(batch: int, tokens: int, dim: int) -> int:
    """Forward pass of a transformer block."""
    linear = 2 * tokens * 12 * dim**2  # qkv 3, proj 1, mlp 8
    attention = 2 * 2 * tokens**2 * dim
    return batch * (linear + attention)


def moae_flops(tokens: int, dim: int, experts: int, top_k: int = 2) -> int:
    """Forward pass of a MoAE layer on all tokens of a batch, in training."""
    router = 2 * tokens * dim * 2 * experts  # with its noise
    return router + 2 * tokens * top_k * 2 * dim * (dim // 4)


def embed_flops(batch: int, tokens: int, modality: str, dim: int) -> int:
    """Forward pass of the tubelet embedding."""
    pixels = PIXELS if modality == 'video' else PIXELS // 2
    return 2 * batch * tokens * pixels * dim


def step_flops(
    stage: str,
    modality: str,
    batch: int,
    arch='base',
    frames: int = 16,
    experts: int = 8,
    moae: bool = True,
    classes: int = 7,
) -> int:
    """Forward and backward pass of a training step.

    Args:
        stage (str): 'pretrain' or 'finetune'.
        modality (str): 'video' or 'image'.
        batch (int): B.
        arch (str | tuple): Key of ``SIZES``, or such a value. Defaults to
            'base'.
        frames (int): Frames of a clip. Defaults to 16.
        experts (int): E. Defaults to 8.
        moae (bool): Whether the last half of the blocks has experts. Defaults
            to True.
        classes (int): Of the classifier. Defaults to 7.
    """
    (dim, depth, _), (ddim, ddepth, _) = SIZES.get(arch, arch) if isinstance(arch, str) else arch
    tokens = tokens_of(modality, frames)
    if stage == 'finetune':
        rest = depth * block_flops(batch, tokens, dim)
        if moae:
            rest += depth // 2 * moae_flops(batch * tokens, dim, experts)
        rest += 2 * batch * dim * classes
        return 2 * embed_flops(batch, tokens, modality, dim) + 3 * rest
    masked = int(dict(image=0.9, video=0.95)[modality] * tokens)
    visible = tokens - masked
    rest = depth * block_flops(batch, visible, dim)
    rest += 2 * batch * visible * dim * ddim
    rest += ddepth * block_flops(batch, tokens, ddim)
    rest += 2 * batch * masked * ddim * PIXELS
    return 2 * embed_flops(batch, visible, modality, dim) + 3 * rest
