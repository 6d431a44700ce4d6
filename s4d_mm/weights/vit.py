# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Other ViTs as a start for ours, and ours for mmaction2's VisionTransformer.

What changes form does so exactly: the converted model computes what the source computes, apart
from positions and class tokens. A parameter of the source is placed, or is known to play no part
in the encoder's blocks (:data:`OPTIONAL`) and is listed; with any other the weights are refused.
"""

import contextlib
import functools
import re
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.encoder import Mlp, TransformerBlock
from ..models.state_dict import MMACTION_IN_BLOCK, OTHER_CODES, OtherCode, first_lines, group_keys
from ..models.tokens import sincos_position_table
from .io import Conversion, NameTable, StateDict, has, rename, require
from .s4d import PREFIXES


class Layout(NamedTuple):
    """How the code of one family names its parameters."""

    family: str
    kernel: str  # the embedding's weight: by this,
    kernel_ndim: int  # its dimensions, 4 for images or 5 for videos,
    marker: str  # and one more key the family is known
    prefixes: NameTable  # (theirs, ours); the first that matches is taken
    in_block: NameTable = ()  # (theirs, ours) for what follows a block's number


_VIT = (
    ('patch_embed.proj.', 'backbone.patch_embed.proj.'),
    ('blocks.', 'backbone.blocks.'),
    ('norm.', 'backbone.norm.'),
    ('fc_norm.', 'cls_head.fc_norm.'),  # after the average over tokens
)
_KERNEL, _BLOCK = 'patch_embed.proj.weight', 'blocks.0.attn.qkv.weight'
LAYER_SCALES = (('ls1.gamma', 'gamma_1'), ('ls2.gamma', 'gamma_2'))
# open-mmlab/mmaction2, mmaction/models/backbones/vit_mae.py
MMACTION_VIT = Layout(
    'mmaction_vit',
    'patch_embed.projection.weight',
    5,
    'blocks.0.mlp.layers.0.0.weight',
    (('patch_embed.projection.', 'backbone.patch_embed.proj.'), *_VIT[1:]),
    MMACTION_IN_BLOCK,
)
# the first that fits is taken
LAYOUTS = (
    # MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2, modeling_pretrain.py and modeling_finetune.py
    Layout('videomae', f'encoder.{_KERNEL}', 5, f'encoder.{_BLOCK}', PREFIXES['pretrain']),
    Layout('videomae', _KERNEL, 5, _BLOCK, _VIT),
    # huggingface/pytorch-image-models, timm/models/vision_transformer.py;
    # facebookresearch/mae, models_mae.py; facebookresearch/deit
    Layout('timm_vit', _KERNEL, 4, _BLOCK, _VIT, LAYER_SCALES),
    MMACTION_VIT,
)
FAMILIES = tuple(dict.fromkeys(layout.family for layout in LAYOUTS))
# what may stand before all names of a family
WRAPPERS = ('', 'backbone.', 'model.')

KERNEL = 'backbone.patch_embed.proj.weight'
KERNEL_BIAS = 'backbone.patch_embed.proj.bias'
# keys of every checkpoint of s4d_mm
OWN_KEYS = (KERNEL, 'backbone.blocks.0.attn.q_bias')
BLOCK_STEM = r'(?:backbone\.blocks|neck\.decoder_blocks)\.\d+'
BLOCK = re.compile(rf'({BLOCK_STEM})\.(.+)')
# the names that there is a place for: ours, and those that are folded into ours
PLACES = re.compile(
    rf'({BLOCK_STEM})\.((norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)'
    r'|attn\.[qkv]_bias|gamma_[12])'
    r'|(backbone\.patch_embed\.proj|backbone\.norm|cls_head\.fc_norm|neck\.decoder_norm'
    r'|neck\.decoder_pred)\.(weight|bias)|neck\.decoder_embed\.weight|neck\.mask_token'
)
# what a source may have beside its encoder: class tokens, positions, decoder, classifier
OPTIONAL = re.compile(
    r'((backbone|model|encoder|decoder)\.)*'
    r'(cls_token|dist_token|mask_token|pos_embed|decoder_\w+|decoder|neck'
    r'|head|head_dist|cls_head|attn_pool)(\..+)?'
)
# LayerScale and the linear layer before it
SCALES = (('gamma_1', 'attn.proj'), ('gamma_2', 'mlp.fc2'))
FILLED = 'missing biases filled in with zeros'


def from_vit(state_dict: StateDict, tubelet_size: int | None = None) -> Conversion:
    """Turn weights of another ViT into a start for S4DViT or S4DMAEViT.

    They are named ``backbone.*``; those of VideoMAE's decoder ``neck.*``; a norm after the average
    ``cls_head.fc_norm.*``. The kernel of an image model is inflated to ``tubelet_size`` frames, 2
    if it is None.
    """
    layout, wrapper = find_layout(state_dict)
    weights, left_out, changes = _rename(state_dict, layout, wrapper)
    weights[KERNEL] = _inflate(weights[KERNEL], tubelet_size, changes)
    if KERNEL_BIAS not in weights:
        weights[KERNEL_BIAS] = weights[KERNEL].new_zeros(len(weights[KERNEL]))
        changes[FILLED] += 1
    _fold(weights, changes)
    _fill(weights, changes)
    notes = [f'{count} {what}' for what, count in changes.items()]
    return Conversion(weights, left_out, layout.family, notes)


def find_layout(state_dict: StateDict) -> tuple[Layout, str]:
    """The names of the family that weights are of, and which of ``WRAPPERS`` precedes them."""
    if has(OWN_KEYS, state_dict):
        raise ValueError(
            'This is a checkpoint of s4d_mm: there is nothing to convert. Use it as it is, with '
            'load_from.'
        )
    for layout in LAYOUTS:
        for wrapper in WRAPPERS:
            kernel = state_dict.get(wrapper + layout.kernel)
            found = kernel is not None and wrapper + layout.marker in state_dict
            if found and kernel.ndim == layout.kernel_ndim:
                return layout, wrapper
    raise ValueError(
        f'These are not the keys of a family that is known ({", ".join(FAMILIES)}):\n'
        f'{group_keys(state_dict)}\n'
        'Of weights from Hugging Face take the file of the original repository. An encoder that is '
        'no plain ViT is no start for S4DViT.'
    )


def to_mmaction_vit(state_dict: StateDict, img_size: int = 160, num_frames: int = 16) -> Conversion:
    """Turn weights of S4DViT or S4DMAEViT into those of mmaction2's ``VisionTransformer``.

    The reverse of :func:`from_vit`. With a position table of these sizes they load strictly into a
    VisionTransformer with the settings in ``notes``. Of a pre-training model, the norm after the
    last block is left out, as in VideoMAE: fine-tuning averages the tokens before its norm.
    """
    require(state_dict, OWN_KEYS, 's4d_mm')
    experts = [key for key in state_dict if re.match(r'\w+\.blocks\.\d+\.moae', key)]
    if experts:
        raise ValueError(
            f"The last blocks of this model are in a MoAENeck ({experts[0]}), and mmaction2's "
            'VisionTransformer has no place for adapter experts. Convert a pre-training '
            'checkpoint, or one of a model without MoAENeck.'
        )
    embed_dims, _, tubelet_size, patch_size, _ = state_dict[KERNEL].shape
    if img_size % patch_size or num_frames % tubelet_size:
        raise ValueError(
            f'img_size={img_size} must be a multiple of the patch size {patch_size}, and '
            f'num_frames={num_frames} one of the tubelet size {tubelet_size}.'
        )
    pretrained = 'neck.decoder_embed.weight' in state_dict
    if pretrained:
        state_dict = {k: v for k, v in state_dict.items() if not k.startswith('backbone.norm.')}
    norms = [n for n in ('backbone.norm.', 'cls_head.fc_norm.') if n + 'weight' in state_dict]
    if len(norms) == 2:
        raise ValueError(
            'This model has a norm both before and after the average of the tokens '
            f"({norms}), and mmaction2's VisionTransformer has one. Set final_norm=False in the "
            'backbone, or with_norm=False in the head, and train that.'
        )

    weights, left_out = {}, []
    for key, value in state_dict.items():
        new = rename(key, MMACTION_VIT.prefixes, MMACTION_IN_BLOCK, reverse=True)
        if new and PLACES.fullmatch(key):
            weights[f'backbone.{new}'] = value
        else:
            left_out.append(key)
    weights['backbone.pos_embed'] = sincos_position_table(
        num_frames // tubelet_size * (img_size // patch_size) ** 2, embed_dims
    )[None]
    settings = dict(
        img_size=img_size,
        patch_size=patch_size,
        embed_dims=embed_dims,
        depth=len({k.split('.')[2] for k in weights if '.blocks.' in k}),
        mlp_ratio=len(state_dict['backbone.blocks.0.mlp.fc1.weight']) / embed_dims,
        num_frames=num_frames,
        tubelet_size=tubelet_size,
        use_mean_pooling='backbone.norm.' not in norms,
    )
    arguments = ', '.join(f'{k}={v}' for k, v in settings.items())
    notes = [f'VisionTransformer({arguments}, num_heads as in training)']
    if pretrained:
        notes.append('the norm after the last block is left out, as in VideoMAE')
    if pretrained or not norms:
        notes.append('its fc_norm starts anew')
    return Conversion(weights, left_out, MMACTION_VIT.family, notes)


def _rename(
    state_dict: StateDict, layout: Layout, wrapper: str
) -> tuple[StateDict, list[str], Counter]:
    weights, left_out, unknown, changes = {}, [], [], Counter()
    for key, value in state_dict.items():
        name = ''
        if key.startswith(wrapper):
            name = rename(key[len(wrapper) :], layout.prefixes, layout.in_block)
        if not isinstance(value, Tensor):
            left_out.append(key)
        elif PLACES.fullmatch(name):
            weights[name] = value
        elif _is_fixed_table(key, value):
            changes['fixed sin-cos position tables dropped (S4DViT computes its own)'] += 1
        elif OPTIONAL.fullmatch(key) and not BLOCK.fullmatch(name):
            left_out.append(key)
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f'These are weights of {layout.family}, but with parameters that S4DViT does not '
            f'have:\n{group_keys(unknown)}\n'
            'If they play no part in the features of the encoder, take them out of the file. For '
            "the S4D authors' own weights use tools/model_converters/s4d_to_mm.py."
        )
    return weights, left_out, changes


def _is_fixed_table(key: str, value: Tensor) -> bool:
    if not key.endswith('pos_embed') or value.ndim != 3 or len(value) != 1:
        return False
    table = sincos_position_table(*value.shape[1:])
    return torch.allclose(value[0].float(), table, atol=1e-3)


def _inflate(kernel: Tensor, tubelet_size: int | None, changes: Counter) -> Tensor:
    # (C, 3, p, p) of an image to (C, 3, s, p, p), which sums to it
    if kernel.ndim == 5:
        if tubelet_size not in (None, kernel.shape[2]):
            raise ValueError(
                f'tubelet_size={tubelet_size} was asked for, but these are weights for videos '
                f'with tubelets of {kernel.shape[2]} frames. Leave it out.'
            )
        return kernel
    size = tubelet_size or 2
    changes[f'image kernel inflated to tubelets of {size} frames'] += 1
    return (kernel.float() / size)[:, :, None].repeat(1, 1, size, 1, 1)


def _fold(weights: StateDict, changes: Counter) -> None:
    # The bias of the keys is dropped: it adds the same to all scores of a query, which softmax
    # ignores. LayerScale goes into the linear layer before it.
    for stem in dict.fromkeys(match[1] for match in map(BLOCK.fullmatch, weights) if match):
        if f'{stem}.attn.qkv.bias' in weights:
            for name, part in zip('qkv', weights.pop(f'{stem}.attn.qkv.bias').chunk(3)):
                weights[f'{stem}.attn.{name}_bias'] = part.clone()
        if weights.pop(f'{stem}.attn.k_bias', None) is not None:
            changes['biases of keys dropped (they have no effect)'] += 1
        for scale, layer in SCALES:
            gamma = weights.pop(f'{stem}.{scale}', None)  # (C,) or (1,)
            if gamma is None:
                continue
            changes['LayerScales folded into the layer before'] += 1
            gamma = gamma.float().flatten()
            for kind, factor in (('weight', gamma[:, None]), ('bias', gamma)):
                key = f'{stem}.{layer}.{kind}'
                if key in weights:
                    weights[key] = weights[key].float() * factor


def _fill(weights: StateDict, changes: Counter) -> None:
    # add biases that the source does without, and refuse blocks that are not ours
    depths, wrong = {}, []
    for match in filter(None, map(BLOCK.fullmatch, weights)):
        name, number = match[1].rsplit('.', 1)
        depths[name] = max(depths.get(name, 0), int(number) + 1)
    for stem in (f'{name}.{i}' for name, depth in depths.items() for i in range(depth)):
        width, hidden = (len(weights.get(f'{stem}.{n}.weight', ())) for n in ('norm1', 'mlp.fc1'))
        with torch.device('meta'):
            block = TransformerBlock(width, num_heads=1)
            block.mlp = Mlp(width, hidden)
        for name, own in block.state_dict().items():
            key = f'{stem}.{name}'
            if key not in weights and name.endswith('bias') and 'norm' not in name:
                weights[key] = weights[KERNEL].new_zeros(own.shape)
                changes[FILLED] += 1
            found = tuple(weights[key].shape) if key in weights else 'missing'
            if found != tuple(own.shape):
                wrong.append(f'{key}: {found} instead of {tuple(own.shape)}')
    if wrong:
        raise ValueError(
            'The weights are incomplete, or the blocks are not those of S4DViT, whose attention is '
            'as wide as its tokens and whose MLP has no gate. Under our names:\n'
            f'{first_lines(wrong)}'
        )


def _is_of(family: str, weights: StateDict) -> bool:
    with contextlib.suppress(ValueError):
        return find_layout(weights)[0].family == family
    return False


for _family in FAMILIES:
    OTHER_CODES.append(
        OtherCode(
            functools.partial(_is_of, _family),
            f'weights of {_family}',
            'convert them with tools/model_converters/vit_to_mm.py SRC DST (docs/weights.md).',
        )
    )
