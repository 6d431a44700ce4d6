# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Conversion step: the authors' parameter names and ours, in one table that serves both directions.

Authors' code: https://github.com/MSA-LMC/S4D.
"""

import re

import torch

from .io import Conversion, StateDict, convert_file

NameTable = tuple[tuple[str, str], ...]
Classes = dict[str, tuple[str, ...]]
CLASSIFIERS = 'cls_head.classifiers'
STAGES = ('pretrain', 'finetune')

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


def replace_prefix(key: str, table: NameTable) -> str:
    """Replace the first prefix of the table that matches; '' if none does."""
    for old, new in table:
        if key.startswith(old):
            return new + key[len(old) :]
    return ''


def substitute(key: str, table: NameTable) -> str:
    """Replace every name of the table, wherever it is in the key."""
    for old, new in table:
        key = key.replace(old, new)
    return key


def swap(table: NameTable) -> NameTable:
    """The table of the other direction."""
    return tuple((new, old) for old, new in table)


def convert_authors_file(
    src: str, dst: str, stage: str, reverse: bool = False, classes: Classes | None = None
) -> int:
    """Turn a checkpoint file of the authors into one of ours, or back.

    Args:
        src (str): File to read.
        dst (str): File to write.
        stage (str): 'pretrain' or 'finetune': what ``src`` was for.
        reverse (bool): Whether ``src`` is ours. Defaults to False.
        classes (dict, optional): Class names of each modality, in label order, which ``dst`` then
            knows. Defaults to None.

    Returns:
        int: Exit code: 1 after an error, with its message on stderr.
    """

    def convert(weights: StateDict) -> Conversion:
        out, left_out = (to_authors if reverse else from_authors)(weights, stage)
        names = {}
        if classes and not reverse and stage == 'finetune':
            names = {m: n for m, n in classes.items() if f'{CLASSIFIERS}.{m}.weight' in out}
            check_classes(out, names)
        return Conversion(out, left_out, family=f'S4D, {stage}', classes=names)

    return convert_file(src, dst, convert, key='model' if reverse else 'state_dict')


def check_classes(state_dict: StateDict, classes: Classes) -> None:
    """Refuse class names of another number than a classifier has.

    Args:
        state_dict (dict): Our weights.
        classes (dict): Names of each modality that has a classifier.

    Raises:
        ValueError: Naming the modality and both numbers.
    """
    for modality, names in classes.items():
        count = len(state_dict[f'{CLASSIFIERS}.{modality}.weight'])
        if count != len(names):
            raise ValueError(
                f'The {modality} classifier has {count} classes, but the {modality} dataset of '
                f'the config has {len(names)}: {", ".join(names)}. Give the config of the data '
                'that it was trained on, or none.'
            )


def stage_of(state_dict: StateDict) -> str | None:
    """Tell from the keys whether weights are the authors', and of which stage.

    VideoMAE has the same names in pre-training, where it is the same model; a classifier for each
    modality is the authors' own.

    Args:
        state_dict (dict): The weights.

    Returns:
        str | None: 'pretrain' or 'finetune'; None if they are not the authors'.
    """
    for stage in STAGES:
        if all(key in state_dict for key in SIGNATURE['authors', stage]):
            heads = any(re.match(r'head\.(image|video)\.', key) for key in state_dict)
            return stage if stage == 'pretrain' or heads else None
    return None


def check_stage(state_dict: StateDict, source: str, stage: str) -> None:
    """Refuse a state dict that is not of this source and stage.

    Args:
        state_dict (dict): The weights.
        source (str): 'authors' or 's4d_mm'.
        stage (str): 'pretrain' or 'finetune'.

    Raises:
        ValueError: Saying what the file lacks and what it looks like.
    """
    missing = [k for k in SIGNATURE[source, stage] if k not in state_dict]
    if not missing:
        return
    fits = [f'{s} {t}' for (s, t), keys in SIGNATURE.items() if all(k in state_dict for k in keys)]
    guess = (
        f'It looks like a checkpoint of: {fits[0]}.'
        if fits
        else f'It has, for example, {list(state_dict)[:3]}.'
    )
    raise ValueError(f'This is not a {stage} checkpoint of {source}: it lacks {missing}. {guess}')


def from_authors(state_dict: StateDict, stage: str) -> tuple[StateDict, list[str]]:
    """Turn the authors' weights into ours.

    Args:
        state_dict (dict): The authors' weights.
        stage (str): 'pretrain' or 'finetune'.

    Returns:
        tuple: Our weights, and the keys that found no place.

    Raises:
        ValueError: If the weights are not the authors' of that stage, an expert is missing, or
            the MoAE blocks are not the last ones.
    """
    check_stage(state_dict, 'authors', stage)
    out, unplaced, experts = {}, [], {}
    for key, value in state_dict.items():
        new = substitute(replace_prefix(key, PREFIXES[stage]), ROUTER)
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
            raise ValueError(
                f'The weights are incomplete: of the experts of {key} there are only those '
                f'numbered {sorted(stack)}.'
            )
        out[key] = torch.stack([stack[e] for e in range(len(stack))])
    if stage == 'finetune':
        out = _split_blocks(out)
    return out, unplaced


def to_authors(state_dict: StateDict, stage: str) -> tuple[StateDict, list[str]]:
    """Turn our weights into the authors': the reverse of :func:`from_authors`.

    Args:
        state_dict (dict): Our weights.
        stage (str): 'pretrain' or 'finetune'.

    Returns:
        tuple: The authors' weights, and the keys that found no place.

    Raises:
        ValueError: If the weights are not ours of that stage.
    """
    check_stage(state_dict, 's4d_mm', stage)
    first = 1 + max(int(k.split('.')[2]) for k in state_dict if k.startswith('backbone.blocks.'))
    out, unplaced = {}, []
    for key, value in state_dict.items():
        if stage == 'finetune' and key.startswith('neck.blocks.'):
            _, _, i, rest = key.split('.', 3)
            key = f'backbone.blocks.{int(i) + first}.{rest}'
        new = substitute(replace_prefix(key, swap(PREFIXES[stage])), swap(ROUTER))
        match = STACKED.fullmatch(new)
        if match:
            block, layer, kind = match.groups()
            for e, part in enumerate(value):
                out[f'{block}.moe_layer.experts.{e}.{layer}.{kind}'] = (
                    part.t() if kind == 'weight' else part
                ).contiguous()
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
        raise ValueError(
            f'Only the last blocks may have MoAE, but of {depth} '
            f'blocks those numbered {moae} have it.'
        )
    out = {}
    for key, value in state_dict.items():
        match = block.fullmatch(key)
        if match and int(match[1]) >= first:
            key = f'neck.blocks.{int(match[1]) - first}.{match[2]}'
        out[key] = value
    return out
