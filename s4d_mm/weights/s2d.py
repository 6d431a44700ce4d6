# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The S2D authors' parameter names and ours, in one table that serves both directions.

Authors' code: https://github.com/MSA-LMC/S2D.
"""

import re
from collections.abc import Sequence
from functools import partial

import torch

from ..files.checkpoint import load_weights
from ..files.errors import WeightsError
from ..models.landmark_net import WHERE_TO_GET_LANDMARKS, cut_tail, is_landmark_net
from ..models.state_dict import OTHER_CODES, S2D_MODEL, OtherCode
from .io import Conversion, StateDict, check_classes, convert_file, has, rename, require

# (authors' prefix, our prefix); the first that matches is taken
PREFIXES = (
    ('cls_token', 'backbone.cls_token'),
    ('pos_embed', 'backbone.pos_embed'),
    ('temporal_embedding', 'backbone.temporal_embedding'),
    ('patch_embed.proj.', 'backbone.patch_embed.projection.'),
    ('patch_embed_prompt.proj.', 'backbone.landmark_embed.'),
    ('prompt_blocks.', 'backbone.prompt_blocks.'),
    ('prompt_norms.', 'backbone.prompt_norms.'),
    ('blocks.', 'backbone.layers.'),
    ('ln_post.', 'backbone.ln1.'),
    ('head.fc_cls.', 'cls_head.fc_cls.'),
)
# inside of a layer, or of the block of prompts before it
IN_BLOCK = (
    ('.norm1.', '.ln1.'),
    ('.norm2.', '.ln2.'),
    ('.mlp.fc1.', '.ffn.layers.0.0.'),
    ('.mlp.fc2.', '.ffn.layers.1.'),
    ('.conv0_0.', '.prompter.image_proj.'),
    ('.conv0_1.', '.prompter.landmark_proj.'),
    ('.conv1x1.', '.prompter.out_proj.'),
    ('.fovea.', '.prompter.fovea.'),
    ('.TMA.T_Adapter.', '.temporal.t_adapter.'),
    ('.TMA.S_Adapter.', '.temporal.s_adapter.'),
    ('.TMA.norm.', '.temporal.norm.'),
    ('.D_fc1.', '.down.'),
    ('.D_fc2.', '.up.'),
)
# what only S2D has
SIGNATURE = ('patch_embed_prompt.proj.weight', 'prompt_blocks.0.conv0_0.weight')
OWN_SIGNATURE = ('backbone.landmark_embed.weight',)
LANDMARK = 'backbone.landmark.'
# 1x1 convolutions of the authors', linear layers here
CONVOLUTIONS = ('patch_embed_prompt.proj.', '.conv0_0.', '.conv0_1.', '.conv1x1.')


def from_s2d_authors(state_dict: StateDict) -> tuple[StateDict, list[str]]:
    """The authors' weights under our names, and the keys that found no place.

    Among these are the landmark network, the norm of the last prompt block, which nothing uses, and
    the classifiers of their image model, which has another name for the last norm.
    """
    require(state_dict, SIGNATURE, "the S2D authors' code", for_s2d=True)
    depth = depth_of(state_dict)
    unused = f'prompt_norms.{depth - 1}.' if depth > 1 else None
    is_image_model = 'temporal_embedding' not in state_dict
    out, unplaced = {}, []
    for key, value in state_dict.items():
        theirs = key
        if is_image_model and key.startswith('norm.'):
            theirs = key.replace('norm.', 'ln_post.', 1)
        new = rename(theirs, PREFIXES, IN_BLOCK)
        is_head = is_image_model and key.startswith('head.')
        if not new or is_head or (unused and key.startswith(unused)):
            unplaced.append(key)
            continue
        is_kernel = value.ndim == 4 and any(name in key for name in CONVOLUTIONS)
        out[new] = value.flatten(1) if is_kernel else value
    return out, unplaced


def to_s2d_authors(state_dict: StateDict) -> tuple[StateDict, list[str]]:
    """The reverse of :func:`from_s2d_authors`; the norm that nothing uses is as initialised."""
    require(state_dict, OWN_SIGNATURE, 'S2DViT in s4d_mm', for_s2d=True)
    out, unplaced = {}, []
    for key, value in state_dict.items():
        new = rename(key, PREFIXES, IN_BLOCK, reverse=True)
        if not new or key.startswith(LANDMARK):
            unplaced.append(key)
            continue
        is_kernel = value.ndim == 2 and any(name in new for name in CONVOLUTIONS)
        out[new] = value[..., None, None] if is_kernel else value
    depth = depth_of(out)
    if depth > 1:
        norm = out['prompt_norms.0.weight']
        out[f'prompt_norms.{depth - 1}.weight'] = torch.ones_like(norm)
        out[f'prompt_norms.{depth - 1}.bias'] = torch.zeros_like(norm)
    return out, unplaced


def depth_of(state_dict: StateDict) -> int:
    """Number of layers of the authors' weights; each must have its prompts."""
    layers, prompts = (
        {int(m[1]) for m in map(re.compile(rf'{part}\.(\d+)\.').match, state_dict) if m}
        for part in ('blocks', 'prompt_blocks')
    )
    if layers != prompts or layers != set(range(len(layers))):
        raise WeightsError(
            f'The weights are incomplete: there are blocks {sorted(layers)} and prompt_blocks '
            f'{sorted(prompts)}.'
        )
    return len(layers)


def join_landmarks(
    weights: StateDict, landmarks: str | None, classes: Sequence[str] | None = None
) -> Conversion:
    """The authors' weights under our names, with those in the file of the landmark network."""
    out, left_out = from_s2d_authors(weights)
    if landmarks is None:
        raise WeightsError(
            'The landmark network is in a file of its own: give it by --landmarks FILE. '
            f'{WHERE_TO_GET_LANDMARKS}'
        )
    net = cut_tail(load_weights(landmarks), landmarks)
    out.update({LANDMARK + key: value for key, value in net.items()})
    names = dict(video=tuple(classes)) if classes else {}
    names = check_classes(out, dict(video='cls_head.fc_cls.weight'), names)
    return Conversion(out, left_out, family='S2D', classes=names)


def convert_s2d_file(
    src: str,
    dst: str,
    landmarks: str | None = None,
    reverse: bool = False,
    classes: Sequence[str] | None = None,
) -> int:
    """Turn a checkpoint file of the authors into one of ours, or back (:func:`convert_file`)."""
    if reverse:
        return convert_file(src, dst, lambda w: Conversion(*to_s2d_authors(w), 'S2D'), 'model')
    return convert_file(src, dst, lambda w: join_landmarks(w, landmarks, classes))


OTHER_CODES += [
    OtherCode(
        partial(has, SIGNATURE),
        "a checkpoint of the S2D authors' code",
        'convert it with tools/model_converters/s2d_to_mm.py SRC DST --landmarks FILE.',
        from_s2d_authors,
    ),
    OtherCode(
        lambda weights: any(key.endswith(S2D_MODEL) for key in weights),
        "s4d_mm's checkpoint of S2D",
        'give it to an S2D model (docs/s2d.md).',
    ),
    OtherCode(
        is_landmark_net,
        'the landmark network of S2D',
        'give it by --landmarks to tools/model_converters/s2d_to_mm.py, or by '
        'model.backbone.landmark.checkpoint.',
    ),
]
