# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Conversion step: weights of other ViTs as a start for ours, and ours for
mmaction2's ``VisionTransformer``.

What changes form does so exactly: the converted model computes what the
source computes, apart from positions and class tokens.
"""

import re
from collections import Counter
from typing import NamedTuple, Optional

import torch
from torch import Tensor

from ..models.layers import sincos_position_table
from .s4d import replace_prefix, substitute, swap
from .vit_keys import LAYOUTS, OWN, SOURCES, StateDict, find_layout

BLOCK = re.compile(r'((?:backbone\.blocks|neck\.decoder_blocks)\.\d+)\.(.+)')
# parameters of a block: (layer, whether zeros may stand for a missing bias)
LAYERS = (
    ('norm1', False),
    ('attn.proj', True),
    ('norm2', False),
    ('mlp.fc1', True),
    ('mlp.fc2', True),
)
# (LayerScale, the linear layer before it)
SCALES = (('gamma_1', 'attn.proj'), ('gamma_2', 'mlp.fc2'))
KERNEL = OWN[0]
KERNEL_BIAS = 'backbone.patch_embed.proj.bias'
FILLED = 'missing biases filled in with zeros'


class Conversion(NamedTuple):
    """Converted weights and what there is to say about them."""

    weights: StateDict
    family: str
    unplaced: list[str]  # keys of the source
    notes: list[str]  # what was folded, dropped, filled in


def from_vit(
    state_dict: StateDict, source: str = 'auto', tubelet_size: Optional[int] = None
) -> Conversion:
    """Turn weights of another ViT into a start for S4DViT or S4DMAEViT.

    Args:
        state_dict (dict): The other model's weights.
        source (str): One of ``SOURCES``, or 'auto', which tells it from the
            keys. Defaults to 'auto'.
        tubelet_size (int, optional): Frames of a tubelet, to which the kernel
            of an image model is inflated. Defaults to None, which means 2,
            and for a video model what it has.

    Returns:
        Conversion: With weights named ``backbone.*``; those of VideoMAE's
        decoder ``neck.*``; a norm after the average ``cls_head.fc_norm.*``.

    Raises:
        ValueError: If the weights are of a family that does not fit or is not
            known, are incomplete, or are not of ``source``.
    """
    if source not in ('auto',) + SOURCES:
        raise ValueError(f'source={source!r} is not one of {("auto",) + SOURCES}.')
    layout, root = find_layout(state_dict)
    if source not in ('auto', layout.family, layout.family + 'v2'):
        raise ValueError(
            f'source={source!r} was asked for, but the keys are those of {layout.family}.'
        )
    out, blocks, unplaced, did = {}, {}, [], Counter()
    for key, value in state_dict.items():
        new = ''
        if key.startswith(root) and isinstance(value, Tensor):
            new = replace_prefix(key[len(root) :], layout.prefixes)
        match = BLOCK.fullmatch(new)
        if match:
            name = substitute(match[2], layout.in_block)
            blocks.setdefault(match[1], {})[name] = value
        elif new:
            out[new] = value
        elif _is_fixed_table(key, value):
            did['fixed sin-cos position tables dropped (S4DViT computes its own)'] += 1
        else:
            unplaced.append(key)
    _check_numbers(blocks)
    out[KERNEL] = _inflate(out[KERNEL], tubelet_size, did)
    if KERNEL_BIAS not in out:
        out[KERNEL_BIAS] = out[KERNEL].new_zeros(len(out[KERNEL]))
        did[FILLED] += 1
    for stem, block in blocks.items():
        settled = _settle_block(stem, block, did)
        out.update({f'{stem}.{name}': v for name, v in settled.items()})
    return Conversion(
        out, layout.family, unplaced, [f'{count} {what}' for what, count in did.items()]
    )


def to_mmaction_vit(state_dict: StateDict, img_size: int = 160, num_frames: int = 16) -> Conversion:
    """Turn weights of S4DViT or S4DMAEViT into those of mmaction2's
    ``VisionTransformer``. The reverse of :func:`from_vit`.

    Of a pre-training model, the norm after the last block is left out, as
    VideoMAE does: fine-tuning averages the tokens before its norm.

    Args:
        state_dict (dict): Weights of a model of s4d_mm, ``backbone.*``.
        img_size (int): ``img_size`` of the VisionTransformer, which keeps its
            position table in the checkpoint. Defaults to 160.
        num_frames (int): Its ``num_frames``. Defaults to 16.

    Returns:
        Conversion: With weights named ``backbone.*``, which load strictly
        into a VisionTransformer with the settings in ``notes``.

    Raises:
        ValueError: If the weights are not of s4d_mm, some blocks are in a
            MoAENeck, or the sizes do not divide.
    """
    missing = [key for key in OWN if key not in state_dict]
    if missing:
        raise ValueError(
            'This is not a checkpoint of s4d_mm: it lacks '
            f'{missing}. It has, for example, '
            f'{list(state_dict)[:3]}.'
        )
    experts = [k for k in state_dict if re.match(r'\w+\.blocks\.\d+\.moae', k)]
    if experts:
        count = len({k.split('.')[2] for k in experts})
        raise ValueError(
            f'The last {count} blocks of this model are in a MoAENeck '
            f"({experts[0]}), and mmaction2's VisionTransformer has no place "
            'for adapter experts. Convert a pre-training checkpoint, or one '
            'of a model without MoAENeck.'
        )
    embed_dims, _, tubelet_size, patch_size, _ = state_dict[KERNEL].shape
    if img_size % patch_size or num_frames % tubelet_size:
        raise ValueError(
            f'img_size={img_size} must be a multiple of the patch size '
            f'{patch_size}, and num_frames={num_frames} one of the tubelet '
            f'size {tubelet_size}.'
        )
    pretrained = 'neck.decoder_embed.weight' in state_dict
    if pretrained:
        state_dict = {k: v for k, v in state_dict.items() if not k.startswith('backbone.norm.')}
    norms = [n for n in ('backbone.norm.', 'cls_head.fc_norm.') if n + 'weight' in state_dict]
    if len(norms) == 2:
        raise ValueError(
            'This model has a norm both before and after the average of the '
            f"tokens ({norms}), and mmaction2's VisionTransformer has one. "
            'Set final_norm=False in the backbone, or with_norm=False in the '
            'head, and train that.'
        )

    layout = next(x for x in LAYOUTS if x.family == 'mmaction_vit')
    out, unplaced = {}, []
    for key, value in state_dict.items():
        match = BLOCK.fullmatch(key)
        name = key
        if match:
            name = substitute(match[2], swap(layout.in_block))
            name = f'{match[1]}.{name}'
        new = replace_prefix(name, swap(layout.prefixes))
        if new:
            out[f'backbone.{new}'] = value
        else:
            unplaced.append(key)
    slots = num_frames // tubelet_size
    out['backbone.pos_embed'] = sincos_position_table(
        slots * (img_size // patch_size) ** 2, embed_dims
    )[None]
    depth = len({k.split('.')[2] for k in out if '.blocks.' in k})
    settings = dict(
        img_size=img_size,
        patch_size=patch_size,
        embed_dims=embed_dims,
        depth=depth,
        mlp_ratio=len(state_dict['backbone.blocks.0.mlp.fc1.weight']) / embed_dims,
        num_frames=num_frames,
        tubelet_size=tubelet_size,
        use_mean_pooling='backbone.norm.' not in norms,
    )
    notes = [
        'VisionTransformer('
        + ', '.join(f'{k}={v}' for k, v in settings.items())
        + ', num_heads as in training)'
    ]
    if pretrained:
        notes.append(
            'the norm after the last block is left out, as VideoMAE '
            'does before fine-tuning: fc_norm starts anew'
        )
    elif not norms:
        notes.append('there is no norm, so that its fc_norm starts anew')
    return Conversion(out, 'mmaction_vit', unplaced, notes)


def _is_fixed_table(key: str, value: Tensor) -> bool:
    """Whether these are the positions that S4DViT computes itself."""
    if (
        not key.endswith('pos_embed')
        or not isinstance(value, Tensor)
        or value.ndim != 3
        or len(value) != 1
    ):
        return False
    table = sincos_position_table(*value.shape[1:])
    return torch.allclose(value[0].float(), table, atol=1e-3)


def _check_numbers(blocks: dict) -> None:
    """Refuse weights with a gap in their blocks."""
    stems = {}
    for stem in blocks:
        name, number = stem.rsplit('.', 1)
        stems.setdefault(name, set()).add(int(number))
    for name, numbers in stems.items():
        lost = sorted(set(range(max(numbers) + 1)) - numbers)
        if lost:
            raise ValueError(
                f'The weights are incomplete: of the blocks up '
                f'to number {max(numbers)} of {name} those '
                f'numbered {lost} are missing.'
            )


def _inflate(kernel: Tensor, tubelet_size: Optional[int], did: Counter) -> Tensor:
    """An image's kernel (C, 3, p, p) for tubelets (C, 3, s, p, p): spread
    evenly over time, so that it sums to the image's.
    """
    if kernel.ndim == 5:
        if tubelet_size not in (None, kernel.shape[2]):
            raise ValueError(
                f'tubelet_size={tubelet_size} was asked for, but these are '
                f'weights for videos with tubelets of {kernel.shape[2]} '
                'frames. Leave it out.'
            )
        return kernel
    size = 2 if tubelet_size is None else tubelet_size
    if size < 1:
        raise ValueError(f'tubelet_size must be at least 1, but is {size}.')
    did[f'image kernel inflated to tubelets of {size} frames'] += 1
    return (kernel.float() / size)[:, :, None].repeat(1, 1, size, 1, 1)


def _settle_block(stem: str, block: StateDict, did: Counter) -> StateDict:
    """Give a block the form of ours: no bias of the keys, no LayerScale.

    Args:
        stem (str): The block's name.
        block (dict): Its parameters.
        did (Counter): Gets what was done.

    Raises:
        ValueError: If a parameter is missing, or there is one that our block
            cannot compute with.
    """
    block = dict(block)
    if 'attn.qkv.bias' in block:
        block['attn.q_bias'], block['attn.k_bias'], block['attn.v_bias'] = (
            b.clone() for b in block.pop('attn.qkv.bias').chunk(3)
        )
    # adds the same to all scores of a query, which softmax ignores
    if block.pop('attn.k_bias', None) is not None:
        did['biases of keys dropped (they have no effect)'] += 1
    for scale, layer in SCALES:
        gamma = block.pop(scale, None)
        if gamma is not None and f'{layer}.weight' in block:
            gamma = gamma.float().flatten()
            for name in (f'{layer}.weight', f'{layer}.bias'):
                if name in block:
                    value = block[name].float()
                    block[name] = value * gamma.view(-1, *(1,) * (value.ndim - 1))
            did['LayerScales folded into the layer before'] += 1

    weight = block.get('attn.qkv.weight')
    need = {'attn.qkv.weight': None}
    for layer, zeros in LAYERS:
        need[f'{layer}.weight'] = None
        need[f'{layer}.bias'] = layer if zeros else None
    need.update({'attn.q_bias': 'attn.qkv', 'attn.v_bias': 'attn.qkv'})
    for name, layer in need.items():
        if name in block:
            continue
        if layer is None or f'{layer}.weight' not in block:
            raise ValueError(f'The weights are incomplete: {stem} has no {name}.')
        rows = len(block[f'{layer}.weight']) // (3 if layer == 'attn.qkv' else 1)
        block[name] = block[f'{layer}.weight'].new_zeros(rows)
        did[FILLED] += 1
    extra = sorted(set(block) - set(need))
    if extra:
        raise ValueError(
            f'{stem} has {extra}, which the blocks of S4DViT '
            'have not. Without that its weights compute '
            'something else.'
        )
    dims = len(block['norm1.weight'])
    if tuple(weight.shape) != (3 * dims, dims):
        raise ValueError(
            f'The attention of {stem} is not as wide as its '
            f'tokens: qkv is {tuple(weight.shape)}, for S4DViT '
            f'it must be {(3 * dims, dims)}.'
        )
    hidden = len(block['mlp.fc1.weight'])
    if hidden != block['mlp.fc2.weight'].shape[1]:
        raise ValueError(
            f'The MLP of {stem} is gated (fc1 gives {hidden} '
            'values, fc2 takes '
            f'{block["mlp.fc2.weight"].shape[1]}), that of '
            'S4DViT is not.'
        )
    return block
