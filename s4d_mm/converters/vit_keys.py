# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Conversion step: how other families of ViTs name their parameters, which of
them fit :class:`S4DViT`, and which do not and why.

Each family's names are those of the code named beside it.
"""

import re
from typing import NamedTuple, Optional

from torch import Tensor

from ..models.layers import MMACTION_IN_BLOCK
from .s4d import PREFIXES

StateDict = dict[str, Tensor]
Table = tuple[tuple[str, str], ...]


class Layout(NamedTuple):
    """The names of one family.

    ``prefixes`` is (theirs, ours), of which the first that matches is taken;
    ``in_block`` is (theirs, ours) after the block's number.
    """

    family: str
    kernel: str  # the embedding's weight,
    kernel_ndim: int  # 4 for images, 5 for videos
    also: str  # another key that it has
    prefixes: Table
    in_block: Table = ()


_VIT = (
    ('patch_embed.proj.', 'backbone.patch_embed.proj.'),
    ('blocks.', 'backbone.blocks.'),
    ('norm.', 'backbone.norm.'),
    # after the average over tokens
    ('fc_norm.', 'cls_head.fc_norm.'),
)
_OMNIMAE = (
    ('trunk.patch_embed.proj.1.', 'backbone.patch_embed.proj.'),
    ('trunk.blocks.', 'backbone.blocks.'),
)
_OMNIMAE_SCALES = (
    ('layer_scale_gamma1', 'gamma_1'),
    ('layer_scale_gamma2', 'gamma_2'),
)
# the first that fits is taken
LAYOUTS = (
    # MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2, modeling_pretrain.py
    Layout(
        'videomae',
        'encoder.patch_embed.proj.weight',
        5,
        'encoder.blocks.0.attn.qkv.weight',
        PREFIXES['pretrain'],
    ),
    # the same, modeling_finetune.py
    Layout('videomae', 'patch_embed.proj.weight', 5, 'blocks.0.attn.qkv.weight', _VIT),
    # facebookresearch/omnivore, omnimae/{omni_mae_model,vision_transformer}.py
    Layout(
        'omnimae',
        'trunk.patch_embed.proj.1.weight',
        5,
        'trunk.decoder.decoder_embed.weight',
        _OMNIMAE + (('trunk.norm.', 'backbone.norm.'),),
        _OMNIMAE_SCALES,
    ),
    # fine-tuned, it averages the tokens before its norm
    Layout(
        'omnimae',
        'trunk.patch_embed.proj.1.weight',
        5,
        'trunk.blocks.0.attn.qkv.weight',
        _OMNIMAE + (('trunk.norm.', 'cls_head.fc_norm.'),),
        _OMNIMAE_SCALES,
    ),
    # huggingface/pytorch-image-models, timm/models/vision_transformer.py;
    # facebookresearch/mae, models_mae.py; facebookresearch/deit
    Layout(
        'timm_vit',
        'patch_embed.proj.weight',
        4,
        'blocks.0.attn.qkv.weight',
        _VIT,
        (
            ('ls1.gamma', 'gamma_1'),
            ('ls2.gamma', 'gamma_2'),
        ),
    ),
    # open-mmlab/mmaction2, mmaction/models/backbones/vit_mae.py
    Layout(
        'mmaction_vit',
        'patch_embed.projection.weight',
        5,
        'blocks.0.mlp.layers.0.0.weight',
        (
            ('patch_embed.projection.', 'backbone.patch_embed.proj.'),
            ('blocks.', 'backbone.blocks.'),
            ('norm.', 'backbone.norm.'),
            ('fc_norm.', 'cls_head.fc_norm.'),
        ),
        MMACTION_IN_BLOCK,
    ),
    # open-mmlab/mmpretrain, mmpretrain/models/backbones/vision_transformer.py
    Layout(
        'mmpretrain_mae',
        'patch_embed.projection.weight',
        4,
        'layers.0.ln1.weight',
        (
            ('patch_embed.projection.', 'backbone.patch_embed.proj.'),
            ('layers.', 'backbone.blocks.'),
            ('ln1.', 'backbone.norm.'),
            ('ln2.', 'cls_head.fc_norm.'),
        ),
        (
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
SOURCES = tuple(dict.fromkeys(x.family for x in LAYOUTS)) + ('videomaev2',)
# our own names, in every checkpoint of s4d_mm
OWN = ('backbone.patch_embed.proj.weight', 'backbone.blocks.0.attn.q_bias')
# what may stand before all names of a family
ROOTS = ('', 'backbone.', 'model.')

# (family, keys that only it has, why it does not fit)
REFUSED = (
    # sunlicai/MAE-DFER, modeling_{pretrain,finetune}.py
    (
        'MAE-DFER',
        r'(^|\.)lg_region_tokens$|blocks\.\d+\.first_attn\.',
        'its local-global blocks have three attentions between regions and '
        'their messenger tokens, where S4DViT has one over all tokens',
    ),
    # microsoft/Swin-Transformer, mmaction2, mmpretrain, timm, torchvision
    (
        'Swin Transformer',
        r'(layers|stages|features)\.\d+\.(blocks\.)?\d+\.(attn|attention)\.'
        r'.*(relative_position|cpb_mlp)',
        'it has windows, stages and relative positions, S4DViT none of them',
    ),
    # openai/CLIP, clip/model.py
    (
        'CLIP',
        r'resblocks\.\d+\.(attn|ln_1|mlp)\.',
        'it normalises the tokens before its blocks and has another activation (QuickGELU)',
    ),
    (
        'CLIP or SigLIP of Hugging Face',
        r'vision_model\.encoder\.layers\.\d+\.self_attn\.',
        'its tokens or activations are not those of S4DViT',
    ),
    # facebookresearch/TimeSformer, mmaction2
    (
        'TimeSformer',
        r'\.temporal_(attn|attention|fc|norm1)\b',
        'its attention is divided into time and space',
    ),
    # facebookresearch/SlowFast, mmaction2
    ('MViT', r'blocks\.\d+\.attn\.(pool|norm)_[qkv]\b', 'it pools its tokens from stage to stage'),
    # huggingface/transformers, models/{videomae,vit_mae,vit}
    (
        'ViT, ViTMAE or VideoMAE of Hugging Face',
        r'encoder\.layer\.\d+\.attention\.attention\.',
        'these names are not read. Take the file of the original repository '
        '(for VideoMAE MCG-NJU/VideoMAE, for MAE facebookresearch/mae)',
    ),
    (
        "S4D of the authors' code, fine-tuned",
        r'\.moe_layer\.experts\.',
        'it has MoAE blocks. Use tools/model_converters/s4d_to_mm.py --stage finetune',
    ),
)
# (keys, what they are): a plain ViT may have it, S4DViT cannot compute it
UNFIT = (
    (r'(^|\.)(norm_pre|pre_norm)\.', 'a norm before its blocks'),
    (r'(^|\.)(reg_token|register_tokens|storage_tokens)$', 'register tokens'),
    (r'\.(q_norm|k_norm)\.', 'norms of queries and keys'),
    (r'relative_position|rel_pos', 'relative positions'),
    (r'\.attn\.(scale|logit_scale)$', 'cosine attention'),
    (r'(^|[._])rope[._]', 'rotary positions'),
    (
        r'(^|\.)patch_embed\.(norm\.|backbone\.|proj\.\d+\.)',
        'an embedding that is more than one convolution',
    ),
    (r'\.(mlp|ffn)\.(w12|w3|fc1_g)\.', 'a gated MLP'),
)


def find_layout(state_dict: StateDict) -> tuple[Layout, str]:
    """Tell from the keys which family weights are of.

    Args:
        state_dict (dict): The weights.

    Returns:
        tuple: The family's names, and what stands before them ('', or one of
        ``ROOTS``).

    Raises:
        ValueError: If the family does not fit S4DViT, which is then named, or
            is not known.
    """
    for family, pattern, reason in REFUSED:
        key = _search(pattern, state_dict)
        if key:
            raise ValueError(
                f'This is a checkpoint of {family} (it has {key}), which does not fit: {reason}.'
            )
    if all(key in state_dict for key in OWN):
        raise ValueError(
            'This is a checkpoint of s4d_mm: there is nothing '
            'to convert. Use it as it is, with load_from.'
        )
    for layout in LAYOUTS:
        for root in ROOTS:
            kernel = state_dict.get(root + layout.kernel)
            if (
                isinstance(kernel, Tensor)
                and kernel.ndim == layout.kernel_ndim
                and root + layout.also in state_dict
            ):
                _check_fits(state_dict, layout, root)
                return layout, root
    keys = list(state_dict)
    raise ValueError(
        'These are not the keys of a family that is known '
        f'({", ".join(SOURCES)}). It has {len(keys)}, for example '
        f'{keys[:6]}.'
    )


def _check_fits(state_dict: StateDict, layout: Layout, root: str) -> None:
    stem = root + layout.kernel[: -len('weight')]
    own = [k for k in state_dict if k.startswith(root) and not k.startswith(stem)]
    for pattern, what in UNFIT:
        key = _search(pattern, own)
        if key:
            raise ValueError(
                f'This {layout.family} checkpoint does not fit: it has {what} '
                f'({key}), which S4DViT has not. Without that its weights '
                'compute something else.'
            )


def _search(pattern: str, keys) -> Optional[str]:
    """The first key with the pattern."""
    return next((k for k in keys if re.search(pattern, k)), None)
