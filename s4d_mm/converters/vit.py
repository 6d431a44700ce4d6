# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Conversion step: other ViTs as a start for ours, and ours for mmaction2's VisionTransformer.

What changes form does so exactly: the converted model computes what the source computes, apart
from positions and class tokens. A parameter of the source is placed, or is known to play no part
in the encoder's blocks (:data:`OPTIONAL`) and is listed; with any other the weights are refused.
"""

import re
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.layers import MMACTION_IN_BLOCK, sincos_position_table
from .io import Conversion, StateDict, first_lines, group_keys
from .s4d import PREFIXES, NameTable, replace_prefix, substitute, swap


class Layout(NamedTuple):
    """How the code of one family names its parameters.

    ``prefixes`` has pairs of (theirs, ours), of which the first that matches is taken;
    ``in_block`` has pairs of (theirs, ours) for what follows a block's number.
    """

    family: str
    kernel: str  # the embedding's weight: by this,
    kernel_ndim: int  # its dimensions, 4 for images or 5 for videos,
    marker: str  # and one more key the family is known
    prefixes: NameTable
    in_block: NameTable = ()


_VIT = (
    ('patch_embed.proj.', 'backbone.patch_embed.proj.'),
    ('blocks.', 'backbone.blocks.'),
    ('norm.', 'backbone.norm.'),
    ('fc_norm.', 'cls_head.fc_norm.'),  # after the average over tokens
)
_OMNIMAE = (
    ('trunk.patch_embed.proj.1.', 'backbone.patch_embed.proj.'),
    ('trunk.blocks.', 'backbone.blocks.'),
)
_OMNIMAE_IN_BLOCK = (('layer_scale_gamma1', 'gamma_1'), ('layer_scale_gamma2', 'gamma_2'))
# open-mmlab/mmaction2, mmaction/models/backbones/vit_mae.py
MMACTION_VIT = Layout(
    family='mmaction_vit',
    kernel='patch_embed.projection.weight',
    kernel_ndim=5,
    marker='blocks.0.mlp.layers.0.0.weight',
    prefixes=(('patch_embed.projection.', 'backbone.patch_embed.proj.'), *_VIT[1:]),
    in_block=MMACTION_IN_BLOCK,
)
# the first that fits is taken
LAYOUTS = (
    # MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2, modeling_pretrain.py
    Layout(
        family='videomae',
        kernel='encoder.patch_embed.proj.weight',
        kernel_ndim=5,
        marker='encoder.blocks.0.attn.qkv.weight',
        prefixes=PREFIXES['pretrain'],
    ),
    # the same, modeling_finetune.py
    Layout(
        family='videomae',
        kernel='patch_embed.proj.weight',
        kernel_ndim=5,
        marker='blocks.0.attn.qkv.weight',
        prefixes=_VIT,
    ),
    # facebookresearch/omnivore, omnimae/{omni_mae_model,vision_transformer}.py
    Layout(
        family='omnimae',
        kernel='trunk.patch_embed.proj.1.weight',
        kernel_ndim=5,
        marker='trunk.decoder.decoder_embed.weight',
        prefixes=(*_OMNIMAE, ('trunk.norm.', 'backbone.norm.')),
        in_block=_OMNIMAE_IN_BLOCK,
    ),
    # fine-tuned, it averages the tokens before its norm
    Layout(
        family='omnimae',
        kernel='trunk.patch_embed.proj.1.weight',
        kernel_ndim=5,
        marker='trunk.blocks.0.attn.qkv.weight',
        prefixes=(*_OMNIMAE, ('trunk.norm.', 'cls_head.fc_norm.')),
        in_block=_OMNIMAE_IN_BLOCK,
    ),
    # huggingface/pytorch-image-models, timm/models/vision_transformer.py;
    # facebookresearch/mae, models_mae.py; facebookresearch/deit
    Layout(
        family='timm_vit',
        kernel='patch_embed.proj.weight',
        kernel_ndim=4,
        marker='blocks.0.attn.qkv.weight',
        prefixes=_VIT,
        in_block=(('ls1.gamma', 'gamma_1'), ('ls2.gamma', 'gamma_2')),
    ),
    MMACTION_VIT,
    # open-mmlab/mmpretrain, mmpretrain/models/backbones/vision_transformer.py
    Layout(
        family='mmpretrain_mae',
        kernel='patch_embed.projection.weight',
        kernel_ndim=4,
        marker='layers.0.ln1.weight',
        prefixes=(
            ('patch_embed.projection.', 'backbone.patch_embed.proj.'),
            ('layers.', 'backbone.blocks.'),
            ('ln1.', 'backbone.norm.'),
            ('ln2.', 'cls_head.fc_norm.'),
        ),
        in_block=(
            ('ln1.', 'norm1.'),
            ('ln2.', 'norm2.'),
            ('ffn.layers.0.0.', 'mlp.fc1.'),
            ('ffn.layers.1.', 'mlp.fc2.'),
            ('attn.gamma1.weight', 'gamma_1'),
            ('ffn.gamma2.weight', 'gamma_2'),
        ),
    ),
)
# VideoMAE v2 has the keys of VideoMAE
SOURCES = (*dict.fromkeys(x.family for x in LAYOUTS), 'videomaev2')
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
    r'((backbone|model|encoder|decoder|trunk)\.)*'
    r'(cls_token|dist_token|mask_token|pos_embed|decoder_\w+|decoder|neck'
    r'|head|head_dist|cls_head|attn_pool)(\..+)?'
)
# LayerScale and the linear layer before it
SCALES = (('gamma_1', 'attn.proj'), ('gamma_2', 'mlp.fc2'))
FILLED = 'missing biases filled in with zeros'


def from_vit(
    state_dict: StateDict, source: str = 'auto', tubelet_size: int | None = None
) -> Conversion:
    """Turn weights of another ViT into a start for S4DViT or S4DMAEViT.

    Args:
        state_dict (dict): The other model's weights.
        source (str): One of ``SOURCES``, or 'auto', which tells it from the keys. Defaults to
            'auto'.
        tubelet_size (int, optional): Frames of a tubelet, to which the kernel of an image model is
            inflated. Defaults to None, which means 2, and for a video model what it has.

    Returns:
        Conversion: With weights named ``backbone.*``; those of VideoMAE's decoder ``neck.*``; a
        norm after the average ``cls_head.fc_norm.*``.

    Raises:
        ValueError: If the weights are not of a known family or not of ``source``, are incomplete,
            or have parameters that S4DViT cannot compute with.
    """
    if source not in ('auto', *SOURCES):
        raise ValueError(f'source={source!r} is not one of {("auto", *SOURCES)}.')
    layout, wrapper = find_layout(state_dict)
    if source not in ('auto', layout.family, layout.family + 'v2'):
        raise ValueError(
            f'source={source!r} was asked for, but the keys are those of {layout.family}.'
        )
    weights, left_out, changes = _rename(state_dict, layout, wrapper)
    weights[KERNEL] = _inflate(weights[KERNEL], tubelet_size, changes)
    _fold_and_fill(weights, changes)
    _check_blocks(weights)
    notes = [f'{count} {what}' for what, count in changes.items()]
    return Conversion(weights, left_out, layout.family, notes)


def find_layout(state_dict: StateDict) -> tuple[Layout, str]:
    """Tell from the keys which family weights are of.

    Args:
        state_dict (dict): The weights.

    Returns:
        tuple: The family's names, and which of ``WRAPPERS`` stands before them.

    Raises:
        ValueError: If there is no such family, or the weights are those of s4d_mm.
    """
    if all(key in state_dict for key in OWN_KEYS):
        raise ValueError(
            'This is a checkpoint of s4d_mm: there is nothing to convert. Use it as it is, with '
            'load_from.'
        )
    for layout in LAYOUTS:
        for wrapper in WRAPPERS:
            kernel = state_dict.get(wrapper + layout.kernel)
            if (
                isinstance(kernel, Tensor)
                and kernel.ndim == layout.kernel_ndim
                and wrapper + layout.marker in state_dict
            ):
                return layout, wrapper
    raise ValueError(
        f'These are not the keys of a family that is known ({", ".join(SOURCES)}):\n'
        f'{group_keys(state_dict)}\n'
        'Weights under the names of Hugging Face: take the file of the original repository. An '
        'encoder that is no plain ViT, such as Swin, MViT or TimeSformer, is no start for S4DViT.'
    )


def to_mmaction_vit(state_dict: StateDict, img_size: int = 160, num_frames: int = 16) -> Conversion:
    """Turn weights of S4DViT or S4DMAEViT into those of mmaction2's ``VisionTransformer``.

    The reverse of :func:`from_vit`. Of a pre-training model, the norm after the last block is left
    out, as VideoMAE does: fine-tuning averages the tokens before its norm.

    Args:
        state_dict (dict): Weights of a model of s4d_mm, ``backbone.*``.
        img_size (int): ``img_size`` of the VisionTransformer, which keeps its position table in
            the checkpoint. Defaults to 160.
        num_frames (int): Its ``num_frames``. Defaults to 16.

    Returns:
        Conversion: With weights named ``backbone.*``, which load strictly into a VisionTransformer
        with the settings in ``notes``.

    Raises:
        ValueError: If the weights are not of s4d_mm, some blocks are in a MoAENeck, or the sizes
            do not divide.
    """
    _check_own(state_dict)
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
        block = BLOCK.fullmatch(key)
        name = f'{block[1]}.{substitute(block[2], swap(MMACTION_IN_BLOCK))}' if block else key
        new = replace_prefix(name, swap(MMACTION_VIT.prefixes))
        if new and PLACES.fullmatch(key):
            weights[f'backbone.{new}'] = value
        else:
            left_out.append(key)
    lost = [key for key in left_out if key.startswith('backbone.')]
    if lost:
        raise ValueError(
            "The backbone has parameters that mmaction2's VisionTransformer does not have:\n"
            f'{group_keys(lost)}'
        )
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
        notes.append(
            'the norm after the last block is left out, as VideoMAE does before fine-tuning: '
            'fc_norm starts anew'
        )
    elif not norms:
        notes.append('there is no norm, so that its fc_norm starts anew')
    return Conversion(weights, left_out, MMACTION_VIT.family, notes)


def _check_own(state_dict: StateDict) -> None:
    """Refuse weights that are not those of a whole encoder of s4d_mm."""
    missing = [key for key in OWN_KEYS if key not in state_dict]
    if missing:
        raise ValueError(
            f'This is not a checkpoint of s4d_mm: it lacks {missing}. It has:\n'
            f'{group_keys(state_dict)}'
        )
    experts = [k for k in state_dict if re.match(r'\w+\.blocks\.\d+\.moae', k)]
    if experts:
        count = len({k.split('.')[2] for k in experts})
        raise ValueError(
            f'The last {count} blocks of this model are in a MoAENeck ({experts[0]}), and '
            "mmaction2's VisionTransformer has no place for adapter experts. Convert a "
            'pre-training checkpoint, or one of a model without MoAENeck.'
        )


def _rename(
    state_dict: StateDict, layout: Layout, wrapper: str
) -> tuple[StateDict, list[str], Counter]:
    """Put every parameter under our name for it.

    Args:
        state_dict (dict): The weights.
        layout (Layout): The family's names.
        wrapper (str): What stands before them.

    Returns:
        tuple: The weights under our names, the keys that were left out, and what was changed.

    Raises:
        ValueError: If a parameter has no place and is not ``OPTIONAL``.
    """
    weights, left_out, unknown, changes = {}, [], [], Counter()
    for key, value in state_dict.items():
        name = ''
        if key.startswith(wrapper):
            name = replace_prefix(key[len(wrapper) :], layout.prefixes)
        block = BLOCK.fullmatch(name)
        if block:
            name = f'{block[1]}.{substitute(block[2], layout.in_block)}'
        if not isinstance(value, Tensor):
            left_out.append(key)
        elif PLACES.fullmatch(name):
            weights[name] = value
        elif _is_fixed_table(key, value):
            changes['fixed sin-cos position tables dropped (S4DViT computes its own)'] += 1
        elif OPTIONAL.fullmatch(key) and not block:
            left_out.append(key)
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f'These are weights of {layout.family}, but with parameters that S4DViT does not '
            f'have:\n{group_keys(unknown)}\n'
            'Without them its weights would compute something else. If you know that they play no '
            'part in the features of the encoder, take them out of the file and convert that. For '
            "the S4D authors' own weights use tools/model_converters/s4d_to_mm.py."
        )
    return weights, left_out, changes


def _is_fixed_table(key: str, value: Tensor) -> bool:
    """Whether these are the positions that S4DViT computes itself."""
    if not key.endswith('pos_embed') or value.ndim != 3 or len(value) != 1:
        return False
    table = sincos_position_table(*value.shape[1:])
    return torch.allclose(value[0].float(), table, atol=1e-3)


def _inflate(kernel: Tensor, tubelet_size: int | None, changes: Counter) -> Tensor:
    """An image's kernel (C, 3, p, p) for tubelets (C, 3, s, p, p): it sums to the image's."""
    if kernel.ndim == 5:
        if tubelet_size not in (None, kernel.shape[2]):
            raise ValueError(
                f'tubelet_size={tubelet_size} was asked for, but these are weights for videos '
                f'with tubelets of {kernel.shape[2]} frames. Leave it out.'
            )
        return kernel
    size = 2 if tubelet_size is None else tubelet_size
    if size < 1:
        raise ValueError(f'tubelet_size must be at least 1, but is {size}.')
    changes[f'image kernel inflated to tubelets of {size} frames'] += 1
    return (kernel.float() / size)[:, :, None].repeat(1, 1, size, 1, 1)


def _fold_and_fill(weights: StateDict, changes: Counter) -> None:
    """Give the parameters the form of ours, in place.

    The bias of qkv becomes one of queries and one of values: that of the keys adds the same to all
    scores of a query, which softmax ignores. LayerScale goes into the linear layer before it.
    Biases that are missing become zeros.
    """
    if KERNEL_BIAS not in weights:
        weights[KERNEL_BIAS] = weights[KERNEL].new_zeros(len(weights[KERNEL]))
        changes[FILLED] += 1
    for stem in dict.fromkeys(match[1] for match in map(BLOCK.fullmatch, weights) if match):
        if f'{stem}.attn.qkv.bias' in weights:
            for name, part in zip('qkv', weights.pop(f'{stem}.attn.qkv.bias').chunk(3)):
                weights[f'{stem}.attn.{name}_bias'] = part.clone()
        if weights.pop(f'{stem}.attn.k_bias', None) is not None:
            changes['biases of keys dropped (they have no effect)'] += 1
        for scale, layer in SCALES:
            gamma = weights.pop(f'{stem}.{scale}', None)
            if gamma is not None:
                _scale_layer(weights, f'{stem}.{layer}', gamma.float().flatten())
                changes['LayerScales folded into the layer before'] += 1
        for bias, layer, share in (
            ('attn.q_bias', 'attn.qkv', 3),
            ('attn.v_bias', 'attn.qkv', 3),
            ('attn.proj.bias', 'attn.proj', 1),
            ('mlp.fc1.bias', 'mlp.fc1', 1),
            ('mlp.fc2.bias', 'mlp.fc2', 1),
        ):
            weight = weights.get(f'{stem}.{layer}.weight')
            if weight is not None and f'{stem}.{bias}' not in weights:
                weights[f'{stem}.{bias}'] = weight.new_zeros(len(weight) // share)
                changes[FILLED] += 1


def _scale_layer(weights: StateDict, layer: str, gamma: Tensor) -> None:
    """Multiply the outputs of a linear layer by ``gamma``, (C,) or (1,)."""
    if f'{layer}.weight' in weights:
        weights[f'{layer}.weight'] = weights[f'{layer}.weight'].float() * gamma[:, None]
    if f'{layer}.bias' in weights:
        weights[f'{layer}.bias'] = weights[f'{layer}.bias'].float() * gamma


def _check_blocks(weights: StateDict) -> None:
    """Refuse blocks that lack a parameter, or have one of another shape than ours."""
    depths = {}
    for match in filter(None, map(BLOCK.fullmatch, weights)):
        name, number = match[1].rsplit('.', 1)
        depths[name] = max(depths.get(name, 0), int(number) + 1)
    missing, misshaped = [], []
    for stem in (f'{name}.{i}' for name, depth in depths.items() for i in range(depth)):
        width = len(weights.get(f'{stem}.norm1.weight', ()))
        hidden = len(weights.get(f'{stem}.mlp.fc1.weight', ()))
        for name, shape in _block_shapes(width, hidden).items():
            value = weights.get(f'{stem}.{name}')
            if value is None:
                missing.append(f'{stem}.{name}')
            elif tuple(value.shape) != shape:
                misshaped.append(f'{stem}.{name}: {tuple(value.shape)} instead of {shape}')
    if missing:
        raise ValueError(
            'The weights are incomplete. Under our names these are missing:\n'
            f'{first_lines(missing)}\n'
            'Convert the whole file of the source.'
        )
    if misshaped:
        raise ValueError(
            'The blocks are not those of S4DViT, whose attention is as wide as its tokens and '
            'whose MLP has no gate:\n' + first_lines(misshaped)
        )


def _block_shapes(width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """The parameters of a block of ours, with the width of its tokens and of its MLP."""
    return {
        'norm1.weight': (width,),
        'norm1.bias': (width,),
        'attn.qkv.weight': (3 * width, width),
        'attn.q_bias': (width,),
        'attn.v_bias': (width,),
        'attn.proj.weight': (width, width),
        'attn.proj.bias': (width,),
        'norm2.weight': (width,),
        'norm2.bias': (width,),
        'mlp.fc1.weight': (hidden, width),
        'mlp.fc1.bias': (hidden,),
        'mlp.fc2.weight': (width, hidden),
        'mlp.fc2.bias': (width,),
    }
