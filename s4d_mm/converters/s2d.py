# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Conversion step: parameter names of the S2D authors' code and ours, in one table.

Authors' code: https://github.com/MSA-LMC/S2D.
"""

from .io import StateDict
from .s4d import replace_prefix, substitute

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


def from_s2d_authors(state_dict: StateDict) -> tuple[StateDict, list[str]]:
    """Turn the authors' fine-tuned weights into ours, without those of the landmark network.

    Args:
        state_dict (dict): The authors' weights.

    Returns:
        tuple: Our weights, and the keys that found no place, among them the norm of the last
        prompt block, which nothing uses.
    """
    depth = len({k.split('.')[1] for k in state_dict if k.startswith('prompt_blocks.')})
    unused = f'prompt_norms.{depth - 1}.' if depth > 1 else None
    out, unplaced = {}, []
    for key, value in state_dict.items():
        new = replace_prefix(key, PREFIXES)
        if not new or (unused and key.startswith(unused)):
            unplaced.append(key)
            continue
        if key.startswith('blocks.'):
            new = substitute(new, IN_LAYER)
        elif key.startswith('prompt_blocks.'):
            new = substitute(new, IN_PROMPT)
        # ours are linear layers in place of 1x1 convolutions
        is_conv = new.startswith(('backbone.prompt_blocks.', 'backbone.landmark_embed.'))
        out[new] = value.flatten(1) if is_conv and value.ndim == 4 else value
    return out, unplaced
