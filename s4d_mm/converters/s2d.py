# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Conversion step: parameter names of the S2D authors' code and ours, in one table.

Authors' code: https://github.com/MSA-LMC/S2D.
"""

import re
from collections.abc import Sequence

import torch

from ..files.checkpoint import load_weights
from ..files.errors import WeightsError
from .io import Conversion, StateDict, convert_file, group_keys
from .landmarks import WHERE_TO_GET_LANDMARKS, cut_tail
from .s4d import replace_prefix, substitute, swap

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
IN_LAYER = (
    ('.norm1.', '.ln1.'),
    ('.norm2.', '.ln2.'),
    ('.mlp.fc1.', '.ffn.layers.0.0.'),
    ('.mlp.fc2.', '.ffn.layers.1.'),
)
IN_PROMPT = (
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


def is_s2d(state_dict: StateDict) -> bool:
    """Whether weights have the names of the S2D authors' code."""
    return all(key in state_dict for key in SIGNATURE)


def from_s2d_authors(state_dict: StateDict) -> tuple[StateDict, list[str]]:
    """Turn the authors' weights into ours, without those of the landmark network.

    Their image model, from which fine-tuning starts, has another name for the last norm; its
    classifiers are left out.

    Args:
        state_dict (dict): The authors' weights, fine-tuned or of the image model.

    Returns:
        tuple: Our weights, and the keys that found no place, among them the norm of the last
        prompt block, which nothing uses.

    Raises:
        WeightsError: If the weights are not S2D's, or a layer is missing.
    """
    require(state_dict, SIGNATURE, "the S2D authors' code")
    depth = depth_of(state_dict)
    unused = f'prompt_norms.{depth - 1}.' if depth > 1 else None
    is_image_model = 'temporal_embedding' not in state_dict
    out, unplaced = {}, []
    for key, value in state_dict.items():
        theirs = key
        if is_image_model and key.startswith('norm.'):
            theirs = key.replace('norm.', 'ln_post.', 1)
        new = replace_prefix(theirs, PREFIXES)
        is_head = is_image_model and key.startswith('head.')
        if not new or is_head or (unused and key.startswith(unused)):
            unplaced.append(key)
            continue
        if key.startswith('blocks.'):
            new = substitute(new, IN_LAYER)
        elif key.startswith('prompt_blocks.'):
            new = substitute(new, IN_PROMPT)
        is_kernel = value.ndim == 4 and any(name in key for name in CONVOLUTIONS)
        out[new] = value.flatten(1) if is_kernel else value
    return out, unplaced


def to_s2d_authors(state_dict: StateDict) -> tuple[StateDict, list[str]]:
    """Turn our weights into the authors': the reverse of :func:`from_s2d_authors`.

    Args:
        state_dict (dict): Our weights.

    Returns:
        tuple: The authors' weights, with the norm that nothing uses as it is initialised, and the
        keys that found no place, among them those of the landmark network.

    Raises:
        WeightsError: If the weights are not ours.
    """
    require(state_dict, OWN_SIGNATURE, 'S2DViT in s4d_mm')
    out, unplaced = {}, []
    for key, value in state_dict.items():
        new = replace_prefix(key, swap(PREFIXES))
        if not new or key.startswith(LANDMARK):
            unplaced.append(key)
            continue
        if new.startswith('blocks.'):
            new = substitute(new, swap(IN_LAYER))
        elif new.startswith('prompt_blocks.'):
            new = substitute(new, swap(IN_PROMPT))
        is_kernel = value.ndim == 2 and any(name in new for name in CONVOLUTIONS)
        out[new] = value[..., None, None] if is_kernel else value
    depth = depth_of(out)
    if depth > 1:
        norm = out['prompt_norms.0.weight']
        out[f'prompt_norms.{depth - 1}.weight'] = torch.ones_like(norm)
        out[f'prompt_norms.{depth - 1}.bias'] = torch.zeros_like(norm)
    return out, unplaced


def depth_of(state_dict: StateDict) -> int:
    """Number of layers of the authors' weights.

    Raises:
        WeightsError: If layers and prompts are not of one number, or one is missing.
    """
    found = {
        part: {int(m[1]) for m in map(re.compile(rf'{part}\.(\d+)\.').match, state_dict) if m}
        for part in ('blocks', 'prompt_blocks')
    }
    layers, prompts = found.values()
    if layers != prompts or layers != set(range(len(layers))):
        raise WeightsError(
            f'The weights are incomplete: there are blocks {sorted(layers)} and prompt_blocks '
            f'{sorted(prompts)}.'
        )
    return len(layers)


def require(state_dict: StateDict, keys: Sequence[str], whose: str) -> None:
    """Refuse weights without these keys.

    Raises:
        WeightsError: Saying what is missing and what the weights look like.
    """
    missing = [key for key in keys if key not in state_dict]
    if missing:
        from .fit import known_family  # which imports this module

        known = known_family(state_dict, for_s2d=True)
        raise WeightsError(
            f'This is no checkpoint of {whose}: it lacks {", ".join(missing)}. '
            + (known or f'Its tensors are:\n{group_keys(state_dict)}')
        )


def join_landmarks(
    weights: StateDict, landmarks: str | None, classes: Sequence[str] | None = None
) -> Conversion:
    """Our weights of the authors', with those of the landmark network.

    Args:
        weights (dict): The authors' weights.
        landmarks (str | None): File of the landmark network, or its address.
        classes (Sequence[str], optional): Class names in label order. Defaults to None.

    Raises:
        WeightsError: If one of them is something else, or ``landmarks`` is None.
        ValueError: If there are not as many classes.
    """
    out, left_out = from_s2d_authors(weights)
    if landmarks is None:
        raise WeightsError(
            'The landmark network is in a file of its own: give it by --landmarks FILE. '
            f'{WHERE_TO_GET_LANDMARKS}'
        )
    net = cut_tail(load_weights(landmarks), landmarks)
    out.update({LANDMARK + key: value for key, value in net.items()})
    head = out.get('cls_head.fc_cls.weight')
    if classes and head is not None and len(head) != len(classes):
        raise ValueError(
            f'The classifier has {len(head)} classes, but the dataset of the config has '
            f'{len(classes)}: {", ".join(classes)}. Give the config of the data that it was '
            'trained on, or none.'
        )
    names = dict(video=tuple(classes)) if classes and head is not None else None
    return Conversion(out, left_out, family='S2D', classes=names)


def convert_s2d_file(
    src: str,
    dst: str,
    landmarks: str | None = None,
    reverse: bool = False,
    classes: Sequence[str] | None = None,
) -> int:
    """Turn a checkpoint file of the authors into one of ours, or back.

    Args:
        src (str): File to read.
        dst (str): File to write.
        landmarks (str, optional): File of the landmark network, whose weights ``dst`` then holds.
            Defaults to None.
        reverse (bool): Whether ``src`` is ours. Defaults to False.
        classes (Sequence[str], optional): Class names in label order, which ``dst`` then knows.
            Defaults to None.

    Returns:
        int: Exit code: 1 after an error, with its message on stderr.
    """

    def convert(weights: StateDict) -> Conversion:
        if reverse:
            return Conversion(*to_s2d_authors(weights), family='S2D')
        return join_landmarks(weights, landmarks, classes)

    return convert_file(src, dst, convert, key='model' if reverse else 'state_dict')
