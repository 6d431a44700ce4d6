# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
from .moae import MoAE, NoisyTopKRouter
from .packing import pack, unpack
from .position import resize_grid, sincos_position_table
from .token_layout import to_tokens
from .transformer import Attention, Mlp, MoAEBlock, TransformerBlock
from .tubelets import TubeletEmbed, normalize_per_channel, tubelets_to_video, video_to_tubelets

__all__ = [
    'Attention',
    'Mlp',
    'MoAE',
    'MoAEBlock',
    'NoisyTopKRouter',
    'TransformerBlock',
    'TubeletEmbed',
    'normalize_per_channel',
    'pack',
    'resize_grid',
    'sincos_position_table',
    'to_tokens',
    'tubelets_to_video',
    'unpack',
    'video_to_tubelets',
]
