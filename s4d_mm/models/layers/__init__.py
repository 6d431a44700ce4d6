# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The pieces that backbones, necks and heads are made of."""

from .moae import MoAE, NoisyTopKRouter
from .token_layout import pool, to_tokens
from .transformer import (
    FINETUNE_STD,
    LN_EPS,
    MMACTION_IN_BLOCK,
    MoAEBlock,
    TransformerBlock,
    check_shapes,
    drop_path_rates,
    get_arch,
    init_transformer,
    run_block,
)
from .tubelets import (
    TubeletEmbed,
    normalize_per_channel,
    resize_grid,
    sincos_position_table,
    tubelets_to_video,
    video_to_tubelets,
)

__all__ = [
    'FINETUNE_STD',
    'LN_EPS',
    'MMACTION_IN_BLOCK',
    'MoAE',
    'MoAEBlock',
    'NoisyTopKRouter',
    'TransformerBlock',
    'TubeletEmbed',
    'check_shapes',
    'drop_path_rates',
    'get_arch',
    'init_transformer',
    'normalize_per_channel',
    'pool',
    'resize_grid',
    'run_block',
    'sincos_position_table',
    'to_tokens',
    'tubelets_to_video',
    'video_to_tubelets',
]
