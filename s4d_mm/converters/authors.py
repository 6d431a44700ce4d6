# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Loading step: weights of the S4D and S2D authors under our names."""

from typing import Any

from torch import nn

from ..files.checkpoint import StateDict, unwrap
from .s2d import from_s2d_authors, is_s2d
from .s4d import from_authors, stage_of


def in_own_names(weights: StateDict) -> tuple[StateDict, str]:
    """Rename the authors' weights.

    Args:
        weights (dict): Weights of any code.

    Returns:
        tuple[dict, str]: The weights under our names for a whole model, and whose they are: '' if
        they are not the authors', and then unchanged. What has no place keeps its name, so that
        loading lists it.

    Raises:
        ValueError: If the authors' weights are incomplete.
    """
    stage = stage_of(weights)
    if stage is not None:
        renamed, unplaced = from_authors(weights, stage)
        family = f'S4D, {stage}'
    elif is_s2d(weights):
        renamed, unplaced = from_s2d_authors(weights)
        family = 'S2D'
    else:
        return weights, ''
    return {**renamed, **{key: weights[key] for key in unplaced}}, family


def as_own_checkpoint(checkpoint: Any) -> Any:
    """What a file of any code holds, as a checkpoint of mmengine.

    Args:
        checkpoint (Any): What was read.

    Returns:
        Any: A dict with ``state_dict``, the authors' weights under our names, and what else the
        file holds; unchanged if it holds no weights, or is one of mmengine already.
    """
    weights = unwrap(checkpoint)
    if weights is None:
        return checkpoint
    renamed, family = in_own_names(weights)
    if 'state_dict' in checkpoint and not family:
        return checkpoint
    rest = {} if weights.keys() & checkpoint.keys() else checkpoint
    return {**rest, 'state_dict': renamed}


def take_authors_names(module: nn.Module, state_dict: dict, prefix: str, *args) -> None:
    """Load the files of the S4D and S2D authors (a load pre-hook of our models and their parts).

    Args:
        module (nn.Module): A model with a ``backbone``, or a backbone or neck that is loaded
            alone, as by ``init_cfg``.
        state_dict (dict): What the file holds, with the weights in it or in its ``model``.
            Changed in place.
        prefix (str): What precedes the names of the module.
        *args: What torch hands to such hooks; not used.
    """
    weights = None if prefix else unwrap(state_dict)
    if weights is None:
        return
    renamed, family = in_own_names(weights)
    if family and not hasattr(module, 'backbone'):
        neck, backbone = (
            {k.partition('.')[2]: v for k, v in renamed.items() if k.startswith(part)}
            for part in ('neck.blocks.', 'backbone.')
        )
        # MoAENeck takes its blocks from fine-tuned weights, else the last ones of the encoder
        renamed = neck if neck and neck.keys() <= module.state_dict().keys() else backbone
    if family or not weights.keys() & state_dict.keys():
        state_dict.clear()
        state_dict.update(renamed)
