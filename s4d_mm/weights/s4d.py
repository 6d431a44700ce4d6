# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The S4D authors' parameter names and ours, in one table that serves both directions.

Authors' code: https://github.com/MSA-LMC/S4D.
"""

import re
from functools import partial

import torch

from ..models.state_dict import OTHER_CODES, OtherCode
from .io import Classes, Conversion, StateDict, check_classes, convert_file, has, rename, require

STAGES = ('pretrain', 'finetune')
CLASSIFIERS = {m: f'cls_head.classifiers.{m}.weight' for m in ('video', 'image')}
# (authors' prefix, our prefix); the first that matches is taken
PREFIXES = {
    'pretrain': (
        ('encoder.patch_embed.', 'backbone.patch_embed.'),
        ('encoder.blocks.', 'backbone.blocks.'),
        ('encoder.norm.', 'backbone.norm.'),
        ('encoder_to_decoder.', 'neck.decoder_embed.'),
        ('mask_token', 'neck.mask_token'),
        ('decoder.blocks.', 'neck.decoder_blocks.'),
        ('decoder.norm.', 'neck.decoder_norm.'),
        ('decoder.head.', 'neck.decoder_pred.'),
    ),
    'finetune': (
        ('patch_embed.', 'backbone.patch_embed.'),
        ('blocks.', 'backbone.blocks.'),
        ('fc_norm.', 'cls_head.fc_norm.'),
        ('head.image.', 'cls_head.classifiers.image.'),
        ('head.video.', 'cls_head.classifiers.video.'),
    ),
}
# inside a block; the experts are stacked on top of this
ROUTER = (
    ('moe_layer.router.topkroute_linear.', 'moae.router.gate.'),
    ('moe_layer.router.noise_linear.', 'moae.router.noise.'),
)
EXPERT = re.compile(r'(.+)\.moe_layer\.experts\.(\d+)\.(fc[12])\.(weight|bias)')
STACKED = re.compile(r'(.+)\.moae\.(fc[12])_(weight|bias)')
# what tells a stage's file: keys that only it has
SIGNATURE = {
    ('authors', 'pretrain'): ('encoder.patch_embed.proj.weight', 'encoder_to_decoder.weight'),
    ('authors', 'finetune'): ('patch_embed.proj.weight', 'fc_norm.weight'),
    ('s4d_mm', 'pretrain'): ('backbone.patch_embed.proj.weight', 'neck.decoder_embed.weight'),
    ('s4d_mm', 'finetune'): ('backbone.patch_embed.proj.weight', 'cls_head.fc_norm.weight'),
}


def convert_authors_file(
    src: str, dst: str, stage: str, reverse: bool = False, classes: Classes | None = None
) -> int:
    """Turn a checkpoint file of the authors into one of ours, or back (:func:`convert_file`)."""

    def convert(weights: StateDict) -> Conversion:
        out, left_out = (to_authors if reverse else from_authors)(weights, stage)
        names = None if reverse else check_classes(out, CLASSIFIERS, classes or {})
        return Conversion(out, left_out, family=f'S4D, {stage}', classes=names)

    return convert_file(src, dst, convert, key='model' if reverse else 'state_dict')


def is_authors(stage: str, weights: StateDict) -> bool:
    """Whether weights are the authors' of a stage, by their keys.

    VideoMAE has the same names in pre-training, where it is the same model; a classifier for each
    modality is the authors' own.
    """
    heads = any(key.startswith(('head.image.', 'head.video.')) for key in weights)
    return (heads or stage == 'pretrain') and has(SIGNATURE['authors', stage], weights)


def from_authors(state_dict: StateDict, stage: str) -> tuple[StateDict, list[str]]:
    """The authors' weights under our names, and the keys that found no place."""
    require(state_dict, SIGNATURE['authors', stage], f"the S4D authors' code ({stage})")
    out, unplaced, experts = {}, [], {}
    for key, value in state_dict.items():
        new = rename(key, PREFIXES[stage], ROUTER)
        match = EXPERT.fullmatch(new)
        if match:
            block, e, layer, kind = match.groups()
            stack = experts.setdefault(f'{block}.moae.{layer}_{kind}', {})
            # our experts multiply from the right
            stack[int(e)] = value.t() if kind == 'weight' else value
        elif new:
            out[new] = value
        else:
            unplaced.append(key)
    for key, stack in experts.items():
        if set(stack) != set(range(len(stack))):
            raise ValueError(f'The weights are incomplete: {key} has the experts {sorted(stack)}.')
        out[key] = torch.stack([stack[e] for e in range(len(stack))])
    return _split_blocks(out) if stage == 'finetune' else out, unplaced


def to_authors(state_dict: StateDict, stage: str) -> tuple[StateDict, list[str]]:
    """The reverse of :func:`from_authors`."""
    require(state_dict, SIGNATURE['s4d_mm', stage], f's4d_mm ({stage})')
    first = 1 + max(int(k.split('.')[2]) for k in state_dict if k.startswith('backbone.blocks.'))
    out, unplaced = {}, []
    for key, value in state_dict.items():
        name = key
        if stage == 'finetune' and key.startswith('neck.blocks.'):
            _, _, i, rest = key.split('.', 3)
            name = f'backbone.blocks.{int(i) + first}.{rest}'
        new = rename(name, PREFIXES[stage], ROUTER, reverse=True)
        match = STACKED.fullmatch(new)
        if match:
            block, layer, kind = match.groups()
            for e, part in enumerate(value):
                part = part.t() if kind == 'weight' else part
                out[f'{block}.moe_layer.experts.{e}.{layer}.{kind}'] = part.contiguous()
        elif new:
            out[new] = value
        else:
            unplaced.append(key)
    return out, unplaced


def _split_blocks(state_dict: StateDict) -> StateDict:
    """Move the MoAE blocks, the last ones, from the backbone to the neck."""
    block = re.compile(r'backbone\.blocks\.(\d+)\.(.+)')
    found = [m for m in map(block.fullmatch, state_dict) if m]
    depth = 1 + max(int(m[1]) for m in found)
    moae = sorted({int(m[1]) for m in found if m[2].startswith('moae.')})
    first = depth - len(moae)
    if moae != list(range(first, depth)):
        raise ValueError(f'Only the last of {depth} blocks may have MoAE, but {moae} have it.')
    out = {}
    for key, value in state_dict.items():
        match = block.fullmatch(key)
        if match and int(match[1]) >= first:
            key = f'neck.blocks.{int(match[1]) - first}.{match[2]}'
        out[key] = value
    return out


for _stage in STAGES:
    OTHER_CODES += [
        OtherCode(
            partial(is_authors, _stage),
            f"a {_stage} checkpoint of the S4D authors' code",
            f'convert it with tools/model_converters/s4d_to_mm.py SRC DST --stage {_stage}.',
            partial(from_authors, stage=_stage),
        ),
        OtherCode(
            partial(has, SIGNATURE['s4d_mm', _stage]),
            f"s4d_mm's checkpoint of S4D ({_stage})",
            'give it to S4D by load_from, or to a part by init_cfg=dict('
            "type='Pretrained', checkpoint=..., prefix='backbone.').",
        ),
    ]
